//! A running node. It carries as the threads of `node::threads` and the event loop's service do:
//! what they do under one lock is one step here, and between two of their steps time passes, in
//! which anything else may happen.

use bytes::Bytes;

use super::check::Promised;
use super::durable::Durable;
use super::executing::Applying;
use super::snapshots::{Errands, Placing, Taking};
use super::trace::trace;
use super::world::{Event, TICK, World};
use super::{Failure, Time};
use raftkv::kv::Kv;
use raftkv::machine::{Gate, StateMachine};
use raftkv::node::{Executor, Replica, answer};
use raftkv::raft::{Envelope, Index, NodeId, RoleName, Write};
use raftkv::storage::{SimDisk, Snapshots, Storage};
use raftkv::wire::client::{Answer, Ask};
use raftkv::wire::codec;

/// How many packets wait for a node that does not read them.
const MAX_INBOX: usize = 2000;
/// Ticks that are made up for after a pause; see `node::threads::ticker`.
const MOST_TICKS: u64 = 5;
/// The longest that a node lets a request take, in ticks.
const MAX_REQUEST_TICKS: u64 = 3000;

/// Who waits for a request's end. Copies that the network made have the attempt zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub client: usize,
    pub attempt: u64,
}

/// What arrives at a node.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Peer(Bytes),
    Request {
        from: Waiter,
        timeout: Time,
        ask: Ask,
    },
}

/// What a node does next, each as one of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Tick,
    Rpc,
    Replicate,
    Written,
    /// The log has been cut.
    Cut,
    Apply,
    Applied,
    /// The thread that writes a snapshot takes its next step.
    Take,
    /// The courier ends an errand.
    Errand,
}

/// A node, running or not.
pub(super) struct Node {
    pub disk: SimDisk,
    /// Counts the starts; steps of an earlier life are dropped.
    pub life: u64,
    pub running: Option<Running>,
    /// Its disk is damaged, so it must refuse to start, and stays down.
    pub damaged: bool,
    /// It is down for good, though nothing is wrong with it.
    pub retired: bool,
    /// How long it takes a tick to be.
    pub tick: Time,
    /// Whether it has ever been up: only then its folder is complete.
    pub was_up: bool,
    /// Whether a copy of its vote has been damaged since it was last up.
    pub has_one_vote: bool,
    pub slow_disk: bool,
    /// The next write is to fail at this operation, counted from its start.
    pub fail_next: Option<u64>,
    pub durable: Durable,
    pub promised: Promised,
}

/// What is lost when the process ends.
pub(super) struct Running {
    pub replica: Replica<Waiter>,
    pub storage: Storage,
    pub files: Snapshots,
    pub machine: Kv,
    pub executor: Executor,
    pub gate: Gate,
    inbox: Vec<Packet>,
    /// Whether the event loop has been woken up.
    rpc_woken: bool,
    /// Whether the replicator is between two writes or in one.
    pub replicating: bool,
    pub writing: Option<Write>,
    /// Up to here the log on disk is not needed any more, and is being cut.
    pub cut_to: Index,
    pub cutting: Option<Index>,
    pub taking: Option<Taking>,
    pub errands: Errands,
    pub placing: Option<Placing>,
    pub applying: Option<Applying>,
    pub apply_woken: bool,
    next_tick: Time,
    /// What would have happened during a pause.
    pub paused: Option<Vec<Step>>,
    /// The canonical log has been compared up to here.
    pub checked: Index,
}

impl Running {
    /// Whether something is being done to the disk.
    pub fn is_writing(&self) -> bool {
        let log = self.writing.is_some() || self.cutting.is_some();
        log || self.taking.is_some() || self.errands.busy
    }

    pub fn new(
        replica: Replica<Waiter>,
        storage: Storage,
        machine: Kv,
        executor: Executor,
        now: Time,
    ) -> Self {
        Self {
            checked: executor.last().index,
            replica,
            files: storage.snapshots(),
            storage,
            executor,
            gate: machine.gate(),
            machine,
            inbox: Vec::new(),
            rpc_woken: false,
            replicating: false,
            writing: None,
            cut_to: 0,
            cutting: None,
            taking: None,
            errands: Errands::default(),
            placing: None,
            applying: None,
            apply_woken: false,
            next_tick: now + TICK,
            paused: None,
        }
    }
}

impl World {
    pub(super) fn running(&mut self, n: usize) -> &mut Running {
        let running = self.nodes[n].running.as_mut();
        running.expect("only a node that runs is asked to do something")
    }

