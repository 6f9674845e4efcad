//! Damage that no crash can cause is noticed, nothing is changed, and the node does not start.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::storage::Disk;

use super::*;

/// Where the records start in a segment, in bytes.
const START: usize = 4096;

const FIRST: &str = "log-00000000000000000001";
const SECOND: &str = "log-00000000000000000002";

/// A disk with one record for each write, what recovery should find on it, and where each record
/// ends in its segment.
fn disk_with(writes: &[Write]) -> (SimDisk, Memory, Vec<usize>) {
    let disk = SimDisk::new(9);
    let (mut storage, _) = open(&disk);
    let mut memory = Memory::default();
    let mut ends = Vec::new();
    for write in writes {
        let segment = segments(&disk).len();
        let bytes = storage.log_bytes();
        storage.write(write).expect("this disk does not fail");
        memory = memory.after(write);
        let start = match ends.last() {
            Some(end) if segments(&disk).len() == segment => *end,
            _ => START,
        };
        ends.push(start + (storage.log_bytes() - bytes) as usize);
    }
    (disk, memory, ends)
}

fn all_files(disk: &SimDisk) -> BTreeMap<String, Option<Vec<u8>>> {
    let names = disk.list().expect("a simulated folder can be listed");
    let files = names.into_iter().map(|name| {
        let contents = disk.contents(&name);
        (name, contents)
    });
    files.collect()
}

