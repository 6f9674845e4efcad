//! What the tasks of a node share: the replica under one lock, and the signals by which the tasks
//! wake each other.
//!
//! Each task puts inputs into the replica and then acts on the consequences: it wakes other tasks,
//! ends requests, sends messages. [`Hub::input`], [`Hub::exchange`] and
//! `Hub::exchange_and_execute` do both. The consequences of an input are collected before the
//! replica's lock is released, so there is never something to do of which no thread knows. They are
//! acted upon after the lock is released, so that no thread waits for a system call of another one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::announcing::Known;
use super::clock::Clock;
use super::config::Config;
use super::consequences::{Consequences, Errands, Wanted};
use super::execution::{Execution, Machine};
use super::files::Files;
use super::outcome::{Outcome, Waiter, answer, encode};
use super::replica::{End, Replica};
use super::scheduling::Scheduling;
use super::signals::{Task, Wake};
use super::stages::Stages;
use super::sync::{self, AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard};
use super::taker::Copied;
use super::work::{Share, Shares, Work};
use super::{NodeError, Transport, admissible};
use crate::kv;
use crate::machine::StateMachine;
use crate::net::Replies;
use crate::raft::{Envelope, Index, Raft, Write};
use crate::storage::Snapshots;
use crate::wire::client::Answer;
use crate::wire::frame;

/// The largest command, in bytes: the largest frame, less 64 KiB for the other fields of the
/// message that carries the command.
const MAX_COMMAND: usize = frame::MAX_PAYLOAD - (64 << 10);

const _: () = assert!(
    kv::MAX_MESSAGE <= MAX_COMMAND,
    "the store's commands and replies fit a frame"
);

/// What a node is given from outside: the network, a way to wake its tasks, the clock.
pub struct Surroundings {
    /// Takes messages to the other nodes.
    pub transport: Arc<dyn Transport>,
    /// Wakes the tasks of the node.
    pub wake: Wake,
    /// Called when the node stops, after all waiting requests have ended. It may be called more
    /// than once.
    pub on_stop: Box<dyn Fn() + Send + Sync>,
    /// The clock by which the node counts time.
    pub clock: Clock,
    /// How much a thread executes at a time. Tests set less than the [default](Shares::default), so
    /// that a batch ends before all its work is done.
    pub shares: Shares,
}

/// What the tasks of a node share.
///
/// Lock order: `sending`, then the machine's lock in `execution`, then `replica`. Under the locks
/// of `files`, `known`, `copied`, `end`, `scheduling` and `stages` no other lock of the hub is
/// taken; those of `stages` are not taken under `replica`. Under `replica` no system call is made
/// and no waiter is answered.
pub struct Hub<S: StateMachine> {
    pub(super) config: Config,
    replica: Mutex<Replica<Waiter<S::Reply>>>,
    /// Signalled when a role, a term, the applied index or the members have changed.
    pub(super) changed: Condvar,
    /// Signalled when the node stops. A condition of its own, so that a thread that waits for the
    /// end of the node is not woken by each command.
    ended: Condvar,
    surroundings: Surroundings,
    /// Held from before messages are taken out of the replica until they are sent. Otherwise a
    /// thread could send later messages first, and a follower that gets entries out of order
    /// refuses them as if the earlier ones had been lost.
    sending: Mutex<()>,
    /// What was announced of the members last.
    pub(super) known: Mutex<Known>,
    /// Whether another node has told this one that the cluster exists, and has its id with another
    /// folder.
    pub(super) is_stranger: AtomicBool,
    /// Whether this node may still help to found its cluster.
    pub(super) founds: AtomicBool,
    /// How many addresses are being probed.
    pub(super) probes: Arc<AtomicU64>,
    /// The identity of the state machine.
    pub(super) identity: String,
    pub(super) execution: Execution<S>,
    pub(super) files: Files,
    /// A copy of the state that is to be written as a snapshot. At most one: the replica lets no
    /// copy be made until the last one is written or has failed.
    copied: Mutex<Option<Copied<S>>>,
    pub(super) stages: Stages,
    /// Which scheduling policy the busy threads have.
    pub(super) scheduling: Scheduling,
    pub(super) started: Instant,
    stopping: AtomicBool,
    end: Mutex<Option<NodeError>>,
}