    pub(super) fn later(&mut self, n: usize, delay: Time, step: Step) {
        let life = self.nodes[n].life;
        let event = Event::Node(n, life, step);
        self.queue.add(self.now + delay, event);
    }

    /// A moment that a thread takes to get going.
    pub(super) fn soon(&mut self, n: usize, step: Step) {
        let delay = 5 + self.random.below(100);
        self.later(n, delay, step);
    }

    pub(super) fn step(&mut self, n: usize, life: u64, step: Step) -> Result<(), Failure> {
        if self.nodes[n].life != life || self.nodes[n].running.is_none() {
            return Ok(());
        }
        if let Some(held) = &mut self.running(n).paused {
            held.push(step);
            return Ok(());
        }
        match step {
            Step::Tick => self.tick(n),
            Step::Rpc => self.rpc(n),
            Step::Replicate => self.replicate(n),
            Step::Written => self.written(n),
            Step::Cut => self.log_cut(n),
            Step::Apply => self.apply(n),
            Step::Applied => self.applied(n),
            Step::Take => self.take(n),
            Step::Errand => self.run_errand(n),
        }
    }

    /// Sets off the threads of a node that has just started.
    pub(super) fn set_off(&mut self, n: usize) {
        if self.plan.clocks_differ && self.faults_go_on {
            self.nodes[n].tick = self.random.between(TICK * 7 / 10, TICK * 14 / 10);
        }
        let first = self.random.below(TICK);
        self.running(n).next_tick = self.now + first;
        self.later(n, first, Step::Tick);
    }

    pub(super) fn wake(&mut self, n: usize) {
        if let Some(held) = self.running(n).paused.take() {
            trace!(self, "node {} wakes up", n + 1);
            held.into_iter().for_each(|step| self.soon(n, step));
        }
    }

    fn tick(&mut self, n: usize) -> Result<(), Failure> {
        let (now, tick) = (self.now, self.nodes[n].tick);
        let running = self.running(n);
        let passed = 1 + (now - running.next_tick) / tick;
        running.next_tick += passed * tick;
        let next = running.next_tick - now;
        self.later(n, next, Step::Tick);
        let absent = self.seems_absent(n);
        self.input(n, |replica| {
            (0..passed.min(MOST_TICKS)).for_each(|_| replica.tick());
            absent.into_iter().for_each(|peer| replica.absent(peer));
        })?;
        self.send(n)
    }

    /// A peer at whose address, as a node finds, nobody listens.
    fn seems_absent(&mut self, n: usize) -> Option<NodeId> {
        if self.plan.notices == 0.0 {
            return None;
        }
        let other = self.random.below(self.nodes.len() as u64) as usize;
        let likely = match self.nodes[other].running {
            None => self.plan.notices,
            Some(_) if self.faults_go_on => self.plan.false_alarms,
            Some(_) => 0.0,
        };
        (other != n && self.random.chance(likely)).then_some(other as NodeId + 1)
    }

    /// Something has arrived for a node.
    pub(super) fn arrive(&mut self, n: usize, packet: Packet) {
        if self.nodes[n].running.is_none() {
            self.refuse_connection(n, &packet);
            return;
        }
        let running = self.running(n);
        if running.inbox.len() >= MAX_INBOX {
            return;
        }
        running.inbox.push(packet);
        if !running.rpc_woken {
            running.rpc_woken = true;
            self.soon(n, Step::Rpc);
        }
    }

    /// What the event loop has read goes in under one lock; see `node::service`.
    fn rpc(&mut self, n: usize) -> Result<(), Failure> {
        let running = self.running(n);
        running.rpc_woken = false;
        let gate = running.gate.clone();
        let packets = std::mem::take(&mut running.inbox);
        let mut answers = Vec::new();
        let mut transfers = Vec::new();
        self.input(n, |replica| {
            for packet in packets {
                match packet {
                    Packet::Peer(bytes) => {
                        let envelope = codec::decode::<Envelope>(&bytes);
                        replica.step(envelope.expect("it was encoded by a node"));
                    }
                    Packet::Request { from, timeout, ask } => {
                        let ticks = timeout.div_ceil(TICK).min(MAX_REQUEST_TICKS);
                        match ask {
                            Ask::Submit(command) => match gate(&command) {
                                Ok(()) => drop(replica.submit(command, ticks, from)),
                                Err(sentence) => answers.push((from, Answer::Invalid(sentence))),
                            },
                            Ask::Query(query) => replica.query(query, ticks, from),
                            Ask::Transfer(to) => transfers.push(to),
                            Ask::Snapshot => drop(replica.want_snapshot()),
                            // What no simulated client asks for.
                            Ask::Status => {}
                        }
                    }
                }
            }
            for to in transfers {
                replica.transfer(to);
            }
        })?;
        for (waiter, answer) in answers {
            self.carry_answer(n, waiter, Ok(answer));
        }
        self.send(n)
    }

