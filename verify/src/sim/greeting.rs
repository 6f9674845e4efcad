//! The greetings between simulated nodes, by which a node is noticed that comes back with an empty
//! folder.
//!
//! A message travels over a connection that its sender has dialled. A node dials those that its
//! core speaks to, and those that have dialled it, to be able to answer. A connection begins with a
//! greeting, in which the sender names its folder, and the folder that it takes the receiver's for.
//! What the receiver answers, what both learn from it and what is written down is decided by the
//! product ([`steps::Greeter`], [`Register`], [`Registrar`]). Only the sockets are simulated. A
//! connection ends when one of its two processes ends, or when its link is cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv::net::Announced;
use raftkv::node::NodeError;
use raftkv::node::steps::{self, Given, Register, Registrar, Written, founding_digest};
use raftkv::raft::{FolderId, NodeId};
use raftkv::storage::Peers;
use raftkv::wire::handshake::{Caller, Hello, PeerHello, PeerWelcome, Standing, VERSION, Welcome};

use super::check::member;
use super::disk::CLUSTER;
use super::members::place_of;
use super::network::Kind;
use super::node::{Packet, Step, address};
use super::outside::Outside;
use super::trace::trace;
use super::world::{Event, World};

/// How likely a node dials, within a tick, another one that it has no connection to.
const DIALS: f64 = 0.3;

/// How likely a node dials all others anew, within a tick, if one of them could not tell where the
/// node stands: that one knew of no committed members yet.
const DIALS_ANEW: f64 = 0.01;

/// What a node says first to another one.
#[derive(Clone, Debug)]
pub(super) struct Called {
    from: usize,
    /// The life of the process that says so.
    life: u64,
    hello: Arc<Hello>,
}

/// The answer to a [`Called`] that is let in.
#[derive(Clone, Debug)]
pub(super) struct Welcomed {
    from: usize,
    /// The life of the process that welcomes.
    life: u64,
    /// The life of the process that is welcomed.
    of: u64,
    welcome: Box<PeerWelcome>,
}

/// Whom a process knows and who knows it.
pub(super) struct Greeter {
    judge: steps::Greeter,
    register: Arc<Register>,
    registrar: Registrar,
    announced: Arc<Announced>,
    folder: FolderId,
    machine: String,
    /// Those whose folder is not on disk yet: they are answered when it is.
    waiting: Vec<Called>,
    /// The processes that have welcomed this one, each node with its life.
    connections: BTreeMap<usize, u64>,
    /// The processes that this one has welcomed, each node with its life and its folder.
    callers: BTreeMap<usize, (u64, FolderId)>,
    /// Whether the registrar has a step ahead of it.
    pub writes: bool,
    /// Another node has said that the cluster exists without this folder.
    pub is_stranger: bool,
    /// Another node could not tell where this one stands.
    is_unsure: bool,
}

impl Greeter {
    /// A greeter of node `n` that knows what is on disk. `founders` are those that the node was
    /// told of.
    pub fn new(
        peers: Peers,
        (n, founders): (usize, &[NodeId]),
        machine: &str,
        outside: &Arc<Outside>,
    ) -> Self {
        let woken = outside.clone();
        let wake = Box::new(move || woken.wake_registrar());
        let register = Register::new(&peers, founders.iter().copied(), wake);
        let founds = founders.iter().copied();
        let founding = founding_digest(founds.filter(|_| register.is_founding()));
        let given = Given {
            cluster: CLUSTER.into(),
            machine: machine.into(),
            founding,
            address: address(n),
            seated: 0,
            begins_anew: false,
        };
        let announced = outside.announce(founding);
        let told = outside.clone();
        let on_estranged = Box::new(move |estranged: &_| told.estranged(estranged));
        let judge = steps::Greeter::new(given, register.clone(), announced.clone(), on_estranged);
        Self {
            judge,
            folder: peers.own_folder(),
            machine: machine.into(),
            registrar: Registrar::new(register.clone(), peers),
            register,
            announced,
            waiting: Vec::new(),
            connections: BTreeMap::new(),
            callers: BTreeMap::new(),
            writes: false,
            is_stranger: false,
            is_unsure: false,
        }
    }

    pub fn is_admitted(&self) -> bool {
        self.register.is_admitted()
    }

    /// Whether the node may only come in by a change of members, because the cluster exists.
    pub fn can_only_join(&self) -> bool {
        self.is_stranger && !self.register.is_founding()
    }

    /// Somebody says hello.
    pub fn greeted(&mut self, called: Called) {
        self.waiting.retain(|other| other.from != called.from);
        self.waiting.push(called);
    }

