//! Snapshots on their way: sent, received, written.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;

use super::disk::WatchedDisk;
use crate::node::courier::{Courier, Stored, in_its_place, stored_as};
use crate::node::sending::Sending;
use crate::node::taker::is_overtaken;
use crate::raft::{Configuration, EntryId, LoggedConfiguration, Part, PartRequest, SnapshotMeta};
use crate::storage::{
    Disk, Identity, Options, SimDisk, SnapshotInfo, Snapshots, Storage, StorageError, Unreadable,
};

/// The names of the snapshots' files.
fn snapshots_on(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("snapshot-"));
    names
}

fn files() -> Snapshots {
    files_on(Arc::new(SimDisk::new(1)))
}

fn files_on(disk: Arc<dyn Disk>) -> Snapshots {
    let identity = Identity {
        cluster: "test".into(),
        node: 1,
        machine: "a machine".into(),
    };
    let opened = Storage::open(disk, &identity, Options::default());
    opened.expect("a new folder opens").0.snapshots()
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        last: EntryId { term: 1, index },
        time_ms: 0,
        configuration: LoggedConfiguration::founding(Configuration::of_voters([1, 2, 3])),
    }
}

fn write(files: &Snapshots, index: u64) -> SnapshotInfo {
    let mut file = files.create(meta(index)).unwrap();
    file.write_all(b"a state").unwrap();
    file.finish().unwrap()
}

fn part(of: &SnapshotInfo, offset: u64, data: bytes::Bytes) -> Part {
    Part {
        meta: of.meta.clone(),
        bytes: of.bytes,
        offset,
        data,
    }
}

/// Stores a part, and if it is the last one, verifies the file and gives it its final name.
fn store(courier: &mut Courier, files: &Snapshots, part: Part) -> Result<Stored, StorageError> {
    match courier.store(files, part).1? {
        Stored::Complete(incoming) => in_its_place(files, incoming.seal()?.place()),
        stored => Ok(stored),
    }
}

#[test]
fn a_snapshot_is_whole_once_its_last_part_has_come() {
    let (sender, receiver) = (files(), files());
    let info = write(&sender, 7);
    let read = |offset, max| sender.read_chunk(info.meta.last, offset, max).unwrap();
    let mut courier = Courier::default();
    let first = part(&info, 0, read(0, 5000));
    assert!(matches!(
        store(&mut courier, &receiver, first),
        Ok(Stored::Partly(5000))
    ));
    let rest = part(&info, 5000, read(5000, usize::MAX));
    let stored = store(&mut courier, &receiver, rest);
    assert!(matches!(stored, Ok(Stored::Whole(stored)) if stored.meta == info.meta));
}

#[test]
fn a_snapshot_that_was_overtaken_by_a_newer_one_is_no_failure_to_worry_about() {
    let files = files();
    let mut slow = files.create(meta(5)).unwrap();
    slow.write_all(b"a state").unwrap();
    write(&files, 7);
    let error: Box<dyn Error + Send + Sync> = slow.finish().unwrap_err().into();
    assert!(is_overtaken(&*error), "{error}");
    assert!(!is_overtaken(&std::io::Error::other("the disk is full")));
}

#[test]
fn a_snapshot_that_is_there_already_is_not_asked_for_again() {
    let files = files();
    let info = write(&files, 7);
    let mut courier = Courier::default();
    for index in [7, 6] {
        let mut again = part(&info, 0, "the start of it".into());
        again.meta = meta(index);
        let stored = store(&mut courier, &files, again);
        assert!(matches!(stored, Ok(Stored::Whole(stored)) if stored.meta == info.meta));
    }
}

fn request(of: &SnapshotInfo, offset: u64, length: u64) -> PartRequest {
    PartRequest {
        from: 1,
        from_folder: 1,
        to: 2,
        to_folder: Some(2),
        term: 1,
        snapshot: stored_as(of.clone()),
        offset,
        length,
    }
}

/// The first part is asked for again when it is lost on its way, or when several followers need it.
#[test]
fn the_first_part_asked_for_again_and_again_verifies_the_file_once() {
    let disk = WatchedDisk::new();
    let files = files_on(disk.disk());
    let info = write(&files, 7);
    let mut sending = Sending::default();
    sending.fetch(&files, request(&info, 0, 10)).unwrap();
    let before = disk.bytes_read();
    for _ in 0..100 {
        sending.fetch(&files, request(&info, 0, 10)).unwrap();
    }
    let header_and_footer = 2 * 4096;
    assert!(disk.bytes_read() - before <= 100 * (10 + header_and_footer));
}

