//! The greetings between simulated nodes, by which a node is noticed that comes back with an empty
//! folder.
//!
//! A message travels over a connection that its sender has dialled. A connection begins with a
//! greeting, in which the sender names its folder. The receiver writes that folder down and
//! welcomes the sender, or refuses the sender if it knows another folder of the same node. The
//! product's own [`Register`] and [`Registrar`] decide about this; only the sockets are simulated.
//! A connection ends when one of its two processes ends, or when its link is cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv::node::NodeError;
use raftkv::node::steps::{Acquainted, Greeted, Register, Registrar, Written};
use raftkv::raft::NodeId;
use raftkv::storage::{Peers, SimDisk};

use super::check::Promised;
use super::durable::Durable;
use super::network::Kind;
use super::node::{Packet, Step};
use super::outside::Outside;
use super::trace::trace;
use super::world::{Event, World};

/// How likely a node dials, within a tick, another one that it has no connection to.
const DIALS: f64 = 0.3;

/// What a node says first to another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hello {
    pub from: usize,
    /// The life of the process that says so.
    life: u64,
    folder: u128,
}

/// The answer to a [`Hello`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Welcome {
    pub from: usize,
    /// The life of the process that welcomes.
    life: u64,
    /// The life of the process that is welcomed.
    of: u64,
}

/// Whom a process knows and who knows it.
pub(super) struct Greeter {
    register: Arc<Register>,
    registrar: Registrar,
    folder: u128,
    /// Those whose folder is not on disk yet: they are answered when it is.
    waiting: Vec<Hello>,
    /// The processes that have welcomed this one, each node with its life.
    connections: BTreeMap<usize, u64>,
    /// Whether the registrar has a step ahead of it.
    pub writes: bool,
}

impl Greeter {
    /// A greeter of one of `count` nodes that knows what is on disk.
    pub fn new(peers: Peers, count: usize, outside: &Arc<Outside>) -> Self {
        let founders = 1..=count as NodeId;
        let woken = outside.clone();
        let register = Register::new(&peers, founders, Box::new(move || woken.wake_registrar()));
        Self {
            folder: peers.own_folder(),
            registrar: Registrar::new(register.clone(), peers),
            register,
            waiting: Vec::new(),
            connections: BTreeMap::new(),
            writes: false,
        }
    }

    pub fn is_admitted(&self) -> bool {
        self.register.is_admitted()
    }

    /// Somebody says hello.
    pub fn greeted(&mut self, hello: Hello) {
        self.waiting.retain(|other| other.from != hello.from);
        self.waiting.push(hello);
    }

    /// Somebody has welcomed this node, if it is still the process that was welcomed.
    pub fn welcomed(&mut self, welcome: Welcome, life: u64) {
        if welcome.of == life {
            self.register.welcomed_by(welcome.from as NodeId + 1);
            self.connections.insert(welcome.from, welcome.life);
        }
    }
}

impl World {
    fn greeter(&mut self, n: usize) -> Option<&mut Greeter> {
        self.nodes[n].running.as_mut()?.greeter.as_mut()
    }

    /// Whether a node can send to another one.
    pub(super) fn is_connected(&mut self, n: usize, to: usize) -> bool {
        let (life, is_cut) = (
            self.nodes[to].life,
            self.network.is_cut(n, to, self.now) || self.nodes[to].running.is_none(),
        );
        let Some(greeter) = self.greeter(n) else {
            return true;
        };
        if is_cut {
            greeter.connections.remove(&to);
        }
        greeter.connections.get(&to) == Some(&life)
    }

    /// Dials those that a node has no connection to.
    pub(super) fn dial(&mut self, n: usize) {
        let life = self.nodes[n].life;
        let Some(folder) = self.greeter(n).map(|greeter| greeter.folder) else {
            return;
        };
        for to in (0..self.nodes.len()).filter(|to| *to != n) {
            if !self.is_connected(n, to) && self.random.chance(DIALS) {
                let from = n;
                self.put_on_the_way(n, to, Packet::Hello(Hello { from, life, folder }));
            }
        }
    }

    fn put_on_the_way(&mut self, n: usize, to: usize, packet: Packet) {
        let way = (n, to, Kind::Request);
        for at in self.network.arrivals(way, self.now, &mut self.random) {
            self.queue.add(at, Event::Packet(to, packet.clone()));
        }
    }

