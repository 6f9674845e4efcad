//! Snapshots: taking them, sending them, receiving them. None of it happens on a thread that
//! others wait for.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use super::NodeError;
use super::replica::Replica;
use super::shared::Shared;
use super::sync::thread::JoinHandle;
use super::sync::{self, Nudged};
use super::threads;
use super::unhurried::Unhurried;
use crate::machine::StateMachine;
use crate::raft::{
    EntryId, Envelope, Message, NodeId, Part, PartRequest, SnapshotMeta, StoredSnapshot,
};
use crate::storage::{Incoming, SnapshotInfo, Snapshots, StorageError};

/// Writes a snapshot on a short-lived thread of its own. Should that fail, the node goes on with
/// the log as it is: nothing that was acknowledged depends on it.
pub(super) fn take<S: StateMachine>(
    shared: &Arc<Shared<S>>,
    meta: SnapshotMeta,
    state: S::Snapshot,
) {
    let before = shared.take_snapshot_thread();
    let spawned = threads::spawn("snapshot", shared, move |node| {
        sync::yield_to_others();
        // It has done its work. Its very end is waited for, so that none outlives the node; here,
        // for whoever executes commands does not wait for a thread of low priority.
        before.map(JoinHandle::join);
        let index = meta.last.index;
        match write::<S>(node, meta, &state) {
            Ok(info) => {
                log::info!("snapshot up to {index}: {} bytes", info.bytes);
                node.input(|replica| replica.snapshot_taken(stored(info)));
                node.cut_log(node.files.log_needed_behind());
            }
            Err(error) => {
                if is_overtaken(&*error) {
                    log::info!("no snapshot up to {index}: a newer one has come from the leader");
                } else {
                    log::error!("no snapshot up to {index}: {error}. The log keeps growing");
                }
                node.input(|replica| replica.snapshot_failed());
            }
        }
        Ok(())
    });
    match spawned {
        Ok(thread) => shared.keep_snapshot_thread(thread),
        Err(error) => {
            log::error!("no snapshot: {error}");
            shared.input(|replica| replica.snapshot_failed());
        }
    }
}

/// Whether a snapshot failed only because there is a newer one by now.
fn is_overtaken(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref();
    matches!(error, Some(StorageError::Superseded { .. }))
}

fn write<S: StateMachine>(
    node: &Shared<S>,
    meta: SnapshotMeta,
    state: &S::Snapshot,
) -> Result<SnapshotInfo, Box<dyn Error + Send + Sync>> {
    let hurries = || node.is_stopping() || node.replica.lock().snapshot_is_late();
    let mut file = Unhurried::new(node.files.create(meta)?, hurries);
    S::write_snapshot(state, &mut file)?;
    Ok(file.into_inner().finish()?)
}

/// A snapshot on disk as the core knows it.
pub fn stored(info: SnapshotInfo) -> StoredSnapshot {
    StoredSnapshot {
        meta: info.meta,
        bytes: info.bytes,
    }
}

/// Reads parts of snapshots for those that need them, stores parts that come in, makes the log's
/// next segment ready and removes old ones: whatever takes the disk long.
#[derive(Default)]
pub struct Courier {
    incoming: Option<(EntryId, Incoming)>,
    /// The snapshots that were found whole, and whose last part has not been sent since.
    verified: BTreeSet<EntryId>,
}

impl Courier {
    /// Runs errands until the node stops.
    pub(super) fn run<S: StateMachine>(
        mut self,
        shared: &Shared<S>,
        nudged: &Nudged,
    ) -> Result<(), NodeError> {
        while !shared.is_stopping() {
            nudged.wait();
            while shared.spares.are_wanted() && !shared.is_stopping() {
                Self::make_spare(shared);
                self.run_errands(shared)?;
            }
            self.run_errands(shared)?;
        }
        Ok(())
    }

    fn run_errands<S: StateMachine>(&mut self, shared: &Shared<S>) -> Result<(), NodeError> {
        while let Some(unneeded) = shared.next_unneeded() {
            unneeded.remove().map_err(NodeError::Storage)?;
        }
        loop {
            let errands = shared.input(|replica| replica.take_errands());
            if errands.is_empty() || shared.is_stopping() {
                return Ok(());
            }
            if let Some(request) = errands.to_send {
                self.send(shared, request);
            }
            for part in errands.to_store {
                self.store(shared, part);
            }
            shared.send();
        }
    }

