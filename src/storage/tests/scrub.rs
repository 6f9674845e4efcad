//! Tests of verifying the log and the snapshots while they are written.

use crate::storage::{DamagedPart, Disk, RealDisk, Scrub, Scrubbed};

use super::story::{id, take};
use super::*;

/// Reads everything once. Returns how many bytes were whole, and what was damaged.
fn pass(scrub: &mut Scrub) -> (u64, Vec<(DamagedPart, StorageError)>) {
    let (mut whole, mut damaged) = (0, Vec::new());
    loop {
        match scrub.step() {
            Scrubbed::Whole(bytes) => whole += bytes,
            Scrubbed::Damaged(part, error) => damaged.push((part, error)),
            Scrubbed::Unread(error) => panic!("{error}"),
            Scrubbed::All => return (whole, damaged),
        }
    }
}

/// A folder with several segments, and with two snapshots.
fn folder() -> (SimDisk, Storage) {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let snapshots = storage.snapshots();
    for index in 1..=20 {
        storage.write(&write(1, index, 1, 300)).expect("a disk");
        if index % 8 == 0 {
            take(&snapshots, id(1, index), 5000).expect("a disk");
        }
    }
    assert!(segments(&disk).len() > 3);
    (disk, storage)
}

#[test]
fn what_is_whole_is_read_to_its_last_record_and_found_whole() {
    let (_, storage) = folder();
    let mut scrub = storage.scrub();
    let all = scrub.bytes();
    for _ in 0..3 {
        let (whole, damaged) = pass(&mut scrub);
        assert!(damaged.is_empty(), "{damaged:?}");
        assert_eq!(whole, all);
    }
}

