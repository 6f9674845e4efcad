//! Executing committed entries in log order, and answering the requests that wait for them.
//!
//! A thread executes while it holds the machine's lock. With a [quick](StateMachine::QUICK)
//! machine, most of the time that is the thread whose input committed the entries (`rpc` or
//! `replicator`): to wake the apply thread would take longer than the work. The apply thread
//! executes the rest:
//!
//! - what becomes committed while another thread executes;
//! - a snapshot to be installed, and reads with large answers: other threads wait for `rpc` and
//!   `replicator`, so these do no work that takes long;
//! - everything, for a machine that is not quick, or was slow the last time.
//!
//! The apply thread works in batches, and begins each batch with what is committed by then. So a
//! write waits for a page or two of a scan at the most, however many scans there are.
//!
//! Which thread executes is decided here alone: [`Hub::execute_here`] refuses or executes, and
//! [`Hub::apply`] does all that is left. No work is forgotten between the two: each thread that
//! leaves work wakes the apply thread after it has released the replica's lock.

use std::sync::Arc;
use std::time::Duration;

use super::NodeError;
use super::executor::Executor;
use super::hub::Hub;
use super::outcome::{Waiter, reply};
use super::sync::{self, Mutex, Nudged};
use super::taker::Copied;
use super::work::{ReadyReads, Share, Work};
use crate::machine::{Gate, StateMachine};
use crate::net::Replies;
use crate::raft::{EntryId, SnapshotMeta};

/// If the machine took longer than this for its last batch, the apply thread executes the next one,
/// whichever thread committed it.
const PATIENCE: Duration = Duration::from_millis(2);

/// The state machine, and what other threads may learn of it without waiting for it.
pub(super) struct Execution<S: StateMachine> {
    /// The state machine under its lock: the thread that holds the lock executes committed entries.
    machine: Mutex<Machine<S>>,
    /// A copy of the machine's gauges, made after its last batch. A status shows the copy, because
    /// the machine's lock may be held for long and a status must not wait for it.
    gauges: Mutex<Vec<(&'static str, u64)>>,
    gate: Gate,
}

impl<S: StateMachine> Execution<S> {
    pub fn new(machine: Machine<S>) -> Self {
        Self {
            gauges: Mutex::new(machine.state.gauges()),
            gate: machine.state.gate(),
            machine: Mutex::new(machine),
        }
    }

    /// Says whether the machine can execute a command, and why not.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    pub fn gauges(&self) -> Vec<(&'static str, u64)> {
        self.gauges.lock().clone()
    }
}

/// The state machine, and how far it has come in the log.
pub(super) struct Machine<S: StateMachine> {
    state: S,
    executor: Executor,
    /// The batch that was taken from the replica and is not executed yet. Threads take and execute
    /// a batch under one lock, so a thread always finds `None`; only the simulator finds a batch.
    taken: Option<(Work<Waiter<S::Reply>>, Share)>,
    replies: Replies,
    /// Whether the last batch took longer than [`PATIENCE`].
    slow: bool,
}

impl<S: StateMachine> Machine<S> {
    pub fn new(state: S, executor: Executor) -> Self {
        Self {
            state,
            executor,
            taken: None,
            replies: Replies::new(),
            slow: false,
        }
    }

    /// Takes one share of the state machine's work from the replica. Returns false if there is
    /// none.
    fn begin(&mut self, hub: &Hub<S>, share: Share) -> bool {
        assert!(self.taken.is_none(), "the machine does one thing at a time");
        let Some(work) = hub.next_work(share) else {
            return false;
        };
        self.taken = Some((work, share));
        true
    }

    /// Executes the batch that was taken, answers the requests in it, and reports to the replica.
    fn finish(&mut self, hub: &Hub<S>) -> Result<(), NodeError> {
        let Some((work, share)) = self.taken.take() else {
            return Ok(());
        };
        let now = hub.clock().now;
        let (began, started) = (sync::now(), now());
        // The stage `apply` shows how long a batch takes; a batch that installs a snapshot would
        // distort it.
        let is_batch = work.install.is_none() && !work.is_empty();
        if let Some(meta) = &work.install {
            let files = &hub.files.snapshots;
            self.executor.install(&mut self.state, files, meta)?;
            files.unpin();
        }
        let unanswered = self.execute(work, &share);
        let executed = sync::now();
        let replied = (!self.replies.is_empty()).then(|| {
            self.replies.flush();
            sync::now()
        });
        if is_batch {
            hub.stages.executed(began, executed, replied);
        }
        *hub.execution.gauges.lock() = self.state.gauges();
        let moved = self.executor.has_moved();
        let executor = &mut self.executor;
        let snapshot = hub.input(|replica| {
            replica.give_back(unanswered);
            executor.report(replica)
        });
        if moved {
            hub.has_moved();
        }
        if let Some(meta) = snapshot {
            let state = self.state.snapshot();
            hub.write_snapshot(Copied { meta, state });
        }
        self.slow = now() - started > PATIENCE;
        Ok(())
    }

