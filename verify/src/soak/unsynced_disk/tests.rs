//! What the disk loses, and what it must not lose.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::{Chance, SECTOR};
use super::*;

const LEN: usize = 8 * SECTOR as usize;

/// Dropped, the disk is gone with all that it holds in memory, as with the process.
fn open(folder: &Path) -> UnsyncedDisk {
    UnsyncedDisk::open(folder).expect("nobody else has it")
}

fn data() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let folder = temp.path().join("data");
    (temp, folder)
}

fn found(folder: &Path) -> BTreeSet<String> {
    let names = open(folder).list().expect("it is there");
    names.into_iter().collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

#[test]
fn a_write_without_a_sync_is_lost_kept_or_torn_by_sectors() {
    let (_temp, folder) = data();
    let mut seen = BTreeSet::new();
    for round in 0..200 {
        let disk = open(&folder);
        let file = disk.create("file").expect("there is room");
        file.write_at(&[1; LEN], 0).expect("there is room");
        file.sync_data().expect("a disk");
        disk.sync_dir().expect("a disk");
        file.write_at(&[2; LEN], 0).expect("there is room");
        let mut bytes = [0; LEN];
        file.read_at(&mut bytes, 0).expect("it is all there");
        assert_eq!(bytes, [2; LEN], "the process sees what it wrote");
        drop((file, disk));
        let bytes = fs::read(folder.join("file")).expect("its name was synced");
        assert_eq!(bytes.len(), LEN, "round {round}");
        let sectors = bytes.chunks(SECTOR as usize).map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "{round}");
            sector[0]
        });
        let sectors: Vec<u8> = sectors.collect();
        assert!(sectors.iter().all(|byte| [1, 2].contains(byte)), "{round}");
        seen.insert(sectors.iter().filter(|byte| **byte == 2).count());
    }
    let torn = 1..LEN / SECTOR as usize;
    assert!(
        seen.contains(&0) && torn.clone().any(|n| seen.contains(&n)),
        "{seen:?}"
    );
}

#[test]
fn what_was_synced_outlives_the_process_whatever_was_written_behind_it() {
    let (_temp, folder) = data();
    for round in 0..50 {
        let disk = open(&folder);
        let file = disk.create("file").expect("there is room");
        file.write_at(&[1; 1000], 300).expect("there is room");
        file.write_at(&[2; 10], 1295).expect("there is room");
        file.sync_data().expect("a disk");
        disk.sync_dir().expect("a disk");
        file.write_at(&[3; 600], 1024 + 512).expect("there is room");
        drop((file, disk));
        let bytes = fs::read(folder.join("file")).expect("its name was synced");
        let expected = [&[0; 300][..], &[1; 995], &[2; 10]].concat();
        assert_eq!(&bytes[..expected.len()], expected, "round {round}");
        let mut untouched = bytes[expected.len()..].iter().take(1536 - expected.len());
        assert!(untouched.all(|byte| *byte == 0), "round {round}");
    }
}

#[test]
fn names_that_were_not_synced_are_lost_or_kept_and_nothing_else_becomes_of_them() {
    let (_temp, folder) = data();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let disk = open(&folder);
        for name in disk.list().expect("it is there") {
            disk.remove(&name).expect("it is there");
        }
        for name in ["old", "gone"] {
            disk.create(name).expect("there is room");
        }
        disk.sync_dir().expect("a disk");
        assert!(disk.open("new").is_err());
        disk.create("new").expect("there is room");
        disk.remove("gone").expect("it is there");
        disk.rename("old", "other").expect("it is there");
        assert!(disk.open("old").is_err() && disk.open("other").is_ok());
        let names = disk.list().expect("it is there").into_iter().collect();
        assert_eq!(set(&["new", "other"]), names, "what the process sees");
        drop(disk);
        seen.insert(found(&folder));
    }
    let mut possible = BTreeSet::new();
    for renamed in ["old", "other"] {
        possible.insert(set(&[renamed]));
        possible.insert(set(&[renamed, "gone"]));
        possible.insert(set(&[renamed, "new"]));
        possible.insert(set(&[renamed, "new", "gone"]));
    }
    assert!(seen.is_subset(&possible), "{seen:?}");
    assert!(seen.len() > 2, "{seen:?}");
    assert!(seen.contains(&set(&["old", "gone"])), "all may be lost");
}

#[test]
fn reads_and_lengths_are_those_of_a_plain_file_whatever_was_synced() {
    let (_temp, folder) = data();
    let disk = open(&folder);
    let file = disk.create("file").expect("there is room");
    let mut chance = Chance(7);
    let mut model: Vec<u8> = Vec::new();
    for round in 0..2000 {
        let (offset, len) = (chance.below(5000) as usize, chance.below(2000) as usize);
        let bytes = vec![round as u8; len];
        file.write_at(&bytes, offset as u64).expect("there is room");
        if len > 0 {
            model.resize(model.len().max(offset + len), 0);
            model[offset..offset + len].copy_from_slice(&bytes);
        }
        if chance.below(5) == 0 {
            file.sync_data().expect("a disk");
        }
        assert_eq!(file.len().expect("it is open"), model.len() as u64);
        let from = chance.below(model.len() as u64 + 1) as usize;
        let mut read = vec![0; model.len() - from];
        file.read_at(&mut read, from as u64).expect("it is there");
        assert!(read == model[from..], "round {round}");
        let beyond = file.read_at(&mut [0], model.len() as u64);
        assert!(beyond.is_err(), "round {round}");
    }
    file.sync_data().expect("a disk");
    disk.sync_dir().expect("a disk");
    drop((file, disk));
    let bytes = fs::read(folder.join("file")).expect("its name was synced");
    assert!(bytes == model);
}

#[test]
fn a_file_that_never_had_its_name_synced_leaves_nothing_behind() {
    let (_temp, folder) = data();
    let beside = folder.with_file_name("data.unsynced");
    for _ in 0..20 {
        let disk = open(&folder);
        let file = disk.create("file").expect("there is room");
        file.write_at(&[1; LEN], 0).expect("there is room");
        file.sync_data().expect("a disk");
        drop((file, disk));
        drop(open(&folder));
        let left = fs::read_dir(&beside).expect("it was made").count();
        assert_eq!(left, 1, "the lock");
    }
}
