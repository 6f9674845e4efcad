//! Work with files that takes long and that the log's next write does not depend on: sending and
//! storing parts of snapshots, removing files of the log that are no longer needed, making the
//! log's next segment ready, writing down the members.

use std::collections::VecDeque;

use super::NodeError;
use super::hub::Hub;
use super::sending::{Gone, Sending};
use super::sync::Nudged;
use crate::machine::StateMachine;
use crate::raft::{EntryId, LoggedConfiguration, Part, PartRequest, StoredSnapshot};
use crate::storage::{Incoming, Sealed, SnapshotInfo, Snapshots, StorageError, Unneeded};

/// Runs one errand after the other, on a thread of its own, so that neither heartbeats nor the log
/// wait for them.
#[derive(Default)]
pub struct Courier {
    /// The errand that the next step runs; `None` if there is no errand.
    under_way: Option<Errand>,
    /// The errands after that one: those that the core handed out at one time. The courier asks the
    /// core for more only when this queue is empty.
    waiting: VecDeque<Errand>,
    /// The snapshot that is being received: its last entry, and its file as far as it has come.
    incoming: Option<(EntryId, Incoming)>,
    sending: Sending,
}

/// One piece of work with files, which one step runs from its beginning to its end. Between two
/// steps anything else may happen to the node, a crash included.
enum Errand {
    /// Removes files of the log that the snapshots cover.
    Remove(Unneeded),
    /// Makes a little more of the log's next segment ready.
    MakeSpare,
    /// Writes the members of the cluster down, for a start at which the log cannot be read.
    NoteMembers(LoggedConfiguration),
    /// Reads a part of a snapshot and sends it to the follower that needs it.
    Send(PartRequest),
    /// Stores a part of a snapshot that the leader has sent.
    Store(Part),
    /// All parts of a snapshot have come: verifies the file and makes it durable.
    Seal(EntryId, Incoming),
    /// Gives the file its final name, durably, and tells the core, which then has the state machine
    /// take over the state.
    Place(EntryId, Sealed),
}

impl Courier {
    /// Runs the errand that is under way, and chooses the next one. Returns false if there is no
    /// next one.
    ///
    /// # Errors
    /// [`NodeError::Storage`] if files of the log cannot be removed: then the disk has failed, and
    /// the node must stop. If another errand fails, the node goes on: nothing that was acknowledged
    /// depends on it.
    pub fn step<S: StateMachine>(&mut self, hub: &Hub<S>) -> Result<bool, NodeError> {
        let follow_up = match self.under_way.take() {
            Some(errand) => self.run_errand(hub, errand)?,
            None => None,
        };
        self.under_way = match follow_up {
            Some(errand) => Some(errand),
            None => self.next(hub),
        };
        Ok(self.under_way.is_some())
    }

    /// If the next step gives a received snapshot its final name, the last entry of that snapshot.
    pub fn placing(&self) -> Option<EntryId> {
        match self.under_way {
            Some(Errand::Place(last, _)) => Some(last),
            _ => None,
        }
    }

    /// Whether there is an errand under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether the next step removes files of the log.
    pub fn is_removing(&self) -> bool {
        matches!(self.under_way, Some(Errand::Remove(_)))
    }

    /// Chooses the next errand. To remove files comes first: if the disk is full, only that makes
    /// room for the other errands.
    fn next<S: StateMachine>(&mut self, hub: &Hub<S>) -> Option<Errand> {
        if let Some(unneeded) = hub.files.next_unneeded() {
            return Some(Errand::Remove(unneeded));
        }
        if self.waiting.is_empty() {
            let errands = hub.next_errands();
            let to_send = errands.to_send.into_iter().map(Errand::Send);
            let to_store = errands.to_store.into_iter().map(Errand::Store);
            self.waiting = to_send.chain(to_store).collect();
        }
        // Parts come before segments: a follower waits for the part, but the log needs the next
        // segment only when the present one is full. If the segment is not ready then, the writer
        // of the log makes it.
        let spare = hub.files.spares.are_wanted().then_some(Errand::MakeSpare);
        let members = || hub.files.next_members().map(Errand::NoteMembers);
        self.waiting.pop_front().or(spare).or_else(members)
    }

