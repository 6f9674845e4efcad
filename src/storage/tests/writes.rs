//! Tests that write to the storage and read it back, with no crash in between.

use crate::raft::Write;
use crate::storage::{RealDisk, SimDisk, Storage, StorageError};

use super::*;

#[test]
fn a_new_folder_remembers_nothing() {
    let disk = SimDisk::new(1);
    let (storage, recovered) = open(&disk);
    assert_eq!(Memory::from(&recovered), Memory::default());
    assert_eq!(recovered.notes, Vec::<String>::new());
    assert_eq!(storage.log_bytes(), 0);
}

#[test]
fn what_was_written_is_read_back() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let writes = [
        write(1, 1, 3, 10),
        write(2, 4, 1, 0),
        Write {
            id: 3,
            hard_state: term(3, Some(7)),
            entries: Vec::new(),
            restart: None,
        },
        write(3, 5, 20, 100),
    ];
    let mut expected = Memory::default();
    for mut write in writes {
        if write.id == 5 {
            write.hard_state = None;
        }
        storage.write(&write).unwrap();
        expected = expected.after(&write);
    }
    let bytes = storage.log_bytes();
    let (storage, recovered) = open(&disk);
    assert_eq!(Memory::from(&recovered), expected);
    assert_eq!(recovered.notes, Vec::<String>::new());
    assert_eq!(storage.log_bytes(), bytes);
}

#[test]
fn entries_within_the_log_replace_its_tail() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let mut expected = Memory::default();
    for write in [
        write(1, 1, 9, 10),
        write(2, 5, 1, 10),
        write(4, 3, 2, 200),
        write(5, 1, 3, 5),
    ] {
        storage.write(&write).unwrap();
        expected = expected.after(&write);
        assert_eq!(recovered(&disk), expected);
    }
}

#[test]
fn the_log_goes_on_in_new_segments_and_each_opens_on_its_own_turn() {
    let disk = SimDisk::new(1);
    let mut expected = Memory::default();
    for index in 1..40 {
        let (mut storage, recovered) = open(&disk);
        assert_eq!(Memory::from(&recovered), expected);
        let write = write(1, index, 1, 400);
        storage.write(&write).unwrap();
        expected = expected.after(&write);
    }
    assert!(segments(&disk).len() >= 8, "{:?}", segments(&disk));
    for name in segments(&disk) {
        let len = disk.contents(&name).unwrap().len() as u64;
        assert!(len <= small().segment_bytes, "{name} has {len} bytes");
    }
}

#[test]
fn a_write_larger_than_a_segment_gets_a_larger_segment() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let mut expected = Memory::default();
    // A record larger than a segment comes first, then one between two small records.
    for write in [
        write(1, 1, 1, 9000),
        write(1, 2, 1, 10),
        write(1, 3, 2, 5000),
        write(1, 5, 1, 10),
    ] {
        storage.write(&write).unwrap();
        expected = expected.after(&write);
        assert_eq!(recovered(&disk), expected);
    }
}

#[test]
fn the_real_disk_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let disk = RealDisk::open(folder.path()).unwrap();
        Storage::open(Arc::new(disk), &identity(), small()).unwrap()
    };
    let mut expected = Memory::default();
    for write in [
        write(1, 1, 2, 500),
        write(2, 2, 3, 800),
        write(2, 5, 1, 9000),
    ] {
        let (mut storage, recovered) = open();
        assert_eq!(Memory::from(&recovered), expected);
        storage.write(&write).unwrap();
        expected = expected.after(&write);
    }
    assert_eq!(Memory::from(&open().1), expected);
}

#[test]
fn a_write_in_the_steady_state_is_one_write_and_one_sync() {
    let disk = SimDisk::new(1);
    let options = Options::default();
    let (mut storage, _) = Storage::open(Arc::new(disk.clone()), &identity(), options).unwrap();
    storage.write(&write(1, 1, 1, 100)).unwrap();
    let before = disk.operations();
    for index in 2..12 {
        storage.write(&write(1, index, 5, 100)).unwrap();
    }
    assert_eq!(disk.operations() - before, 20);
}