    /// Answers those who have greeted a node and of whom it knows by now what to answer.
    pub(super) fn answer_greetings(&mut self, n: usize) {
        let life = self.nodes[n].life;
        let Some(greeter) = self.greeter(n) else {
            return;
        };
        let register = greeter.register.clone();
        for hello in std::mem::take(&mut greeter.waiting) {
            let peer = hello.from as NodeId + 1;
            let greeted = Greeted {
                logged_here: false,
                same_founders: true,
            };
            match register.meet(peer, hello.folder, greeted) {
                Acquainted::Known => {
                    let (from, of) = (n, hello.life);
                    let welcome = Welcome { from, life, of };
                    self.put_on_the_way(n, hello.from, Packet::Welcome(welcome));
                }
                Acquainted::NotYet => {
                    if let Some(greeter) = self.greeter(n) {
                        greeter.waiting.push(hello);
                    }
                }
                Acquainted::OtherFolder | Acquainted::NoWitness => {
                    self.stats.refused += 1;
                    self.nodes[n].refuses.insert(peer as usize - 1);
                    trace!(self, "node {} refuses the folder of node {peer}", n + 1);
                }
            }
        }
    }

    /// The registrar of a node writes the next entry that it is asked for, if there is one.
    pub(super) fn register(&mut self, n: usize) -> Result<(), NodeError> {
        if self.greeter(n).is_some_and(|g| g.registrar.is_busy()) {
            self.let_disk_fail(n);
        }
        let running = self.running(n);
        let hub = running.hub.clone();
        let Some(greeter) = &mut running.greeter else {
            return Ok(());
        };
        let written = greeter.registrar.step(&hub);
        greeter.writes = written.as_ref().is_ok_and(|w| *w != Written::Nothing);
        self.nodes[n].disk.heal();
        match written? {
            Written::Nothing => return Ok(()),
            Written::Folder | Written::FoundsNoMore => self.wake_rpc(n),
            Written::Admission => {
                trace!(self, "node {} is admitted", n + 1);
                self.stats.admitted += 1;
                self.nodes[n].admitted = true;
            }
        }
        let took = self.disk_time(n);
        self.later(n, took, Step::Register);
        Ok(())
    }

    /// The process of a node ends while it writes down whom it has met.
    pub(super) fn interrupt_registrar(&mut self, n: usize, operation: u64) {
        let disk = self.nodes[n].disk.clone();
        let running = self.running(n);
        let hub = running.hub.clone();
        if let Some(greeter) = &mut running.greeter
            && greeter.registrar.is_busy()
        {
            disk.stop_at(disk.operations() + operation);
            // Nobody hears of it.
            let _ = greeter.registrar.step(&hub);
        }
    }

    /// Whether a node has a folder that does not count, in place of one that perhaps did. A leader
    /// may know what that one acknowledged; the node is right to say that it does not have that.
    pub(super) fn lacks_a_past(&self, n: usize) -> bool {
        !self.nodes[n].has_first_folder && !self.nodes[n].admitted
    }

    /// Whether the folder of a node may be lost, besides those that are lost or at risk: the others
    /// are still a quorum.
    pub(super) fn may_lose_a_folder(&self, n: usize) -> bool {
        let is_at_risk = |other: &usize| *other != n && self.nodes[*other].at_risk;
        let at_risk = (0..self.nodes.len()).filter(is_at_risk).count();
        let lost = self.lost_folders + at_risk + 1;
        lost + self.plan.quorum() <= self.nodes.len()
    }

    /// A node's folder is lost for good, as far as what it promised goes.
    pub(super) fn lose_folder(&mut self, n: usize) {
        self.lost_folders += 1;
        (self.nodes[n].has_first_folder, self.nodes[n].at_risk) = (false, false);
    }

    /// A node comes back with an empty disk in place of its own, or of its damaged one.
    pub(super) fn wipe(&mut self, n: usize) {
        if !self.plan.greets || self.nodes[n].retired {
            return;
        }
        if !self.nodes[n].damaged {
            if !self.may_lose_a_folder(n) {
                return;
            }
            self.lose_folder(n);
        }
        trace!(self, "node {} loses its folder", n + 1);
        self.crash(n, true);
        let seed = self.random.number();
        let node = &mut self.nodes[n];
        node.disk = SimDisk::new(seed);
        (node.durable, node.promised) = (Durable::new(), Promised::default());
        (node.was_up, node.has_one_vote, node.fail_next) = (false, false, None);
        (node.damaged, node.admitted) = (false, false);
        node.refuses.clear();
        self.stats.wiped += 1;
        self.restart_later(n);
    }
}
