//! Tests that take, read, send and receive snapshots, and of the log that continues them.

use std::io::{Read, Write as _};

use crate::storage::RealDisk;

use super::story::*;
use super::*;

/// A node with entries of term 1: one in each write, two writes in each segment.
fn node(entries: u64) -> (SimDisk, Storage, Memory) {
    let disk = SimDisk::new(11);
    let (mut storage, _) = open(&disk);
    let mut memory = Memory::default();
    for index in 1..=entries {
        memory = written(&mut storage, &memory, &write(1, index, 1, 800));
    }
    (disk, storage, memory)
}

#[track_caller]
fn written(storage: &mut Storage, memory: &Memory, write: &Write) -> Memory {
    storage.write(write).expect("this disk does not fail");
    memory.after(write)
}

fn restart(base: EntryId, then: Write) -> Write {
    Write {
        restart: Some(base),
        ..then
    }
}

#[test]
fn a_state_of_any_length_is_read_back_as_it_was_written() {
    for len in [0, 1, 65_535, 65_536, 65_537, 3 * 65_536, 200_000] {
        let (disk, storage, _) = node(1);
        let info = take(&storage.snapshots(), id(1, 1), len).expect("this disk does not fail");
        let (storage, recovered) = open(&disk);
        assert_eq!(recovered.snapshot, Some(info.clone()));
        assert_eq!(info.meta, meta(id(1, 1)));
        let snapshots = storage.snapshots();
        assert_eq!(
            read(&snapshots, id(1, 1)).expect("it is valid"),
            state(id(1, 1), len)
        );
        assert_eq!(snapshots.verify(id(1, 1)).expect("it is valid"), info);
        let name = "snapshot-00000000000000000001-1";
        assert_eq!(
            disk.contents(name).map(|file| file.len() as u64),
            Some(info.bytes)
        );
    }
}

#[test]
fn what_can_be_compressed_takes_less_space_and_is_guarded_as_well() {
    let (disk, storage, _) = node(1);
    let snapshots = storage.snapshots();
    let line = b"an order of customer 7 is pending; ";
    let text: Vec<u8> = line.iter().copied().cycle().take(3 * LEN).collect();
    let mut writer = snapshots.create(meta(id(1, 1))).expect("it is the first");
    writer.write_all(&text).expect("this disk does not fail");
    let info = writer.finish().expect("this disk does not fail");
    assert!(info.bytes < 20_000, "{} bytes", info.bytes);
    assert_eq!(read(&snapshots, id(1, 1)).expect("it is valid"), text);
    for offset in (4096..info.bytes as usize - 4096).step_by(5) {
        disk.flip_bit("snapshot-00000000000000000001-1", offset, 3);
        read(&snapshots, id(1, 1)).expect_err("it is noticed");
        disk.flip_bit("snapshot-00000000000000000001-1", offset, 3);
    }
}

#[test]
fn a_node_starts_from_the_newest_snapshot_and_the_log_behind_it() {
    let (disk, storage, memory) = node(9);
    for last in [3, 7, 9] {
        take(&storage.snapshots(), id(1, last), LEN).expect("this disk does not fail");
        assert_holds(&disk, &memory);
        let (_, recovered) = open(&disk);
        assert_eq!(recovered.base, id(1, last));
        assert_eq!(recovered.entries.len() as u64, 9 - last);
    }
    let (mut storage, _) = open(&disk);
    let memory = written(&mut storage, &memory, &write(1, 10, 2, 10));
    assert_holds(&disk, &memory);
}

#[test]
fn the_log_goes_on_in_segments_that_were_made_ready_and_one_that_was_not_used_goes() {
    let (disk, mut storage, mut memory) = node(1);
    let spares = storage.spares();
    let mut made = 0;
    for index in 2..=12 {
        made += u64::from(spares.are_wanted());
        spares.make().expect("this disk does not fail");
        memory = written(&mut storage, &memory, &write(1, index, 1, 800));
    }
    assert!(made >= 4, "{made} segments were made ready");
    spares.make().expect("this disk does not fail");
    let unused = "log-00000000000000000007.new";
    assert!(disk.contents(unused).is_some(), "one is ready");
    assert_eq!(recovered(&disk), memory);
    assert_eq!(disk.contents(unused), None);
}

