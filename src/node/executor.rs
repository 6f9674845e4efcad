//! How far the state machine has come, and how it goes on: what the apply thread does, without the
//! thread, so that a simulator drives the same.

use super::NodeError;
use super::replica::Replica;
use crate::machine::{At, StateMachine};
use crate::raft::{Entry, EntryId, Payload, SnapshotMeta};
use crate::storage::Snapshots;

/// Where a state machine is in the log.
#[derive(Debug)]
pub(super) struct Executor {
    /// The last entry that the machine has executed, and its time.
    last: EntryId,
    time_ms: u64,
    /// The last entry that the replica was told of.
    told: EntryId,
}

impl Executor {
    /// The machine is as the snapshot has it that the node starts from, and the replica knows;
    /// without one it is empty.
    pub fn behind(snapshot: Option<&SnapshotMeta>) -> Self {
        let last = snapshot.map_or(EntryId::ZERO, |meta| meta.last);
        let time_ms = snapshot.map_or(0, |meta| meta.time_ms);
        Self {
            last,
            time_ms,
            told: last,
        }
    }

    /// The last entry that the machine has executed.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// Executes the next entry; returns what its command answers.
    pub fn execute<S: StateMachine>(&mut self, machine: &mut S, entry: &Entry) -> Option<S::Reply> {
        (self.last, self.time_ms) = (entry.id, entry.time_ms);
        let Payload::Command(command) = &entry.payload else {
            return None;
        };
        let at = At {
            index: entry.id.index,
            time_ms: entry.time_ms,
        };
        Some(machine.apply(at, command))
    }

    /// Takes over the state of a snapshot that has come from the leader.
    pub fn install<S: StateMachine>(
        &mut self,
        machine: &mut S,
        files: &Snapshots,
        meta: &SnapshotMeta,
    ) -> Result<(), NodeError> {
        *machine = restore(machine, files, meta)?;
        (self.last, self.time_ms) = (meta.last, meta.time_ms);
        Ok(())
    }

    /// Tells the replica how far the machine is. If a snapshot is to be taken of it as it is now,
    /// returns what that stands for.
    pub fn report<W>(&mut self, replica: &mut Replica<W>) -> Option<SnapshotMeta> {
        if self.has_moved() {
            replica.applied(self.last.index);
            self.told = self.last;
        }
        replica.begin_snapshot(self.last, self.time_ms)
    }

    /// Whether there is something that the replica has not been told.
    pub fn has_moved(&self) -> bool {
        self.last != self.told
    }
}

/// A machine with the settings of this one and the state of a snapshot on disk.
pub fn restore<S: StateMachine>(
    machine: &S,
    files: &Snapshots,
    meta: &SnapshotMeta,
) -> Result<S, NodeError> {
    let mut file = files.open(meta.last).map_err(NodeError::Storage)?;
    machine
        .restore(&mut file)
        .map_err(|error| NodeError::Restore {
            index: meta.last.index,
            reason: error.to_string(),
        })
}