    /// Executes the entries, then answers reads. Returns the reads that were left because the share
    /// was used up.
    fn execute(
        &mut self,
        work: Work<Waiter<S::Reply>>,
        share: &Share,
    ) -> ReadyReads<Waiter<S::Reply>> {
        for (entry, waiter) in work.entries {
            if let Some(result) = self.executor.execute(&mut self.state, &entry)
                && let Some(waiter) = waiter
            {
                reply::<S>(waiter, result, &mut self.replies);
            }
        }
        let mut reads = work.reads;
        if !reads.large.is_empty() {
            // The replies to writes leave now: to gather the large answers may take long.
            self.replies.flush();
        }
        let replies = &mut self.replies;
        reads.answer(&self.state, share, |waiter, answer| {
            reply::<S>(waiter, answer, replies);
        });
        reads
    }
}

impl<S: StateMachine> Hub<S> {
    /// Takes one share of the state machine's work from the replica, for
    /// [`finish_apply`](Self::finish_apply). Returns false if there is no work.
    ///
    /// Production does both under one lock, in [`apply`](Self::apply). For the simulator they are
    /// two steps: between them anything may happen that another thread could do meanwhile.
    pub fn begin_apply(&self) -> bool {
        self.execution.machine.lock().begin(self, self.shares().own)
    }

    /// Executes what [`begin_apply`](Self::begin_apply) took, and answers the requests that wait
    /// for it.
    ///
    /// # Errors
    /// [`NodeError`] if the state of a snapshot cannot be taken over.
    pub fn finish_apply(&self) -> Result<(), NodeError> {
        self.execution.machine.lock().finish(self)
    }

    /// The snapshot whose state the next [`finish_apply`](Self::finish_apply) takes over, if there
    /// is one.
    pub fn installing(&self) -> Option<SnapshotMeta> {
        let machine = self.execution.machine.lock();
        machine.taken.as_ref()?.0.install.clone()
    }

    /// The last entry that the machine has executed.
    pub fn executed(&self) -> EntryId {
        self.execution.machine.lock().executor.last()
    }

    /// Calls `look` with the state machine, between two commands.
    pub fn with_machine<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.execution.machine.lock().state)
    }

    /// Executes one share of the work. Returns false if there was no work.
    fn apply(&self) -> Result<bool, NodeError> {
        let mut machine = self.execution.machine.lock();
        let has_begun = machine.begin(self, self.shares().own);
        if has_begun {
            machine.finish(self)?;
        }
        Ok(has_begun)
    }

    /// The apply thread: executes until the node stops. Entries that are committed and not executed
    /// by then are left: all requests have ended, and the next start executes them from the log.
    pub(super) fn run_apply(&self, nudged: &Nudged) -> Result<(), NodeError> {
        while !self.is_stopping() {
            if !self.apply()? {
                nudged.wait();
            }
        }
        Ok(())
    }

    /// Executes one share of short work on the caller's thread, `rpc` or `replicator`. Returns
    /// false if work may be left: then the caller must wake the apply thread.
    pub(super) fn execute_here(self: &Arc<Self>) -> bool {
        // A machine that does not say that it is quick may take long, or hang. Elections and the
        // log must go on meanwhile.
        if !S::QUICK {
            return false;
        }
        // Another thread is executing. The caller wakes the apply thread, which waits for the
        // machine's lock and then looks for work.
        let Some(mut machine) = self.execution.machine.try_lock() else {
            return false;
        };
        if machine.slow || machine.taken.is_some() || self.is_stopping() {
            return false;
        }
        if !machine.begin(self, self.shares().here) {
            return true;
        }
        match machine.finish(self) {
            // If more work is left, the apply thread has been woken with the report to the replica.
            Ok(()) => true,
            Err(error) => {
                drop(machine);
                self.stop(Some(error));
                true
            }
        }
    }
}
