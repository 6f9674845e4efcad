//! The apply thread: executes what is committed, in log order, and answers those who wait for it.

use std::sync::Arc;

use super::NodeError;
use super::executor::Executor;
use super::outcome::{Waiter, reply};
use super::replica::Work;
use super::shared::Shared;
use super::snapshots;
use crate::machine::StateMachine;
use crate::net::Replies;

/// How much of the log is taken on at a time, in bytes: enough to spread the cost of a lock, little
/// enough not to keep the first one waiting for the last one's reply.
const APPLY_BYTES: usize = 1 << 20;

pub(super) struct Apply<S: StateMachine> {
    shared: Arc<Shared<S>>,
    replies: Replies,
    executor: Executor,
}

impl<S: StateMachine> Apply<S> {
    pub fn new(shared: Arc<Shared<S>>, executor: Executor) -> Self {
        Self {
            shared,
            replies: Replies::new(),
            executor,
        }
    }

    /// Runs until the node stops.
    pub fn run(mut self) -> Result<(), NodeError> {
        while let Some(work) = self.wait_for_work() {
            if let Some(meta) = &work.install {
                let mut machine = self.shared.machine.lock();
                self.executor
                    .install(&mut *machine, &self.shared.files, meta)?;
            }
            self.execute(work);
            self.replies.flush();
            let moved = self.executor.has_moved();
            let executor = &mut self.executor;
            let snapshot = self.shared.input(|replica| executor.report(replica));
            if moved {
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
        while !self.shared.is_stopping() && !replica.has_work() {
            self.shared.work.wait(&mut replica);
        }
        // Whatever is left: nobody waits for it any more, and a restart executes it again.
        let stopping = self.shared.is_stopping();
        (!stopping).then(|| replica.take_work(APPLY_BYTES))
    }

    fn execute(&mut self, work: Work<Waiter<S::Reply>>) {
        let mut machine = self.shared.machine.lock();
        for (entry, waiter) in work.entries {
            if let Some(result) = self.executor.execute(&mut *machine, &entry)
                && let Some(waiter) = waiter
            {
                reply::<S>(waiter, result, &mut self.replies);
            }
        }
        for (query, waiter) in work.reads {
            let result = machine.query(&query);
            reply::<S>(waiter, result, &mut self.replies);
        }
        *self.shared.gauges.lock() = machine.gauges();
    }
}
