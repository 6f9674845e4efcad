//! Tests of backups and of folders restored from them, with crashes in between.

use std::io::Read;

use crate::raft::Configuration;
use crate::storage::archive::{copy_into, fill};
use crate::storage::disk::Folder;
use crate::storage::snapshot::{self, SnapshotReader};
use crate::storage::{Disk, RealDisk, restore};

use super::crashes::{outcomes, stop_everywhere};
use super::story::*;
use super::*;

const NAME: &str = "backup";

/// A disk with nothing but the backup of a snapshot of several pieces; also returns the snapshot's
/// state.
fn backup() -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::new(31);
    let (mut storage, _) = open(&disk);
    for index in 1..=3 {
        let write = write(2, index, 1, 100);
        storage.write(&write).expect("this disk does not fail");
    }
    let snapshots = storage.snapshots();
    take(&snapshots, id(2, 3), 150_000).expect("this disk does not fail");
    let mut state = Vec::new();
    let mut reader = snapshots.open(id(2, 3)).expect("it is there");
    reader.read_to_end(&mut state).expect("it is whole");
    let backup = SimDisk::new(32);
    let file = snapshots.read_chunk(id(2, 3), 0, usize::MAX);
    backup.set_contents(NAME, &file.expect("it is there"));
    (backup, state)
}

fn folder(disk: &SimDisk) -> Folder {
    Folder::new(Arc::new(disk.clone()))
}

fn reader(backup: &SimDisk) -> SnapshotReader {
    let file = folder(backup).open(NAME).expect("it is there");
    snapshot::open_any(file).expect("it is whole").1
}

fn members() -> Configuration {
    Configuration::founding([1, 7].map(|id| (id, format!("host:{id}"))))
}

fn fill_from(backup: &SimDisk, disk: &SimDisk) -> Result<(), StorageError> {
    let disk = Arc::new(disk.clone());
    fill(disk, small(), &identity(), reader(backup), members()).map(drop)
}

/// Whether a node finds everything from the backup in its folder. If not, it must find no snapshot
/// at all.
fn is_whole(disk: &SimDisk, state: &[u8]) -> bool {
    let Ok((storage, recovered)) = try_open(disk) else {
        return false;
    };
    let Some(info) = recovered.snapshot else {
        assert_eq!((recovered.base, recovered.entries), (EntryId::ZERO, vec![]));
        return false;
    };
    assert_eq!((info.meta.last, recovered.base), (id(2, 3), id(2, 3)));
    assert_eq!(info.meta.configuration.configuration, members());
    assert_eq!(
        recovered.hard_state,
        HardState {
            term: 2,
            vote: None
        }
    );
    let mut found = Vec::new();
    let mut reader = storage.snapshots().open(id(2, 3)).expect("it is valid");
    reader.read_to_end(&mut found).expect("it is whole");
    assert!(found == state, "it is another state");
    true
}

#[test]
fn a_folder_that_a_restore_has_filled_is_whole_after_any_crash_and_before_that_holds_no_part_of_it()
{
    let (backup, state) = backup();
    // A crash may leave an incomplete folder here, because a restore fills a folder of another name
    // and renames it when it is complete.
    stop_everywhere(
        &SimDisk::new(33),
        20,
        |disk| fill_from(&backup, disk),
        |disk| {
            let _ = is_whole(disk, &state);
        },
    );
    let disk = SimDisk::new(34);
    fill_from(&backup, &disk).expect("this disk does not fail");
    for found in outcomes(&disk) {
        assert!(is_whole(&found, &state), "it was filled, and is not whole");
        // The folder must stay whole when the node starts again, and once more after a power
        // failure.
        assert!(is_whole(&found, &state));
        assert!(is_whole(&found.crash(), &state));
        let (mut storage, _) = open(&found);
        let next = write(3, 4, 1, 700);
        storage.write(&next).expect("this disk does not fail");
        drop(storage);
        assert_eq!(open(&found.crash()).1.entries, next.entries);
    }
}

#[test]
fn a_node_does_not_start_with_nothing_where_a_restore_was_interrupted() {
    let root = tempfile::tempdir().expect("a folder for the test");
    let (data, half) = (root.path().join("data"), root.path().join("data.new"));
    for there_already in [false, true] {
        std::fs::create_dir_all(&half).expect("it can be made");
        if there_already {
            std::fs::create_dir_all(&data).expect("it can be made");
        }
        let error = RealDisk::open(&data).expect_err("what is beside it says why");
        let sentence = error.to_string();
        assert!(sentence.contains("data.new cannot be used"), "{sentence}");
        assert!(sentence.contains("was interrupted"), "{sentence}");
        assert_eq!(data.exists(), there_already, "it is as it was");
        std::fs::remove_dir_all(&half).expect("it can be removed");
    }
    let disk = Arc::new(RealDisk::open(&data).expect("nothing is in the way"));
    let opened = Storage::open(disk, &identity(), small());
    drop(opened.expect("a new folder opens"));
    std::fs::create_dir_all(&half).expect("it can be made");
    drop(RealDisk::open(&data).expect("a folder in use is none that a restore was to make"));
}

#[test]
fn a_restore_that_fails_leaves_nothing_that_keeps_a_node_from_starting() {
    let root = tempfile::tempdir().expect("a folder for the test");
    let (backup, _) = backup();
    let mut bytes = backup.contents(NAME).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let file = root.path().join(NAME);
    std::fs::write(&file, &bytes).expect("it can be written");
    let data = root.path().join("data");
    let error = restore(&file, &data, "new", 1, members()).expect_err("it is damaged");
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    let left = std::fs::read_dir(root.path()).expect("it is there");
    let left: Vec<_> = left
        .map(|entry| entry.expect("it is there").file_name())
        .collect();
    assert_eq!(left, [NAME]);
}

#[test]
fn a_backup_is_there_as_a_whole_or_not_at_all_whenever_a_crash_comes() {
    let (source, state) = backup();
    let bytes = source.contents(NAME);
    let copy = |disk: &SimDisk| {
        let source = folder(&source).open(NAME)?;
        copy_into(&source, &folder(disk), NAME)
    };
    let whole = |disk: &SimDisk| {
        let mut found = Vec::new();
        reader(disk).read_to_end(&mut found).expect("it is whole");
        assert!(found == state && disk.contents(NAME) == bytes);
    };
    stop_everywhere(&SimDisk::new(35), 5, copy, |disk| {
        if disk
            .list()
            .expect("a good disk")
            .contains(&NAME.to_string())
        {
            whole(disk);
        }
    });
    let disk = SimDisk::new(36);
    copy(&disk).expect("this disk does not fail");
    outcomes(&disk).iter().for_each(whole);
}
