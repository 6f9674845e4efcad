//! How far the state machine has come in the log, and how it executes the next entry or takes over
//! a snapshot.

use super::NodeError;
use super::replica::Replica;
use crate::machine::{At, StateMachine};
use crate::raft::{Entry, EntryId, Payload, SnapshotMeta};
use crate::storage::Snapshots;

/// How far a state machine has come in the log.
#[derive(Debug)]
pub(super) struct Executor {
    /// The last entry that the machine has executed, and its cluster time.
    last: EntryId,
    time_ms: u64,
    /// The last entry that the replica knows to be executed: `told <= last`.
    told: EntryId,
}

impl Executor {
    /// For a machine that has the state of the snapshot from which the node starts, and a replica
    /// that knows so. Without a snapshot the machine is empty.
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

    /// Executes the next entry. Returns the reply to its command.
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

    /// Replaces the machine's state by that of a snapshot from the leader.
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

    /// Tells the replica how far the machine has come. If a snapshot of the present state is to be
    /// taken, returns its meta data.
    pub fn report<W>(&mut self, replica: &mut Replica<W>) -> Option<SnapshotMeta> {
        if self.has_moved() {
            replica.applied(self.last.index);
            self.told = self.last;
        }
        replica.begin_snapshot(self.last, self.time_ms)
    }

    /// Whether the machine has executed an entry or installed a snapshot since the last report.
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
