//! Tests of segments whose files are prepared ahead of time or used again, with crashes in between.

use std::cell::Cell;

use crate::storage::Disk;

use super::crashes::stop_everywhere;
use super::story::{id, take};
use super::*;

/// Segments that take three steps to be filled with zeros.
fn large() -> Options {
    Options::of_sizes(160 << 10, 4096)
}

fn try_open_large(disk: &SimDisk) -> Result<(Storage, Recovered), StorageError> {
    Storage::open(Arc::new(disk.clone()), &identity(), large())
}

/// How many writes of 30 KiB the tests make. Between the writes, files for the next segments are
/// prepared as the courier does it. With `behind` above 0, that happens only after every few
/// writes.
const WRITES: u64 = 7;

fn write_all(disk: &SimDisk, behind: u64, acknowledged: &Cell<u64>) -> Result<(), StorageError> {
    acknowledged.set(0);
    let (mut storage, _) = try_open_large(disk)?;
    let spares = storage.spares();
    for index in 1..=WRITES {
        while index % (behind + 1) == 0 && spares.are_wanted() {
            spares.make()?;
        }
        storage.write(&write(1, index, 1, 30 << 10))?;
        acknowledged.set(index);
    }
    Ok(())
}

fn memory_of(writes: u64) -> Memory {
    (1..=writes).fold(Memory::default(), |memory, index| {
        memory.after(&write(1, index, 1, 30 << 10))
    })
}

/// The disk must hold all acknowledged writes, and at most one write more.
fn holds(disk: &SimDisk, acknowledged: u64) {
    let (_, recovered) = try_open_large(disk).unwrap_or_else(|error| panic!("{error}"));
    let found = recovered.entries.len() as u64;
    assert!(
        (acknowledged..=acknowledged + 1).contains(&found),
        "{found} entries, {acknowledged} were acknowledged"
    );
    assert_eq!(recovered.entries, memory_of(found).entries);
    let names = disk.list().expect("a simulated folder can be listed");
    assert!(
        !names.iter().any(|name| name.ends_with(".new")),
        "{names:?}"
    );
}

#[test]
fn a_crash_while_segments_are_made_ready_and_taken_over_loses_nothing() {
    for behind in [0, 3] {
        let acknowledged = Cell::new(0);
        stop_everywhere(
            &SimDisk::new(7),
            80,
            |disk| write_all(disk, behind, &acknowledged),
            |disk| holds(disk, acknowledged.get()),
        );
    }
}

#[test]
fn a_segment_that_is_ready_in_part_is_taken_over_and_filled_as_it_goes() {
    let disk = SimDisk::new(7);
    let (mut storage, _) = try_open_large(&disk).expect("this disk does not fail");
    let spares = storage.spares();
    storage
        .write(&write(1, 1, 1, 30 << 10))
        .expect("this disk does not fail");
    spares.make().expect("this disk does not fail");
    assert!(!spares.are_wanted(), "it keeps step with the log");
    for index in 2..=WRITES {
        storage
            .write(&write(1, index, 1, 30 << 10))
            .expect("this disk does not fail");
    }
    assert_eq!(segments(&disk).len(), 2);
    holds(&disk, WRITES);
}

/// How many bytes the files of a disk have together.
fn used(disk: &SimDisk) -> u64 {
    let names = disk.list().expect("a simulated folder can be listed");
    let files = names.iter().filter_map(|name| disk.contents(name));
    files.map(|bytes| bytes.len() as u64).sum()
}

#[test]
fn a_disk_that_has_no_room_for_the_next_segment_yet_takes_what_the_present_one_has_room_for() {
    let disk = SimDisk::new(7);
    let (mut storage, _) = try_open_large(&disk).expect("this disk does not fail");
    let spares = storage.spares();
    let first = write(1, 1, 1, 100 << 10);
    storage.write(&first).expect("this disk does not fail");
    disk.set_capacity(Some(used(&disk) + (20 << 10)));
    let error = spares.make().expect_err("there is no room for 64 KiB");
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error}");
    assert!(!spares.are_wanted(), "it is not tried over and over");
    let second = write(1, 2, 1, 2 << 10);
    storage.write(&second).expect("there is room for this");
    let names = disk.list().expect("as before");
    let is_spare = |name: &String| name.ends_with(".new");
    assert!(!names.iter().any(is_spare), "the log needs it more");
    let memory = Memory::default().after(&first).after(&second);
    let (_, recovered) = try_open_large(&disk).expect("nothing is damaged");
    assert_eq!(Memory::from(&recovered), memory);
}

#[test]
fn a_full_disk_shows_ahead_of_the_log_and_until_a_whole_segment_is_ready() {
    let disk = SimDisk::new(7);
    let (mut storage, _) = try_open_large(&disk).expect("this disk does not fail");
    let spares = storage.spares();
    storage
        .write(&write(1, 1, 1, 30 << 10))
        .expect("this disk does not fail");
    assert_eq!(spares.shortage(), None);
    disk.set_capacity(Some(used(&disk) + (70 << 10)));
    spares.make().expect("there is room for 64 KiB");
    assert_eq!(spares.shortage(), None);
    storage
        .write(&write(1, 2, 1, 60 << 10))
        .expect("there is room in the present segment, but not for the spare");
    let error = spares.make().expect_err("there is no room for more");
    let shortage = spares.shortage().expect("it was noticed");
    assert!(!shortage.log_waits && shortage.reason == error.to_string());
    assert!(!spares.are_wanted(), "it waits to be told to try again");
    spares.try_again();
    spares.make().expect_err("there is still no room");
    assert!(spares.shortage().is_some());

    disk.set_capacity(None);
    spares.try_again();
    let mut steps = 0;
    while spares.shortage().is_some() {
        assert!(spares.are_wanted(), "the shortage would never end");
        spares.make().expect("there is room");
        steps += 1;
    }
    assert!(steps > 1, "a small piece is not enough");
    assert!(!spares.are_wanted());
    for index in 3..=WRITES {
        let next = write(1, index, 1, 30 << 10);
        storage.write(&next).expect("there is room");
    }
    assert_eq!(segments(&disk).len(), 2);
}