    /// The replicator's round: send, then one write after the other; see `node::threads`.
    fn replicate(&mut self, n: usize) -> Result<(), Failure> {
        self.send(n)?;
        let cut_to = std::mem::take(&mut self.running(n).cut_to);
        if cut_to > 0 {
            self.running(n).cutting = Some(cut_to);
            let took = self.disk_time(n);
            self.later(n, took, Step::Cut);
            return Ok(());
        }
        self.write(n)
    }

    fn log_cut(&mut self, n: usize) -> Result<(), Failure> {
        let up_to = self.running(n).cutting.take();
        let up_to = up_to.expect("the log is being cut");
        match self.cut(n, up_to)? {
            true => self.write(n),
            false => Ok(()),
        }
    }

    fn write(&mut self, n: usize) -> Result<(), Failure> {
        let write = self.input(n, |replica| replica.take_write())?;
        match write {
            Some(write) => {
                let took = self.disk_time(n);
                self.running(n).writing = Some(write);
                self.later(n, took, Step::Written);
            }
            // A nudge that came meanwhile is still there.
            None if self.running(n).cut_to > 0 => self.soon(n, Step::Replicate),
            None => self.running(n).replicating = false,
        }
        Ok(())
    }

    fn written(&mut self, n: usize) -> Result<(), Failure> {
        let write = self.running(n).writing.take();
        let write = write.expect("only a write that is under way is done");
        let id = write.id;
        if !self.store(n, write)? {
            return Ok(());
        }
        self.input(n, |replica| replica.durable(id))?;
        self.send(n)?;
        self.write(n)
    }

    /// Puts something into the replica and wakes whoever has to act on it; see `node::shared`.
    pub(super) fn input<T>(
        &mut self,
        n: usize,
        put: impl FnOnce(&mut Replica<Waiter>) -> T,
    ) -> Result<T, Failure> {
        let result = put(&mut self.running(n).replica);
        self.consequences(n)?;
        Ok(result)
    }

    pub(super) fn send(&mut self, n: usize) -> Result<(), Failure> {
        let messages = self.running(n).replica.take_messages();
        for envelope in messages {
            let node = &mut self.nodes[n];
            let running = node.running.as_ref().expect("it runs");
            node.promised
                .note(&envelope, running.replica.raft(), &self.checks);
            self.carry_message(n, envelope);
        }
        self.consequences(n)
    }

    pub(super) fn consequences(&mut self, n: usize) -> Result<(), Failure> {
        let replica = &mut self.running(n).replica;
        let (ended, events) = (replica.take_ended(), replica.take_events());
        let (has_write, has_work) = (replica.has_write(), replica.has_work());
        let has_errands = replica.has_errands();
        drop(replica.take_removed());
        for event in events {
            trace!(self, "node {}: {event}", n + 1);
            if event.role == RoleName::Leader {
                self.elected(n);
            }
        }
        let running = self.nodes[n].running.as_mut().expect("it runs");
        let before = running.checked;
        self.checks.node(n, self.now, running)?;
        let raft = running.replica.raft();
        if running.checked > before && raft.role() == RoleName::Leader {
            self.has_committed(n);
        }
        let running = self.running(n);
        if has_write && !running.replicating {
            running.replicating = true;
            self.soon(n, Step::Replicate);
        }
        let running = self.running(n);
        if has_errands && !running.errands.busy {
            running.errands.busy = true;
            self.soon(n, Step::Errand);
        }
        let running = self.running(n);
        if has_work && !running.apply_woken && running.applying.is_none() {
            running.apply_woken = true;
            self.soon(n, Step::Apply);
        }
        let id = n as NodeId + 1;
        for (waiter, end) in ended {
            let answer = answer(end, id, |id| Some(address(id as usize - 1)));
            self.carry_answer(n, waiter, Ok(answer));
        }
        Ok(())
    }
}

/// The address of a node, as clients know it.
pub(super) fn address(n: usize) -> String {
    format!("node{}:7000", n + 1)
}