#[test]
fn the_log_is_cut_by_whole_segments_and_goes_on_across_restarts() {
    let (disk, mut storage, memory) = node(12);
    assert_eq!(segments(&disk).len(), 6);
    let snapshots = storage.snapshots();
    assert_eq!(
        storage.cut(0).expect("nothing to do"),
        0,
        "no segment is void"
    );
    take(&snapshots, id(1, 7), LEN).expect("this disk does not fail");
    let (log_bytes, before) = (storage.log_bytes(), disk.operations());
    assert_eq!(storage.cut(1).expect("half of a segment"), 0);
    assert_eq!(disk.operations(), before);

    let lengths = segments(&disk).into_iter().take(3);
    let lengths: u64 = lengths
        .map(|name| disk.contents(&name).map_or(0, |file| file.len() as u64))
        .sum();
    assert_eq!(storage.cut(7).expect("this disk does not fail"), lengths);
    assert_eq!(segments(&disk).len(), 3);
    assert_eq!(storage.log_bytes(), log_bytes / 2);
    assert_holds(&disk, &memory);

    let (mut storage, _) = open(&disk);
    assert_eq!(storage.log_bytes(), log_bytes / 2);
    let memory = written(&mut storage, &memory, &write(2, 11, 1, 800));
    take(&storage.snapshots(), id(2, 11), LEN).expect("this disk does not fail");
    let last = segments(&disk).pop();
    storage.cut(11).expect("this disk does not fail");
    assert!(
        segments(&disk).len() > 1,
        "entry 12 was in the log, and what replaced it may not be alone"
    );
    assert_eq!(segments(&disk).pop(), last);
    assert_holds(&disk, &memory);
}

/// The start of the log was removed, and the first record that is left replaces entries of the
/// removed part.
#[test]
fn a_record_that_replaces_entries_of_a_removed_segment_is_read_back() {
    let (disk, mut storage, memory) = node(4);
    let mut memory = written(&mut storage, &memory, &write(2, 3, 4, 400));
    assert_eq!(
        segments(&disk).len(),
        3,
        "the record is the first of a segment"
    );
    memory = written(&mut storage, &memory, &write(2, 7, 1, 10));
    for last in [5, 6] {
        take(&storage.snapshots(), id(2, last), LEN).expect("this disk does not fail");
    }
    storage.cut(5).expect("this disk does not fail");
    assert_eq!(segments(&disk).len(), 1);
    assert_holds(&disk, &memory);
    let (mut storage, _) = open(&disk);
    memory = written(&mut storage, &memory, &write(3, 7, 5, 500));
    assert_holds(&disk, &memory);
}

#[test]
fn a_log_starts_anew_behind_a_snapshot_from_the_leader() {
    for count in [0, 3] {
        let (disk, mut storage, memory) = node(5);
        let last = id(4, 50);
        receive(&storage.snapshots(), last, &file_of(last, LEN)).expect("it is valid");
        let next = restart(last, write(6, 51, count, 300));
        storage.write(&next).expect("this disk does not fail");
        let mut memory = memory.anew(last).after(&next);
        assert_holds(&disk, &memory);
        let (mut storage, _) = open(&disk);
        memory = written(&mut storage, &memory, &write(6, 51 + count.min(1), 2, 1500));
        assert_holds(&disk, &memory);
        let (mut storage, _) = open(&disk);
        assert!(segments(&disk).len() > 3);
        storage.cut(0).expect("this disk does not fail");
        assert!(segments(&disk).len() <= 2, "what is void remains");
        assert_holds(&disk, &memory);
    }
}

