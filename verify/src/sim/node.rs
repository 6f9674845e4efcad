//! A simulated node. It is made of the same parts as a node in production, and each of its steps
//! calls the same function ([`raftkv::node::steps`]) as the thread of that name. Between two steps
//! virtual time passes, and other events may happen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftkv::kv::Kv;
use raftkv::node::steps::{Courier, Hub, Intake, Parts, Replicator, Scrubber, Taker, Task, Ticker};
use raftkv::node::{NodeError, steps};
use raftkv::raft::{
    EntryId, Envelope, FolderId, Index, LoggedConfiguration, MemberRole, NodeId, RoleName, Term,
};
use raftkv::storage::SimDisk;
use raftkv::wire::client::Ask;
use raftkv::wire::codec;

use super::check::Promised;
use super::clock::{self, Board};
use super::durable::Durable;
use super::greeting::{Called, Greeter, Welcomed};
use super::members::{Joining, Talk};
use super::outside::{Outside, State, Watched};
use super::rot::SentParts;
use super::trace::trace;
use super::world::{Event, TICK, World};
use super::{Failure, Time};

/// How many packets wait for a node that does not read them.
const MAX_INBOX: usize = 2000;

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
    Hello(Called),
    Welcome(Welcomed),
    Members(Talk),
    Request {
        from: Waiter,
        timeout: Time,
        ask: Ask,
    },
}

/// What a node does next, each as one of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The event loop puts in what has arrived.
    Rpc,
    /// A task goes on.
    Run(Task),
    /// What is known of other nodes is written down.
    Register,
}

/// A node, running or not.
pub(super) struct Node {
    pub disk: SimDisk,
    /// The number of its folder; none before the folder was complete.
    pub folder: Option<FolderId>,
    /// Counts the starts; steps of an earlier life are dropped.
    pub life: u64,
    pub running: Option<Running>,
    /// Its disk is damaged, so it must refuse to start, and stays down.
    pub damaged: bool,
    /// Bits have flipped since its last start, and what comes of that is not known yet.
    pub at_risk: bool,
    /// It is down for good, though nothing is wrong with it.
    pub retired: bool,
    /// Whether its folder is admitted, as far as is known here.
    pub admitted: bool,
    /// Whether no folder of this node was ever lost.
    pub has_first_folder: bool,
    /// How long it takes a tick to be.
    pub tick: Time,
    /// Whether it has ever been up: only then its folder is complete.
    pub was_up: bool,
    /// Whether a copy of its vote has been damaged since it was last up.
    pub has_one_vote: bool,
    /// As what a node that is no founder asks for a place from the beginning, if it does.
    pub joins: Option<MemberRole>,
    /// Since when it leads, if it does.
    pub leads_since: Time,
    /// How many times longer than usual its disk takes.
    pub slowness: Time,
    /// The next write is to fail at this operation, counted from its start.
    pub fail_next: Option<u64>,
    pub durable: Durable,
    pub promised: Promised,
}

/// What is lost when the process ends.
pub(super) struct Running {
    pub hub: Arc<Hub<Watched>>,
    intake: Intake<Watched>,
    pub replicator: Replicator,
    pub courier: Courier,
    pub taker: Taker<Watched>,
    ticker: Ticker,
    pub scrubber: Scrubber,
    /// What it has sent of its snapshots.
    pub sent: SentParts,
    /// Whether it asks for a place.
    pub joining: Joining,
    /// None where all know each other from the start.
    pub greeter: Option<Greeter>,
    pub outside: Arc<Outside>,
    board: Board,
    inbox: Vec<Packet>,
    /// Whether the event loop has been woken up.
    rpc_woken: bool,
    /// The tasks that have a step ahead of them.
    awake: Vec<Task>,
    /// Whether the apply thread has taken work and not executed it yet.
    applying: bool,
    /// What would have happened during a pause.
    pub paused: Option<Vec<Step>>,
    /// The canonical log has been compared up to here.
    pub checked: Index,
    /// The configuration in force when it was last looked at.
    pub configuration: LoggedConfiguration,
    /// What it was when it was last looked at.
    pub seen: (RoleName, Term, Option<NodeId>),
}

impl Running {
    pub fn new(
        parts: Parts<Watched>,
        greeter: Option<Greeter>,
        outside: Arc<Outside>,
        board: Board,
    ) -> Self {
        let Parts {
            hub,
            replicator,
            courier,
            taker,
            ticker,
            scrubber,
        } = parts;
        Self {
            checked: hub.executed().index,
            configuration: hub.with_raft(|raft| raft.configuration().clone()),
            seen: (RoleName::Follower, 0, None),
            intake: Intake::new(hub.clone()),
            hub,
            replicator,
            courier,
            taker,
            ticker,
            scrubber,
            sent: SentParts::default(),
            joining: Joining::Not,
            greeter,
            outside,
            board,
            inbox: Vec::new(),
            rpc_woken: false,
            awake: Vec::new(),
            applying: false,
            paused: None,
        }
    }

