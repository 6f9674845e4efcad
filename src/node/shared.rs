//! What the threads of a node share, and the two things that each of them does with it: put
//! something in, and carry away what comes of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::apply::Machine;
use super::config::Config;
use super::outcome::{Outcome, Waiter, answer};
use super::replica::{End, Replica};
use super::scheduling::Scheduling;
use super::stages::Stages;
use super::sync::thread::JoinHandle;
use super::sync::{self, AtomicBool, AtomicU64, Condvar, Mutex, Nudged, Nudger, nudges};
use super::{NodeError, Transport, admissible, apply};
use crate::kv;
use crate::machine::{Gate, StateMachine};
use crate::net::Replies;
use crate::raft::{Envelope, Event, Fault, Index, NodeId, Removed};
use crate::storage::{SnapshotInfo, Snapshots, Spares, Unneeded};
use crate::wire::client::{Answer, Status};
use crate::wire::frame;

/// The largest command, in bytes: what is left of a frame for it, with a share for what surrounds
/// it.
const MAX_COMMAND: usize = frame::MAX_PAYLOAD - (64 << 10);

const _: () = assert!(
    kv::MAX_MESSAGE <= MAX_COMMAND,
    "the store's commands and replies fit a frame"
);

/// Lock order: `sending`, then `machine`, then `replica`; `gauges`, `unneeded` and `end` are taken
/// alone, and those of `stages` last, but not under `replica`. No system call is made and no waiter
/// is answered under `replica`.
pub(super) struct Shared<S: StateMachine> {
    pub config: Config,
    pub replica: Mutex<Replica<Waiter<S::Reply>>>,
    /// Signalled when there is work for the apply thread.
    pub work: Condvar,
    /// Signalled when a role, a term or the applied index has changed.
    pub changed: Condvar,
    /// Signalled when the node stops. Whoever waits for that alone is not woken by each command.
    ended: Condvar,
    signals: Signals,
    /// Held while messages are taken and sent, so that no thread overtakes another: a follower
    /// would take entries that overtake others for a loss.
    sending: Mutex<()>,
    transport: Arc<dyn Transport>,
    /// The snapshots on this node's disk.
    pub files: Snapshots,
    /// What makes the log's next segments ready.
    pub spares: Spares,
    /// Whoever holds it executes what is committed; see [`apply`](super::apply).
    pub machine: Mutex<Machine<S>>,
    /// The machine's gauges as they were after its last work. The machine itself is locked while it
    /// works, and nobody who asks for a status may wait for that.
    pub gauges: Mutex<Vec<(&'static str, u64)>>,
    gate: Gate,
    /// How long what takes.
    pub stages: Stages,
    pub log_bytes: AtomicU64,
    /// Up to here the log on disk is not needed any more.
    pub cut_to: AtomicU64,
    /// What the courier has to remove of it.
    unneeded: Mutex<VecDeque<Unneeded>>,
    /// The thread that wrote a snapshot last, or still does.
    snapshot_thread: Mutex<Option<JoinHandle<()>>>,
    /// How its busy threads come by a processor.
    pub scheduling: Scheduling,
    started: Instant,
    stopping: AtomicBool,
    end: Mutex<Option<NodeError>>,
}

/// The ways to wake the threads that wait for something else than the replica's lock.
pub(super) struct Signals {
    replicator: Nudger,
    courier: Nudger,
    /// Only ever nudged to end it.
    ticker: Nudger,
    /// Ends the event loop.
    on_stop: Box<dyn Fn() + Send + Sync>,
}

impl Signals {
    /// The signals, and their receiving ends: the replicator's, the courier's, the ticker's.
    pub fn new(on_stop: Box<dyn Fn() + Send + Sync>) -> (Self, [Nudged; 3]) {
        let ((replicator, first), (courier, second)) = (nudges(), nudges());
        let (ticker, third) = nudges();
        let signals = Self {
            replicator,
            courier,
            ticker,
            on_stop,
        };
        (signals, [first, second, third])
    }

    fn stop(&self) {
        self.replicator.nudge();
        self.courier.nudge();
        self.ticker.nudge();
        (self.on_stop)();
    }
}

/// What an input brought about that others have to act on.
struct Consequences<R> {
    ended: Vec<(Waiter<R>, End)>,
    events: Vec<Event>,
    fault: Option<Fault>,
    /// To be freed after the replica's lock was released.
    removed: Removed,
    has_write: bool,
    has_work: bool,
    has_errands: bool,
}

impl<R> Consequences<R> {
    fn of(replica: &mut Replica<Waiter<R>>) -> Self {
        Self {
            ended: replica.take_ended(),
            events: replica.take_events(),
            fault: replica.fault(),
            removed: replica.take_removed(),
            has_write: replica.has_write(),
            has_work: replica.has_work(),
            has_errands: replica.has_errands(),
        }
    }
}

impl<S: StateMachine> Shared<S> {
    pub fn new(
        config: Config,
        replica: Replica<Waiter<S::Reply>>,
        signals: Signals,
        transport: Arc<dyn Transport>,
        (files, spares): (Snapshots, Spares),
        machine: Machine<S>,
    ) -> Self {
        let started = sync::now();
        Self {
            config,
            stages: Stages::new(started),
            replica: Mutex::new(replica),
            work: Condvar::new(),
            changed: Condvar::new(),
            ended: Condvar::new(),
            signals,
            sending: Mutex::new(()),
            transport,
            files,
            spares,
            gate: machine.state.gate(),
            gauges: Mutex::new(machine.state.gauges()),
            machine: Mutex::new(machine),
            log_bytes: AtomicU64::new(0),
            cut_to: AtomicU64::new(0),
            unneeded: Mutex::new(VecDeque::new()),
            snapshot_thread: Mutex::new(None),
            scheduling: Scheduling::default(),
            started,
            stopping: AtomicBool::new(false),
            end: Mutex::new(None),
        }
    }

