//! Writing the log, and sending what may leave once it is written.

use std::sync::Arc;
use std::time::Instant;

use super::NodeError;
use super::hub::Hub;
use super::scheduling::Worker;
use super::stages::Written;
use super::sync::{self, Nudged};
use crate::machine::StateMachine;
use crate::raft::Write;
use crate::storage::Storage;

/// Writes the log, one write after the other. Whatever gathers while one write is under way goes
/// into the next (group commit).
pub struct Replicator {
    storage: Storage,
    /// The write that the core has handed out and the disk does not have yet, and since when the
    /// oldest part of it has waited.
    under_way: Option<(Write, Option<Instant>)>,
}

impl Replicator {
    pub(super) fn new(storage: Storage) -> Self {
        Self {
            storage,
            under_way: None,
        }
    }

    /// The write that the next step brings to the disk.
    pub fn under_way(&self) -> Option<&Write> {
        self.under_way.as_ref().map(|(write, _)| write)
    }

    /// The log's files.
    pub fn storage(&mut self) -> &mut Storage {
        &mut self.storage
    }

    /// Brings the write that is under way to the disk, reports it, and takes the next one. Messages
    /// leave before the write that is taken is begun: so the followers write at the same time as
    /// this node (thesis 10.2.1). Returns whether there is a write to go on with.
    ///
    /// # Errors
    /// [`NodeError::Storage`] if the disk failed. The node must stop: nobody knows what the disk
    /// holds.
    pub fn step<S: StateMachine>(&mut self, hub: &Arc<Hub<S>>) -> Result<bool, NodeError> {
        self.under_way = match self.under_way.take() {
            None => hub.exchange(|replica| Some((replica.take_write()?, hub.stages.taken()))),
            Some((write, put_in)) => self.write(hub, &write, put_in)?,
        };
        self.look_after_log(hub);
        Ok(self.under_way.is_some())
    }

    /// Makes a write durable. Returns the next one.
    fn write<S: StateMachine>(
        &mut self,
        hub: &Arc<Hub<S>>,
        write: &Write,
        put_in: Option<Instant>,
    ) -> Result<Option<(Write, Option<Instant>)>, NodeError> {
        let (began, mut written) = (sync::now(), None);
        self.storage
            .write_and_tell(write, || written = Some(sync::now()))
            .map_err(NodeError::Storage)?;
        let durable = sync::now();
        hub.files.want_spare(hub);
        let next = hub.exchange_and_execute(
            durable,
            |replica| {
                replica.durable(write.id);
                Some((replica.take_write()?, hub.stages.taken()))
            },
            // The next write is more urgent: the apply thread can do the rest.
            Option::is_none,
        );
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

    /// Lets go of what the log does not need any more, and notes its size for the status. After
    /// each write, not only when none waits: clients that take turns may leave no such moment for
    /// hours, and meanwhile the log would fill the disk.
    fn look_after_log<S: StateMachine>(&mut self, hub: &Hub<S>) {
        if let Some(index) = hub.files.take_cut() {
            let unneeded = self.storage.let_go(index);
            hub.files.leave_to_courier(hub, unneeded);
        }
        hub.files.note_log_bytes(self.storage.log_bytes());
    }

    /// The thread: writes until the node stops.
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
