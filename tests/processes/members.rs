//! Members that come, go and are replaced while clients work.

use std::collections::BTreeSet;
use std::time::Duration;

use raftkv::client::Kind;
use raftkv::raft::{Configuration, MemberRole, NodeId};
use raftkv::testkit::{Process, free_addresses};

use super::cluster::{Cluster, kvnode, text};
use super::load::Load;

/// The longest time for which a client may wait while members change. It is what a busy machine
/// needs; how long it took is printed.
const LONGEST_GAP: Duration = Duration::from_secs(3);

fn voters(configuration: &Configuration) -> BTreeSet<NodeId> {
    let members = configuration.members().iter();
    let voters = members.filter(|member| member.role == MemberRole::Voter);
    voters.map(|member| member.id).collect()
}

/// Waits until a node knows that these are the voters, and no other members are left.
fn await_voters(cluster: &Cluster, at: NodeId, ids: &[NodeId]) {
    let ids: BTreeSet<_> = ids.iter().copied().collect();
    cluster.await_members(at, |now| {
        voters(now) == ids && now.members().len() == ids.len()
    });
}

/// Starts a node on a machine of its own that joins by way of others, and waits until it votes.
fn join(cluster: &mut Cluster, id: NodeId, by: &[NodeId]) {
    cluster.lay_out_joiner(id, by).unwrap();
    cluster.restart([id]).unwrap();
    let place = format!("{id}={}", cluster.address(id));
    cluster.change(&["add", &place]);
}

/// Takes a node out of the cluster and stops it.
fn leave(cluster: &mut Cluster, id: NodeId) {
    cluster.change(&["remove", &id.to_string()]);
    assert!(cluster.stop(id).unwrap().status.success());
}

fn check(load: Load, cluster: &Cluster, what: &str) {
    let expected = load.stop();
    expected.check(&cluster.clerk());
    let (gap, count) = (expected.longest_gap(), expected.count());
    println!("{what}: {count} writes, the longest gap {gap:?}");
    assert!(gap < LONGEST_GAP, "{what}: {gap:?}");
}

/// Of five nodes L, X, Y, Z and C, L leads. L, X and C hold a write, and only L knows that C does.
/// C loses its folder, L is gone, and the votes of Y, Z and the new C would be a majority without
/// the write. The folder of the new C counts only when a majority of the former folders has let it
/// in, which takes X.
#[test]
fn a_wiped_node_comes_back_by_itself_and_no_acknowledged_write_is_lost() {
    let mut cluster = Cluster::start_settled(5);
    let leader = cluster.leader();
    let others: Vec<_> = (1..=5).filter(|id| *id != leader).collect();
    let [x, y, z, wiped] = others[..] else {
        panic!("there are four others: {others:?}");
    };
    cluster.kill([y, z]).unwrap();
    cluster.clerk().put("kept", "value").unwrap();
    let lost = cluster.folder_of(wiped, x).unwrap();
    cluster.kill([leader, x, wiped]).unwrap();
    cluster.lose_data(wiped).unwrap();

    cluster.restart([y, z, wiped]).unwrap();
    let clerk = cluster.clerk_for(Duration::from_secs(2));
    let error = clerk.put("lost", "value").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(cluster.folder_of(wiped, y), Some(lost));

    cluster.restart([x]).unwrap();
    let is_back = |now: &Configuration| {
        let back = now.contact(wiped).unwrap();
        back.role == MemberRole::Voter && back.folder != Some(lost)
    };
    cluster.await_members(y, is_back);
    cluster.await_members(z, is_back);
    // The new folder is one of the three that are left of five.
    cluster.kill([x]).unwrap();
    let clerk = cluster.clerk();
    assert_eq!(clerk.get("kept").unwrap().as_deref(), Some(&b"value"[..]));
    clerk.put("after", "value").unwrap();
    cluster.restart([leader, x]).unwrap();
    for id in cluster.ids() {
        cluster.await_members(id, is_back);
    }
    assert_eq!(clerk.get("lost").unwrap(), None);
    assert_eq!(clerk.get("after").unwrap().as_deref(), Some(&b"value"[..]));
}