    /// Puts something into the replica and wakes whoever has to act on it.
    pub fn input<T>(&self, put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T) -> T {
        let at = sync::now();
        let mut replica = self.replica.lock();
        let result = put(&mut replica);
        let consequences = self.consequences(&mut replica, at);
        drop(replica);
        self.act(consequences);
        result
    }

    /// Puts something into the replica and sends the messages that may leave now.
    pub fn exchange<T>(&self, put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T) -> T {
        let (result, consequences) = self.exchanged(sync::now(), put);
        self.act(consequences);
        result
    }

    /// As [`exchange`](Self::exchange); and if the caller has the time for it, what has become due
    /// to be executed is executed at once, on this thread: to wake another one would take longer.
    /// What is put in came at the moment `at`.
    pub fn exchange_and_execute<T>(
        self: &Arc<Self>,
        at: Instant,
        put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T,
        has_time: impl FnOnce(&T) -> bool,
    ) -> T {
        let (result, mut consequences) = self.exchanged(at, put);
        let has_work = std::mem::take(&mut consequences.has_work);
        self.act(consequences);
        if has_work && !(has_time(&result) && apply::execute_here(self)) {
            self.work.notify_one();
        }
        result
    }

    fn exchanged<T>(
        &self,
        at: Instant,
        put: impl FnOnce(&mut Replica<Waiter<S::Reply>>) -> T,
    ) -> (T, Consequences<S::Reply>) {
        let sending = self.sending.lock();
        let mut replica = self.replica.lock();
        let result = put(&mut replica);
        let messages = replica.take_messages();
        let consequences = self.consequences(&mut replica, at);
        drop(replica);
        // Before the replicator is woken: the way of an entry over a follower's disk is longer than
        // over this node's own.
        if !messages.is_empty() {
            self.stages.sending(&messages);
            self.transport.send(messages);
        }
        drop(sending);
        (result, consequences)
    }

    /// What has come of an input that came at the moment `at`.
    fn consequences(
        &self,
        replica: &mut Replica<Waiter<S::Reply>>,
        at: Instant,
    ) -> Consequences<S::Reply> {
        let consequences = Consequences::of(replica);
        if consequences.has_write {
            self.stages.put_in(at);
        }
        consequences
    }

    /// Sends the messages that may leave now.
    pub fn send(&self) {
        self.exchange(|_| ());
    }

    /// Sends a message in whatever order: a part of a snapshot.
    pub fn transmit(&self, message: Envelope) {
        self.transport.send(vec![message]);
    }

    /// Lets the courier remove what the log does not need any more.
    pub fn leave_to_courier(&self, unneeded: Unneeded) {
        if !unneeded.is_empty() {
            self.unneeded.lock().push_back(unneeded);
            self.signals.courier.nudge();
        }
    }

    /// The next that is to be removed.
    pub fn next_unneeded(&self) -> Option<Unneeded> {
        self.unneeded.lock().pop_front()
    }

    /// Lets the courier make the log's next segment ready.
    pub fn want_spare(&self) {
        self.signals.courier.nudge();
    }

    /// Lets the replicator remove what the log holds up to `index`.
    pub fn cut_log(&self, index: Index) {
        self.cut_to.fetch_max(index, Ordering::SeqCst);
        self.signals.replicator.nudge();
    }

    fn act(&self, consequences: Consequences<S::Reply>) {
        if consequences.has_write {
            self.signals.replicator.nudge();
        }
        if consequences.has_errands {
            self.signals.courier.nudge();
        }
        if consequences.has_work {
            self.work.notify_one();
        }
        for event in &consequences.events {
            log::info!("{event}");
        }
        if !consequences.events.is_empty() {
            self.changed.notify_all();
        }
        if let Some(fault) = consequences.fault {
            self.stop(Some(NodeError::Fault(fault)));
        }
        self.end_all(consequences.ended);
        // Last: nobody waits for this.
        drop(consequences.removed);
    }

    fn end_all(&self, ended: Vec<(Waiter<S::Reply>, End)>) {
        let mut replies = Replies::new();
        for (waiter, end) in ended {
            match waiter {
                Waiter::Remote(to) => to.queue(self.answer(end), &mut replies),
                Waiter::Local(sender) => drop(sender.try_send(Outcome::Ended(end))),
            }
        }
    }