#[test]
fn a_flipped_bit_anywhere_in_log_and_snapshots_is_found_in_one_pass_with_its_file() {
    let (disk, storage) = folder();
    let mut scrub = storage.scrub();
    let names = segments(&disk);
    let snapshots = storage.snapshots().list();
    let snapshot_names = disk.list().expect("a simulated folder can be listed");
    let snapshot_names = snapshot_names
        .iter()
        .filter(|name| name.starts_with("snapshot-"));
    let files = names.iter().chain(snapshot_names);
    let mut tried = 0;
    for name in files {
        let len = disk.contents(name).expect("it is there").len();
        // The last record of a segment ends somewhere: what lies behind is no part of the log.
        let (_, none) = pass(&mut scrub);
        assert!(none.is_empty());
        for offset in (0..len).step_by(37) {
            let bit = (offset % 8) as u8;
            disk.flip_bit(name, offset, bit);
            let (_, found) = pass(&mut scrub);
            disk.flip_bit(name, offset, bit);
            if is_behind_the_log(&disk, name, offset) {
                continue;
            }
            tried += 1;
            let [(part, error)] = &found[..] else {
                panic!("{name} at {offset}: {found:?}");
            };
            assert!(error.to_string().contains(name.as_str()), "{error}");
            match part {
                DamagedPart::Segment(number) => assert!(name.ends_with(&number.to_string())),
                DamagedPart::Snapshot(last) => {
                    assert!(snapshots.iter().any(|info| info.meta.last == *last));
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

/// Whether a byte of a segment is behind its last record, or pads a block or a sector: a start
/// does not look at it either.
fn is_behind_the_log(disk: &SimDisk, name: &str, offset: usize) -> bool {
    let disk = disk.fork();
    disk.flip_bit(name, offset, (offset % 8) as u8);
    let inspection = crate::storage::inspect(Arc::new(disk)).expect("its identity is whole");
    inspection.damage.is_empty()
}

#[test]
fn a_file_that_is_gone_or_cut_short_is_damage_and_one_that_cannot_be_read_is_not() {
    let (disk, storage) = folder();
    let name = segments(&disk)[1].clone();
    let bytes = disk.contents(&name).expect("it is there");
    disk.take_away(&name);
    let (_, found) = pass(&mut storage.scrub());
    assert!(
        matches!(found[..], [(DamagedPart::Segment(2), _)]),
        "{found:?}"
    );
    disk.set_contents(&name, &bytes[..bytes.len() / 2]);
    let (_, found) = pass(&mut storage.scrub());
    assert!(
        matches!(found[..], [(DamagedPart::Segment(2), _)]),
        "{found:?}"
    );
    disk.set_contents(&name, &bytes);

    disk.fail_reads(crate::storage::Unreadable::File(name.clone()));
    let mut scrub = storage.scrub();
    let mut unread = 0;
    loop {
        match scrub.step() {
            Scrubbed::All => break,
            Scrubbed::Whole(_) => {}
            Scrubbed::Unread(error) => {
                assert!(error.to_string().contains(&name), "{error}");
                unread += 1;
            }
            Scrubbed::Damaged(_, error) => panic!("{error}"),
        }
    }
    assert_eq!(unread, 1);
}

/// Between any two steps the log is written, cut and begins segments in the files of old ones, and
/// snapshots come and go.
#[test]
fn what_is_written_cut_and_used_again_meanwhile_is_not_taken_for_damage() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let (snapshots, mut scrub) = (storage.snapshots(), storage.scrub());
    let (mut passes, mut steps) = (0, 0);
    for index in 1..=400 {
        storage.write(&write(1, index, 1, 300)).expect("a disk");
        if index % 10 == 0 {
            take(&snapshots, id(1, index), 3000).expect("a disk");
            storage.cut(snapshots.log_needed_behind()).expect("a disk");
        }
        for _ in 0..index % 4 {
            steps += 1;
            match scrub.step() {
                Scrubbed::Whole(_) => {}
                Scrubbed::All => passes += 1,
                Scrubbed::Damaged(_, error) | Scrubbed::Unread(error) => panic!("{error}"),
            }
        }
    }
    assert!(passes > 5, "{passes} passes in {steps} steps");
}

#[test]
fn a_segment_that_is_given_up_is_left_by_the_log_and_can_be_cut() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let (snapshots, scrub) = (storage.snapshots(), storage.scrub());
    storage.write(&write(1, 1, 1, 10)).expect("a disk");
    scrub.give_up(1);
    storage.write(&write(1, 2, 1, 10)).expect("a disk");
    assert_eq!(segments(&disk).len(), 2, "the segment had room for it");
    for index in 3..=4 {
        storage.write(&write(1, index, 1, 10)).expect("a disk");
        take(&snapshots, id(1, index), 100).expect("a disk");
    }
    assert_eq!(segments(&disk).len(), 2, "only the one was given up");
    assert!(scrub.is_in_log(1));
    storage.cut(snapshots.log_needed_behind()).expect("a disk");
    assert!(!scrub.is_in_log(1));
}

#[test]
fn a_real_disk_is_verified_too() {
    use std::os::unix::fs::FileExt;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Arc::new(RealDisk::open(folder.path()).expect("it is nobody's"));
    let opened = Storage::open(disk, &identity(), Options::default());
    let (mut storage, _) = opened.expect("it is empty");
    for index in 1..=100 {
        storage.write(&write(1, index, 1, 3000)).expect("a disk");
    }
    take(&storage.snapshots(), id(1, 50), 500_000).expect("a disk");
    let mut scrub = storage.scrub();
    let (whole, damaged) = pass(&mut scrub);
    assert!(damaged.is_empty() && whole == scrub.bytes(), "{damaged:?}");
    let path = folder.path().join("log-00000000000000000001");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path);
    let file = file.expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100_000)
        .expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 4], 100_000).expect("a disk");
    storage.write(&write(1, 101, 1, 3000)).expect("a disk");
    let (_, damaged) = pass(&mut scrub);
    assert!(
        matches!(damaged[..], [(DamagedPart::Segment(1), _)]),
        "{damaged:?}"
    );
}
