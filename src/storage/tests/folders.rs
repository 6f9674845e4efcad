//! Tests of whom a folder belongs to, and who may open it.

use crate::storage::{Disk, RealDisk, block};

use super::*;

/// Opens a used folder with another identity, which must be refused. Returns the error as a
/// sentence.
#[track_caller]
fn refused(change: impl Fn(&mut Identity)) -> String {
    let disk = SimDisk::new(1);
    open(&disk);
    let mut other = identity();
    change(&mut other);
    refusal(Storage::open(Arc::new(disk), &other, small()))
}

#[track_caller]
fn refusal(result: Result<(Storage, Recovered), StorageError>) -> String {
    let error = result.err().expect("the folder is refused");
    assert!(matches!(error, StorageError::WrongFolder { .. }), "{error}");
    error.to_string()
}

#[test]
fn a_folder_of_another_cluster_node_or_machine_is_refused_with_both_names() {
    for (message, found, wanted) in [
        (
            refused(|i| i.cluster = "prod".into()),
            "\"test\"",
            "\"prod\"",
        ),
        (refused(|i| i.node = 22), "node 1,", "node 22"),
        (
            refused(|i| i.machine = "the other".into()),
            "\"a machine\"",
            "\"the other\"",
        ),
    ] {
        for part in ["/simulated", found, wanted] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}

#[test]
fn a_folder_of_another_format_is_refused_and_left_alone() {
    let disk = SimDisk::new(1);
    open(&disk);
    let identity = disk.contents("identity").expect("it is there");
    disk.set_contents("identity", &block::with_format(identity, block::FORMAT + 1));
    let before = disk.operations();
    let message = refusal(try_open(&disk));
    assert!(message.contains("format 4"), "{message}");
    assert!(message.contains("reads 2 to 3"), "{message}");
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_folder_without_an_identity_is_damaged_if_its_files_name_this_node_and_else_refused() {
    let disk = SimDisk::new(1);
    open(&disk);
    disk.take_away("identity");
    let before = disk.operations();
    let damaged = try_open(&disk).err().expect("it is no new folder");
    assert!(matches!(damaged, StorageError::Damaged { .. }), "{damaged}");
    assert!(damaged.to_string().contains("\"log-0"), "{damaged}");
    disk.take_away(&segments(&disk)[0]);
    let damaged = try_open(&disk).err().expect("it is no new folder");
    assert!(damaged.to_string().contains("\"vote\""), "{damaged}");
    let mut other = identity();
    other.node = 9;
    let message = refusal(Storage::open(Arc::new(disk.clone()), &other, small()));
    assert!(message.contains("no \"identity\""), "{message}");
    disk.set_contents("vote", b"nobody's");
    let message = refusal(try_open(&disk));
    assert!(message.contains("no \"identity\""), "{message}");
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_folder_whose_making_was_interrupted_can_be_made_for_somebody_else() {
    for stop in 0..12 {
        let disk = SimDisk::new(stop);
        let mut other = identity();
        other.node = 9;
        disk.stop_at(stop);
        let made = Storage::open(Arc::new(disk.clone()), &other, small());
        assert!(made.is_err(), "it took only {stop} operations");
        let disk = disk.crash();
        if !disk.list().expect("a list").contains(&"identity".into()) {
            open(&disk);
        }
    }
}

#[test]
fn names_that_do_not_fit_are_refused_before_a_file_is_made() {
    let disk = SimDisk::new(1);
    let mut long = identity();
    long.cluster = "x".repeat(5000);
    let message = refusal(Storage::open(Arc::new(disk.clone()), &long, small()));
    assert!(message.contains("shorter name"), "{message}");
    assert_eq!(disk.operations(), 0);
}

#[test]
fn what_a_crash_left_unfinished_is_removed_and_what_is_not_ours_is_not() {
    let disk = SimDisk::new(1);
    open(&disk);
    disk.set_contents("log-00000000000000000002.new", b"half");
    disk.set_contents("notes.txt", b"mine");
    open(&disk);
    let names = disk.list().expect("a list");
    let expected = ["identity", "log-00000000000000000001", "notes.txt", "vote"];
    assert_eq!(names, expected);
}

#[test]
fn a_folder_that_another_node_runs_on_is_refused_by_name() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let first = RealDisk::open(&folder).expect("nobody has it");
    let error = RealDisk::open(&folder).expect_err("it is locked");
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    let message = error.to_string();
    for part in [
        folder.to_str().expect("a path in UTF-8"),
        "another kvnode",
        &std::process::id().to_string(),
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    drop(first);
    RealDisk::open(&folder).expect("the lock is gone with its owner");
}

#[test]
fn a_folder_is_made_with_those_above_it_and_a_file_in_its_place_is_an_error() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("a/b/c");
    RealDisk::open(&folder).expect("the folders are made");
    assert!(folder.join("lock").is_file());

    let file = parent.path().join("file");
    std::fs::write(&file, "not a folder").expect("a file can be written");
    for path in [file.clone(), file.join("below")] {
        let error = RealDisk::open(&path).expect_err("it is a file");
        assert!(matches!(error, StorageError::Io { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(path.to_str().expect("UTF-8")), "{message}");
    }
}

#[test]
fn the_lock_is_not_listed_and_a_missing_file_is_told_apart() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let disk = RealDisk::open(parent.path()).expect("nobody has it");
    assert_eq!(disk.list().expect("a list"), Vec::<String>::new());
    let missing = disk.open("vote").err().map(|error| error.kind());
    assert_eq!(missing, Some(std::io::ErrorKind::NotFound));
    assert!(disk.unique_id() != disk.unique_id());
}
