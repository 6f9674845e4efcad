//! The apply thread: executes what is committed, in log order, and answers those who wait for it.

use std::sync::Arc;

use super::NodeError;
use super::outcome::{Waiter, reply};
use super::replica::Work;
use super::shared::Shared;
use super::snapshots;
use crate::machine::{At, StateMachine};
use crate::net::Replies;
use crate::raft::{Entry, EntryId, Payload, SnapshotMeta};

/// How much of the log is taken on at a time, in bytes: enough to spread the cost of a lock, little
/// enough not to keep the first one waiting for the last one's reply.
const APPLY_BYTES: usize = 1 << 20;

pub(super) struct Apply<S: StateMachine> {
    shared: Arc<Shared<S>>,
    replies: Replies,
    /// The last entry that the machine has executed, and its time.
    last: EntryId,
    time_ms: u64,
}

impl<S: StateMachine> Apply<S> {
    /// The machine has executed everything up to `last`.
    pub fn new(shared: Arc<Shared<S>>, last: EntryId, time_ms: u64) -> Self {
        Self {
            shared,
            replies: Replies::new(),
            last,
            time_ms,
        }
    }

    /// Runs until the node stops.
    pub fn run(mut self) -> Result<(), NodeError> {
        while let Some(work) = self.wait_for_work() {
            let before = self.last;
            if let Some(meta) = &work.install {
                self.install(meta)?;
            }
            self.execute(work);
            self.replies.flush();
            let (last, time_ms) = (self.last, self.time_ms);
            let snapshot = self.shared.input(|replica| {
                if last != before {
                    replica.applied(last.index);
                }
                replica.begin_snapshot(last, time_ms)
            });
            if last != before {
                self.shared.changed.notify_all();
            }
            if let Some(meta) = snapshot {
                let state = self.shared.machine.lock().snapshot();
                snapshots::take(&self.shared, meta, state);
            }
        }
        Ok(())
    }

    fn wait_for_work(&self) -> Option<Work<Waiter<S::Reply>>> {
        let mut replica = self.shared.replica.lock();
        while !replica.has_work() {
            if self.shared.is_stopping() {
                return None;
            }
            self.shared.work.wait(&mut replica);
        }
        Some(replica.take_work(APPLY_BYTES))
    }

    fn execute(&mut self, work: Work<Waiter<S::Reply>>) {
        let mut machine = self.shared.machine.lock();
        for (entry, waiter) in work.entries {
            let (last, time_ms) = (entry.id, entry.time_ms);
            if let Some(result) = apply(&mut *machine, &entry)
                && let Some(waiter) = waiter
            {
                reply::<S>(waiter, result, &mut self.replies);
            }
            (self.last, self.time_ms) = (last, time_ms);
        }
        for (query, waiter) in work.reads {
            let result = machine.query(&query);
            reply::<S>(waiter, result, &mut self.replies);
        }
        *self.shared.gauges.lock() = machine.gauges();
    }

    /// Takes over the state of a snapshot that has come from the leader.
    fn install(&mut self, meta: &SnapshotMeta) -> Result<(), NodeError> {
        let mut file = self
            .shared
            .files
            .open(meta.last)
            .map_err(NodeError::Storage)?;
        let mut machine = self.shared.machine.lock();
        *machine = machine
            .restore(&mut file)
            .map_err(|error| NodeError::Restore {
                index: meta.last.index,
                reason: error.to_string(),
            })?;
        (self.last, self.time_ms) = (meta.last, meta.time_ms);
        Ok(())
    }
}

fn apply<S: StateMachine>(machine: &mut S, entry: &Entry) -> Option<S::Reply> {
    let Payload::Command(command) = &entry.payload else {
        return None;
    };
    let at = At {
        index: entry.id.index,
        time_ms: entry.time_ms,
    };
    Some(machine.apply(at, command))
}
