//! Snapshots (paper section 7): a follower that needs entries which are gone.

use super::harness::{
    Cluster, EXECUTION, PARTS, SNAPSHOT_BYTES, take_entries, take_messages, take_write,
};
use crate::raft::{Config, EntryId, Envelope, Message, NodeId, Room, SnapshotMeta, StoredSnapshot};

/// Three nodes that keep nothing of the log that a snapshot covers, and send small parts.
pub(super) fn cluster() -> Cluster {
    cluster_with(|_| {})
}

pub(super) fn cluster_with(adjust: impl Fn(&mut Config)) -> Cluster {
    Cluster::with(3, |config: &mut Config| {
        config.trailing_bytes = 0;
        config.snapshot_part_bytes = 100;
        config.snapshot_window_bytes = 300;
        adjust(config);
    })
}

/// Cuts a follower off. The others execute more commands and take snapshots of all of them. Returns
/// the leader and the follower.
pub(super) fn fall_behind(cluster: &mut Cluster) -> (NodeId, NodeId) {
    let leader = cluster.elect();
    cluster.propose(leader, "a");
    cluster.settle();
    let behind = (1..=3).find(|id| *id != leader).expect("two followers");
    cluster.isolate(behind);
    for command in ["b", "c", "d"] {
        cluster.propose(leader, command);
        cluster.settle();
    }
    cluster.take_snapshot(leader);
    (leader, behind)
}

pub(super) fn all_have(cluster: &Cluster, commands: &[&str]) -> bool {
    (1..=3).all(|id| cluster.executed(id) == commands)
}

pub(super) fn parts(cluster: &mut Cluster, lose: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..200 {
        for node in cluster.nodes.values_mut() {
            node.raft.tick();
        }
        cluster.settle_for(|envelope: &Envelope| match envelope.message {
            Message::Snapshot { offset, .. } => {
                offsets.push(offset);
                !lose(offsets.len() as u64)
            }
            _ => true,
        });
    }
    offsets
}

#[test]
fn a_follower_whose_entries_are_gone_gets_the_snapshot_and_then_what_follows() {
    let mut cluster = cluster();
    let (leader, _) = fall_behind(&mut cluster);
    assert_eq!(
        cluster.node(leader).first_index(),
        cluster.node(leader).commit() + 1
    );
    cluster.heal();
    cluster.until("the snapshot has arrived", |c| {
        all_have(c, &["a", "b", "c", "d"])
    });
    let leader = cluster.elect();
    cluster.propose(leader, "e");
    cluster.until("the log flows again", |c| {
        all_have(c, &["a", "b", "c", "d", "e"])
    });
}

#[test]
fn each_part_is_sent_once_while_none_is_lost_and_few_are_on_their_way() {
    let mut cluster = cluster();
    fall_behind(&mut cluster);
    cluster.heal();
    let offsets = parts(&mut cluster, |_| false);
    let once: Vec<u64> = (0..SNAPSHOT_BYTES / 100).map(|part| part * 100).collect();
    assert_eq!(offsets, once);
}

#[test]
fn lost_parts_are_sent_again_from_where_the_follower_is() {
    let mut cluster = cluster();
    fall_behind(&mut cluster);
    cluster.heal();
    let offsets = parts(&mut cluster, |number| number % 4 == 3);
    assert!(all_have(&cluster, &["a", "b", "c", "d"]), "{offsets:?}");
    let parts = SNAPSHOT_BYTES / 100;
    assert!((offsets.len() as u64) < 4 * parts, "{offsets:?}");
}

#[test]
fn a_receiver_that_restarts_midway_gets_the_snapshot_from_the_beginning() {
    let mut cluster = cluster();
    let (_, behind) = fall_behind(&mut cluster);
    cluster.heal();
    // The first two parts arrive. The third and all that follow are lost.
    let offsets = parts(&mut cluster, |number| number > 2);
    assert!(offsets.starts_with(&[0, 100, 200]), "{offsets:?}");
    cluster.crash(behind);
    cluster.restart(behind);
    cluster.until("it has all", |c| all_have(c, &["a", "b", "c", "d"]));
}