    /// Whether something is being done to the disk.
    pub fn is_writing(&self) -> bool {
        let on_disk = [Task::Carry, Task::TakeSnapshot];
        self.replicator.under_way().is_some()
            || on_disk.iter().any(|task| self.awake.contains(task))
    }

    /// From now on a tick takes so much virtual time.
    pub fn set_tick(&mut self, now: Time, tick: Time) {
        self.board.set_tick(now, tick);
    }

    /// The state of its machine.
    pub fn state(&self) -> Kv {
        self.hub.with_machine(|machine| machine.kv.clone())
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
    fn soon(&mut self, n: usize, step: Step) {
        let delay = 5 + self.random.below(100);
        self.later(n, delay, step);
    }

    /// Time that a step takes on the disk.
    pub(super) fn disk_time(&mut self, n: usize) -> Time {
        let mean = self.plan.sync * self.nodes[n].slowness;
        20 + self.random.exponential(mean)
    }

    pub(super) fn step(&mut self, n: usize, life: u64, step: Step) -> Result<(), Failure> {
        if self.nodes[n].life != life || self.nodes[n].running.is_none() {
            return Ok(());
        }
        if let Some(held) = &mut self.running(n).paused {
            held.push(step);
            return Ok(());
        }
        clock::begin_step(self.now, self.random.number());
        self.failed_reads(n);
        let result = match step {
            Step::Rpc => {
                self.rpc(n);
                Ok(())
            }
            Step::Run(Task::Tick) => {
                self.tick(n);
                Ok(())
            }
            Step::Run(Task::Scrub) => self.scrub(n),
            Step::Run(Task::Apply) => self.apply(n)?,
            Step::Register => self.register(n),
            Step::Run(task) => self.use_disk(n, task)?,
        };
        if let Err(error) = result {
            // As the thread does that carries out the task.
            self.running(n).hub.stop(Some(error));
        }
        self.settle(n)
    }

    /// Sets off the threads of a node that has just started.
    pub(super) fn set_off(&mut self, n: usize) -> Result<(), Failure> {
        if self.plan.clocks_differ && self.faults_go_on {
            let (now, tick) = (self.now, self.random.between(TICK * 7 / 10, TICK * 14 / 10));
            self.nodes[n].tick = tick;
            self.running(n).set_tick(now, tick);
        }
        let first = self.random.below(TICK);
        self.later(n, first, Step::Run(Task::Tick));
        self.later(n, first, Step::Run(Task::Scrub));
        self.settle(n)
    }

    pub(super) fn wake(&mut self, n: usize) {
        if let Some(held) = self.running(n).paused.take() {
            trace!(self, "node {} wakes up", n + 1);
            held.into_iter().for_each(|step| self.soon(n, step));
        }
    }

    fn tick(&mut self, n: usize) {
        let now = self.now;
        let absent = self.seems_absent(n);
        let running = self.running(n);
        let next = running.ticker.step(&running.hub, running.board.at(now));
        let wait = running.board.until(now, next);
        if let Some(peer) = absent {
            running.intake.absent(peer);
            running.intake.flush();
        }
        self.dial(n);
        self.ask_for_a_place(n);
        self.later(n, wait, Step::Run(Task::Tick));
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
        self.wake_rpc(n);
    }

    /// The event loop looks at what has arrived, and at what it has left undone.
    pub(super) fn wake_rpc(&mut self, n: usize) {
        let running = self.running(n);
        if !std::mem::replace(&mut running.rpc_woken, true) {
            self.soon(n, Step::Rpc);
        }
    }

    /// The event loop puts in all that has arrived.
    fn rpc(&mut self, n: usize) {
        let running = self.running(n);
        running.rpc_woken = false;
        let (mut transfers, mut talks, mut welcomes) = (Vec::new(), Vec::new(), Vec::new());
        for packet in std::mem::take(&mut running.inbox) {
            match packet {
                Packet::Peer(bytes) => {
                    // Only what changed on the way does not decode; see `after_transit`.
                    if let Ok(envelope) = codec::decode::<Envelope>(&bytes) {
                        running.intake.message(envelope);
                    }
                }
                Packet::Hello(hello) => {
                    if let Some(greeter) = &mut running.greeter {
                        greeter.greeted(hello);
                    }
                }
                Packet::Welcome(welcome) => welcomes.push(welcome),
                Packet::Members(talk) => talks.push(talk),
                Packet::Request { from, timeout, ask } => {
                    let timeout = Duration::from_micros(timeout);
                    let waiter = running.outside.to_answer(from);
                    match ask {
                        Ask::Submit(command) => running.intake.submit(command, timeout, waiter),
                        Ask::Query(query) => running.intake.query(query, timeout, waiter),
                        Ask::Transfer(to) => transfers.push(to),
                        Ask::Snapshot => drop(steps::snapshot(&running.hub)),
                        // What no simulated client asks for.
                        Ask::Status | Ask::Members | Ask::Change { .. } | Ask::Join(_) => {}
                    }
                }
            }
        }
        running.intake.flush();
        for to in transfers {
            steps::transfer(&running.hub, to);
        }
        welcomes.iter().for_each(|it| self.welcomed(n, it));
        for talk in talks {
            self.hear_of_members(n, talk);
        }
        self.answer_greetings(n);
    }

    /// The apply thread executes what it has taken, and takes what there is by then.
    fn apply(&mut self, n: usize) -> Result<Result<(), NodeError>, Failure> {
        let running = self.running(n);
        if std::mem::take(&mut running.applying) {
            let (before, installing) = (running.hub.executed(), running.hub.installing());
            if let Err(error) = running.hub.finish_apply() {
                return Ok(Err(error));
            }
            if let Some(meta) = installing {
                self.installed(n, before, meta.last)?;
            }
        }
        let running = self.running(n);
        running.applying = running.hub.begin_apply();
        if running.applying {
            let installs = running.hub.installing().is_some();
            let mut took = 5 + self.random.exponential(100);
            if installs {
                // To read a snapshot takes its time.
                took += self.disk_time(n);
            }
            self.later(n, took, Step::Run(Task::Apply));
        } else {
            self.fall_asleep(n, Task::Apply);
        }
        Ok(Ok(()))
    }

    fn installed(&mut self, n: usize, before: EntryId, last: EntryId) -> Result<(), Failure> {
        trace!(self, "node {} installs {last}", n + 1);
        if last.index <= before.index {
            let sentence = format!("node {} goes from {before} to {last}", n + 1);
            return Err(Failure::new("no install goes back", sentence));
        }
        self.stats.installs += 1;
        let states = self.running(n).hub.with_machine(Watched::take_states);
        for state in states {
            match state {
                State::Restored(kv) => self.checks.snapshot(n, last, &kv)?,
                State::After(index, kv) => self.checks.state(n, index, &kv)?,
            }
        }
        Ok(())
    }

    /// A task goes on that works on the disk, which may fail.
    fn use_disk(&mut self, n: usize, task: Task) -> Result<Result<(), NodeError>, Failure> {
        let running = self.running(n);
        let is_busy = match task {
            Task::Replicate => running.replicator.under_way().is_some(),
            Task::Carry => running.courier.is_busy(),
            _ => running.taker.is_busy(),
        };
        if is_busy {
            self.let_disk_fail(n);
        }
        let stepped = match task {
            Task::Replicate => self.replicate(n)?,
            Task::Carry => self.carry(n)?,
            _ => Ok(self.take_snapshot(n)?),
        };
        self.nodes[n].disk.heal();
        Ok(stepped.map(|goes_on| {
            if goes_on {
                let took = self.disk_time(n);
                self.later(n, took, Step::Run(task));
            } else {
                self.fall_asleep(n, task);
            }
        }))
    }

    fn fall_asleep(&mut self, n: usize, task: Task) {
        self.running(n).awake.retain(|awake| *awake != task);
    }

    /// Puts something into the replica of a node, as a caller of the library does.
    pub(super) fn input<T>(
        &mut self,
        n: usize,
        put: impl FnOnce(&Hub<Watched>, &Arc<Outside>) -> T,
    ) -> Result<T, Failure> {
        let running = self.running(n);
        let result = put(&running.hub, &running.outside);
        self.settle(n)?;
        Ok(result)
    }

    /// Carries on what has come out of a node, and compares what it says with what the others said.
    pub(super) fn settle(&mut self, n: usize) -> Result<(), Failure> {
        // First, so that what it says next can be compared with what is known to be committed.
        self.look(n)?;
        let outside = self.running(n).outside.clone();
        for envelope in outside.take_messages() {
            let node = &mut self.nodes[n];
            let running = node.running.as_ref().expect("it runs");
            let (promised, checks) = (&mut node.promised, &mut self.checks);
            running
                .hub
                .with_raft(|raft| promised.note(&envelope, raft, checks));
            checks.members.leaves(&envelope);
            self.check_part(n, &envelope)?;
            self.carry_message(n, envelope);
        }
        for state in self.running(n).hub.with_machine(Watched::take_states) {
            if let State::After(index, kv) = state {
                self.checks.state(n, index, &kv)?;
            }
        }
        for (waiter, outcome) in outside.take_answers() {
            let answer = self.running(n).hub.answer(outcome);
            self.carry_answer(n, waiter, Ok(answer));
        }
        for answer in outside.take_told() {
            trace!(self, "node {} on a change of members: {answer:?}", n + 1);
        }
        for task in outside.take_woken() {
            let running = self.running(n);
            if !matches!(task, Task::Tick | Task::Scrub) && !running.awake.contains(&task) {
                running.awake.push(task);
                self.soon(n, Step::Run(task));
            }
        }
        if outside.take_registrar_woken()
            && let Some(greeter) = &mut self.running(n).greeter
            && !std::mem::replace(&mut greeter.writes, true)
        {
            let took = self.disk_time(n);
            self.later(n, took, Step::Register);
        }
        self.stopped(n)
    }
}

/// The address of a node, as clients know it.
pub(super) fn address(n: usize) -> String {
    format!("node{}:7000", n + 1)
}