/// Each machine is stopped, and another one with an empty disk and another address takes its place.
#[test]
fn three_machines_are_replaced_one_after_the_other_under_load() {
    let mut cluster = Cluster::start_settled(3);
    let load = Load::start(&cluster, 4);
    load.await_more(100);
    for id in 1..=3 {
        let others: Vec<_> = (1..=3).filter(|other| *other != id).collect();
        let former = cluster.folder_of(id, others[0]).unwrap();
        assert!(cluster.stop(id).unwrap().status.success());
        cluster.lay_out_joiner(id, &others).unwrap();
        cluster.restart([id]).unwrap();
        // The new machine asks for the place by itself.
        cluster.await_members(others[0], |now| {
            let replaced = now.contact(id).unwrap();
            replaced.role == MemberRole::Voter && replaced.folder != Some(former)
        });
        // To ask for what is so already is no mistake.
        let place = format!("{id}={}", cluster.address(id));
        cluster.change(&["replace", &place]);
        load.await_more(100);
    }
    check(load, &cluster, "three machines replaced");
}

/// The clients know the first three addresses only, and nobody is left there in the end.
#[test]
fn clients_follow_when_every_node_that_they_knew_is_gone() {
    let mut cluster = Cluster::start_settled(3);
    let founders: Vec<_> = (1..=3).map(|id| cluster.address(id)).collect();
    let load = Load::start_at(3, &founders);
    load.await_more(50);
    for id in 4..=6 {
        join(&mut cluster, id, &[1, 2, 3]);
        load.await_more(20);
    }
    for id in 1..=3 {
        leave(&mut cluster, id);
        load.await_more(20);
    }
    await_voters(&cluster, 4, &[4, 5, 6]);
    load.await_more(100);
    check(load, &cluster, "1, 2, 3 became 4, 5, 6");
    // `kvcli` finds the rest by way of the one that it is given.
    let mut cli = cluster.cli_by(&[5]);
    let output = cli.args(["get", "key-0"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_cluster_grows_from_one_node_to_nine_and_shrinks_again_under_load() {
    let mut cluster = Cluster::start_settled(1);
    let load = Load::start(&cluster, 2);
    load.await_more(20);
    for id in 2..=9 {
        join(&mut cluster, id, &[1]);
        load.await_more(20);
    }
    await_voters(&cluster, 9, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // The founder goes first: the others have learnt all that they need.
    for id in 1..=8 {
        leave(&mut cluster, id);
        load.await_more(20);
    }
    await_voters(&cluster, 9, &[9]);
    check(load, &cluster, "1 to 9 to 1");
}

/// A second node with the id of a living one is a mistake of whoever starts it.
#[test]
fn whoever_comes_with_the_id_of_a_living_node_is_kept_out_and_both_addresses_are_named() {
    let cluster = Cluster::start_settled(3);
    let leader = cluster.leader();
    let twin = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let former = cluster.folder_of(twin, leader);
    let address = free_addresses(1).unwrap()[0];
    let mut command = kvnode();
    command.args(["--id", &twin.to_string(), "--listen", &address.to_string()]);
    command.args(["--join", &cluster.addresses().join(",")]);
    command.arg("--data").arg(cluster.folder().join("twin"));
    let refusal = Process::spawn(&mut command)
        .unwrap()
        .line("stop one of the two");
    for place in [cluster.address(twin), address] {
        assert!(refusal.contains(&place.to_string()), "{refusal}");
    }
    cluster.clerk().put("key", "value").unwrap();
    assert_eq!(cluster.folder_of(twin, leader), former);
}

#[test]
fn a_change_that_cannot_be_made_is_refused_with_the_reason() {
    let mut cluster = Cluster::start_settled(3);
    let leader = cluster.leader();
    let mut followers = cluster.ids().into_iter().filter(|id| *id != leader);
    let (dead, live) = (followers.next().unwrap(), followers.next().unwrap());
    let refused = |cluster: &Cluster, words: [&str; 2], reason: &str| {
        let output = cluster.cli().arg("member").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(text(&output.stderr).contains(reason), "{output:?}");
    };
    let taken = format!("4={}", cluster.address(live));
    let its = format!("is the address of node {live}");
    refused(&cluster, ["add", &taken], &its);
    let silent = free_addresses(1).unwrap()[0].to_string();
    refused(&cluster, ["add", &format!("4={silent}")], &silent);
    refused(&cluster, ["promote", "7"], "node 7 is no member");
    // Without the live follower, the leader and the dead one would be left.
    cluster.kill([dead]).unwrap();
    cluster.await_silence(dead);
    refused(&cluster, ["remove", &live.to_string()], "only 1 answer");
    await_voters(&cluster, leader, &[1, 2, 3]);
    cluster.clerk().put("key", "value").unwrap();
}
