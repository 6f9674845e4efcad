//! Tests of damaged snapshots: the node uses an older snapshot and more of the log, or does not
//! start. It never uses a wrong state.

use std::io::Read;

use crate::storage::{Disk, Outcome, Unreadable};

use super::story::*;
use super::*;

const OLDER: &str = "snapshot-00000000000000000004-1";
const NEWEST: &str = "snapshot-00000000000000000007-1";

/// A node with snapshots of the entries 4 and 7. With `cut`, its log reaches back to entry 4, else
/// to its first entry.
fn node(cut: bool, len: usize) -> (SimDisk, Memory) {
    let disk = SimDisk::new(31);
    let (mut storage, _) = open(&disk);
    let mut memory = Memory::default();
    for index in 1..=9 {
        let write = write(1, index, 1, 800);
        storage.write(&write).expect("this disk does not fail");
        memory = memory.after(&write);
    }
    let snapshots = storage.snapshots();
    for last in [4, 7] {
        take(&snapshots, id(1, last), len).expect("this disk does not fail");
    }
    if cut {
        let freed = storage.cut(snapshots.log_needed_behind());
        assert!(freed.expect("this disk does not fail") > 0);
    }
    (disk, memory)
}

/// Checks that the node does not start, blames the file `file` for it, and changes nothing. Returns
/// the error as a sentence.
#[track_caller]
fn damaged(disk: &SimDisk, file: &str) -> String {
    let before = disk.operations();
    let error = try_open(disk).err().expect("the damage is noticed");
    let StorageError::Damaged { path, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*path, std::path::Path::new("/simulated").join(file));
    assert_eq!(disk.operations(), before, "the folder was changed");
    error.to_string()
}

fn flipped(disk: &SimDisk, file: &str, offset: usize) -> SimDisk {
    let disk = disk.fork();
    disk.flip_bit(file, offset, (offset % 8) as u8);
    disk
}

#[test]
fn a_flipped_bit_anywhere_in_the_newest_snapshot_leads_back_to_the_one_before_and_the_log() {
    let (disk, memory) = node(true, 200);
    let len = disk.contents(NEWEST).expect("it is there").len();
    assert_eq!(len, 4096 + 12 + 200 + 4096);
    let snapshots = open(&disk).0.snapshots();
    for offset in 0..len {
        let bit = (offset % 8) as u8;
        disk.flip_bit(NEWEST, offset, bit);
        let error = snapshots.verify(id(1, 7)).expect_err("it is noticed");
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        disk.flip_bit(NEWEST, offset, bit);
    }
    for offset in (0..4096).step_by(19).chain(4096..4096 + 212) {
        let disk = flipped(&disk, NEWEST, offset);
        let (storage, recovered) = open(&disk);
        assert_eq!(recovered.base, id(1, 4));
        assert_eq!(memory.matches(&storage, &recovered), Ok(()), "{offset}");
    }
}

#[test]
fn a_damaged_snapshot_is_noted_and_set_aside_and_stays() {
    let (disk, memory) = node(true, LEN);
    let disk = flipped(&disk, NEWEST, 69_700);
    let (mut storage, recovered) = open(&disk);
    let [note] = &recovered.notes[..] else {
        panic!("{:?}", recovered.notes);
    };
    for part in [
        "the one of entry 4@1",
        "snapshot of entry 7@1",
        "0007-1.damaged",
        "checksum of a piece",
    ] {
        assert!(note.contains(part), "{part:?} is not in {note:?}");
    }
    // Until there are two valid snapshots again, no part of the log may be cut.
    let snapshots = storage.snapshots();
    assert_eq!(snapshots.log_needed_behind(), 0);
    for (last, needed) in [(7, 4), (8, 7), (9, 8)] {
        take(&snapshots, id(1, last), LEN).expect("this disk does not fail");
        assert_eq!(snapshots.log_needed_behind(), needed);
        storage.cut(needed).expect("this disk does not fail");
    }
    assert!(disk.contents(&format!("{NEWEST}.damaged")).is_some());
    assert_eq!(open(&disk).1.notes, Vec::<String>::new());
    assert_holds(&disk, &memory);
}

