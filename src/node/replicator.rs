//! Writing the log, and sending the messages that had to wait for the write.

use std::sync::Arc;

use super::NodeError;
use super::consequences::Wanted;
use super::hub::Hub;
use super::scheduling::Worker;
use super::stages::Written;
use super::sync::{self, Nudged};
use crate::machine::StateMachine;
use crate::raft::Write;
use crate::storage::{Storage, StorageError};

/// Writes the log, one write after the other. All entries that are proposed or received while one
/// write is under way go into the next write together (group commit).
pub struct Replicator {
    storage: Storage,
    /// The write that the core has handed out and that is not durable yet.
    under_way: Option<Write>,
    /// Whether the write that is under way waits for space on the disk.
    waits: bool,
}

impl Replicator {
    pub(super) fn new(storage: Storage) -> Self {
        Self {
            storage,
            under_way: None,
            waits: false,
        }
    }

    /// The write that the next step brings to the disk, if there is one.
    pub fn under_way(&self) -> Option<&Write> {
        self.under_way.as_ref()
    }

    /// Whether the write that is under way waits for space on the disk. Of such a write term and
    /// vote are durable, and nothing of its entries is written.
    pub fn waits_for_space(&self) -> bool {
        self.waits
    }

    /// The files of the log on disk.
    pub fn storage(&mut self) -> &mut Storage {
        &mut self.storage
    }

    /// Brings the write that is under way to the disk, reports it as durable, and takes the next
    /// one. In the same step the messages leave that waited for the disk, and so do the entries of
    /// the next write, before that write begins: the followers write at the same time as this node
    /// (thesis 10.2.1). Returns false if there is nothing to write, or no space for it: then the
    /// same write is tried again later, when [`Task::Replicate`](super::signals::Task::Replicate)
    /// is woken.
    ///
    /// # Errors
    /// [`NodeError::Storage`] if the disk failed. The node must stop: after a failed sync it is not
    /// known what the disk holds, and another sync may report success for data that was lost.
    pub fn step<S: StateMachine>(&mut self, hub: &Arc<Hub<S>>) -> Result<bool, NodeError> {
        self.under_way = match self.under_way.take() {
            None => hub.next_write(),
            // Whatever else wakes the replicator, a full disk is not asked more often than that.
            Some(write) if self.waits && !hub.files.take_another_try() => Some(write),
            Some(write) => self.try_to_write(hub, write)?,
        };
        hub.files
            .note_write(self.under_way.as_ref().map(|write| write.id));
        self.look_after_log(hub);
        Ok(self.under_way.is_some() && !self.waits)
    }

    /// Makes a write durable, if there is space for it. Returns the next one, or the same one if
    /// there is no space.
    fn try_to_write<S: StateMachine>(
        &mut self,
        hub: &Arc<Hub<S>>,
        write: Write,
    ) -> Result<Option<Write>, NodeError> {
        match self.write(hub, &write) {
            Err(NodeError::Storage(StorageError::NoSpace { .. })) => {
                self.waits = true;
                Ok(Some(write))
            }
            done => {
                self.waits = false;
                done
            }
        }
    }

    /// Makes a write durable. Returns the next one.
    fn write<S: StateMachine>(
        &mut self,
        hub: &Arc<Hub<S>>,
        write: &Write,
    ) -> Result<Option<Write>, NodeError> {
        let put_in = hub.stages.oldest_input();
        let (began, mut written) = (sync::now(), None);
        self.storage
            .write_and_tell(write, || written = Some(sync::now()))
            .map_err(NodeError::Storage)?;
        let durable = sync::now();
        hub.files.want_spare(hub);
        let next = hub.exchange_and_execute(durable, Wanted::WRITE, |replica| {
            replica.durable(write.id);
        });
        if let Some(written) = written {
            hub.stages.wrote(&Written {
                put_in,
                began,
                written,
                durable,
            });
        }
        Ok(next)
    }

    /// Drops the part of the log on disk that the snapshots cover, and notes the log's size for the
    /// status. This is done after each write, even if another write waits: two groups of clients
    /// that take turns can keep a write waiting for hours, and the log would fill the disk.
    fn look_after_log<S: StateMachine>(&mut self, hub: &Hub<S>) {
        if let Some(index) = hub.files.take_cut() {
            let unneeded = self.storage.let_go_if_covered(index);
            hub.files.leave_to_courier(hub, unneeded);
        }
        hub.files.note_log_bytes(self.storage.log_bytes());
    }

    /// The body of the replicator's thread: writes the log until the node stops.
    pub(super) fn run<S: StateMachine>(
        mut self,
        hub: &Arc<Hub<S>>,
        nudged: &Nudged,
    ) -> Result<(), NodeError> {
        let mut worker = Worker::new();
        while !hub.is_stopping() {
            worker.look(&hub.scheduling);
            if !self.step(hub)? {
                nudged.wait();
            }
        }
        Ok(())
    }
}
