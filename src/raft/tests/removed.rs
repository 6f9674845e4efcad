//! Entries that the log drops are handed out: the core frees no entry while it handles an input.

use std::cell::Cell;

use bytes::Bytes;

use super::harness::take_entries;
use crate::raft::{
    Config, Configuration, Entry, EntryId, Envelope, HardState, Index, LoggedConfiguration,
    Message, Payload, Raft, Room, SnapshotMeta, StoredSnapshot, Term,
};

thread_local! {
    static FREED: Cell<usize> = const { Cell::new(0) };
}

/// The memory of a command, which is counted when it is freed.
struct Memory;

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        b"a command"
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        FREED.set(FREED.get() + 1);
    }
}

fn entry(term: Term, index: Index) -> Entry {
    Entry {
        id: EntryId { term, index },
        time_ms: 0,
        payload: Payload::Command(Bytes::from_owner(Memory)),
    }
}

/// A follower of node 2 in term 1, with four entries.
fn follower() -> Raft {
    let config = Config {
        trailing_bytes: 0,
        ..Config::new(1, Configuration::of_voters(1..=3), 1)
    };
    let hard_state = HardState {
        term: 1,
        vote: None,
    };
    let entries = (1..=4).map(|index| entry(1, index)).collect();
    let mut raft = Raft::new(config, hard_state, entries);
    hear(&mut raft, 1, heartbeat(0, 0));
    raft
}

fn hear(raft: &mut Raft, term: Term, message: Message) {
    raft.step(Envelope {
        from: 2,
        from_folder: 2,
        to: 1,
        to_folder: Some(1),
        term,
        message,
    });
}

fn heartbeat(commit: Index, matched_by_all: Index) -> Message {
    Message::Heartbeat {
        commit,
        matched_by_all,
        round: 0,
    }
}

fn snapshot(index: Index) -> StoredSnapshot {
    let meta = SnapshotMeta {
        last: EntryId { term: 1, index },
        time_ms: 0,
        configuration: LoggedConfiguration::founding(Configuration::of_voters(1..=3)),
    };
    StoredSnapshot { meta, bytes: 10 }
}

/// Asserts that the core has handed out the entries at these indexes and freed none, and that they
/// are freed with what it handed out.
fn assert_handed_out(raft: &mut Raft, indexes: &[Index]) {
    assert_eq!(FREED.get(), 0, "freed by the core");
    let removed = raft.output(Room::NOTHING).removed;
    let handed_out: Vec<Index> = removed.entries().map(|entry| entry.id.index).collect();
    assert_eq!(handed_out, indexes);
    drop(removed);
    assert_eq!(FREED.get(), indexes.len());
    assert_eq!(raft.output(Room::NOTHING).removed.entries().count(), 0);
}

fn execute_all(raft: &mut Raft) {
    hear(raft, 1, heartbeat(4, 0));
    assert_eq!(take_entries(raft, usize::MAX).len(), 4);
    raft.applied(4);
}

#[test]
fn entries_that_contradict_the_leader_are_handed_out() {
    let mut raft = follower();
    let append = Message::Append {
        prev: EntryId { term: 1, index: 1 },
        entries: vec![entry(2, 2)],
        commit: 0,
    };
    hear(&mut raft, 2, append);
    assert_eq!(raft.last(), EntryId { term: 2, index: 2 });
    assert_handed_out(&mut raft, &[2, 3, 4]);
}

#[test]
fn a_log_that_a_snapshot_replaces_is_handed_out() {
    let mut raft = follower();
    assert!(raft.install(snapshot(9)));
    assert_eq!(raft.first_index(), 10);
    assert_handed_out(&mut raft, &[1, 2, 3, 4]);
}

#[test]
fn the_part_of_the_log_that_a_snapshot_of_the_leader_covers_is_handed_out() {
    for last in 1..=4 {
        FREED.set(0);
        let mut raft = follower();
        assert!(raft.install(snapshot(last)));
        assert_eq!((raft.first_index(), raft.last().index), (last + 1, 4));
        let covered: Vec<Index> = (1..=last).collect();
        assert_handed_out(&mut raft, &covered);
    }
}

#[test]
fn the_part_of_the_log_that_a_snapshot_of_the_node_covers_is_handed_out() {
    let mut raft = follower();
    execute_all(&mut raft);
    raft.snapshot_taken(snapshot(4));
    assert_handed_out(&mut raft, &[1, 2, 3, 4]);
}

#[test]
fn what_every_member_has_on_its_disk_is_handed_out() {
    let mut raft = follower();
    execute_all(&mut raft);
    hear(&mut raft, 1, heartbeat(4, 3));
    raft.tick();
    assert_eq!(raft.first_index(), 4);
    assert_handed_out(&mut raft, &[1, 2, 3]);
}
