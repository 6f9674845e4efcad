//! Whom a leader can hand over to without its own disk.

use super::harness::Cluster;
use crate::raft::{Message, NodeId};

/// The others, of which the disks of as many as `held` says do nothing.
fn hold(cluster: &mut Cluster, leader: NodeId, held: usize) {
    let others: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    let others = others.into_iter().filter(|id| *id != leader);
    others.take(held).for_each(|id| cluster.hold(id, true));
}

#[test]
fn a_leader_whose_disk_hangs_has_a_successor_exactly_if_a_majority_writes_without_it() {
    for size in [1, 2, 3, 4, 5, 7] {
        for held in 0..size {
            let mut cluster = Cluster::new(size as u64);
            let leader = cluster.elect();
            cluster.settle();
            cluster.hold(leader, true);
            hold(&mut cluster, leader, held);
            cluster.propose(leader, "a");
            cluster.settle();
            let writing = size - 1 - held;
            let successor = cluster.node(leader).successor_by_disk(None);
            let is_known = successor.is_some();
            assert_eq!(is_known, writing > size / 2, "{size} nodes, {held} held");
            let Some(successor) = successor else { continue };
            cluster.node(leader).transfer(Some(successor));
            cluster.settle();
            assert_eq!(
                cluster.leader(),
                Some(successor),
                "{size} nodes, {held} held"
            );
            cluster.propose(successor, "b");
            cluster.settle();
            assert_eq!(cluster.executed(successor), ["a", "b"]);
        }
    }
}

#[test]
fn a_leader_with_all_of_the_log_on_disk_hands_over_to_who_has_it_too_and_answers() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let other = 3 - leader;
    cluster.propose(leader, "a");
    cluster.settle();
    assert_eq!(cluster.node(leader).successor_by_disk(None), Some(other));
    assert_eq!(
        cluster.node(leader).successor_by_disk(Some(other)),
        Some(other)
    );
    assert_eq!(cluster.node(other).successor_by_disk(None), None);

    // It lacks an entry, or is not heard.
    cluster.hold(other, true);
    cluster.propose(leader, "b");
    cluster.settle();
    assert_eq!(cluster.node(leader).successor_by_disk(None), None);
    cluster.hold(other, false);
    cluster.settle();
    assert_eq!(cluster.node(leader).successor_by_disk(None), Some(other));
    cluster.isolate(other);
    let ticks = cluster.node(leader).election_ticks();
    // Less than it takes the leader to find out that no quorum answers.
    (1..ticks).for_each(|_| cluster.node(leader).tick());
    assert_eq!(cluster.node(leader).successor_by_disk(None), Some(other));
    cluster.node(leader).tick();
    assert_eq!(cluster.node(leader).successor_by_disk(None), None);
}

#[test]
fn a_leader_tries_another_one_after_the_one_it_tried_last() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose(leader, "a");
    cluster.settle();
    let first = cluster
        .node(leader)
        .successor_by_disk(None)
        .expect("both are level");
    let second = cluster.node(leader).successor_by_disk(Some(first));
    assert!(second.is_some_and(|second| second != first));
}

#[test]
fn who_was_told_to_lead_and_did_not_is_no_successor_while_there_is_another_one() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.settle();
    let first = cluster.node(leader).successor_by_disk(None);
    let first = first.expect("there are two");
    assert_eq!(cluster.node(leader).transfer(None), Some(first));
    for _ in 0..30 {
        (1..=3).for_each(|id| cluster.node(id).tick());
        cluster.settle_for(|envelope| envelope.message != Message::TimeoutNow);
    }
    let second = cluster.node(leader).successor_by_disk(None);
    assert!(second.is_some() && second != Some(first), "{second:?}");
    assert_eq!(cluster.node(leader).transfer(None), second);
    cluster.settle();
    assert_eq!(cluster.leader(), second);
}
