//! A snapshot on its way while the leader's log and its snapshots move on (paper section 7).

use super::harness::Cluster;
use super::snapshots::{all_have, cluster, fall_behind, parts};
use crate::raft::{EntryId, Envelope, Index, Message, NodeId, StoredSnapshot};

/// Lets one tick pass everywhere. Messages for which `lose` returns true are lost.
fn tick(cluster: &mut Cluster, mut lose: impl FnMut(&Envelope) -> bool) {
    for node in cluster.nodes.values_mut() {
        node.raft.tick();
    }
    cluster.settle_for(|envelope| !lose(envelope));
}

/// A follower has received a part of the leader's first snapshot, and gets no more of it. Returns
/// the leader, the follower and the snapshot's last entry.
fn midway(cluster: &mut Cluster) -> (NodeId, NodeId, EntryId) {
    let (leader, behind) = fall_behind(cluster);
    let snapshot = cluster.node(leader).newest_snapshot();
    let last = snapshot.expect("it was taken").meta.last;
    cluster.heal();
    let mut received = 0;
    for _ in 0..100 {
        tick(cluster, |envelope| match envelope.message {
            Message::Snapshot { offset, .. } => offset > 0,
            Message::SnapshotReply { received: now, .. } => {
                received = now;
                false
            }
            _ => false,
        });
    }
    assert_eq!(received, 100, "the first part has arrived");
    assert_eq!(cluster.leader(), Some(leader));
    (leader, behind, last)
}

/// The others go on without the follower, and the leader takes another snapshot.
fn go_on(cluster: &mut Cluster, leader: NodeId, command: &'static str) {
    cluster.propose(leader, command);
    cluster.settle_for(|envelope| !matches!(envelope.message, Message::Snapshot { .. }));
    cluster.take_snapshot(leader);
}

#[test]
fn a_follower_whose_next_entry_goes_while_it_is_probed_gets_a_snapshot_and_the_log_flows_on() {
    let mut cluster = cluster();
    let leader = cluster.elect();
    cluster.propose(leader, "a");
    cluster.settle();
    let behind = (1..=3).find(|id| *id != leader).expect("two followers");
    cluster.isolate(behind);
    for command in ["b", "c", "d"] {
        cluster.propose(leader, command);
        cluster.settle();
    }
    // After so much silence the leader asks where the follower stands. The answer is on its way for
    // a while.
    (0..30).for_each(|_| cluster.tick());
    cluster.heal();
    let mut answer = None;
    for _ in 0..30 {
        tick(&mut cluster, |envelope| {
            let answers = matches!(
                envelope.message,
                Message::Accepted { .. } | Message::Rejected { .. }
            );
            let late = envelope.from == behind && answers;
            if late {
                answer = Some(envelope.clone());
            }
            late
        });
    }
    let answer = answer.expect("the probe was answered");
    let next = cluster.node(behind).last().index + 1;
    cluster.take_snapshot(leader);
    assert!(
        next < cluster.node(leader).first_index(),
        "its next entry is gone"
    );
    cluster.node(leader).step(answer);
    let sent = parts(&mut cluster, |_| false);
    assert!(all_have(&cluster, &["a", "b", "c", "d"]));
    assert!(
        sent.is_sorted() && sent[0] == 0,
        "once from its start: {sent:?}"
    );
    assert_eq!(
        cluster.leader(),
        Some(leader),
        "nobody had to stand for election"
    );
    cluster.propose(leader, "e");
    assert_eq!(
        parts(&mut cluster, |_| false),
        [0; 0],
        "it is the log that flows"
    );
    assert!(all_have(&cluster, &["a", "b", "c", "d", "e"]));
}

#[test]
fn what_follows_a_snapshot_that_is_on_its_way_stays_until_it_has_arrived() {
    let mut cluster = cluster();
    let (leader, _, last) = midway(&mut cluster);
    go_on(&mut cluster, leader, "e");
    let newest = cluster
        .node(leader)
        .newest_snapshot()
        .map(|newest| newest.meta.last);
    assert!(newest > Some(last), "there is a newer one");
    assert_eq!(cluster.node(leader).first_index(), last.index + 1);
    parts(&mut cluster, |_| false);
    assert!(all_have(&cluster, &["a", "b", "c", "d", "e"]));
    cluster.propose(leader, "f");
    cluster.settle();
    cluster.take_snapshot(leader);
    let raft = cluster.node(leader);
    assert_eq!(
        raft.first_index(),
        raft.commit() + 1,
        "nothing holds it any more"
    );
}