/// Opens the folder, which must be reported as damaged and stay unchanged. Returns the error as a
/// sentence.
#[track_caller]
fn damaged(disk: &SimDisk, file: &str, offset: usize) -> String {
    let before = all_files(disk);
    let error = try_open(disk).err().expect("the damage is noticed");
    let StorageError::Damaged {
        path, offset: at, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(path.to_str(), Some(format!("/simulated/{file}").as_str()));
    assert_eq!(*at, offset as u64, "{error}");
    assert!(all_files(disk) == before, "the damaged folder was changed");
    error.to_string()
}

/// A copy of the disk on which some bytes of a file are replaced.
fn with_bytes(disk: &SimDisk, name: &str, offset: usize, bytes: &[u8]) -> SimDisk {
    let disk = disk.fork();
    let mut contents = disk.contents(name).expect("the file is there");
    contents[offset..offset + bytes.len()].copy_from_slice(bytes);
    disk.set_contents(name, &contents);
    disk
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_is_damage_and_behind_it_nothing() {
    let (disk, memory, ends) = disk_with(&[write(1, 1, 2, 20), write(2, 3, 1, 600)]);
    assert_eq!(segments(&disk).len(), 1);
    let len = disk.contents(FIRST).expect("the segment is there").len();
    assert!(ends[1] < len, "no space is left behind the log");
    for offset in 0..len {
        let disk = disk.fork();
        disk.flip_bit(FIRST, offset, (offset % 8) as u8);
        let place = match ends.iter().position(|end| offset < *end) {
            _ if offset < START => 0,
            Some(0) => START,
            Some(record) => ends[record - 1],
            None => {
                let (_, recovered) = open(&disk);
                assert_eq!(Memory::from(&recovered), memory);
                assert_eq!(recovered.notes, Vec::<String>::new());
                continue;
            }
        };
        damaged(&disk, FIRST, place);
    }
}

#[test]
fn every_bit_of_the_last_record_is_guarded_too() {
    let (disk, _, ends) = disk_with(&[write(1, 1, 1, 20), write(1, 2, 1, 9)]);
    for bit in 8 * ends[0]..8 * ends[1] {
        let disk = disk.fork();
        disk.flip_bit(FIRST, bit / 8, (bit % 8) as u8);
        let message = damaged(&disk, FIRST, ends[0]);
        assert!(message.contains("after it had been written"), "{message}");
    }
}

/// A record whose bytes are all zeros: only the marks of its sectors show that they were written.
#[test]
fn every_bit_of_a_last_record_of_nothing_but_zeros_is_guarded_too() {
    let mut zeros = write(1, 2, 1, 0);
    zeros.entries[0].payload = Payload::Command(Bytes::from(vec![0; 1100]));
    let (disk, _, ends) = disk_with(&[write(1, 1, 1, 20), zeros]);
    assert_eq!(ends[1] - ends[0], 3 * 512);
    for bit in 8 * ends[0]..8 * ends[1] {
        let disk = disk.fork();
        disk.flip_bit(FIRST, bit / 8, (bit % 8) as u8);
        damaged(&disk, FIRST, ends[0]);
    }
}

#[test]
fn a_record_that_was_lost_before_a_valid_one_is_damage_and_the_message_says_what_to_do() {
    let (disk, _, ends) = disk_with(&[write(1, 1, 1, 90), write(1, 2, 1, 90), write(1, 3, 1, 90)]);
    let zeros = vec![0; ends[1] - ends[0]];
    let message = damaged(&with_bytes(&disk, FIRST, ends[0], &zeros), FIRST, ends[0]);
    let evidence = format!("record 3 behind it at offset {} is", ends[1]);
    for part in [&evidence, "/simulated/log-0", "restore", "kvnode recover"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// The third record is damaged too, but its header is intact. That is enough to show that the
/// second one had been acknowledged, so it cannot be torn.
#[test]
fn two_bad_records_at_the_end_are_not_taken_for_one_torn_one() {
    let (disk, _, ends) =
        disk_with(&[write(1, 1, 1, 90), write(1, 2, 1, 1100), write(1, 3, 1, 90)]);
    let disk = with_bytes(&disk, FIRST, ends[0] + 40, &[0; 1024]);
    let disk = with_bytes(&disk, FIRST, ends[1] + 40, &[0; 30]);
    damaged(&disk, FIRST, ends[0]);
}

#[test]
fn a_bad_end_of_a_segment_is_damage_if_the_log_goes_on_in_the_next_one() {
    let (disk, _, ends) = disk_with(&[
        write(1, 1, 1, 900),
        write(1, 2, 1, 900),
        write(1, 3, 1, 900),
    ]);
    assert_eq!(segments(&disk).len(), 2);
    let zeros = vec![0; ends[1] - ends[0]];
    let message = damaged(&with_bytes(&disk, FIRST, ends[0], &zeros), FIRST, ends[0]);
    assert!(message.contains("goes on with record 3"), "{message}");
    // The damage must be noticed even if the next segment has no record yet.
    let disk = with_bytes(&disk, FIRST, ends[0], &zeros);
    let disk = with_bytes(&disk, SECOND, START, &vec![0; ends[2] - START]);
    damaged(&disk, FIRST, ends[0]);
}

#[test]
fn a_missing_segment_is_damage() {
    let writes: Vec<Write> = (1..6).map(|index| write(1, index, 1, 1500)).collect();
    let (disk, _, _) = disk_with(&writes);
    let names = segments(&disk);
    assert_eq!(names.len(), 5);
    for missing in &names[..4] {
        let disk = disk.fork();
        disk.take_away(missing);
        damaged(&disk, missing, 0);
    }
    names.iter().for_each(|name| disk.take_away(name));
    damaged(&disk, FIRST, 0);
}

#[test]
fn a_segment_that_was_cut_off_is_damage() {
    let (disk, _, ends) = disk_with(&[write(1, 1, 1, 90), write(1, 2, 1, 90)]);
    let whole = disk.contents(FIRST).expect("the segment is there");
    for (len, place) in [
        (0, 0),
        (START - 1, 0),
        (ends[0] - 1, START),
        (ends[0] + 32, ends[0]),
        (ends[1] - 8, ends[0]),
    ] {
        let disk = disk.fork();
        disk.set_contents(FIRST, &whole[..len]);
        damaged(&disk, FIRST, place);
    }
}

#[test]
fn a_segment_under_another_name_or_from_another_folder_is_damage() {
    let writes: Vec<Write> = (1..4).map(|index| write(1, index, 1, 1500)).collect();
    let (disk, _, _) = disk_with(&writes);
    let swapped = disk.fork();
    swapped.set_contents(SECOND, &disk.contents(FIRST).expect("it is there"));
    let message = damaged(&swapped, SECOND, 0);
    assert!(
        message.contains("segment 1 under another name"),
        "{message}"
    );

    let other = SimDisk::new(10);
    open(&other);
    other.set_contents(FIRST, &disk.contents(FIRST).expect("it is there"));
    let message = damaged(&other, FIRST, 0);
    assert!(message.contains("it was copied here"), "{message}");
}

/// A client may store any value, even a copy of this log's records.
#[test]
fn copies_of_records_inside_a_torn_record_do_not_count_as_records() {
    let (disk, memory, _) = disk_with(&[write(1, 1, 1, 90), write(1, 2, 1, 90)]);
    // The copy is tried at every offset within a sector, so once it starts exactly where a sector
    // starts.
    let copy = disk.contents(FIRST).expect("the segment is there")[START..][..504].repeat(2);
    let mut torn = 0;
    for shift in 0..504 {
        let mut value = vec![1; shift];
        value.extend_from_slice(&copy);
        let mut next = write(1, 3, 1, 0);
        next.entries[0].payload = Payload::Command(Bytes::from(value));
        let disk = disk.fork();
        let (mut storage, _) = open(&disk);
        let space_and_record = 3;
        disk.stop_at(disk.operations() + space_and_record);
        storage.write(&next).expect_err("the machine stops");
        for _ in 0..4 {
            let (_, recovered) = open(&disk.crash());
            torn += recovered.notes.len();
            let found = Memory::from(&recovered);
            assert!(found == memory || found == memory.after(&next));
        }
    }
    assert!(torn > 10, "only {torn} were torn");
}

#[test]
fn a_bad_copy_of_the_vote_is_replaced_and_noted() {
    let (disk, memory, _) = disk_with(&[write(1, 1, 1, 10), write(7, 2, 1, 10)]);
    for offset in (0..8192).step_by(7) {
        let disk = disk.fork();
        disk.flip_bit("vote", offset, (offset % 8) as u8);
        let (_, recovered) = open(&disk);
        assert_eq!(Memory::from(&recovered), memory);
        let which = if offset < 4096 { "first" } else { "second" };
        assert!(recovered.notes[0].contains(which), "{:?}", recovered.notes);
        // The replacement must be durable: the node has to start although the other copy is damaged
        // now.
        let disk = disk.crash();
        disk.flip_bit("vote", (offset + 4096) % 8192, 0);
        assert_eq!(self::recovered(&disk), memory);
    }
}

#[test]
fn without_a_good_copy_of_the_vote_the_node_does_not_start() {
    let (disk, _, _) = disk_with(&[write(3, 1, 1, 10)]);
    for (first, second) in [(0, 4096), (500, 8191), (4095, 4096 + 17)] {
        let disk = disk.fork();
        disk.flip_bit("vote", first, 1);
        disk.flip_bit("vote", second, 7);
        let message = damaged(&disk, "vote", 0);
        assert!(message.contains("must not vote"), "{message}");
    }
    disk.set_contents("vote", b"");
    damaged(&disk, "vote", 0);
    disk.take_away("vote");
    let message = damaged(&disk, "vote", 0);
    assert!(message.contains("missing"), "{message}");
}

#[test]
fn a_vote_file_that_is_older_than_the_log_is_damage() {
    let (disk, _, _) = disk_with(&[write(3, 1, 1, 10)]);
    let old = disk.contents("vote").expect("it is there");
    let (mut storage, _) = open(&disk);
    storage
        .write(&write(4, 2, 1, 10))
        .expect("this disk is fine");
    disk.set_contents("vote", &old);
    let message = damaged(&disk, "vote", 0);
    assert!(message.contains("term 3"), "{message}");
    assert!(message.contains("2@4"), "{message}");
}

#[test]
fn a_flipped_bit_in_the_identity_is_damage() {
    let (disk, _, _) = disk_with(&[]);
    for offset in (0..4096).step_by(31) {
        let disk = disk.fork();
        disk.flip_bit("identity", offset, 2);
        damaged(&disk, "identity", 0);
    }
}