    /// Runs an errand. Returns the errand that has to follow it at once, if there is one.
    fn run_errand<S: StateMachine>(
        &mut self,
        hub: &Hub<S>,
        errand: Errand,
    ) -> Result<Option<Errand>, NodeError> {
        let files = &hub.files.snapshots;
        let (last, stored) = match errand {
            Errand::Remove(unneeded) => {
                unneeded.remove().map_err(NodeError::Storage)?;
                return Ok(None);
            }
            Errand::MakeSpare => {
                let was_short = hub.files.spares.shortage().is_some();
                match hub.files.spares.make() {
                    // A disk that stays full is in the log once.
                    Err(StorageError::NoSpace { .. }) if was_short => {}
                    Err(error) => {
                        log::warn!("the log's next segment is not ready ahead of time: {error}");
                    }
                    Ok(()) => {}
                }
                return Ok(None);
            }
            Errand::NoteMembers(members) => {
                hub.files.write_members(&members);
                return Ok(None);
            }
            Errand::Send(request) => {
                self.send(hub, request);
                return Ok(None);
            }
            Errand::Store(part) => match self.store(files, part) {
                (last, Ok(Stored::Complete(incoming))) => {
                    return Ok(Some(Errand::Seal(last, *incoming)));
                }
                other => other,
            },
            Errand::Seal(last, incoming) => match incoming.seal() {
                Ok(sealed) => return Ok(Some(Errand::Place(last, sealed))),
                Err(error) => (last, Err(error)),
            },
            Errand::Place(last, sealed) => (last, in_its_place(files, sealed.place())),
        };
        tell(hub, last, stored);
        Ok(None)
    }

    fn send<S: StateMachine>(&mut self, hub: &Hub<S>, request: PartRequest) {
        match self.sending.fetch(&hub.files.snapshots, request) {
            Ok(envelope) => hub.transmit(envelope),
            Err(gone) => {
                let Gone {
                    to,
                    snapshot,
                    error,
                } = *gone;
                log::warn!("cannot send a snapshot to node {to}: {error}");
                hub.input(|replica| replica.snapshot_gone(to, &snapshot));
            }
        }
    }

    /// Writes a part to the file of its snapshot. After an error the file is dropped, and the
    /// leader has to send the snapshot from the start.
    pub(super) fn store(
        &mut self,
        files: &Snapshots,
        part: Part,
    ) -> (EntryId, Result<Stored, StorageError>) {
        let last = part.meta.last;
        let mut incoming = match self.incoming.take() {
            Some((of, incoming)) if of == last => incoming,
            _ => match files.receive(part.meta, part.bytes) {
                Ok(incoming) => incoming,
                Err(error) => return (last, in_its_place(files, Err(error))),
            },
        };
        let stored = incoming.write(part.offset, &part.data).map(|received| {
            if received < part.bytes {
                self.incoming = Some((last, incoming));
                return Stored::Partly(received);
            }
            Stored::Complete(Box::new(incoming))
        });
        (last, stored)
    }

    /// The body of the courier's thread: runs errands until the node stops.
    pub(super) fn run<S: StateMachine>(
        mut self,
        hub: &Hub<S>,
        nudged: &Nudged,
    ) -> Result<(), NodeError> {
        while !hub.is_stopping() {
            if !self.step(hub)? {
                nudged.wait();
            }
        }
        Ok(())
    }
}

/// How much of a snapshot's file there is after a part was stored.
pub(super) enum Stored {
    /// The file holds the bytes up to this offset, and more are to come.
    Partly(u64),
    /// All bytes have arrived. The file is neither verified nor under its final name.
    Complete(Box<Incoming>),
    /// The snapshot is verified and durable under its final name: the core can install it.
    Whole(SnapshotInfo),
}

/// Judges a snapshot that was to get its final name. If it was refused because this disk has a
/// newer snapshot or the same one, the snapshot on the disk counts as the one that has arrived.
/// This happens if the core could not install it when it came. If it were reported as an error, the
/// leader would send the snapshot again and again.
pub(super) fn in_its_place(
    files: &Snapshots,
    result: Result<SnapshotInfo, StorageError>,
) -> Result<Stored, StorageError> {
    match (result, files.newest()) {
        (Err(StorageError::Superseded { .. }), Some(newest)) => Ok(Stored::Whole(newest)),
        (result, _) => result.map(Stored::Whole),
    }
}

/// Tells the core how far the file of the snapshot up to `last` is.
fn tell<S: StateMachine>(hub: &Hub<S>, last: EntryId, stored: Result<Stored, StorageError>) {
    match stored {
        // The core hears of a complete file only when it is verified and under its final name.
        Ok(Stored::Complete(_)) => {}
        Ok(Stored::Partly(received)) => hub.exchange(|replica| replica.part_stored(last, received)),
        Ok(Stored::Whole(info)) => {
            let (index, bytes) = (info.meta.last.index, info.bytes);
            log::info!("snapshot up to {index} received: {bytes} bytes");
            hub.files.cut_log(hub);
            hub.exchange(|replica| replica.install(stored_as(info)));
        }
        Err(error) => {
            log::error!("cannot take in the leader's snapshot: {error}");
            hub.exchange(|replica| replica.part_stored(last, 0));
        }
    }
}

/// Converts the description of a snapshot on disk to the one that the core uses.
pub(super) fn stored_as(info: SnapshotInfo) -> StoredSnapshot {
    StoredSnapshot {
        meta: info.meta,
        bytes: info.bytes,
    }
}