#[test]
fn a_snapshot_of_the_past_is_refused_before_a_byte_of_it_is_looked_at() {
    let mut cluster = cluster();
    let (leader, _) = fall_behind(&mut cluster);
    cluster.heal();
    cluster.until("all have it", |c| all_have(c, &["a", "b", "c", "d"]));
    let leader_term = cluster.node(leader).term();
    let follower = (1..=3).find(|id| *id != leader).expect("two followers");
    let snapshot = cluster.node(leader).newest_snapshot().cloned();
    let StoredSnapshot { meta, bytes } = snapshot.expect("it was taken");
    let last = meta.last.index;
    cluster.node(follower).step(Envelope {
        from: leader,
        from_folder: leader.into(),
        to: follower,
        to_folder: Some(follower.into()),
        term: leader_term,
        message: Message::Snapshot {
            meta,
            bytes,
            offset: 0,
            data: vec![0; 100].into(),
        },
    });
    let raft = cluster.node(follower);
    let output = raft.output(Room::EVERYTHING);
    assert!(output.to_store.is_empty());
    let answers: Vec<Message> = output.messages.into_iter().map(|e| e.message).collect();
    assert_eq!(answers, [Message::Accepted { matched: last }]);
}

#[test]
fn a_snapshot_that_comes_too_late_is_not_installed() {
    let mut cluster = cluster();
    let (leader, behind) = fall_behind(&mut cluster);
    let snapshot = cluster.node(leader).newest_snapshot().cloned();
    let snapshot = snapshot.expect("it was taken");
    cluster.heal();
    cluster.until("all have it", |c| all_have(c, &["a", "b", "c", "d"]));
    assert!(!cluster.node(behind).install(snapshot));
    assert_eq!(cluster.node(behind).output(EXECUTION).install, None);
}

#[test]
fn an_append_from_below_the_snapshot_counts_as_matching_and_drops_nothing() {
    let mut cluster = cluster();
    let (leader, _) = fall_behind(&mut cluster);
    let follower = cluster
        .nodes
        .keys()
        .copied()
        .find(|id| *id != leader && !cluster.cut.contains(&(leader, *id)));
    let follower = follower.expect("one is connected");
    cluster.until("it has executed all", |c| c.executed(follower).len() == 4);
    cluster.take_snapshot(follower);
    let (term, last) = (cluster.node(leader).term(), cluster.node(follower).last());
    let entries = Vec::new();
    let prev = EntryId { term: 1, index: 1 };
    let append = Message::Append {
        prev,
        entries,
        commit: 1,
    };
    cluster.node(follower).step(Envelope {
        from: leader,
        from_folder: leader.into(),
        to: follower,
        to_folder: Some(follower.into()),
        term,
        message: append,
    });
    let raft = cluster.node(follower);
    assert_eq!((raft.last(), raft.fault()), (last, None));
    let answers: Vec<Message> = take_messages(raft).into_iter().map(|e| e.message).collect();
    assert_eq!(answers, [Message::Accepted { matched: 1 }]);
}

#[test]
fn a_node_that_restarts_from_a_snapshot_has_its_log_behind_it_and_does_so_twice() {
    let mut cluster = cluster();
    let (leader, _) = fall_behind(&mut cluster);
    cluster.heal();
    cluster.until("all have it", |c| all_have(c, &["a", "b", "c", "d"]));
    let index = cluster.node(leader).commit();
    for _ in 0..2 {
        cluster.crash(leader);
        cluster.restart(leader);
        let raft = cluster.node(leader);
        assert_eq!((raft.commit(), raft.first_index()), (index, index + 1));
    }
    let leader = cluster.elect();
    cluster.propose(leader, "e");
    cluster.until("the work goes on", |c| {
        all_have(c, &["a", "b", "c", "d", "e"])
    });
}

