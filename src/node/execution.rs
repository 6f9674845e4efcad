//! Executing what is committed, in log order, and answering those who wait for it.
//!
//! Whoever holds the machine's lock executes. With a [quick](StateMachine::QUICK) machine that is
//! most of the time the thread that has committed: to wake another one would take longer than the
//! work. The apply thread does the rest: what comes while somebody executes, a snapshot to be
//! installed, reads with large answers, and all else that is too slow for a thread that others wait
//! for. It works in batches, and begins each of them with what is committed by then: so a write
//! waits for a page or two of a scan at the most, however many scans there are.
//!
//! Who executes is decided here alone: [`Hub::execute_here`] says no, or executes, and
//! [`Hub::apply`] does all that it left.

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

/// A machine that took this long for its last work is left to the apply thread.
const PATIENCE: Duration = Duration::from_millis(2);

/// The state machine and what others may know of it without waiting for it.
pub(super) struct Execution<S: StateMachine> {
    /// Who holds it executes what is committed.
    machine: Mutex<Machine<S>>,
    /// The machine's gauges as they were after its last work. The machine itself is locked while it
    /// works, and nobody who asks for a status may wait for that.
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

/// The state machine, and how far it has come.
pub(super) struct Machine<S: StateMachine> {
    state: S,
    executor: Executor,
    /// What was taken from the replica and is not executed yet.
    taken: Option<(Work<Waiter<S::Reply>>, Share)>,
    replies: Replies,
    /// Whether its last work took longer than [`PATIENCE`].
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

    /// Takes one share of what there is to do. False if there is nothing.
    fn begin(&mut self, hub: &Hub<S>, share: Share) -> bool {
        assert!(self.taken.is_none(), "the machine does one thing at a time");
        let mut replica = hub.replica();
        if !replica.has_work() {
            return false;
        }
        let work = replica.take_work(share);
        if let Some(meta) = &work.install {
            // Under the replica's lock: while it is held, no two newer snapshots can take this
            // one's place and have its file removed.
            hub.files.snapshots.pin(meta.last);
        }
        self.taken = Some((work, share));
        true
    }

    /// Does what was taken.
    fn finish(&mut self, hub: &Hub<S>) -> Result<(), NodeError> {
        let Some((work, share)) = self.taken.take() else {
            return Ok(());
        };
        let now = hub.clock().now;
        let (began, started) = (sync::now(), now());
        // To take over a snapshot is not what a batch takes.
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

    /// Returns the reads that were too much for this share.
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
            // A client that has written does not wait for what others read.
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
    /// Takes one share of what there is to execute, for [`finish_apply`](Self::finish_apply). False
    /// if there is nothing.
    ///
    /// Production does both under one lock, in [`apply`](Self::apply). For the simulator they are
    /// two steps: between them anything may happen that another thread could do meanwhile.
    pub fn begin_apply(&self) -> bool {
        self.execution.machine.lock().begin(self, self.shares().own)
    }

    /// Executes what was taken and answers those who wait.
    ///
    /// # Errors
    /// [`NodeError`] if a snapshot cannot be taken over, or a command does not decode.
    pub fn finish_apply(&self) -> Result<(), NodeError> {
        self.execution.machine.lock().finish(self)
    }

    /// The snapshot whose state [`finish_apply`](Self::finish_apply) takes over, if it does.
    pub fn installing(&self) -> Option<SnapshotMeta> {
        let machine = self.execution.machine.lock();
        machine.taken.as_ref()?.0.install.clone()
    }

    /// The last entry that the machine has executed.
    pub fn executed(&self) -> EntryId {
        self.execution.machine.lock().executor.last()
    }

    /// Looks at the state machine, between two commands.
    pub fn with_machine<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.execution.machine.lock().state)
    }

    /// Executes one share of what is committed. Returns whether there was any.
    fn apply(&self) -> Result<bool, NodeError> {
        let mut machine = self.execution.machine.lock();
        let has_begun = machine.begin(self, self.shares().own);
        if has_begun {
            machine.finish(self)?;
        }
        Ok(has_begun)
    }

    /// The apply thread: executes until the node stops. Not what is left then: nobody waits for it
    /// any more, and a restart executes it again.
    pub(super) fn run_apply(&self, nudged: &Nudged) -> Result<(), NodeError> {
        while !self.is_stopping() {
            if !self.apply()? {
                nudged.wait();
            }
        }
        Ok(())
    }

    /// Executes on the caller's thread, which others wait for, what is short enough for it. False
    /// if anything was left to the apply thread, which is to be woken then.
    pub(super) fn execute_here(self: &Arc<Self>) -> bool {
        // A machine that does not say that it is quick may take its time, or hang: elections and
        // the log must go on.
        if !S::QUICK {
            return false;
        }
        // Somebody executes already: the apply thread looks again when that is done.
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
            Ok(()) => !self.replica().has_work(),
            Err(error) => {
                drop(machine);
                self.stop(Some(error));
                true
            }
        }
    }
}