/// The spare has its name, and no byte of it is filled, because the disk was full just then.
#[test]
fn a_segment_of_whose_file_nothing_was_filled_keeps_its_header() {
    let disk = SimDisk::new(7);
    let (mut storage, _) = try_open_large(&disk).expect("this disk does not fail");
    let spares = storage.spares();
    let first = write(1, 1, 1, 100 << 10);
    storage.write(&first).expect("this disk does not fail");
    disk.set_capacity(Some(used(&disk) + (20 << 10)));
    spares.make().expect_err("there is no room for 64 KiB");
    disk.set_capacity(None);
    let second = write(1, 2, 1, 100 << 10);
    storage.write(&second).expect("there is room for a segment");
    assert_eq!(segments(&disk).len(), 2);
    let memory = Memory::default().after(&first).after(&second);
    let (_, recovered) = try_open_large(&disk).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(Memory::from(&recovered), memory);
}

/// How many writes the node makes, with a snapshot after every second one. That is enough for a
/// file to be used as a segment three times. Each write but the last takes two sectors.
const TURNS: u64 = 14;

fn turn(index: Index) -> Write {
    write(1, index, 1, if index == TURNS { 1400 } else { 800 })
}

fn turned(turns: u64) -> Memory {
    let turns = (1..=turns).map(turn);
    turns.fold(Memory::default(), |memory, write| memory.after(&write))
}

/// Writes `turns` records, takes a snapshot after every second one, and cuts off what the snapshots
/// cover.
fn turn_over(disk: &SimDisk, turns: u64, acknowledged: &Cell<u64>) -> Result<(), StorageError> {
    acknowledged.set(0);
    let (mut storage, _) = try_open(disk)?;
    let snapshots = storage.snapshots();
    for index in 1..=turns {
        storage.write(&turn(index))?;
        acknowledged.set(index);
        if index % 2 == 0 {
            take(&snapshots, id(1, index), 100)?;
            storage.cut(snapshots.log_needed_behind())?;
        }
    }
    Ok(())
}

fn names(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().expect("a simulated folder can be listed");
    names.retain(|name| name.starts_with("log-"));
    names
}

#[test]
fn a_crash_while_files_of_segments_serve_again_loses_nothing() {
    let acknowledged = Cell::new(0);
    stop_everywhere(
        &SimDisk::new(7),
        150,
        |disk| turn_over(disk, TURNS, &acknowledged),
        |disk| {
            let (storage, recovered) = open(disk);
            let known = turned(acknowledged.get());
            let may_be = known.may_become(&turn(acknowledged.get() + 1));
            let found = may_be.map(|memory| memory.matches(&storage, &recovered));
            assert!(found.iter().any(Result::is_ok), "{found:?}");
        },
    );
}

#[test]
fn a_log_that_turns_over_needs_no_new_files_and_no_zeros() {
    let (disk, acknowledged) = (SimDisk::new(7), Cell::new(0));
    turn_over(&disk, 8, &acknowledged).expect("this disk does not fail");
    let before = names(&disk).len();
    let disk = SimDisk::new(7);
    turn_over(&disk, 60, &acknowledged).expect("this disk does not fail");
    assert_eq!(names(&disk).len(), before);

    // A write that begins a segment takes six operations: to write and sync the header, to change
    // and sync the name, to write and sync the record.
    let (mut storage, _) = open(&disk);
    let snapshots = storage.snapshots();
    for index in 61..=64 {
        storage
            .write(&turn(index))
            .expect("this disk does not fail");
    }
    for index in [63, 64] {
        take(&snapshots, id(1, index), 100).expect("this disk does not fail");
    }
    storage.cut(63).expect("this disk does not fail");
    let (operations, segment) = (disk.operations(), segments(&disk));
    storage.write(&turn(65)).expect("this disk does not fail");
    assert_ne!(segments(&disk), segment, "it begins a segment");
    assert_eq!(disk.operations() - operations, 6);
}

/// The records of an older segment in the same file look like a part of the log, but must not be
/// taken for one.
#[test]
fn a_torn_record_over_the_records_of_an_earlier_life_is_cut() {
    let (disk, acknowledged) = (SimDisk::new(7), Cell::new(0));
    turn_over(&disk, TURNS - 1, &acknowledged).expect("this disk does not fail");
    let (mut storage, _) = open(&disk);
    let space_and_record = 3;
    disk.stop_at(disk.operations() + space_and_record);
    let (before, next) = (turned(TURNS - 1), turn(TURNS));
    storage
        .write(&next)
        .expect_err("the machine stops before the sync");
    let mut torn = 0;
    for disk in (0..60).map(|_| disk.crash()) {
        let (storage, recovered) = open(&disk);
        torn += recovered.notes.len();
        let may_be = [&before, &before.after(&next)];
        let found = may_be.map(|memory| memory.matches(&storage, &recovered));
        assert!(found.iter().any(Result::is_ok), "{found:?}");
    }
    assert!(torn > 10, "only {torn} were torn");
}