    fn make_spare<S: StateMachine>(shared: &Shared<S>) {
        if let Err(error) = shared.spares.make() {
            log::warn!("the log's next segment is not ready ahead of time: {error}");
        }
    }

    fn send<S: StateMachine>(&mut self, shared: &Shared<S>, request: PartRequest) {
        match self.fetch(&shared.files, request) {
            Ok(envelope) => shared.transmit(envelope),
            Err(Gone { to, last, error }) => {
                log::warn!("cannot send a snapshot to node {to}: {error}");
                shared.input(|replica| replica.snapshot_gone(to, last));
            }
        }
    }

    /// Stores a part; a snapshot that is complete, and proves to be whole, is installed.
    fn store<S: StateMachine>(&mut self, shared: &Shared<S>, part: Part) {
        let last = part.meta.last;
        let result = self.take_in(&shared.files, part);
        match &result {
            Ok(Stored::Whole(info)) => {
                let index = info.meta.last.index;
                log::info!("snapshot up to {index} received: {} bytes", info.bytes);
            }
            Err(error) => log::error!("cannot take in the leader's snapshot: {error}"),
            Ok(Stored::Partly(_) | Stored::Complete(_)) => {}
        }
        let installs = matches!(result, Ok(Stored::Whole(_)));
        shared.input(|replica| report(replica, last, result));
        if installs {
            shared.cut_log(shared.files.log_needed_behind());
        }
    }

    fn take_in(&mut self, files: &Snapshots, part: Part) -> Result<Stored, StorageError> {
        match self.add(files, part)? {
            Stored::Complete(incoming) => in_its_place(files, incoming.finish()),
            stored => Ok(stored),
        }
    }

    /// Writes a part to the file that it belongs to. After an error the transfer starts over.
    pub fn add(&mut self, files: &Snapshots, part: Part) -> Result<Stored, StorageError> {
        let last = part.meta.last;
        let mut incoming = match self.incoming.take() {
            Some((of, incoming)) if of == last => incoming,
            _ => match files.receive(part.meta, part.bytes) {
                Ok(incoming) => incoming,
                Err(error) => return in_its_place(files, Err(error)),
            },
        };
        let received = incoming.write(part.offset, &part.data)?;
        if received < part.bytes {
            self.incoming = Some((last, incoming));
            return Ok(Stored::Partly(received));
        }
        Ok(Stored::Complete(incoming))
    }
}

/// What has come of a part.
pub enum Stored {
    /// The file is there up to this offset.
    Partly(u64),
    /// All of it has arrived, and is neither verified nor in its place.
    Complete(Incoming),
    /// There is a snapshot to install.
    Whole(SnapshotInfo),
}

/// A snapshot that is on disk already, because this node was not in a position to install it when
/// it arrived, is as good as one that has just arrived: were it refused, the leader would send it
/// again and again.
pub fn in_its_place(
    files: &Snapshots,
    result: Result<SnapshotInfo, StorageError>,
) -> Result<Stored, StorageError> {
    match (result, files.newest()) {
        (Err(StorageError::Superseded { .. }), Some(newest)) => Ok(Stored::Whole(newest)),
        (result, _) => result.map(Stored::Whole),
    }
}

/// Tells the replica what has come of a part of the snapshot up to `last`.
pub fn report<W>(replica: &mut Replica<W>, last: EntryId, result: Result<Stored, StorageError>) {
    match result {
        Ok(Stored::Partly(received)) => replica.part_stored(last, received),
        Ok(Stored::Whole(info)) => drop(replica.install(stored(info))),
        // What comes of it is told once it is known.
        Ok(Stored::Complete(_)) => {}
        Err(_) => replica.part_stored(last, 0),
    }
}

/// A part that cannot be read.
#[derive(Debug)]
pub struct Gone {
    /// Who needs it.
    pub to: NodeId,
    /// The last entry of the snapshot.
    pub last: EntryId,
    /// What went wrong.
    pub error: StorageError,
}

