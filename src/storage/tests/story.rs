//! Helpers for tests: the life of a node with snapshots, and what the node should remember.

use std::io::{Read, Write as _};

use crate::raft::{Configuration, LoggedConfiguration, SnapshotMeta};
use crate::storage::{Disk, SnapshotInfo, Snapshots};

use super::*;

pub(super) fn id(term: Term, index: Index) -> EntryId {
    EntryId { term, index }
}

pub(super) fn meta(last: EntryId) -> SnapshotMeta {
    SnapshotMeta {
        last,
        time_ms: last.index * 10,
        configuration: LoggedConfiguration::founding(Configuration::of_voters([1, 2, 3])),
    }
}

/// The state in a snapshot. It differs from every other snapshot's state, and cannot be compressed.
pub(super) fn state(last: EntryId, len: usize) -> Vec<u8> {
    let seed = last.index * 31 + last.term * 7;
    (0..len as u64)
        .map(|i| {
            let z = (i + (seed << 32) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z >> 56) as u8
        })
        .collect()
}

/// The length of the state in most tests, in bytes: a bit more than one piece.
pub(super) const LEN: usize = (64 << 10) + 100;

pub(super) fn take(
    snapshots: &Snapshots,
    last: EntryId,
    len: usize,
) -> Result<SnapshotInfo, StorageError> {
    let mut writer = snapshots.create(meta(last))?;
    for part in state(last, len).chunks(10_000) {
        if writer.write_all(part).is_err() {
            break;
        }
    }
    writer.finish()
}

/// The file of a snapshot that another node of the same cluster has taken.
pub(super) fn file_of(last: EntryId, len: usize) -> Vec<u8> {
    let disk = SimDisk::new(last.index);
    let mut other = identity();
    other.node = 2;
    let (storage, _) = Storage::open(Arc::new(disk), &other, small()).expect("a new folder");
    let snapshots = storage.snapshots();
    let info = take(&snapshots, last, len).expect("this disk does not fail");
    let mut file = Vec::new();
    while (file.len() as u64) < info.bytes {
        let chunk = snapshots.read_chunk(last, file.len() as u64, 7_000);
        file.extend_from_slice(&chunk.expect("it is there"));
    }
    file
}

pub(super) fn receive(
    snapshots: &Snapshots,
    last: EntryId,
    file: &[u8],
) -> Result<SnapshotInfo, StorageError> {
    let mut incoming = snapshots.receive(meta(last), file.len() as u64)?;
    for chunk in file.chunks(20_000) {
        incoming.write(incoming.next(), chunk)?;
    }
    incoming.finish()
}

pub(super) fn read(snapshots: &Snapshots, last: EntryId) -> std::io::Result<Vec<u8>> {
    let mut reader = snapshots.open(last).map_err(std::io::Error::other)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The names of all files except those of the log.
pub(super) fn other_files(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().expect("a simulated folder can be listed");
    names.retain(|name| !name.starts_with("log-"));
    names
}

impl Memory {
    pub(super) fn last(&self) -> EntryId {
        self.entries.last().map_or(EntryId::ZERO, |entry| entry.id)
    }

    pub(super) fn id_at(&self, index: Index) -> EntryId {
        match index {
            0 => EntryId::ZERO,
            _ => self.entries[index as usize - 1].id,
        }
    }

    /// What the node remembers after its log started anew after `last`: the log of the leader.
    pub(super) fn anew(&self, last: EntryId) -> Self {
        Self {
            hard_state: self.hard_state,
            entries: (1..=last.index).map(|i| entry(last.term, i, 0)).collect(),
        }
    }

    /// Checks that recovery has found what the node should remember: a snapshot of a part of it,
    /// and all entries after the snapshot's last one. The error says what differs.
    pub(super) fn matches(&self, storage: &Storage, recovered: &Recovered) -> Result<(), String> {
        let Recovered {
            hard_state,
            snapshot,
            base,
            entries,
            ..
        } = recovered;
        let snapshot_last = snapshot.as_ref().map(|info| info.meta.last);
        if *base != snapshot_last.unwrap_or_default() {
            return Err(format!("base {base}, but the snapshot is {snapshot:?}"));
        }
        if *hard_state != self.hard_state {
            return Err(format!("{hard_state:?} for {:?}", self.hard_state));
        }
        if base.index > self.last().index || self.id_at(base.index) != *base {
            return Err(format!("snapshot {base} for a log up to {}", self.last()));
        }
        if *entries != self.entries[base.index as usize..] {
            let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
            return Err(format!("{ids:?} for a log up to {}", self.last()));
        }
        let snapshots = storage.snapshots();
        let newest = snapshots.newest();
        if newest != *snapshot {
            return Err(format!("the newest is {newest:?}, not {snapshot:?}"));
        }
        if let Some(last) = snapshot_last {
            let bytes = read(&snapshots, last).map_err(|error| error.to_string())?;
            if bytes != state(last, bytes.len()) || bytes.is_empty() {
                return Err(format!("the state of {last} is another one"));
            }
        }
        Ok(())
    }
}

/// Opens the disk twice, and checks each time that recovery finds what the node should remember.
#[track_caller]
pub(super) fn assert_holds(disk: &SimDisk, memory: &Memory) {
    for _ in 0..2 {
        let (storage, recovered) = open(disk);
        if let Err(difference) = memory.matches(&storage, &recovered) {
            panic!("{difference}");
        }
    }
}