#[test]
fn entries_that_follow_the_very_last_one_of_a_snapshot_stay() {
    let mut cluster = cluster();
    let (leader, behind) = fall_behind(&mut cluster);
    let snapshot = cluster.node(leader).newest_snapshot().cloned();
    let snapshot = snapshot.expect("it was taken");
    // The follower gets the same log as entries, without word that they are committed.
    let last = cluster.node(leader).last();
    let term = cluster.node(leader).term();
    let own = cluster.node(behind).last();
    let entry = |index| crate::raft::Entry {
        id: EntryId { term, index },
        time_ms: u64::MAX,
        payload: crate::raft::Payload::Empty,
    };
    let entries = (own.index + 1..=last.index + 1).map(entry).collect();
    cluster.node(behind).step(Envelope {
        from: leader,
        from_folder: leader.into(),
        to: behind,
        to_folder: Some(behind.into()),
        term,
        message: Message::Append {
            prev: own,
            entries,
            commit: 0,
        },
    });
    let raft = cluster.node(behind);
    assert_eq!(raft.last().index, last.index + 1);
    assert!(raft.install(snapshot.clone()));
    assert_eq!(raft.last().index, last.index + 1, "what follows it stays");
    assert_eq!(raft.commit(), last.index);
    assert_eq!(raft.output(EXECUTION).install, Some(snapshot.meta));
    // None of these entries was handed to the disk, so the next write has to continue after the
    // snapshot.
    let write = take_write(raft).expect("there is something new");
    assert_eq!(write.restart, Some(last));
    assert_eq!(write.entries.len(), 1);
    assert_eq!(write.entries[0].id.index, last.index + 1);
}

#[test]
fn what_was_executed_but_not_yet_handed_to_the_disk_stays_for_it() {
    let mut cluster = cluster();
    let leader = cluster.elect();
    cluster.settle();
    let follower = (1..=3).find(|id| *id != leader).expect("two followers");
    let prev = cluster.node(leader).last();
    let entry = |index| crate::raft::Entry {
        id: EntryId {
            term: prev.term,
            index,
        },
        time_ms: u64::MAX,
        payload: crate::raft::Payload::Empty,
    };
    let last = entry(prev.index + 3);
    let raft = cluster.node(follower);
    raft.step(Envelope {
        from: leader,
        from_folder: leader.into(),
        to: follower,
        to_folder: Some(follower.into()),
        term: prev.term,
        message: Message::Append {
            prev,
            entries: (prev.index + 1..=last.id.index).map(entry).collect(),
            commit: last.id.index,
        },
    });
    let executed = take_entries(raft, usize::MAX);
    assert_eq!(executed.last(), Some(&last));
    raft.applied(last.id.index);
    raft.snapshot_taken(StoredSnapshot {
        meta: SnapshotMeta {
            last: last.id,
            time_ms: last.time_ms,
            configuration: raft.configuration().clone(),
        },
        bytes: SNAPSHOT_BYTES,
    });
    let write = take_write(raft).expect("the entries are not on disk");
    assert_eq!((write.restart, write.entries.len()), (None, 3));
}

#[test]
fn a_log_that_contradicts_the_snapshot_begins_anew_on_disk_too() {
    let mut cluster = cluster();
    let (leader, behind) = fall_behind(&mut cluster);
    let snapshot = cluster.node(leader).newest_snapshot().cloned();
    let snapshot = snapshot.expect("it was taken");
    let last = snapshot.meta.last;
    let raft = cluster.node(behind);
    assert!(raft.last().index < last.index);
    while take_write(raft).is_some() {}
    assert!(raft.install(snapshot));
    let write = take_write(raft).expect("the disk has to know");
    assert_eq!((write.restart, write.entries.len()), (Some(last), 0));
    assert_eq!(raft.last(), last);
}