#[test]
fn the_newest_two_are_kept_and_the_log_reaches_back_to_the_older_one() {
    let (disk, storage, _) = node(9);
    let snapshots = storage.snapshots();
    assert_eq!(snapshots.log_needed_behind(), 0);
    for (last, needed) in [(2, 0), (4, 2), (6, 4), (9, 6)] {
        take(&snapshots, id(1, last), 100).expect("this disk does not fail");
        assert_eq!(snapshots.log_needed_behind(), needed);
    }
    let expected = [
        "identity",
        "snapshot-00000000000000000006-1",
        "snapshot-00000000000000000009-1",
        "vote",
    ];
    assert_eq!(other_files(&disk), expected);
    let (storage, _) = open(&disk);
    assert_eq!(storage.snapshots().list(), snapshots.list());
    assert_eq!(storage.snapshots().log_needed_behind(), 6);
}

#[test]
fn what_is_not_newer_is_refused_and_leaves_nothing() {
    let (disk, storage, _) = node(9);
    let snapshots = storage.snapshots();
    let late = snapshots.create(meta(id(1, 5))).expect("it is the first");
    let file = file_of(id(1, 5), 100);
    let mut incoming = snapshots
        .receive(meta(id(1, 5)), file.len() as u64)
        .expect("it is the first");
    incoming.write(0, &file).expect("it is valid");
    take(&snapshots, id(1, 6), 100).expect("this disk does not fail");
    for error in [
        late.finish().expect_err("it comes too late"),
        incoming.finish().expect_err("it comes too late"),
        take(&snapshots, id(1, 6), 100).expect_err("it is there"),
        receive(&snapshots, id(1, 5), &file).expect_err("it is older"),
    ] {
        assert!(matches!(error, StorageError::Superseded { .. }), "{error}");
    }
    let expected = ["identity", "snapshot-00000000000000000006-1", "vote"];
    assert_eq!(other_files(&disk), expected);
}

#[test]
fn a_snapshot_that_is_given_up_leaves_nothing_and_one_that_a_crash_cut_off_goes_at_the_start() {
    let (disk, storage, memory) = node(2);
    let snapshots = storage.snapshots();
    let mut writer = snapshots.create(meta(id(1, 1))).expect("it is the first");
    writer.write_all(&[7; LEN]).expect("this disk is fine");
    let crashed = disk.fork();
    assert_eq!(other_files(&crashed).len(), 3);
    drop(writer);
    for disk in [&disk, &crashed] {
        assert_holds(disk, &memory);
        assert_eq!(other_files(disk), ["identity", "vote"]);
    }
}

#[test]
fn a_snapshot_travels_unchanged_in_chunks_that_come_twice_or_too_early() {
    let (disk, storage, _) = node(1);
    let snapshots = storage.snapshots();
    let last = id(1, 40);
    let file = file_of(last, 3 * LEN);
    let len = file.len() as u64;
    let mut incoming = snapshots.receive(meta(last), len).expect("it is newer");
    let mut offset = 0;
    for chunk in file.chunks(9_999) {
        let next = offset + chunk.len() as u64;
        let early = incoming.write(next, &file[..10]).expect("it is left out");
        assert_eq!(early, offset);
        assert_eq!(incoming.write(offset, chunk).expect("it is next"), next);
        let again = incoming.write(offset, chunk).expect("it is left out");
        assert_eq!(again, next);
        offset = next;
    }
    let info = incoming.finish().expect("it is whole");
    assert_eq!(disk.contents("snapshot-00000000000000000040-1"), Some(file));
    assert_eq!(snapshots.newest(), Some(info));
    assert_eq!(
        read(&snapshots, last).expect("it is valid"),
        state(last, 3 * LEN)
    );
    let end = snapshots.read_chunk(last, len, 100).expect("it is there");
    assert!(end.is_empty());
}