#[test]
fn a_write_without_contents_does_not_touch_the_disk() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let before = disk.operations();
    let empty = Write {
        id: 1,
        hard_state: term(0, None),
        entries: Vec::new(),
        restart: None,
    };
    storage.write(&empty).unwrap();
    assert_eq!(disk.operations(), before);
}

/// After an error nobody knows what the disk holds. So even an operation that succeeds afterwards
/// does not make anything durable.
#[test]
fn after_a_write_or_sync_that_failed_nothing_more_is_written() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    storage.write(&write(1, 1, 1, 10)).unwrap();
    let before = disk.operations();
    // The operations are the write and the sync of the record. If there is a vote, the writes and
    // syncs of its two copies come first.
    for (failing, hard_state) in [(0, None), (1, None), (0, term(2, None)), (3, term(2, None))] {
        let disk = disk.fork();
        let (mut storage, _) = open(&disk);
        disk.fail_at(disk.operations() + failing);
        let next = Write {
            hard_state,
            ..write(1, 2, 1, 10)
        };
        let error = storage.write(&next).unwrap_err();
        assert!(matches!(error, StorageError::Io { .. }), "{error}");
        let after = disk.operations();
        for write in [&next, &write(1, 2, 1, 10)] {
            let error = storage.write(write).unwrap_err();
            assert!(matches!(error, StorageError::Stopped { .. }), "{error}");
        }
        assert_eq!(disk.operations(), after, "it went on writing");
    }
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_full_disk_loses_nothing_and_the_log_goes_on_when_there_is_space_again() {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    disk.set_capacity(Some(60_000));
    let mut expected = Memory::default();
    let (refused, error) = loop {
        let next = write(1, expected.entries.len() as u64 + 1, 1, 300);
        match storage.write(&next) {
            Ok(()) => expected = expected.after(&next),
            Err(error) => break (next, error),
        }
    };
    assert!(expected.entries.len() > 20, "it was full at once");
    assert!(error.to_string().contains("log-"), "{error}");
    assert_eq!(recovered(&disk), expected, "while the disk is still full");
    disk.set_capacity(None);
    let (mut storage, _) = open(&disk);
    storage.write(&refused).unwrap();
    assert_eq!(recovered(&disk), expected.after(&refused));
}

#[test]
#[should_panic(expected = "does not continue the log")]
fn a_write_that_leaves_a_gap_is_a_broken_invariant() {
    let (mut storage, _) = open(&SimDisk::new(1));
    let _ = storage.write(&write(1, 2, 1, 10));
}

#[test]
#[should_panic(expected = "does not continue the log")]
fn a_write_whose_term_goes_back_is_a_broken_invariant() {
    let (mut storage, _) = open(&SimDisk::new(1));
    storage.write(&write(2, 1, 1, 10)).unwrap();
    let _ = storage.write(&Write {
        hard_state: None,
        ..write(1, 2, 1, 10)
    });
}

#[test]
#[should_panic(expected = "later term")]
fn an_entry_of_a_term_that_the_node_does_not_know_is_a_broken_invariant() {
    let (mut storage, _) = open(&SimDisk::new(1));
    let _ = storage.write(&Write {
        hard_state: None,
        ..write(1, 1, 1, 10)
    });
}

#[test]
#[should_panic(expected = "term and vote would change")]
fn a_second_vote_in_one_term_is_a_broken_invariant() {
    let (mut storage, _) = open(&SimDisk::new(1));
    for vote in [1, 2] {
        let write = Write {
            id: 1,
            hard_state: term(1, Some(vote)),
            entries: Vec::new(),
            restart: None,
        };
        storage.write(&write).unwrap();
    }
}