#[test]
fn a_transfer_of_the_newest_snapshot_that_is_gone_waits_for_one_to_be_taken() {
    let mut cluster = cluster();
    let (leader, behind, last) = midway(&mut cluster);
    assert!(!cluster.nodes[&leader].wants_snapshot);
    let gone = cluster.node(leader).newest_snapshot().cloned();
    let gone = gone.expect("it was taken");
    assert_eq!(gone.meta.last, last);
    cluster.node(leader).snapshot_gone(behind, &gone);
    assert_eq!(cluster.node(leader).newest_snapshot(), None);
    let mut sent = 0;
    for _ in 0..100 {
        tick(&mut cluster, |envelope| {
            sent += u64::from(matches!(envelope.message, Message::Snapshot { .. }));
            true
        });
    }
    assert_eq!(sent, 0, "there is nothing to send");
    assert!(cluster.nodes[&leader].wants_snapshot);
    cluster.take_snapshot(leader);
    let executed = cluster.executed(leader);
    cluster.until("it has all", |c| c.executed(behind) == executed);
}

/// The first file could not be read, and another one was written of the same state. Word that the
/// first one is gone, of a part for another follower, comes only now.
#[test]
fn late_word_that_a_file_is_gone_is_not_taken_for_one_of_another_file_of_the_same_entry() {
    let mut cluster = cluster();
    let (leader, behind, _) = midway(&mut cluster);
    let raft = cluster.node(leader);
    let gone = raft.newest_snapshot().cloned().expect("it was taken");
    raft.snapshot_gone(behind, &gone);
    let another = StoredSnapshot {
        bytes: gone.bytes + 1,
        ..gone.clone()
    };
    raft.snapshot_taken(another.clone());
    raft.snapshot_gone(behind, &gone);
    assert_eq!(raft.newest_snapshot(), Some(&another));
}

#[test]
fn a_transfer_of_a_snapshot_that_is_gone_begins_again_with_the_newest_one() {
    let mut cluster = cluster();
    let (leader, behind, last) = midway(&mut cluster);
    let gone = cluster.node(leader).newest_snapshot().cloned();
    let gone = gone.expect("it was taken");
    assert_eq!(gone.meta.last, last);
    go_on(&mut cluster, leader, "e");
    go_on(&mut cluster, leader, "f");
    let newest = cluster
        .node(leader)
        .newest_snapshot()
        .expect("it was taken")
        .meta
        .last;
    cluster.node(leader).snapshot_gone(behind, &gone);
    let mut of_old: Vec<u64> = Vec::new();
    let mut of_new = Vec::new();
    for _ in 0..100 {
        tick(&mut cluster, |envelope| {
            if let Message::Snapshot { meta, offset, .. } = &envelope.message {
                let list = if meta.last == newest {
                    &mut of_new
                } else {
                    &mut of_old
                };
                list.push(*offset);
            }
            false
        });
    }
    assert_eq!(of_old, [0; 0]);
    assert!(of_new.is_sorted() && of_new[0] == 0, "{of_new:?}");
    assert!(all_have(&cluster, &["a", "b", "c", "d", "e", "f"]));
}

#[test]
fn a_follower_that_lags_a_little_gets_entries_of_the_trailing_part_and_no_snapshot() {
    let mut cluster = Cluster::with(3, |config| config.trailing_bytes = 1 << 20);
    let (leader, _) = fall_behind(&mut cluster);
    assert!(cluster.node(leader).newest_snapshot().is_some());
    cluster.heal();
    let sent = parts(&mut cluster, |_| false);
    assert_eq!(sent, [0; 0]);
    assert!(all_have(&cluster, &["a", "b", "c", "d"]));
}

#[test]
fn a_trailing_part_stays_within_its_bytes() {
    let weight = |cluster: &mut Cluster, leader: NodeId, from: Index, to: Index| -> usize {
        let entries = (from..=to).filter_map(|at| cluster.node(leader).entry(at).cloned());
        entries.map(|entry| entry.weight()).sum()
    };
    let mut whole = Cluster::new(3);
    let leader = whole.elect();
    whole.settle();
    let first = whole.node(leader).last().index;
    let of_one = weight(&mut whole, leader, first, first);
    let mut cluster = Cluster::with(3, |config| config.trailing_bytes = 3 * of_one);
    let (leader, _) = fall_behind(&mut cluster);
    let (from, to) = (
        cluster.node(leader).first_index(),
        cluster.node(leader).commit(),
    );
    let kept = weight(&mut cluster, leader, from, to);
    assert!(
        from <= to && kept <= 3 * of_one,
        "{kept} bytes from {from} to {to}"
    );
}
