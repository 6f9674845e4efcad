//! Snapshots: taking them, sending them, receiving them. None of it happens on a thread that
//! others wait for.

use std::error::Error;
use std::sync::Arc;

use super::NodeError;
use super::shared::Shared;
use super::sync::Receiver;
use super::threads;
use crate::machine::StateMachine;
use crate::raft::{EntryId, Message, Part, PartRequest, SnapshotMeta, StoredSnapshot};
use crate::storage::{Incoming, SnapshotInfo, Snapshots, StorageError};

/// Writes a snapshot on a short-lived thread of its own. Should that fail, the node goes on with
/// the log as it is: nothing that was acknowledged depends on it.
pub(super) fn take<S: StateMachine>(
    shared: &Arc<Shared<S>>,
    meta: SnapshotMeta,
    state: S::Snapshot,
) {
    let spawned = threads::spawn("snapshot", shared, move |node| {
        let index = meta.last.index;
        match write::<S>(&node.files, meta, &state) {
            Ok(info) => {
                log::info!("snapshot up to {index}: {} bytes", info.bytes);
                node.input(|replica| replica.snapshot_taken(stored(info)));
                node.cut_log(node.files.log_needed_behind());
            }
            Err(error) => {
                log::error!("no snapshot up to {index}: {error}. The log keeps growing");
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

fn write<S: StateMachine>(
    files: &Snapshots,
    meta: SnapshotMeta,
    state: &S::Snapshot,
) -> Result<SnapshotInfo, Box<dyn Error + Send + Sync>> {
    let mut file = files.create(meta)?;
    S::write_snapshot(state, &mut file)?;
    Ok(file.finish()?)
}

pub(super) fn stored(info: SnapshotInfo) -> StoredSnapshot {
    StoredSnapshot {
        meta: info.meta,
        bytes: info.bytes,
    }
}

/// Reads parts of snapshots for those that need them, and stores parts that come in.
#[derive(Default)]
pub(super) struct Courier {
    incoming: Option<(EntryId, Incoming)>,
}

impl Courier {
    /// Runs errands until the node stops.
    pub fn run<S: StateMachine>(
        mut self,
        shared: &Shared<S>,
        nudge: &Receiver<()>,
    ) -> Result<(), NodeError> {
        while nudge.recv().is_ok() && !shared.is_stopping() {
            loop {
                let errands = shared.input(|replica| replica.take_errands());
                if errands.is_empty() || shared.is_stopping() {
                    break;
                }
                for request in errands.to_send {
                    Self::send(shared, request);
                }
                for part in errands.to_store {
                    self.store(shared, part);
                }
                shared.send();
            }
        }
        Ok(())
    }

    fn send<S: StateMachine>(shared: &Shared<S>, request: PartRequest) {
        let PartRequest {
            mut envelope,
            length,
        } = request;
        let to = envelope.to;
        if let Message::Snapshot {
            meta, offset, data, ..
        } = &mut envelope.message
        {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            match shared.files.read_chunk(meta.last, *offset, length) {
                Ok(read) => *data = read,
                Err(error) => {
                    log::warn!("cannot send a snapshot to node {to}: {error}");
                    let last = meta.last;
                    shared.input(|replica| replica.snapshot_gone(to, last));
                    return;
                }
            }
        }
        shared.transmit(envelope);
    }

    /// Stores a part; a snapshot that is complete, and proves to be whole, is installed.
    fn store<S: StateMachine>(&mut self, shared: &Shared<S>, part: Part) {
        let last = part.meta.last;
        match self.take_in(&shared.files, part) {
            Ok(Stored::Partly(received)) => {
                shared.input(|replica| replica.part_stored(last, received));
            }
            Ok(Stored::Whole(info)) => {
                let index = info.meta.last.index;
                log::info!("snapshot up to {index} received: {} bytes", info.bytes);
                shared.input(|replica| replica.install(stored(info)));
                shared.cut_log(shared.files.log_needed_behind());
            }
            Err(error) => {
                log::error!("cannot take in the leader's snapshot: {error}");
                self.incoming = None;
                shared.input(|replica| replica.part_stored(last, 0));
            }
        }
    }

    /// What has come of a part. A snapshot that is on disk already, because this node was not in a
    /// position to install it when it arrived, is as good as one that has just arrived: were it
    /// refused, the leader would send it again and again.
    fn take_in(&mut self, files: &Snapshots, part: Part) -> Result<Stored, StorageError> {
        match (self.add(files, part), files.newest()) {
            (Err(StorageError::Superseded { .. }), Some(newest)) => Ok(Stored::Whole(newest)),
            (result, _) => result,
        }
    }

    fn add(&mut self, files: &Snapshots, part: Part) -> Result<Stored, StorageError> {
        let last = part.meta.last;
        let mut incoming = match self.incoming.take() {
            Some((of, incoming)) if of == last => incoming,
            _ => files.receive(part.meta, part.bytes)?,
        };
        let received = incoming.write(part.offset, &part.data)?;
        if received < part.bytes {
            self.incoming = Some((last, incoming));
            return Ok(Stored::Partly(received));
        }
        incoming.finish().map(Stored::Whole)
    }
}

enum Stored {
    Partly(u64),
    Whole(SnapshotInfo),
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::raft::Membership;
    use crate::storage::{Identity, Options, SimDisk, Storage};

    fn files() -> Snapshots {
        let identity = Identity {
            cluster: "test".into(),
            node: 1,
            machine: "a machine".into(),
        };
        let disk = Arc::new(SimDisk::new(1));
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
}