    fn hello(&self, from: usize, to: usize, to_folder: Option<FolderId>) -> Hello {
        let (list, founding) = (self.announced.list(), self.announced.founding());
        Hello {
            version: VERSION,
            cluster: CLUSTER.into(),
            caller: Caller::Peer(PeerHello {
                from: from as NodeId + 1,
                to: to as NodeId + 1,
                machine: self.machine.clone(),
                folder: self.folder,
                to_folder,
                address: address(from),
                lineage: list.lineage,
                configuration: list.index,
                founding,
            }),
        }
    }
}

impl World {
    pub(super) fn greeter(&mut self, n: usize) -> Option<&mut Greeter> {
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

    /// Dials those that a node speaks to and has no connection to. One that it speaks to no more is
    /// hung up on.
    pub(super) fn dial(&mut self, n: usize) {
        let life = self.nodes[n].life;
        let nodes = &self.nodes;
        let Some(running) = &nodes[n].running else {
            return;
        };
        let Some(greeter) = &running.greeter else {
            return;
        };
        let mut targets: BTreeMap<usize, Option<FolderId>> = BTreeMap::new();
        running.outside.with_contacts(|contacts| {
            for contact in contacts {
                let to = place_of(&contact.address).filter(|to| *to != n);
                targets.extend(to.map(|to| (to, contact.folder)));
            }
        });
        // A caller may have another folder than the contact of its id: it is answered all the same.
        let callers = greeter.callers.iter();
        let live = callers.filter(|(from, (life, _))| nodes[**from].life == *life);
        targets.extend(live.map(|(from, (_, folder))| (*from, Some(*folder))));
        if let Some(greeter) = self.greeter(n) {
            let connections = &mut greeter.connections;
            connections.retain(|to, _| targets.contains_key(to));
        }
        let dials_anew = self.random.chance(DIALS_ANEW);
        if let Some(greeter) = self.greeter(n)
            && dials_anew
            && std::mem::take(&mut greeter.is_unsure)
        {
            greeter.connections.clear();
        }
        for (to, to_folder) in targets {
            if self.is_connected(n, to) || !self.random.chance(DIALS) {
                continue;
            }
            if let Some(greeter) = self.greeter(n) {
                let hello = Arc::new(greeter.hello(n, to, to_folder));
                let from = n;
                self.put_on_the_way(n, to, Packet::Hello(Called { from, life, hello }));
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
        for called in std::mem::take(&mut greeter.waiting) {
            let running = self.running(n);
            let hub = running.hub.clone();
            let Some(greeter) = &mut running.greeter else {
                return;
            };
            let judged = hub.with_raft(|raft| greeter.judge.judge(&called.hello, raft));
            match greeter.judge.answer(judged) {
                Some(Welcome::Peer(welcome)) => {
                    if let Caller::Peer(peer) = &called.hello.caller {
                        let caller = (called.life, peer.folder);
                        greeter.callers.insert(called.from, caller);
                    }
                    let welcomed = Welcomed {
                        from: n,
                        life,
                        of: called.life,
                        welcome: Box::new(welcome),
                    };
                    self.put_on_the_way(n, called.from, Packet::Welcome(welcomed));
                }
                Some(_) => {
                    self.stats.refused += 1;
                    trace!(self, "node {} refuses node {}", n + 1, called.from + 1);
                }
                None => greeter.waiting.push(called),
            }
        }
    }

    /// Somebody has welcomed a node, if it is still the process that was welcomed.
    pub(super) fn welcomed(&mut self, n: usize, welcomed: &Welcomed) {
        let life = self.nodes[n].life;
        let running = self.running(n);
        let hub = running.hub.clone();
        let Some(greeter) = &mut running.greeter else {
            return;
        };
        if welcomed.of != life {
            return;
        }
        greeter.connections.insert(welcomed.from, welcomed.life);
        let standing = &welcomed.welcome.standing;
        trace!(
            self,
            "node {} is for node {}: {standing:?}",
            n + 1,
            welcomed.from + 1
        );
        let running = self.running(n);
        let Some(greeter) = &mut running.greeter else {
            return;
        };
        greeter.is_unsure |= matches!(
            welcomed.welcome.standing,
            Standing::Stranger {
                configuration: 0,
                ..
            }
        );
        let at = address(welcomed.from);
        let learned = hub.with_raft(|raft| greeter.judge.learn(&welcomed.welcome, raft));
        greeter.judge.conclude(learned, &welcomed.welcome, &at);
        let Some(estranged) = running.outside.take_estranged() else {
            return;
        };
        greeter.is_stranger |= !estranged.was_member && estranged.known.is_some();
        hub.estranged(&estranged);
        trace!(self, "node {}: {estranged:?}", n + 1);
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
                let who = member(n, &self.nodes[n]);
                who.into_iter()
                    .for_each(|who| self.checks.members.admitted(who));
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
}