impl<S: StateMachine> Hub<S> {
    pub(super) fn new(
        config: Config,
        identity: String,
        replica: Replica<Waiter<S::Reply>>,
        machine: Machine<S>,
        files: Files,
        surroundings: Surroundings,
    ) -> Self {
        let started = sync::now();
        Self {
            known: Mutex::new(Known::at_start(replica.raft())),
            is_stranger: AtomicBool::new(false),
            founds: AtomicBool::new(!config.members.is_empty()),
            probes: Arc::default(),
            identity,
            config,
            replica: Mutex::new(replica),
            changed: Condvar::new(),
            ended: Condvar::new(),
            sending: Mutex::new(()),
            execution: Execution::new(machine),
            files,
            copied: Mutex::new(None),
            stages: Stages::new(started),
            scheduling: Scheduling::default(),
            surroundings,
            started,
            stopping: AtomicBool::new(false),
            end: Mutex::new(None),
        }
    }

    /// Locks the replica for a look at it. A thread that changes the replica has to act on the
    /// consequences.
    pub(super) fn replica(&self) -> MutexGuard<'_, Replica<Waiter<S::Reply>>> {
        self.replica.lock()
    }

    /// Calls `look` with the consensus core.
    pub fn with_raft<T>(&self, look: impl FnOnce(&Raft) -> T) -> T {
        look(self.replica.lock().raft())
    }

    /// Gives the replica an input, by `put`, and wakes the tasks that have to act on it. Messages
    /// stay in the replica until a thread takes them in an [`exchange`](Self::exchange): the
    /// replicator, which is woken if there is something to write, or the ticker with the next tick.
    pub fn input<T>(&self, put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T) -> T {
        let (result, consequences) = self.put_in(sync::now(), Wanted::NOTHING, put);
        self.act(consequences);
        result
    }

    /// As [`input`](Self::input), and sends the messages that may leave now.
    pub fn exchange<T>(&self, put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T) -> T {
        let (result, consequences) = self.exchanged(sync::now(), Wanted::MESSAGES, put);
        self.act(consequences);
        result
    }

    /// Takes the next errands from the replica, for the courier.
    pub(super) fn next_errands(&self) -> Errands {
        let ((), mut consequences) = self.exchanged(sync::now(), Wanted::ERRANDS, |_| ());
        let errands = std::mem::take(&mut consequences.errands);
        self.act(consequences);
        errands
    }

    /// Takes the next write from the replica, and sends the messages that may leave before it.
    pub(super) fn next_write(&self) -> Option<Write> {
        let ((), mut consequences) = self.exchanged(sync::now(), Wanted::WRITE, |_| ());
        let write = consequences.write.take();
        self.act(consequences);
        write
    }

    /// One share of the state machine's work; `None` if there is none. The threads know of the rest
    /// already, from the input that led to it.
    pub(super) fn next_work(&self, share: Share) -> Option<Work<Waiter<S::Reply>>> {
        let mut replica = self.replica.lock();
        let consequences = replica.output(Wanted::work(share));
        let work = consequences.work;
        if let Some(meta) = &work.install {
            // The snapshot is pinned before the replica's lock is released. When a newer snapshot
            // gets its final name, files of older ones are removed, and the core hears of the newer
            // one under this lock. If the pin came later, two newer snapshots could have had this
            // file removed.
            self.files.snapshots.pin(meta.last);
        }
        drop(replica);
        let notices = &consequences.disk_notices;
        self.tell(
            &consequences.events,
            &consequences.configuration_events,
            notices,
        );
        self.announce(consequences.news);
        self.end_all(consequences.ended);
        (consequences.left.work || !work.is_empty()).then_some(work)
    }

    /// As [`exchange`](Self::exchange), and executes on this thread the entries that have become
    /// committed: to wake the apply thread would take longer than the work. `at` is the moment at
    /// which the input came.
    ///
    /// If the thread wants a write and gets one, it executes nothing. The write comes first, for
    /// clients of the whole cluster wait for it, and the apply thread can execute meanwhile.
    pub(super) fn exchange_and_execute(
        self: &Arc<Self>,
        at: Instant,
        wanted: Wanted,
        put: impl FnOnce(&mut Replica<Waiter<S::Reply>>),
    ) -> Option<Write> {
        let ((), mut consequences) = self.exchanged(at, wanted, put);
        let write = consequences.write.take();
        let has_work = std::mem::take(&mut consequences.left.work);
        self.act(consequences);
        if has_work && !(write.is_none() && self.execute_here()) {
            self.wake(Task::Apply);
        }
        write
    }

    fn exchanged<T>(
        &self,
        at: Instant,
        wanted: Wanted,
        put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T,
    ) -> (T, Consequences<Waiter<S::Reply>>) {
        let sending = self.sending.lock();
        let (result, mut consequences) = self.put_in(at, wanted, put);
        let messages = std::mem::take(&mut consequences.messages);
        // Messages leave before the replicator is woken: a follower needs a round trip and a sync
        // to acknowledge an entry, and this node's disk only the sync.
        if !messages.is_empty() {
            self.stages.sending(&messages);
            self.surroundings.transport.send(messages);
        }
        drop(sending);
        (result, consequences)
    }

    /// Gives the replica an input, by `put`, that came at the moment `at`, and collects the
    /// consequences. The caller carries out the work that it `wanted`; the rest is for
    /// [`act`](Self::act).
    fn put_in<T>(
        &self,
        at: Instant,
        wanted: Wanted,
        put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T,
    ) -> (T, Consequences<Waiter<S::Reply>>) {
        let mut replica = self.replica.lock();
        let result = put(&mut replica);
        let consequences = replica.output(wanted);
        if consequences.write.is_some() {
            self.stages.taken();
        }
        if consequences.left.write {
            self.stages.put_in(at);
        }
        (result, consequences)
    }

    /// Wakes the tasks that have work, and ends requests.
    fn act(&self, consequences: Consequences<Waiter<S::Reply>>) {
        if let Some(fault) = consequences.fault {
            self.stop(Some(NodeError::Fault(fault)));
        }
        if consequences.left.write {
            self.wake(Task::Replicate);
        }
        if consequences.left.errands {
            self.wake(Task::Carry);
        }
        if consequences.left.work {
            self.wake(Task::Apply);
        }
        let notices = &consequences.disk_notices;
        self.tell(
            &consequences.events,
            &consequences.configuration_events,
            notices,
        );
        self.announce(consequences.news);
        self.end_all(consequences.ended);
        drop(consequences.removed);
    }

    fn end_all(&self, ended: Vec<(Waiter<S::Reply>, End)>) {
        let mut replies = Replies::new();
        for (waiter, end) in ended {
            match waiter {
                Waiter::Remote(to) => to.queue(self.answer_to_end(end), &mut replies),
                Waiter::Local(tell) => tell(Outcome::Ended(end)),
            }
        }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.surroundings.shares
    }

    pub(super) fn clock(&self) -> Clock {
        self.surroundings.clock
    }

    pub(super) fn wake(&self, task: Task) {
        (self.surroundings.wake)(task);
    }

    /// Sends a part of a snapshot. The order of parts and other messages does not matter, for the
    /// receiver looks at the offset of each part.
    pub(super) fn transmit(&self, message: Envelope) {
        self.surroundings.transport.send(vec![message]);
    }

    /// The answer that a client gets to a request with this outcome.
    pub fn answer(&self, outcome: Outcome<S::Reply>) -> Answer {
        match outcome {
            Outcome::Reply(reply) => encode::<S>(&reply),
            Outcome::Invalid(sentence) => Answer::Invalid(sentence),
            Outcome::Ended(end) => self.answer_to_end(end),
        }
    }

    pub(super) fn answer_to_end(&self, end: End) -> Answer {
        let shortage = match end {
            End::NoSpace => self.files.spares.shortage(),
            _ => None,
        };
        answer(end, self.config.id, shortage, |id| self.address_of(id))
    }

    /// Whether a command may enter the log. The log must not hold a command that does not decode,
    /// for every replica would fail on it, nor one that no message can carry, for no follower would
    /// get it.
    pub(super) fn admit(&self, command: &[u8]) -> Result<(), String> {
        if command.len() > MAX_COMMAND {
            return Err(format!(
                "the command has {} bytes; the limit is {MAX_COMMAND}",
                command.len()
            ));
        }
        (self.execution.gate())(command)
    }

    /// Whether a peer's message may be handed to the core. If it holds a command that this node
    /// could never execute, the node stops instead; see [`admissible`]. Called without the
    /// replica's lock, for the gate reads every command.
    pub(super) fn takes(&self, envelope: &Envelope) -> bool {
        let Some(found) = admissible::in_message(self.execution.gate(), envelope) else {
            return true;
        };
        // The core drops a message of an earlier term without looking at its entries, so it does no
        // harm there, and its sender may have been repaired since. The node's term never goes back:
        // a message of an earlier term is still of an earlier term when the core gets it.
        if envelope.term < self.with_raft(Raft::term) {
            return true;
        }
        self.stop(Some(NodeError::Inadmissible(found)));
        false
    }

    /// The number of ticks after which a request that asks for this time ends.
    pub(super) fn deadline(&self, timeout: Duration) -> u64 {
        self.config.ticks(timeout.min(self.config.max_request_time))
    }

    /// The snapshots on the node's disk.
    pub fn snapshots(&self) -> &Snapshots {
        &self.files.snapshots
    }

    /// What was found damaged in this node's files, and is not repaired.
    pub fn damage(&self) -> Option<String> {
        self.files.damage()
    }

    /// The index up to which, inclusive, the replicator is to drop the log on disk; 0 if nothing is
    /// to be dropped.
    pub fn cut_to(&self) -> Index {
        self.files.cut_to()
    }

    /// Leaves a copy of the state to the taker of snapshots.
    pub(super) fn write_snapshot(&self, copied: Copied<S>) {
        *self.copied.lock() = Some(copied);
        self.wake(Task::TakeSnapshot);
    }

    pub(super) fn next_copied(&self) -> Option<Copied<S>> {
        self.copied.lock().take()
    }

    /// Whether the node stops, or has stopped.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Ends all tasks. [`failure`](Self::failure) tells the first reason that was given.
    pub fn stop(&self, reason: Option<NodeError>) {
        if let Some(error) = reason {
            let mut end = self.end.lock();
            if !self.is_stopping() && end.is_none() {
                log::error!("this node stops: {error}");
                *end = Some(error);
            }
        }
        // Set under the lock: a thread that waits for a condition looks at `stopping` under the
        // same lock, so it sees the mark, or waits already when it is notified.
        let mut replica = self.replica.lock();
        self.stopping.store(true, Ordering::SeqCst);
        replica.abandon();
        let consequences = replica.output(Wanted::NOTHING);
        drop(replica);
        self.changed.notify_all();
        self.ended.notify_all();
        // The waiting requests are answered before the event loop is told to end: it still sends
        // the answers, and then closes.
        self.end_all(consequences.ended);
        let tasks = [
            Task::Apply,
            Task::Replicate,
            Task::Carry,
            Task::TakeSnapshot,
            Task::Tick,
            Task::Scrub,
        ];
        tasks.into_iter().for_each(|task| self.wake(task));
        (self.surroundings.on_stop)();
    }

    /// Why the node stopped, unless it was told to. Only the first call returns the reason.
    pub fn failure(&self) -> Option<NodeError> {
        self.end.lock().take()
    }

    /// The machine has executed entries: wakes the threads that wait for that.
    pub(super) fn has_moved(&self) {
        self.changed.notify_all();
    }

    /// Something has changed that a thread may wait for and that the replica's lock does not guard.
    /// With the lock taken once, a thread that waits has either seen the change or waits already.
    pub(super) fn look_again(&self) {
        drop(self.replica.lock());
        self.changed.notify_all();
    }

    /// The way to the other nodes.
    pub(super) fn transport(&self) -> &dyn Transport {
        &*self.surroundings.transport
    }

    /// Waits until the condition holds, or the node stops, or the time is up. Returns whether it
    /// holds.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        mut holds: impl FnMut(&Replica<Waiter<S::Reply>>) -> bool,
    ) -> bool {
        // `None` if the deadline lies beyond what the clock can count to.
        let deadline = sync::now().checked_add(timeout);
        let mut replica = self.replica.lock();
        loop {
            if holds(&replica) {
                return true;
            }
            if self.is_stopping() {
                return false;
            }
            let Some(deadline) = deadline else {
                self.changed.wait(&mut replica);
                continue;
            };
            if self.changed.wait_until(&mut replica, deadline).timed_out() {
                return holds(&replica);
            }
        }
    }

    /// Waits until the node has been told to stop, or stops by itself.
    pub(super) fn wait_for_end(&self) {
        let mut replica = self.replica.lock();
        while !self.is_stopping() {
            self.ended.wait(&mut replica);
        }
    }
}