#[test]
fn nothing_of_a_term_is_executed_or_stored_before_the_term_is_durable() {
    let mut cluster = cluster();
    let leader = cluster.elect();
    cluster.settle();
    let follower = (1..=3).find(|id| *id != leader).expect("two followers");
    /// Room for everything but a write.
    const NO_WRITE: Room = Room {
        write: false,
        ..Room::EVERYTHING
    };
    let raft = cluster.node(follower);
    while !take_entries(raft, usize::MAX).is_empty() {}
    let (prev, term) = (raft.last(), raft.term() + 1);
    let last = EntryId {
        term,
        index: prev.index + 1,
    };
    let entry = crate::raft::Entry {
        id: last,
        time_ms: u64::MAX,
        payload: crate::raft::Payload::Empty,
    };
    let append = Message::Append {
        prev,
        entries: vec![entry],
        commit: last.index,
    };
    let snapshot = Message::Snapshot {
        meta: SnapshotMeta {
            last: EntryId { term, index: 9 },
            time_ms: u64::MAX,
            configuration: raft.configuration().clone(),
        },
        bytes: SNAPSHOT_BYTES,
        offset: 0,
        data: bytes::Bytes::from_static(b"part"),
    };
    for message in [append, snapshot] {
        raft.step(Envelope {
            from: leader,
            from_folder: leader.into(),
            to: follower,
            to_folder: Some(follower.into()),
            term,
            message,
        });
    }
    assert_eq!(raft.commit(), last.index);
    let before = raft.output(NO_WRITE);
    assert!(!before.left.entries && !before.left.parts);
    assert_eq!((before.entries.len(), before.to_store.len()), (0, 0));
    let write = take_write(raft).expect("the term and the entry");
    raft.durable(write.id);
    let left = raft.output(Room::NOTHING).left;
    assert!(left.entries && left.parts);
    let after = raft.output(NO_WRITE);
    assert_eq!(after.entries.last().map(|entry| entry.id), Some(last));
    assert_eq!(after.to_store.len(), 1);
}

/// When the follower does not answer, the leader requests the parts again after some heartbeats. If
/// such requests piled up for a slow disk, it would read parts for ever that nobody needs any more.
#[test]
fn parts_that_wait_for_a_slow_disk_wait_once_and_not_longer_than_they_are_needed() {
    let mut cluster = cluster();
    let (leader, behind) = fall_behind(&mut cluster);
    cluster.heal();
    let raft = cluster.node(leader);
    let (from, term) = (behind, raft.term());
    let hear = |raft: &mut crate::raft::Raft, message| {
        let to = leader;
        raft.step(Envelope {
            from,
            from_folder: from.into(),
            to,
            to_folder: Some(to.into()),
            term,
            message,
        });
    };
    for _ in 0..100 {
        // The follower answers, and its log ends before the first entry that the leader holds.
        let conflict = crate::raft::Conflict {
            term: None,
            first_index: 1,
        };
        let prev = raft.last().index;
        hear(raft, Message::Rejected { prev, conflict });
        raft.tick();
        take_messages(raft);
    }
    let last = raft.newest_snapshot().expect("it took one").meta.last;
    let received = 100;
    hear(raft, Message::SnapshotReply { last, received });
    take_messages(raft);
    let mut waiting = Vec::new();
    while let Some(request) = raft.output(PARTS).to_send {
        waiting.push(request.offset);
    }
    assert_eq!(waiting, [100, 200, 300]);
}

/// The leader repeats a part that is not answered in time. Without a check, each copy would be
/// stored.
#[test]
fn a_part_that_waits_for_a_slow_disk_is_not_stored_again_when_the_leader_repeats_it() {
    let mut cluster = cluster();
    let (leader, behind) = fall_behind(&mut cluster);
    let term = cluster.node(leader).term();
    let snapshot = cluster.node(leader).newest_snapshot().cloned();
    let StoredSnapshot { meta, bytes } = snapshot.expect("it was taken");
    let raft = cluster.node(behind);
    let hear = |raft: &mut crate::raft::Raft, offset| {
        let (meta, data) = (meta.clone(), vec![0; 100].into());
        raft.step(Envelope {
            from: leader,
            from_folder: leader.into(),
            to: behind,
            to_folder: Some(behind.into()),
            term,
            message: Message::Snapshot {
                meta,
                bytes,
                offset,
                data,
            },
        });
    };
    let to_store = |raft: &mut crate::raft::Raft| -> Vec<u64> {
        let parts = raft.output(PARTS).to_store;
        parts.iter().map(|part| part.offset).collect()
    };
    for offset in [0, 100, 0, 100] {
        hear(raft, offset);
    }
    assert_eq!(to_store(raft), [0, 100], "what waits");
    for offset in [0, 100, 200, 200] {
        hear(raft, offset);
    }
    assert_eq!(to_store(raft), [200], "what is being stored");
    // The answer to the part at offset 0 may get lost, so the part is stored again when it is
    // repeated.
    raft.part_stored(meta.last, 100);
    for offset in [0, 100, 200] {
        hear(raft, offset);
    }
    assert_eq!(to_store(raft), [0], "what was stored");
}