#[test]
fn a_transfer_that_is_cut_short_changed_or_mixed_is_refused_and_leaves_nothing() {
    let (disk, storage, memory) = node(1);
    let snapshots = storage.snapshots();
    let last = id(1, 40);
    let file = file_of(last, LEN);
    let other = file_of(id(1, 41), LEN);
    let mut longer = file.clone();
    longer.push(0);
    let mut mixed = file.clone();
    mixed[5_000..30_000].copy_from_slice(&other[5_000..30_000]);
    let mut bad: Vec<Vec<u8>> = vec![
        Vec::new(),
        file[..4096].to_vec(),
        file[..file.len() - 1].to_vec(),
        longer,
        mixed,
        other,
        file_of(id(1, 40), LEN)[4096..].to_vec(),
    ];
    for offset in (0..file.len()).step_by(997) {
        let mut flipped = file.clone();
        flipped[offset] ^= 1 << (offset % 8);
        bad.push(flipped);
    }
    for bytes in bad {
        let error = receive(&snapshots, last, &bytes).expect_err("it is not the file");
        assert!(matches!(error, StorageError::Transfer { .. }), "{error}");
        assert_eq!(other_files(&disk), ["identity", "vote"]);
    }
    let mut short = snapshots
        .receive(meta(last), file.len() as u64)
        .expect("it is newer");
    let error = short.write(0, &[&file[..], &[0]].concat());
    assert!(matches!(error, Err(StorageError::Transfer { .. })));
    short.write(0, &file[..9_000]).expect("it is valid so far");
    let error = short.finish().expect_err("the rest is missing");
    assert!(error.to_string().contains("only 9000 of"), "{error}");
    assert_eq!(other_files(&disk), ["identity", "vote"]);
    assert_holds(&disk, &memory);
}

