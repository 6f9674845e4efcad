//! The world of one run: nodes, clients, network and checks, and the loop that takes the next event
//! and carries it out.

use std::collections::BTreeMap;

use super::check::Checks;
use super::client::{Client, Wake};
use super::durable::Durable;
use super::history::Record;
use super::lab::Desk;
use super::members::Probing;
use super::network::Network;
use super::newcomer::Newcomer;
use super::node::{Node, Packet, Step, Waiter};
use super::plan::{Fault, Plan};
use super::queue::Queue;
use super::random::Random;
use super::trace::Tracer;
use super::{Failure, Options, Scenario, Time};
use raftkv::client::CallError;
use raftkv::kv::Kv;
use raftkv::raft::MemberId;
use raftkv::wire::client::Answer;

/// What tells the draws for members from the others of a seed.
const MEMBERS: u64 = 0x6d65_6d62_6572;
/// How long a tick is.
pub(super) const TICK: Time = 10_000;

/// Something that will happen.
pub(super) enum Event {
    /// A thread of a node does its next step, if that life of the node is still on.
    Node(usize, u64, Step),
    /// A packet arrives at a node.
    Packet(usize, Packet),
    /// An answer arrives at a client.
    Answer(Waiter, Result<Answer, CallError>),
    /// A client goes on, if that life of it is still on.
    Client(usize, u64, Wake),
    /// A fault strikes, and the next one of its kind is due some time later.
    Fault(Fault, Time),
    /// The luck of a new leader ends, if that life of it is still on.
    Doom(usize, u64),
    /// A node starts.
    Start(usize),
    /// The last node starts for the first time.
    Newcomer,
    /// A node loses its folder, if that life of it is still on.
    Wipe(usize, u64),
    /// An operator gives a node an empty folder, if that life of it is still on.
    Refill(usize, u64),
    /// A node that stood still goes on, if that life of it is still on.
    Wake(usize, u64),
    /// A disk is as fast again as before, and has room again.
    DiskRecovers(usize),
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How much virtual time has passed.
    pub virtual_us: Time,
    /// Things that happened.
    pub events: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Operations that had a reply.
    pub replies: u64,
    /// Requests that clients sent.
    pub attempts: u64,
    /// Requests that were repeated though nobody waited any more.
    pub repeats: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Entries that were committed.
    pub committed: u64,
    /// Nodes that started.
    pub starts: u64,
    /// Nodes that crashed.
    pub crashes: u64,
    /// Nodes that stopped because their disk failed.
    pub disk_failures: u64,
    /// Attempts to write that had to wait, because the disk was full.
    pub waits_for_space: u64,
    /// Times that a node found damage while it verified its files.
    pub rot_found: u64,
    /// Times that it repaired what it had found.
    pub rot_repaired: u64,
    /// Snapshots that nodes took of their own state.
    pub snapshots: u64,
    /// Snapshots that could not be taken.
    pub snapshots_failed: u64,
    /// Parts of snapshots that were sent.
    pub parts: u64,
    /// Snapshots of another node that took the place of a state.
    pub installs: u64,
    /// Times that segments of a log were removed.
    pub cuts: u64,
    /// Nodes that started from an older snapshot, because bits of the newest had flipped.
    pub went_back: u64,
    /// Messages between nodes in which a bit flipped on the way.
    pub corrupted: u64,
    /// Folders that were lost, with a new one in their place.
    pub wiped: u64,
    /// Folders that their witnesses have admitted.
    pub admitted: u64,
    /// Changes of members that the operator asked for.
    pub wishes: u64,
    /// Changes of members that leaders have made.
    pub changes: u64,
    /// Greetings of a folder that was not the one known.
    pub refused: u64,
    /// Nodes that stopped because a leader knew of what a lost folder had acknowledged.
    pub denied: u64,
    /// Bits that flipped on disks.
    pub rotted: u64,
    /// Files, and folders, of which a read failed.
    pub failed_reads: u64,
    /// How long after the end of the faults the nodes had a leader.
    pub led_after_us: Time,
    /// Faults of all kinds.
    pub faults: u64,
}