    pub fn answer(&self, end: End) -> Answer {
        answer(end, self.config.id, |id| self.address_of(id))
    }

    fn address_of(&self, id: NodeId) -> Option<String> {
        self.config.members.get(&id).cloned()
    }

    /// Whether a command may enter the log: the log must never hold what does not decode, as all
    /// replicas would fail on it, nor what no message can carry.
    pub fn admit(&self, command: &[u8]) -> Result<(), String> {
        if command.len() > MAX_COMMAND {
            return Err(format!(
                "the command has {} bytes; the limit is {MAX_COMMAND}",
                command.len()
            ));
        }
        (self.gate)(command)
    }

    /// Whether a peer's message may be handed to the core. If it holds a command that this node
    /// could never execute, the node stops instead; see [`admissible`]. Called without the
    /// replica's lock, for the gate reads every command.
    pub fn takes(&self, envelope: &Envelope) -> bool {
        let Some(found) = admissible::in_message(&self.gate, envelope) else {
            return true;
        };
        // The core drops what comes from a leader of an earlier term, as it would if the command
        // was sound: who sent it may have been put right since. A term never goes back, so what is
        // behind now is behind when the core gets it.
        if envelope.term < self.replica.lock().raft().term() {
            return true;
        }
        self.stop(Some(NodeError::Inadmissible(found)));
        false
    }

    /// How many ticks a request may take that asks for this time.
    pub fn deadline(&self, timeout: Duration) -> u64 {
        self.config.ticks(timeout.min(self.config.max_request_time))
    }

    pub fn status(&self) -> Status {
        let gauges = self.gauges.lock().clone();
        let stages = self.stages.lately();
        let replica = self.replica.lock();
        let raft = replica.raft();
        // Under the lock: what is not pending any more must be seen if it is there.
        let newest = self.files.newest();
        let transfers = raft.transfers().into_iter();
        let sending = transfers.map(|(to, received, snapshot)| (to, received, snapshot.bytes));
        Status {
            id: self.config.id,
            cluster: self.config.cluster.clone(),
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader(),
            members: self.config.members.clone().into_iter().collect(),
            active: raft.active(),
            commit: raft.commit(),
            applied: raft.applied_index(),
            last_index: raft.last().index,
            first_index: raft.first_index(),
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
            snapshot_index: newest.as_ref().map_or(0, |info| info.meta.last.index),
            snapshot_bytes: newest.as_ref().map_or(0, |info| info.bytes),
            snapshot_age_ms: newest.as_ref().map_or(0, age_ms),
            sending: sending.collect(),
            uptime_ms: u64::try_from((sync::now() - self.started).as_millis()).unwrap_or(u64::MAX),
            gauges: gauges
                .into_iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
            snapshot_pending: replica.snapshot_pending(),
            snapshot_written: match replica.snapshot_pending() {
                true => self.files.written(),
                false => 0,
            },
            stages,
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Ends all threads. The first reason given is the one that [`failure`](Self::failure)
    /// tells.
    pub fn stop(&self, reason: Option<NodeError>) {
        if let Some(error) = reason {
            let mut end = self.end.lock();
            if !self.is_stopping() && end.is_none() {
                log::error!("this node stops: {error}");
                *end = Some(error);
            }
        }
        // Under the lock, so that no thread is between looking at `stopping` and waiting.
        let mut replica = self.replica.lock();
        self.stopping.store(true, Ordering::SeqCst);
        replica.abandon();
        let consequences = Consequences::of(&mut replica);
        drop(replica);
        self.work.notify_all();
        self.changed.notify_all();
        self.ended.notify_all();
        // While the event loop still runs: it sends what waits before it ends.
        self.end_all(consequences.ended);
        self.signals.stop();
    }

    /// Why the node stopped, if not because it was told to.
    pub fn failure(&self) -> Option<NodeError> {
        self.end.lock().take()
    }

    /// Waits until the condition holds, or the node stops, or the time is up. Returns whether it
    /// holds.
    pub fn wait_until(
        &self,
        timeout: Duration,
        mut holds: impl FnMut(&Replica<Waiter<S::Reply>>) -> bool,
    ) -> bool {
        // None: longer than any clock runs.
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

    /// Keeps the thread that writes a snapshot, to be joined.
    pub fn keep_snapshot_thread(&self, thread: JoinHandle<()>) {
        *self.snapshot_thread.lock() = Some(thread);
    }

    pub fn take_snapshot_thread(&self) -> Option<JoinHandle<()>> {
        self.snapshot_thread.lock().take()
    }

    /// Waits until the node has been told to stop, or stops by itself.
    pub fn wait_for_end(&self) {
        let mut replica = self.replica.lock();
        while !self.is_stopping() {
            self.ended.wait(&mut replica);
        }
    }
}

/// How long ago the snapshot was taken; 0 if the clock has been set back since.
fn age_ms(info: &SnapshotInfo) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as u64);
    now_ms.saturating_sub(info.created_ms)
}