/// The follower refuses it as soon as it has the header, so the last part is never sent.
#[test]
fn a_file_whose_header_went_bad_after_it_was_verified_is_noticed_when_it_is_sent_again() {
    let disk = SimDisk::new(1);
    let files = files_on(Arc::new(disk.clone()));
    let info = write(&files, 7);
    let mut sending = Sending::default();
    sending.fetch(&files, request(&info, 0, 10)).unwrap();
    let names = snapshots_on(&disk);
    disk.flip_bit(&names[0], 2000, 3);
    let again = sending.fetch(&files, request(&info, 0, 10));
    let gone = again.expect_err("the header is not valid any more");
    assert!(
        matches!(gone.error, StorageError::Damaged { .. }),
        "{gone:?}"
    );
    assert!(files.newest().is_none(), "it is set aside");
}

/// For its pieces, only a follower that has all of a file can refuse it.
#[test]
fn a_file_that_went_bad_after_it_was_verified_is_noticed_once_it_was_sent_and_refused() {
    let disk = SimDisk::new(1);
    let files = files_on(Arc::new(disk.clone()));
    let info = write(&files, 7);
    let mut sending = Sending::default();
    sending.fetch(&files, request(&info, 0, 10)).unwrap();
    let names = snapshots_on(&disk);
    disk.flip_bit(&names[0], info.bytes as usize / 2, 3);
    sending.fetch(&files, request(&info, 0, 10)).unwrap();
    sending
        .fetch(&files, request(&info, 10, info.bytes - 10))
        .unwrap();
    let gone = sending.fetch(&files, request(&info, 0, 10)).unwrap_err();
    assert!(
        matches!(gone.error, StorageError::Damaged { .. }),
        "{gone:?}"
    );
    assert!(files.newest().is_none(), "it is set aside");
}

/// The missing parts would be empty, so no follower would ever have the whole file and refuse it.
#[test]
fn a_file_that_became_shorter_after_it_was_verified_is_set_aside_at_the_next_part() {
    let disk = SimDisk::new(1);
    let files = files_on(Arc::new(disk.clone()));
    let info = write(&files, 7);
    let mut sending = Sending::default();
    sending.fetch(&files, request(&info, 0, 10)).unwrap();
    let names = snapshots_on(&disk);
    let mut contents = disk.contents(&names[0]).unwrap();
    contents.truncate(20);
    disk.set_contents(&names[0], &contents);
    let sent = sending.fetch(&files, request(&info, 10, 10));
    let gone = sent.expect_err("a part of a file that ends too early");
    assert!(
        matches!(gone.error, StorageError::Damaged { .. }),
        "{gone:?}"
    );
    assert!(files.newest().is_none(), "it is set aside");
}

/// The core has the state copied anew for the follower. If nothing was executed meanwhile, the new
/// snapshot is of the same entry as the one that cannot be read.
#[test]
fn a_snapshot_that_cannot_be_read_makes_way_for_another_one_of_the_same_entry() {
    let disk = SimDisk::new(1);
    let files = files_on(Arc::new(disk.clone()));
    let info = write(&files, 7);
    let names = snapshots_on(&disk);
    let mut sending = Sending::default();
    for (first, offset) in [(true, 0), (false, 10)] {
        if !first {
            sending.fetch(&files, request(&info, 0, 10)).unwrap();
        }
        disk.fail_reads(Unreadable::File(names[0].clone()));
        let gone = sending.fetch(&files, request(&info, offset, 10));
        let gone = gone.unwrap_err();
        assert!(matches!(gone.error, StorageError::Io { .. }), "{gone:?}");
        assert!(disk.contents(&names[0]).is_some(), "its file stays");
        disk.fail_reads(Unreadable::Nothing);
        let again = write(&files, 7);
        assert_eq!(files.newest(), Some(again));
    }
}

#[test]
fn no_part_of_another_file_of_the_same_entry_is_sent() {
    let files = files_on(Arc::new(SimDisk::new(1)));
    let there = write(&files, 7);
    for bytes in [there.bytes - 1, there.bytes + 1] {
        let before = SnapshotInfo {
            bytes,
            ..there.clone()
        };
        let mut sending = Sending::default();
        let gone = sending.fetch(&files, request(&before, 0, 10));
        let gone = gone.expect_err("the follower was told another size");
        assert_eq!(gone.snapshot, stored_as(before));
        assert_eq!(files.newest().as_ref(), Some(&there), "it stays");
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_stays_until_there_are_two_others_to_start_from() {
    let disk = SimDisk::new(1);
    let files = files_on(Arc::new(disk.clone()));
    let unreadable = write(&files, 7);
    files.pass_over(unreadable.meta.last);
    write(&files, 8);
    assert_eq!(snapshots_on(&disk).len(), 2);
    write(&files, 9);
    assert_eq!(snapshots_on(&disk).len(), 2);
}