#[test]
fn without_a_snapshot_to_which_the_log_reaches_back_the_node_does_not_start() {
    let (disk, _) = node(true, 200);
    let both = flipped(&flipped(&disk, NEWEST, 4100), OLDER, 4100);
    let message = damaged(&both, NEWEST);
    for part in [
        "The log starts behind entry 4",
        "there is no valid snapshot",
        "it begins anew then",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    // If both snapshots are gone instead of damaged, the missing start of the log is reported.
    let gone = disk.fork();
    gone.take_away(NEWEST);
    gone.take_away(OLDER);
    let message = damaged(&gone, "log-00000000000000000002");
    assert!(message.contains("is missing"), "{message}");
    // The older snapshot alone is enough for a start.
    disk.take_away(NEWEST);
    assert_eq!(open(&disk).1.base, id(1, 4));
}

#[test]
fn a_log_that_was_never_cut_does_without_any_snapshot() {
    let (disk, memory) = node(false, 200);
    let both = flipped(&flipped(&disk, NEWEST, 9), OLDER, 4300);
    let (storage, recovered) = open(&both);
    assert_eq!(memory.matches(&storage, &recovered), Ok(()));
    assert_eq!(recovered.notes.len(), 2, "{:?}", recovered.notes);
    assert_eq!(
        (recovered.base, recovered.entries.len()),
        (EntryId::ZERO, 9)
    );
}

/// A node may execute entries before its own disk has them, so a snapshot can hold an entry that
/// the log lacks. After a crash before the sync of that entry's record, the record may be there or
/// not. In both cases the node starts from the snapshot. But should the snapshot be damaged, the
/// log can replace it only if the record is there.
#[test]
fn a_snapshot_that_overtook_the_log_can_be_replaced_only_if_the_record_is_there() {
    for (outcome, record_is_there) in [(Outcome::Kept, true), (Outcome::Lost, false)] {
        let disk = SimDisk::new(41);
        let (mut storage, _) = open(&disk);
        let (first, second) = (write(1, 1, 1, 800), write(1, 2, 1, 800));
        storage.write(&first).expect("this disk does not fail");
        take(&storage.snapshots(), id(1, 2), 200).expect("this disk does not fail");
        let before_the_sync = || disk.stop_at(disk.operations());
        let written = storage.write_and_tell(&second, before_the_sync);
        written.expect_err("the machine stopped before the sync");
        drop(storage);

        let disk = disk.crash_with(outcome);
        let (_, recovered) = open(&disk);
        assert_eq!((recovered.base, recovered.entries), (id(1, 2), Vec::new()));
        let name = "snapshot-00000000000000000002-1";
        disk.flip_bit(name, 4100, 3);
        if record_is_there {
            let memory = Memory::default().after(&first).after(&second);
            let (storage, recovered) = open(&disk);
            assert_eq!(recovered.base, EntryId::ZERO);
            assert_eq!(memory.matches(&storage, &recovered), Ok(()));
            assert_eq!(recovered.notes.len(), 1, "{:?}", recovered.notes);
        } else {
            let message = damaged(&disk, name);
            assert!(message.contains("behind entry 2"), "{message}");
        }
    }
}

/// A log that started anew reaches back only to the snapshot with which it started.
#[test]
fn the_snapshot_behind_which_a_log_started_anew_cannot_be_replaced() {
    let (disk, _) = node(false, 200);
    let (mut storage, _) = open(&disk);
    let last = id(1, 30);
    receive(&storage.snapshots(), last, &file_of(last, 200)).expect("it is valid");
    let next = Write {
        restart: Some(last),
        ..write(1, 31, 2, 10)
    };
    storage.write(&next).expect("this disk does not fail");
    let name = "snapshot-00000000000000000030-1";
    let message = damaged(&flipped(&disk, name, 5000), name);
    assert!(message.contains("ends with entry 7@1"), "{message}");
    disk.take_away(name);
    let message = damaged(&disk, "");
    assert!(message.contains("behind entry 30"), "{message}");
}

/// This node's log never had the entries between its own snapshot and one from the leader. The
/// node's own snapshot can replace the leader's only until the log starts anew. Only after that
/// does the node acknowledge what the leader's snapshot holds, and then it depends on that snapshot
/// until it has taken the next one itself.
#[test]
fn a_received_snapshot_is_the_only_one_to_start_from_until_the_node_takes_the_next() {
    let (disk, mut memory) = node(false, 200);
    let last = id(1, 30);
    let received = "snapshot-00000000000000000030-1";
    receive(&open(&disk).0.snapshots(), last, &file_of(last, 200)).expect("it is valid");
    let (storage, recovered) = open(&flipped(&disk.fork(), received, 5000));
    assert_eq!(recovered.base, id(1, 7));
    assert_eq!(memory.matches(&storage, &recovered), Ok(()));

    let (mut storage, _) = open(&disk);
    memory = memory.anew(last);
    for index in [31, 32] {
        let next = write(1, index, 1, 800);
        storage.write(&next).expect("this disk does not fail");
        memory = memory.after(&next);
    }
    let message = damaged(&flipped(&disk, received, 5000), received);
    assert!(message.contains("starts behind entry 30"), "{message}");
    assert_holds(&flipped(&disk, NEWEST, 5000), &memory);

    let snapshots = storage.snapshots();
    take(&snapshots, id(1, 31), 200).expect("this disk does not fail");
    let needed = snapshots.log_needed_behind();
    storage.cut(needed).expect("this disk does not fail");
    assert_eq!(needed, 30);
    let own = "snapshot-00000000000000000031-1";
    assert_holds(&flipped(&disk, received, 5000), &memory);
    let disk = flipped(&disk, own, 5000);
    let (storage, recovered) = open(&disk);
    assert_eq!(recovered.base, last);
    assert_eq!(memory.matches(&storage, &recovered), Ok(()));
}

#[test]
fn a_snapshot_that_was_cut_off_is_an_error_and_not_an_early_end() {
    let (disk, _) = node(false, LEN);
    let whole = disk.contents(NEWEST).expect("it is there");
    let piece = 4096 + 12 + 65_536;
    let (storage, _) = open(&disk);
    for len in [0, 4096, 8192, piece, piece + 4096, whole.len() - 1] {
        disk.set_contents(NEWEST, &whole[..len]);
        let error = storage.snapshots().open(id(1, 7)).err();
        let error = error.expect("its end is missing");
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
    // The snapshot's file has its footer, but lacks one of the pieces before it.
    let without = [&whole[..piece], &whole[whole.len() - 4096..]].concat();
    disk.set_contents(NEWEST, &without);
    let error = read(&storage.snapshots(), id(1, 7)).expect_err("a piece is missing");
    assert!(error.to_string().contains("does not fit"), "{error}");
}

#[test]
fn a_piece_in_another_place_or_of_another_snapshot_is_noticed_before_it_is_read() {
    let (disk, _) = node(false, 2 * 65_536);
    let whole = disk.contents(NEWEST).expect("it is there");
    let older = disk.contents(OLDER).expect("it is there");
    let (first, second) = (4096..4096 + 65_548, 4096 + 65_548..4096 + 2 * 65_548);
    let mut swapped = whole.clone();
    swapped[first.clone()].copy_from_slice(&whole[second.clone()]);
    swapped[second.clone()].copy_from_slice(&whole[first.clone()]);
    let mut mixed = whole.clone();
    mixed[second.clone()].copy_from_slice(&older[second]);
    let (storage, _) = open(&disk);
    for (file, good) in [(swapped, 0), (mixed, 65_536)] {
        disk.set_contents(NEWEST, &file);
        let mut reader = storage.snapshots().open(id(1, 7)).expect("both ends fit");
        let mut bytes = Vec::new();
        let error = reader.read_to_end(&mut bytes).expect_err("it is noticed");
        assert!(error.to_string().contains("checksum"), "{error}");
        assert_eq!(bytes, state(id(1, 7), good));
        assert!(reader.read(&mut [0; 10]).is_err(), "it went on");
    }
}

#[test]
fn a_snapshot_under_another_name_or_of_another_cluster_is_not_used() {
    let (disk, memory) = node(false, 200);
    let newest = disk.contents(NEWEST).expect("it is there");
    let renamed = disk.fork();
    renamed.set_contents("snapshot-00000000000000000009-1", &newest);
    let mut other = identity();
    other.cluster = "prod".into();
    let stranger = SimDisk::new(1);
    let (storage, _) =
        Storage::open(Arc::new(stranger.clone()), &other, small()).expect("a new folder");
    take(&storage.snapshots(), id(1, 9), 200).expect("this disk does not fail");
    let foreign = disk.fork();
    let file = stranger.contents("snapshot-00000000000000000009-1");
    foreign.set_contents(
        "snapshot-00000000000000000009-1",
        &file.expect("it is there"),
    );
    for (disk, problem) in [
        (renamed, "entry 7@1 under another name"),
        (foreign, "cluster \"prod\", not of \"test\""),
    ] {
        let (storage, recovered) = open(&disk);
        assert_eq!(memory.matches(&storage, &recovered), Ok(()));
        assert_eq!(recovered.base, id(1, 7));
        assert!(
            recovered.notes[0].contains(problem),
            "{:?}",
            recovered.notes
        );
    }
}

/// The term is durable before any snapshot that ends with an entry of that term, so a lower term in
/// the vote file is damage.
#[test]
fn a_snapshot_of_a_later_term_than_the_vote_is_damage() {
    let (disk, _) = node(false, 200);
    let name = "snapshot-00000000000000000030-5";
    disk.set_contents(name, &file_of(id(5, 30), 200));
    let message = damaged(&disk, "vote");
    assert!(
        message.contains("a snapshot ends with entry 30@5"),
        "{message}"
    );
}

#[test]
fn a_folder_with_a_snapshot_but_no_identity_is_refused() {
    let disk = SimDisk::new(1);
    disk.set_contents(NEWEST, &file_of(id(1, 7), 200));
    let error = try_open(&disk).err().expect("it is refused");
    assert!(matches!(error, StorageError::WrongFolder { .. }), "{error}");
    assert_eq!(disk.list().expect("a list"), [NEWEST]);
}

/// A read that fails says nothing about the bytes: the disk may read them again a moment later.
#[test]
fn a_snapshot_that_cannot_be_read_is_passed_over_and_keeps_its_name() {
    let (disk, memory) = node(true, 200);
    disk.fail_reads(Unreadable::File(NEWEST.into()));
    let (storage, recovered) = open(&disk);
    assert_eq!(recovered.base, id(1, 4));
    assert_eq!(memory.matches(&storage, &recovered), Ok(()));
    let [note] = &recovered.notes[..] else {
        panic!("{:?}", recovered.notes);
    };
    for part in [
        "the one of entry 4@1",
        "snapshot of entry 7@1",
        "cannot open",
    ] {
        assert!(note.contains(part), "{part:?} is not in {note:?}");
    }
    drop(storage);
    disk.fail_reads(Unreadable::Nothing);
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.base, id(1, 7));
    assert_eq!(recovered.notes, Vec::<String>::new());
}

/// Whoever reads that a node is damaged is told to replace it.
#[test]
fn a_node_whose_only_snapshot_cannot_be_read_does_not_start_and_is_not_called_damaged() {
    let (disk, memory) = node(true, 200);
    let disk = flipped(&disk, OLDER, 4100);
    for unreadable in [
        Unreadable::File(NEWEST.into()),
        Unreadable::File("log-00000000000000000003".into()),
        Unreadable::File("vote".into()),
        Unreadable::Everything,
    ] {
        disk.fail_reads(unreadable.clone());
        let before = disk.operations();
        let error = try_open(&disk).err().expect("the read fails");
        assert!(matches!(error, StorageError::Io { .. }), "{error}");
        assert_eq!(disk.operations(), before, "{unreadable:?}");
    }
    disk.fail_reads(Unreadable::Nothing);
    assert_holds(&disk, &memory);
}

/// The log begins after the older snapshot, so the node could not start from that one either.
#[test]
fn a_snapshot_with_which_the_node_could_not_start_is_not_what_the_start_fails_for() {
    let (disk, _) = node(true, 200);
    let (mut storage, _) = open(&disk);
    storage.let_go(7).remove().expect("the disk is well");
    drop(storage);
    let disk = flipped(&disk, NEWEST, 4100);
    disk.fail_reads(Unreadable::File(OLDER.into()));
    let error = try_open(&disk).err().expect("no snapshot leads to the log");
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(NEWEST), "{error}");
}