#[test]
fn a_snapshot_of_another_cluster_or_machine_is_refused_with_its_first_block() {
    let (_, storage, _) = node(1);
    let snapshots = storage.snapshots();
    let last = id(1, 40);
    for (change, expected) in [
        (true, "it is of cluster \"prod\", not of \"test\""),
        (
            false,
            "it is of the state machine \"prod\", not of \"a machine\"",
        ),
    ] {
        let mut other = identity();
        *(if change {
            &mut other.cluster
        } else {
            &mut other.machine
        }) = "prod".into();
        let disk = SimDisk::new(2);
        let (stranger, _) =
            Storage::open(Arc::new(disk), &other, small()).expect("it is a new folder");
        take(&stranger.snapshots(), last, LEN).expect("this disk does not fail");
        let chunk = stranger.snapshots().read_chunk(last, 0, 5_000);
        let mut incoming = snapshots.receive(meta(last), 90_000).expect("it is newer");
        let error = incoming.write(0, &chunk.expect("it is there"));
        let message = error.expect_err("it is a stranger's").to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_new_transfer_discards_the_one_before() {
    let (disk, storage, _) = node(1);
    let snapshots = storage.snapshots();
    let file = file_of(id(1, 40), LEN);
    let len = file.len() as u64;
    let mut first = snapshots.receive(meta(id(1, 40)), len).expect("it is new");
    first.write(0, &file[..8_000]).expect("it is valid");
    let mut second = snapshots.receive(meta(id(1, 40)), len).expect("it is new");
    assert_eq!(other_files(&disk).len(), 3, "the first file is still there");
    let error = first.write(8_000, &file[8_000..]).expect_err("it is over");
    assert!(error.to_string().contains("another transfer"), "{error}");
    drop(first);
    second.write(0, &file).expect("it is valid");
    second.finish().expect("it is whole");
}

#[test]
fn a_full_disk_or_a_failing_one_under_a_snapshot_does_not_stop_the_log() {
    let (disk, mut storage, mut memory) = node(2);
    let snapshots = storage.snapshots();
    disk.set_capacity(Some(100_000));
    let error = take(&snapshots, id(1, 2), 500_000).expect_err("the disk is full");
    assert!(
        matches!(error, StorageError::SnapshotBroken { .. }),
        "{error}"
    );
    let file = file_of(id(1, 40), 200_000);
    let error = receive(&snapshots, id(1, 40), &file).expect_err("the disk is full");
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
    assert_eq!(other_files(&disk), ["identity", "vote"]);
    memory = written(&mut storage, &memory, &write(1, 3, 1, 800));

    for step in 0.. {
        let before = disk.operations();
        disk.fail_at(before + step);
        let result = take(&snapshots, id(1, 2 + step), 100);
        let done = disk.operations() <= before + step;
        disk.heal();
        memory = written(&mut storage, &memory, &write(1, 4 + step, 1, 10));
        assert_holds(&disk.fork(), &memory);
        if done {
            result.expect("nothing failed");
            assert!(step >= 6, "only {step} operations");
            break;
        }
    }
}

#[test]
fn a_snapshot_that_is_being_taken_over_stays_however_many_newer_ones_come() {
    let (_, storage, _) = node(9);
    let snapshots = storage.snapshots();
    let take = |index| {
        let mut writer = snapshots.create(meta(id(1, index))).expect("it is new");
        writer
            .write_all(&state(id(1, index), LEN))
            .expect("it fits");
        writer.finish().expect("this disk does not fail");
    };
    take(1);
    snapshots.pin(id(1, 1));
    (2..6).for_each(take);
    assert_eq!(
        read(&snapshots, id(1, 1)).expect("it is pinned"),
        state(id(1, 1), LEN)
    );
    assert_eq!(snapshots.list().len(), 2);
    snapshots.unpin();
    take(6);
    read(&snapshots, id(1, 1)).expect_err("it went with the next one");
}

#[test]
fn a_reader_outlives_the_removal_of_its_snapshot_and_a_later_one_is_told() {
    let (_, storage, _) = node(9);
    let snapshots = storage.snapshots();
    take(&snapshots, id(1, 2), LEN).expect("this disk does not fail");
    let mut reader = snapshots.open(id(1, 2)).expect("it is there");
    for last in [4, 6] {
        take(&snapshots, id(1, last), LEN).expect("this disk does not fail");
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("it is valid");
    assert_eq!(bytes, state(id(1, 2), LEN));
    for error in [
        snapshots.open(id(1, 2)).err(),
        snapshots.read_chunk(id(1, 2), 0, 10).err(),
    ] {
        let error = error.expect("it is gone");
        assert!(matches!(error, StorageError::NoSnapshot { .. }), "{error}");
    }
}

#[test]
fn a_real_disk_keeps_snapshots_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || {
        let disk = RealDisk::open(folder.path()).expect("nobody has it");
        Storage::open(Arc::new(disk), &identity(), small()).expect("it is intact")
    };
    let (mut storage, _) = open();
    let mut memory = Memory::default();
    for index in 1..=9 {
        memory = written(&mut storage, &memory, &write(1, index, 1, 800));
    }
    let snapshots = storage.snapshots();
    for last in [2, 6, 8] {
        take(&snapshots, id(1, last), LEN).expect("there is space");
        storage
            .cut(snapshots.log_needed_behind())
            .expect("they can be removed");
    }
    assert!(snapshots.newest().is_some_and(|info| info.created_ms > 0));
    drop((storage, snapshots));
    let (storage, recovered) = open();
    memory
        .matches(&storage, &recovered)
        .expect("all of it is there");
    assert_eq!(recovered.base, id(1, 8));
}

#[test]
#[should_panic(expected = "the log would be cut up to 3")]
fn a_cut_beyond_the_newest_snapshot_is_a_broken_invariant() {
    let (_, mut storage, _) = node(9);
    take(&storage.snapshots(), id(1, 2), 10).expect("this disk does not fail");
    let _ = storage.cut(3);
}

#[test]
#[should_panic(expected = "the log would start behind entry 50@1")]
fn a_restart_without_a_snapshot_is_a_broken_invariant() {
    let (_, mut storage, _) = node(1);
    let _ = storage.write(&restart(id(1, 50), write(1, 51, 0, 0)));
}
