//! Executing what is committed, in log order, and answering those who wait for it.
//!
//! Whoever holds the machine's lock executes. With a [quick](StateMachine::QUICK) machine that is
//! most of the time the thread that has committed: to wake another one would take longer than the
//! work. The apply thread does the rest: what comes while somebody executes, a snapshot to be
//! installed, and all that is too slow for a thread that others wait for.

use std::sync::Arc;
use std::time::Duration;

use super::executor::Executor;
use super::outcome::{Waiter, reply};
use super::shared::Shared;
use super::work::{Share, Takes, Work};
use super::{NodeError, snapshots, sync};
use crate::machine::StateMachine;
use crate::net::Replies;

/// What the apply thread takes on at a time: enough to spread the cost of a lock, little enough not
/// to keep the first one waiting for the last one's reply.
const SHARE: Share = Share {
    log_bytes: 1 << 20,
    takes: Takes::All,
};
/// The same for a thread that has other things to do.
const SHARE_HERE: Share = Share {
    log_bytes: 128 << 10,
    takes: Takes::Short,
};
/// A machine that took this long for its last work is left to the apply thread.
const PATIENCE: Duration = Duration::from_millis(2);

/// The state machine, and how far it has come.
pub(super) struct Machine<S: StateMachine> {
    pub state: S,
    executor: Executor,
    replies: Replies,
    slow: bool,
}

impl<S: StateMachine> Machine<S> {
    pub fn new(state: S, executor: Executor) -> Self {
        Self {
            state,
            executor,
            replies: Replies::new(),
            slow: false,
        }
    }

    /// Does one share of what there is to do.
    fn work(&mut self, shared: &Arc<Shared<S>>, share: Share) -> Result<(), NodeError> {
        let began = sync::now();
        let work = self.take_work(shared, share);
        // To take over a snapshot is not what a batch takes.
        let is_batch = work.install.is_none() && !work.is_empty();
        if let Some(meta) = &work.install {
            self.executor
                .install(&mut self.state, &shared.files, meta)?;
            shared.files.unpin();
        }
        self.execute(work);
        let executed = sync::now();
        let replied = (!self.replies.is_empty()).then(|| {
            self.replies.flush();
            sync::now()
        });
        if is_batch {
            shared.stages.executed(began, executed, replied);
        }
        *shared.gauges.lock() = self.state.gauges();
        let moved = self.executor.has_moved();
        let executor = &mut self.executor;
        let snapshot = shared.input(|replica| executor.report(replica));
        if moved {
            shared.changed.notify_all();
        }
        if let Some(meta) = snapshot {
            snapshots::take(shared, meta, self.state.snapshot());
        }
        self.slow = sync::now() - began > PATIENCE;
        Ok(())
    }

    fn take_work(&self, shared: &Shared<S>, share: Share) -> Work<Waiter<S::Reply>> {
        let mut replica = shared.replica.lock();
        let work = replica.take_work(share);
        if let Some(meta) = &work.install {
            // Under the lock: while it is held, no two newer ones can take this one's place.
            shared.files.pin(meta.last);
        }
        work
    }

    fn execute(&mut self, work: Work<Waiter<S::Reply>>) {
        for (entry, waiter) in work.entries {
            if let Some(result) = self.executor.execute(&mut self.state, &entry)
                && let Some(waiter) = waiter
            {
                reply::<S>(waiter, result, &mut self.replies);
            }
        }
        for (query, waiter) in work.reads {
            let result = self.state.query(&query);
            reply::<S>(waiter, result, &mut self.replies);
        }
    }
}

/// The apply thread.
pub(super) fn run<S: StateMachine>(shared: &Arc<Shared<S>>) -> Result<(), NodeError> {
    while wait_for_work(shared) {
        shared.machine.lock().work(shared, SHARE)?;
    }
    Ok(())
}

/// Whether there is work. Not when the node stops: nobody waits for what is left any more, and a
/// restart executes it again.
fn wait_for_work<S: StateMachine>(shared: &Shared<S>) -> bool {
    let mut replica = shared.replica.lock();
    while !shared.is_stopping() && !replica.has_work() {
        shared.work.wait(&mut replica);
    }
    !shared.is_stopping()
}

/// Does what there is to do on the caller's thread. False if it was left to the apply thread, which
/// is to be woken then.
pub(super) fn execute_here<S: StateMachine>(shared: &Arc<Shared<S>>) -> bool {
    if !S::QUICK {
        return false;
    }
    let Some(mut machine) = shared.machine.try_lock() else {
        return false;
    };
    if machine.slow || shared.is_stopping() {
        return false;
    }
    match machine.work(shared, SHARE_HERE) {
        // What is left over.
        Ok(()) => !shared.replica.lock().has_work(),
        Err(error) => {
            drop(machine);
            shared.stop(Some(error));
            true
        }
    }
}
