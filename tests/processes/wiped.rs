//! A node that lost its data folder and comes back under its old id.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use raftkv::client::Kind;
use raftkv::raft::{Configuration, MemberRole};
use raftkv::testkit::Quality;

use super::cluster::Cluster;

/// Three nodes that have met each other.
fn acquainted() -> Cluster {
    let cluster = Cluster::start(3);
    for id in cluster.ids() {
        cluster.node(id).line("it may vote");
    }
    cluster
}

/// Node 1 and the wiped node would be a majority. With the wiped node's vote, a node could lead
/// that lacks what was acknowledged. Nodes 1 and 3 are a majority that lets the wiped node in.
#[test]
fn a_wiped_node_does_not_vote_until_the_others_have_let_it_in_again() {
    let mut cluster = Cluster::start_settled(3);
    cluster.clerk().put("kept", "value").unwrap();
    let lost = cluster.folder_of(2, 1);
    cluster.kill([1, 2, 3]).unwrap();
    cluster.lose_data(2).unwrap();

    cluster.restart([1, 2]).unwrap();
    cluster.node(2).line("with another data folder");
    let clerk = cluster.clerk_for(Duration::from_secs(2));
    let error = clerk.put("lost", "value").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(cluster.folder_of(2, 1), lost);

    cluster.restart([3]).unwrap();
    let is_back = |now: &Configuration| {
        let back = now.contact(2).unwrap();
        back.role == MemberRole::Voter && back.folder != lost
    };
    cluster.await_members(3, is_back);
    cluster.kill([1]).unwrap();
    let clerk = cluster.clerk();
    assert_eq!(clerk.get("kept").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(clerk.get("lost").unwrap(), None);
    clerk.put("since", "value").unwrap();
    cluster.restart([1]).unwrap();
    cluster.await_members(1, is_back);
}

/// A node that is not to come back by itself says so, and the operator lets it in.
#[test]
fn a_wiped_node_that_may_not_rejoin_waits_for_the_operator() {
    let mut cluster = Cluster::start_settled(3);
    let lost = cluster.folder_of(2, 1);
    cluster.kill([2]).unwrap();
    cluster.await_silence(2);
    cluster.lose_data(2).unwrap();
    cluster.give(2, &["--no-rejoin"]);
    cluster.restart([2]).unwrap();
    cluster.node(2).line("kvcli member replace 2=");
    assert_eq!(cluster.folder_of(2, 1), lost);
    cluster.change(&["replace", "2"]);
    cluster.await_members(1, |now| now.contact(2).unwrap().folder != lost);
    cluster.kill([3]).unwrap();
    cluster.clerk().put("k", "v").unwrap();
}

/// Alone with a node that never met it, a wiped node cannot tell that it is not new: so it waits.
#[test]
fn a_new_node_votes_once_it_has_met_all_that_could_know_it() {
    let mut cluster = acquainted();
    cluster.kill([1, 2, 3]).unwrap();
    for id in [1, 2] {
        fs::remove_dir_all(cluster.data(id)).unwrap();
    }
    cluster.restart([1, 2]).unwrap();
    let clerk = cluster.clerk_for(Duration::from_secs(2));
    assert_eq!(clerk.put("k", "v").unwrap_err().kind(), Kind::Unavailable);

    // All three are new now: nobody is left who could know better.
    cluster.kill([1, 2]).unwrap();
    for id in [1, 2, 3] {
        fs::remove_dir_all(cluster.data(id)).unwrap();
    }
    cluster.restart([1, 2, 3]).unwrap();
    cluster.clerk().put("k", "v").unwrap();
}

/// What a node was told when it was admitted, it remembers: two of three may start without the
/// third.
#[test]
fn a_node_that_was_admitted_votes_again_without_meeting_everybody() {
    let mut cluster = acquainted();
    cluster.clerk().put("k", "v").unwrap();
    cluster.kill([1, 2, 3]).unwrap();
    cluster.restart([1, 2]).unwrap();
    assert_eq!(
        cluster.clerk().get("k").unwrap().as_deref(),
        Some(&b"v"[..])
    );
}

/// Node 5 is new and only the leader knows its folder. The leader, one follower and node 5 would be
/// a majority of five. If they acknowledged a write, and node 5 lost its folder and the leader
/// failed, then the two nodes that were down and the new node 5, whose first folder none of them
/// has met, could elect a leader that lacks the write.
#[test]
fn no_write_is_acknowledged_on_a_folder_that_too_few_others_know() {
    let refusing = Quality {
        refused_permille: 1000,
        ..Quality::default()
    };
    let mut cables = BTreeMap::new();
    let mut cluster = Cluster::start_as(5, |cluster| {
        cables = cluster.link_all().unwrap();
        (1..=4).for_each(|to| cables[&(5, to)].set(refusing));
    });
    (1..=4).for_each(|id| drop(cluster.node(id).line("it may vote")));
    let leader = cluster.leader();
    cluster.clerk().put("before", "value").unwrap();
    cables[&(5, leader)].set(Quality::default());
    let connected = format!("connected to node {leader} ");
    cluster.node(5).line(&connected);
    let mut followers = (1..=4).filter(|id| *id != leader);
    let follower = followers.next().unwrap();
    let lagging: Vec<_> = followers.collect();
    cluster.kill(lagging.clone()).unwrap();
    let clerk = cluster.clerk_for(Duration::from_secs(2));
    let acknowledged = clerk.put("kept", "value").is_ok();

    cluster.kill([leader, 5]).unwrap();
    fs::remove_dir_all(cluster.data(5)).unwrap();
    // The follower can welcome the others, and cannot stand for election before them.
    for (_, cable) in cables.iter().filter(|((from, _), _)| *from == follower) {
        cable.set(refusing);
        cable.break_off();
    }
    (1..=4).for_each(|to| cables[&(5, to)].set(Quality::default()));
    cluster.restart(lagging.into_iter().chain([5])).unwrap();
    let clerk = cluster.clerk();
    let before = clerk.get("before").unwrap();
    assert_eq!(before.as_deref(), Some(&b"value"[..]));
    let kept = clerk.get("kept").unwrap().is_some();
    assert!(kept || !acknowledged, "an acknowledged write is gone");
    assert!(
        !acknowledged,
        "a majority counted a folder that one other knew"
    );
}
