//! Tests that write to the storage and read it back, with no crash in between.

use crate::raft::Write;
use crate::storage::{Outcome, RealDisk, SimDisk, Storage, StorageError};

use super::crashes::stop_everywhere;
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

/// Writes until the disk is full. Returns what was written, and the write that was refused.
fn fill(storage: &mut Storage) -> (Memory, Write, StorageError) {
    let mut written = Memory::default();
    loop {
        let next = write(1, written.entries.len() as u64 + 1, 1, 300);
        match storage.write(&next) {
            Ok(()) => written = written.after(&next),
            Err(error) => return (written, next, error),
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_log_goes_on_when_there_is_space_again() {
    // Each capacity has another operation fail: the segment is created, its header is written, or
    // it is made longer.
    for capacity in (50_000..58_000).step_by(100) {
        let disk = SimDisk::new(1);
        let (mut storage, _) = open(&disk);
        let spares = storage.spares();
        disk.set_capacity(Some(capacity));
        let (expected, refused, error) = fill(&mut storage);
        assert!(expected.entries.len() > 10, "it was full at once");
        assert!(matches!(error, StorageError::NoSpace { .. }), "{error}");
        let shortage = spares.shortage().expect("the disk is full");
        assert!(shortage.log_waits && shortage.reason == error.to_string());
        let again = storage.write(&refused).expect_err("it is still full");
        assert_eq!(again.to_string(), error.to_string());
        let restarted = disk.fork();
        assert_eq!(recovered(&restarted), expected, "while the disk is full");
        disk.set_capacity(None);
        storage.write(&refused).expect("there is space");
        assert_eq!(recovered(&disk), expected.after(&refused));
        let shortage = spares.shortage().expect("no whole segment is ready");
        assert!(!shortage.log_waits);
    }
}

#[test]
fn a_sync_that_fails_for_lack_of_space_is_a_failed_sync() {
    let error = |operation, kind: std::io::ErrorKind| StorageError::Io {
        path: "log-1".into(),
        operation,
        source: kind.into(),
    };
    let waits = |operation, kind| {
        let error = error(operation, kind).or_no_space();
        matches!(error, StorageError::NoSpace { .. })
    };
    use std::io::ErrorKind::{FileTooLarge, Other, QuotaExceeded, StorageFull};
    for kind in [StorageFull, QuotaExceeded, FileTooLarge] {
        assert!(waits("allocate space in", kind) && waits("create", kind));
        assert!(waits("write to", kind));
        assert!(!waits("sync", kind) && !waits("sync the folder", kind));
        assert!(!waits("rename a file to", kind));
    }
    assert!(!waits("allocate space in", Other));
}

/// The node may crash while it waits for space, or just when it gets some.
#[test]
fn a_crash_while_a_write_waits_for_space_loses_nothing() {
    for capacity in [40_000, 41_300, 42_700] {
        let full = SimDisk::new(1);
        full.set_capacity(Some(capacity));
        let (mut storage, _) = open(&full);
        let (expected, refused, _) = fill(&mut storage);
        drop(storage);
        let refused = Write {
            hard_state: term(2, Some(1)),
            ..refused
        };
        stop_everywhere(
            &full,
            20,
            |disk| {
                let (mut storage, _) = try_open(disk)?;
                let error = storage
                    .write(&refused)
                    .expect_err("it is full, or it stopped");
                if !matches!(error, StorageError::NoSpace { .. }) {
                    return Err(error);
                }
                disk.set_capacity(None);
                storage.write(&refused)
            },
            |disk| {
                disk.set_capacity(None);
                let found = recovered(disk);
                assert!(expected.may_become(&refused).contains(&found), "{found:?}");
            },
        );
    }
}

#[test]
fn term_and_vote_are_durable_though_there_is_no_space_for_the_entries() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(40_000));
    let (mut storage, _) = open(&disk);
    let (expected, refused, _) = fill(&mut storage);
    let refused = Write {
        hard_state: term(2, Some(1)),
        ..refused
    };
    let error = storage.write(&refused).expect_err("it is full");
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error}");
    let [_, vote_only, all] = expected.may_become(&refused);
    assert_eq!(recovered(&disk.fork().crash_with(Outcome::Lost)), vote_only);
    disk.set_capacity(None);
    storage.write(&refused).expect("there is space");
    assert_eq!(recovered(&disk.crash_with(Outcome::Lost)), all);
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