/// The sending side.
impl Courier {
    /// Reads a part that is to be sent. Before the first one, all of the snapshot is verified: had it
    /// gone bad since it was written, the follower would refuse it again and again. A damaged one is
    /// set aside.
    ///
    /// The first part may be asked for many times, by several followers, or because it was lost on
    /// its way. To read the whole file each time could keep the disk busy for good. So a file that
    /// was found whole is not verified again before its last part has been sent: no follower can
    /// refuse a file before it has all of it. If one does then, the file may have gone bad since it
    /// was verified, and the next first part finds that out. So a file is verified at most once for
    /// each time that it is sent as a whole.
    pub fn fetch(&mut self, files: &Snapshots, request: PartRequest) -> Result<Envelope, Gone> {
        let PartRequest {
            mut envelope,
            length,
        } = request;
        if let Message::Snapshot {
            meta,
            bytes,
            offset,
            data,
        } = &mut envelope.message
        {
            let last = meta.last;
            let verified = match *offset {
                0 => self.verify(files, last),
                _ => Ok(()),
            };
            let length_wanted = usize::try_from(length).unwrap_or(usize::MAX);
            let read = verified.and_then(|()| files.read_chunk(last, *offset, length_wanted));
            let to = envelope.to;
            *data = read.map_err(|error| Gone { to, last, error })?;
            if offset.saturating_add(length) >= *bytes {
                self.verified.remove(&last);
            }
        }
        Ok(envelope)
    }

    fn verify(&mut self, files: &Snapshots, last: EntryId) -> Result<(), StorageError> {
        if self.verified.contains(&last) {
            return Ok(());
        }
        let verified = files.verify(last).map(drop);
        match &verified {
            Ok(()) => {
                // Those that are gone need not be remembered.
                let kept = files.list();
                let is_kept = |of: &EntryId| kept.iter().any(|info| info.meta.last == *of);
                self.verified.retain(is_kept);
                self.verified.insert(last);
            }
            Err(StorageError::Damaged { .. }) => files.set_aside(last)?,
            Err(_) => {}
        }
        verified
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::node::tests::disk::WatchedDisk;
    use crate::raft::Membership;
    use crate::storage::{Disk, Identity, Options, SimDisk, Storage};

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
            membership: Membership::of_voters([1, 2, 3]),
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

    #[test]
    fn a_snapshot_is_whole_once_its_last_part_has_come() {
        let (sender, receiver) = (files(), files());
        let info = write(&sender, 7);
        let read = |offset, max| sender.read_chunk(info.meta.last, offset, max).unwrap();
        let mut courier = Courier::default();
        let first = part(&info, 0, read(0, 5000));
        assert!(matches!(
            courier.take_in(&receiver, first),
            Ok(Stored::Partly(5000))
        ));
        let rest = part(&info, 5000, read(5000, usize::MAX));
        let stored = courier.take_in(&receiver, rest);
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
            let stored = courier.take_in(&files, again);
            assert!(matches!(stored, Ok(Stored::Whole(stored)) if stored.meta == info.meta));
        }
    }

    fn request(of: &SnapshotInfo, offset: u64, length: u64) -> PartRequest {
        let message = Message::Snapshot {
            meta: of.meta.clone(),
            bytes: of.bytes,
            offset,
            data: bytes::Bytes::new(),
        };
        let (from, to, term) = (1, 2, 1);
        let envelope = Envelope {
            from,
            to,
            term,
            message,
        };
        PartRequest { envelope, length }
    }

    /// As when the first part is lost on its way, or several followers need the snapshot.
    #[test]
    fn the_first_part_asked_for_again_and_again_verifies_the_file_once() {
        let disk = WatchedDisk::new();
        let files = files_on(Arc::new(disk.clone()));
        let info = write(&files, 7);
        let mut courier = Courier::default();
        courier.fetch(&files, request(&info, 0, 10)).unwrap();
        let before = disk.bytes_read();
        for _ in 0..100 {
            courier.fetch(&files, request(&info, 0, 10)).unwrap();
        }
        assert_eq!(disk.bytes_read() - before, 100 * 10);
    }

    /// Only a follower that has all of a file can refuse it for what it holds.
    #[test]
    fn a_file_that_went_bad_after_it_was_verified_is_noticed_once_it_was_sent_and_refused() {
        let disk = SimDisk::new(1);
        let files = files_on(Arc::new(disk.clone()));
        let info = write(&files, 7);
        let mut courier = Courier::default();
        courier.fetch(&files, request(&info, 0, 10)).unwrap();
        let mut names = disk.list().unwrap();
        names.retain(|name| name.starts_with("snapshot-"));
        disk.flip_bit(&names[0], info.bytes as usize / 2, 3);
        courier.fetch(&files, request(&info, 0, 10)).unwrap();
        courier
            .fetch(&files, request(&info, 10, info.bytes - 10))
            .unwrap();
        let gone = courier.fetch(&files, request(&info, 0, 10)).unwrap_err();
        assert!(
            matches!(gone.error, StorageError::Damaged { .. }),
            "{gone:?}"
        );
        assert!(files.newest().is_none(), "it is set aside");
    }
}
