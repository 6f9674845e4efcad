//! How entries get from the leader to everybody.

use super::harness::{Cluster, take_messages};
use crate::raft::{Message, NodeId};

#[test]
fn three_nodes_elect_one_leader_and_execute_the_same_commands() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    for command in ["a", "b", "c"] {
        cluster.propose(leader, command);
    }
    cluster.until("all have executed all", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a", "b", "c"])
    });
}

#[test]
fn the_cluster_goes_on_without_its_leader_and_the_old_one_catches_up() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.propose(old, "a");
    cluster.settle();
    cluster.isolate(old);
    cluster.propose(old, "lost");
    cluster.until("another leader", |cluster| cluster.leader() != Some(old));
    let new = cluster.elect();
    cluster.propose(new, "b");
    cluster.settle();
    cluster.heal();
    cluster.until("all have executed the same", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a", "b"])
    });
}

#[test]
fn a_crash_of_all_loses_nothing_that_was_committed() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose(leader, "a");
    cluster.settle();
    for id in 1..=3 {
        cluster.crash(id);
    }
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.until("all have executed it again", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a"])
    });
}

/// How many entries each append to `to` carries, when the commands are proposed one by one and
/// messages are collected after each.
fn appended(cluster: &mut Cluster, to: NodeId, commands: &[&'static str]) -> Vec<usize> {
    let leader = cluster.elect();
    cluster.settle();
    let mut sizes = Vec::new();
    for command in commands {
        let proposed = cluster.node(leader).propose((*command).into());
        proposed.expect("it leads");
        for envelope in take_messages(cluster.node(leader)) {
            if let Message::Append { entries, .. } = envelope.message
                && envelope.to == to
                && !entries.is_empty()
            {
                sizes.push(entries.len());
            }
        }
    }
    sizes
}

#[test]
fn each_entry_leaves_at_once_until_the_window_is_full() {
    let mut cluster = Cluster::with(3, |config| config.max_inflight_messages = 3);
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    assert_eq!(
        appended(&mut cluster, follower, &["a", "b", "c", "d", "e"]),
        [1, 1, 1]
    );
    // These messages were lost.
    cluster.until("the follower has all", |cluster| {
        cluster.executed(follower) == ["a", "b", "c", "d", "e"]
    });
}
