//! Tests of how much of the log is in memory while a start reads it.

use crate::storage::disk::Folder;
use crate::storage::log::replay::{self, Replay};
use crate::storage::log::segment;
use crate::storage::voter::identity;

use super::story::*;
use super::*;

/// Reads the log segment by segment, as a start does. Returns the largest number of entries that
/// were in memory at a time, and the replay.
fn most_held(disk: &SimDisk, covered: Index) -> (usize, Replay) {
    let folder = Folder::new(Arc::new(disk.clone()));
    let names = folder.list().expect("a simulated folder can be listed");
    let owner = identity::read(&folder, &names, &identity()).expect("nothing is damaged");
    let owner = owner.expect("the folder is complete").owner;
    let mut replay = Replay::new(&small(), covered);
    let (mut bytes, mut most) = (Vec::new(), 0);
    for name in segments(disk) {
        let number = segment::number(&name).expect("it is a segment's name");
        let file = folder.open(&name).expect("it is there");
        file.read_all(&mut bytes).expect("this disk does not fail");
        let header = replay::read_header(&file, &bytes, number, &owner).expect("it is valid");
        let read = replay.records(number, &bytes, header.marks);
        read.expect("nothing is damaged");
        most = most.max(replay.entries.len());
    }
    (most, replay)
}

/// A node with a log of many segments, from the first entry on, whose end was replaced once.
fn long_log() -> (SimDisk, Memory) {
    let disk = SimDisk::new(51);
    let (mut storage, _) = open(&disk);
    let mut memory = Memory::default();
    let first = (1..=40).map(|index| write(1, index, 1, 800));
    let second = (36..=42).map(|index| write(2, index, 1, 800));
    for write in first.chain(second) {
        storage.write(&write).expect("this disk does not fail");
        memory = memory.after(&write);
    }
    (disk, memory)
}

#[test]
fn entries_that_the_snapshot_covers_are_never_held_while_the_log_is_read() {
    let (disk, memory) = long_log();
    assert!(segments(&disk).len() > 15, "{:?}", segments(&disk));
    for (covered, most) in [
        (0, 42),
        (30, 12),
        // In the first case the snapshot's last entry is among those that were replaced, in the
        // others it is a later one.
        (38, 4),
        (41, 1),
        (42, 0),
        (50, 0),
    ] {
        let (held, replay) = most_held(&disk, covered);
        assert_eq!(held, most, "behind {covered}");
        let rest = memory.entries.iter().skip(covered as usize);
        assert!(replay.entries.iter().eq(rest), "behind {covered}");
    }
}

/// Tests the whole start. The newest snapshot is verified before the log is read, so a damaged
/// snapshot does not cause any entry to be dropped.
#[test]
fn behind_a_damaged_newest_snapshot_the_log_is_held_from_the_older_one_on() {
    let (disk, memory) = long_log();
    let (storage, _) = open(&disk);
    take(&storage.snapshots(), id(1, 5), 200).expect("this disk does not fail");
    take(&storage.snapshots(), id(2, 38), 200).expect("this disk does not fail");
    drop(storage);
    let (storage, recovered) = open(&disk);
    assert_eq!((recovered.base, recovered.entries.len()), (id(2, 38), 4));
    assert_eq!(memory.matches(&storage, &recovered), Ok(()));
    drop(storage);
    disk.flip_bit("snapshot-00000000000000000038-2", 4100, 3);
    let (storage, recovered) = open(&disk);
    assert_eq!((recovered.base, recovered.entries.len()), (id(1, 5), 37));
    assert_eq!(memory.matches(&storage, &recovered), Ok(()));
}