/// All that there is.
pub(super) struct World {
    pub now: Time,
    pub queue: Queue<Event>,
    pub random: Random,
    pub plan: Plan,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub network: Network,
    pub checks: Checks,
    pub history: Vec<Record>,
    pub tracer: Tracer,
    pub stats: Stats,
    /// Numbers calls and attempts.
    pub last_id: u64,
    pub faults_go_on: bool,
    /// Whether clients begin no more operations.
    pub closing: bool,
    /// When the faults ended; before that, never.
    pub healed_at: Time,
    /// The nodes that must make progress in the end.
    pub core: Vec<usize>,
    /// Those that are up in the end: the same, or all.
    pub at_work: Vec<usize>,
    /// The one among them whose disk stays slow when the other faults end.
    pub lame: Option<usize>,
    /// The folders that were lost as a whole, with what was on their disks.
    pub lost: Vec<(MemberId, Durable)>,
    /// How many folders were lost, by damage or as a whole.
    pub lost_folders: usize,
    /// When one was lost last.
    pub lost_at: Time,
    /// The leader, in its present life, that was asked for the first change of members.
    pub settles: Option<(usize, u64)>,
    /// A node whose folder few know, while that is so.
    pub newcomer: Option<Newcomer>,
    /// The leaders that wait to hear who is at an address.
    pub probings: BTreeMap<u64, Probing>,
    /// What a script asked of nodes directly.
    pub desk: Desk,
}

impl World {
    pub fn new(options: Options) -> Self {
        let mut random = Random::new(options.seed);
        let mut plan = Plan::draw(&mut random);
        // Drawn apart, so that whatever else a seed leads to stays as it is.
        let mut apart = Random::new(options.seed ^ MEMBERS);
        match options.scenario {
            Scenario::Drawn => plan.draw_members(&mut apart),
            Scenario::Members => plan.play_members(&mut apart),
        }
        Self::of(options, plan, random)
    }

    /// A world of which everything is known but what happens in it.
    pub fn of(options: Options, plan: Plan, mut random: Random) -> Self {
        let all = plan.nodes + plan.spare;
        let places = all + plan.clients;
        let network = Network::new(places, &plan.network, &mut random);
        let nodes = (0..all).map(|_| Node::new(random.number()));
        let nodes = nodes.collect();
        let clients = (0..plan.clients).map(|_| Client::drawn(&plan, &mut random));
        let clients = clients.collect();
        let checks = Checks::new(Kv::new(plan.limits.clone()), plan.compare_every);
        Self {
            now: 0,
            queue: Queue::new(),
            plan,
            nodes,
            clients,
            network,
            random,
            checks,
            history: Vec::new(),
            tracer: Tracer::new(options.trace),
            stats: Stats::default(),
            last_id: 0,
            faults_go_on: true,
            closing: false,
            healed_at: Time::MAX,
            core: Vec::new(),
            at_work: Vec::new(),
            lame: None,
            lost: Vec::new(),
            lost_folders: 0,
            lost_at: 0,
            settles: None,
            newcomer: None,
            probings: BTreeMap::new(),
            desk: Desk::default(),
        }
    }

    /// Lets the next thing happen.
    pub fn next(&mut self) -> Result<(), Failure> {
        let next = self.queue.next();
        let (at, event) = next.expect("clocks never stop ticking");
        debug_assert!(at >= self.now, "time does not go back");
        self.now = at;
        self.stats.events += 1;
        match event {
            Event::Node(n, life, step) => self.step(n, life, step)?,
            Event::Packet(n, packet) => self.arrive(n, packet),
            Event::Answer(to, result) => self.heard(to.client, to.attempt, result),
            Event::Client(c, life, wake) => self.wake_client(c, life, wake),
            Event::Fault(fault, mean) => self.strike(fault, mean),
            Event::Doom(n, life) => {
                if self.faults_go_on && self.nodes[n].life == life {
                    self.doom(n);
                }
            }
            Event::Start(n) => self.start(n)?,
            Event::Newcomer => self.newcomer_starts()?,
            Event::Wipe(n, life) => {
                if self.faults_go_on && self.nodes[n].life == life {
                    self.wipe(n);
                }
            }
            Event::Refill(n, life) => {
                if self.nodes[n].life == life {
                    self.wipe(n);
                }
            }
            Event::Wake(n, life) => {
                if self.nodes[n].life == life && self.nodes[n].running.is_some() {
                    self.wake(n);
                }
            }
            Event::DiskRecovers(n) => self.disk_recovers(n),
        }
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        Stats {
            virtual_us: self.now,
            elections: self.checks.elections(),
            committed: self.checks.last().index,
            changes: self.checks.members.changes,
            ..self.stats
        }
    }
}
