//! Tests of the whole data folder, on a simulated disk and on a real one.

mod archives;
mod crashes;
mod damage;
mod folders;
mod inspections;
mod recoveries;
mod repairs;
mod replays;
mod scrub;
mod snapshot_crashes;
mod snapshot_damage;
mod snapshots;
mod spares;
mod story;
mod upgrades;
mod writes;

use std::sync::Arc;

use bytes::Bytes;

use crate::raft::{Entry, EntryId, HardState, Index, MemberId, NodeId, Payload, Term, Write};

use super::{Identity, Options, Recovered, SimDisk, Storage, StorageError};

/// The term, vote and log that a node should remember.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Memory {
    hard_state: HardState,
    entries: Vec<Entry>,
}

impl Memory {
    /// What the node remembers after a write.
    fn after(&self, write: &Write) -> Self {
        let mut next = self.clone();
        next.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            next.entries.truncate(first.id.index as usize - 1);
            next.entries.extend(write.entries.iter().cloned());
        }
        next
    }

    /// What the node may remember if a crash interrupts a write: the old memory, also with the new
    /// term and vote, or the new memory. (Term and vote are written before the entries.)
    fn may_become(&self, write: &Write) -> [Self; 3] {
        let vote_only = Write {
            entries: Vec::new(),
            ..write.clone()
        };
        [self.clone(), self.after(&vote_only), self.after(write)]
    }
}

impl From<&Recovered> for Memory {
    fn from(recovered: &Recovered) -> Self {
        Self {
            hard_state: recovered.hard_state,
            entries: recovered.entries.clone(),
        }
    }
}

fn identity() -> Identity {
    Identity {
        cluster: "test".into(),
        node: 1,
        machine: "a machine".into(),
    }
}

/// Segments of five sectors, which hold two or three of the records that most tests write.
fn small() -> Options {
    Options::of_sizes(4096 + 5 * 512, 1024)
}

fn try_open(disk: &SimDisk) -> Result<(Storage, Recovered), StorageError> {
    Storage::open(Arc::new(disk.clone()), &identity(), small())
}

#[track_caller]
fn open(disk: &SimDisk) -> (Storage, Recovered) {
    try_open(disk).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn recovered(disk: &SimDisk) -> Memory {
    Memory::from(&open(disk).1)
}

fn term(term: Term, vote: Option<NodeId>) -> Option<HardState> {
    let vote = vote.map(MemberId::plain);
    Some(HardState { term, vote })
}

/// An entry with a command of `len` bytes, none of them zero. Entries with other ids have other
/// contents.
fn entry(term: Term, index: Index, len: usize) -> Entry {
    let bytes = (0..len as u64).map(|i| (term * 89 + index * 31 + i) as u8 | 1);
    Entry {
        id: EntryId { term, index },
        time_ms: index * 10,
        payload: Payload::Command(Bytes::from_iter(bytes)),
    }
}

/// A write of `count` entries of `term` from index `first` on, each with a command of `len` bytes.
fn write(term: Term, first: Index, count: u64, len: usize) -> Write {
    Write {
        id: first,
        hard_state: Some(HardState { term, vote: None }),
        entries: (first..first + count)
            .map(|index| entry(term, index, len))
            .collect(),
        restart: None,
    }
}

/// The names of the log's segments, in order.
fn segments(disk: &SimDisk) -> Vec<String> {
    use super::Disk;
    let mut names = disk.list().expect("a simulated folder can be listed");
    names.retain(|name| name.starts_with("log-") && !name.ends_with(".new"));
    names.sort();
    names
}