#[test]
fn a_single_read_that_fails_at_a_start_changes_nothing_of_what_is_recovered() {
    let (disk, memory) = node(true, 200);
    let mut passed_over = 0;
    for read in 0.. {
        let disk = disk.fork();
        disk.fail_reads(Unreadable::Once(read));
        let opened = try_open(&disk);
        let has_failed = !disk.take_failed_reads().is_empty();
        disk.fail_reads(Unreadable::Nothing);
        match opened {
            Ok((storage, recovered)) => {
                assert_eq!(memory.matches(&storage, &recovered), Ok(()), "{read}");
                passed_over += u64::from(recovered.base == id(1, 4));
            }
            Err(error) => assert!(matches!(error, StorageError::Io { .. }), "{error}"),
        }
        assert_eq!(open(&disk).1.base, id(1, 7), "{read}");
        assert_holds(&disk, &memory);
        if !has_failed {
            assert!(passed_over > 0, "{read} reads, none of the newest snapshot");
            break;
        }
    }
}

#[test]
fn the_log_is_not_cut_behind_snapshots_that_have_gone_out_of_use() {
    let (disk, _) = node(false, 200);
    let (mut storage, _) = open(&disk);
    let snapshots = storage.snapshots();
    let asked = snapshots.log_needed_behind();
    assert_eq!(asked, 4);
    for last in [4, 7] {
        snapshots.set_aside(id(1, last)).expect("it is renamed");
        assert!(storage.let_go_if_covered(asked).is_empty());
    }
}
