//! One cluster and all that happens to it, tick by tick, out of one seed.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::Checker;
use super::disk::Disk;
use super::plan::{Dice, Plan};
use crate::raft::{
    Config, Configuration, Envelope, HardState, MemberId, NodeId, Raft, RoleName, Room,
};

pub struct Peer {
    pub config: Config,
    /// `None` while the node is down.
    pub raft: Option<Raft>,
    pub disk: Disk,
    pub paused_until: u64,
    /// How often its clock misses a tick, per mille.
    pub skew: u64,
    /// How many entries the node has executed since its last start.
    pub applied: u64,
}

pub struct World {
    pub plan: Plan,
    pub checker: Checker,
    pub crashes: u64,
    /// Changes of members that a leader has taken up.
    pub changes: u64,
    /// Folders that were lost.
    pub wipes: u64,
    /// What was in them. Whoever has counted on them has counted rightly: for the others a lost
    /// folder is one whose node never comes back.
    pub lost: BTreeMap<MemberId, Disk>,
    pub dice: Dice,
    pub now: u64,
    pub peers: BTreeMap<NodeId, Peer>,
    /// Messages that are on their way, each with the tick at which it arrives.
    pub network: Vec<(u64, Envelope)>,
    /// Directed links, each as sender and receiver, that lose every message.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    next_command: u64,
    next_read: u64,
}

impl Peer {
    pub fn member(&self) -> MemberId {
        MemberId {
            id: self.config.id,
            folder: self.config.folder,
        }
    }
}

impl World {
    pub fn new(seed: u64, changes: bool, adjust: impl Fn(&mut Config)) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let plan = match changes {
            true => plan.with_changes(&mut dice),
            false => plan,
        };
        let mut peer = |id| {
            let mut config = plan.config(id, seed);
            adjust(&mut config);
            let peer = Peer {
                raft: Some(Raft::new(config.clone(), HardState::default(), Vec::new())),
                config,
                disk: Disk::default(),
                paused_until: 0,
                skew: dice.below(plan.skew + 1),
                applied: 0,
            };
            (id, peer)
        };
        Self {
            peers: (1..=plan.nodes).map(&mut peer).collect(),
            checker: Checker::new(&Configuration::of_voters(1..=plan.size)),
            plan,
            crashes: 0,
            changes: 0,
            wipes: 0,
            lost: BTreeMap::new(),
            dice,
            now: 0,
            network: Vec::new(),
            cut: BTreeSet::new(),
            next_command: 0,
            next_read: 0,
        }
    }

    /// One tick of time: faults, clocks, clients, disks and messages that are due.
    pub fn tick(&mut self) {
        self.now += 1;
        self.interfere();
        for id in 1..=self.plan.nodes {
            let skew = self.peers[&id].skew;
            if !self.dice.chance(skew) {
                self.input(id, Raft::tick);
            }
            self.ask(id);
        }
        self.deliver();
        for id in 1..=self.plan.nodes {
            self.work(id);
            self.carry(id);
        }
    }

    /// Asks the node for what clients and operators want: commands, reads, transfers of leadership.
    fn ask(&mut self, id: NodeId) {
        if self.dice.chance(self.plan.propose) {
            self.propose(id);
        }
        if self.dice.chance(self.plan.read) {
            let read = self.next_read;
            self.next_read += 1;
            let mut accepted = false;
            self.input(id, |raft| accepted = raft.read(read).is_ok());
            if accepted {
                self.checker.read_asked(read, id);
            }
            self.maybe_carry(id);
        }
        if self.dice.chance(self.plan.transfer) {
            let to = self.dice.below(self.plan.nodes + 1);
            self.input(id, |raft| {
                raft.transfer(Some(to).filter(|to| *to > 0));
            });
        }
        if self.dice.chance(self.plan.change) {
            let change = self.draw_change();
            let at = match self.leader() {
                Some((_, leader)) if self.dice.chance(800) => leader,
                _ => id,
            };
            self.change(at, &change);
        }
    }

    /// Offers the node a command that is unlike all others; returns the index at which it was
    /// accepted.
    pub fn propose(&mut self, id: NodeId) -> Option<u64> {
        self.next_command += 1;
        let command = self.next_command.to_string().into_bytes();
        let mut index = None;
        self.input(id, |raft| {
            index = raft.propose(command.into()).ok().map(|id| id.index)
        });
        self.maybe_carry(id);
        index
    }

    fn deliver(&mut self) {
        loop {
            let now = self.now;
            let due = |(at, envelope): &(u64, Envelope)| {
                *at <= now && self.peers[&envelope.to].paused_until <= now
            };
            let ready: Vec<usize> = (0..self.network.len())
                .filter(|at| due(&self.network[*at]))
                .collect();
            if ready.is_empty() {
                return;
            }
            let pick = match self.plan.delay {
                0 => ready[0],
                _ => ready[self.dice.below(ready.len() as u64) as usize],
            };
            let (_, envelope) = self.network.remove(pick);
            let to = envelope.to;
            self.input(to, |raft| raft.step(envelope));
            self.maybe_carry(to);
        }
    }

    /// Puts a message on its way, perhaps twice, or loses it.
    fn post(&mut self, envelope: Envelope) {
        let lost = self.cut.contains(&(envelope.from, envelope.to));
        if lost || self.dice.chance(self.plan.loss) {
            return;
        }
        if self.dice.chance(self.plan.duplication) {
            let late = self.dice.below(150);
            self.network.push((self.now + late, envelope.clone()));
        }
        // The message arrives in the next tick at the earliest, so that a tick comes to an end.
        let delay = 1 + self.dice.below(self.plan.delay + 1);
        self.network.push((self.now + delay, envelope));
    }

    /// Lets the disk complete the writes that are due.
    fn work(&mut self, id: NodeId) {
        let now = self.now;
        let peer = self.peer(id);
        if peer.raft.is_none() || peer.paused_until > now {
            return;
        }
        if let Some(write) = peer.disk.work(now) {
            self.input(id, |raft| raft.durable(write));
        }
    }

    fn maybe_carry(&mut self, id: NodeId) {
        if !self.dice.chance(self.plan.lazy) {
            self.carry(id);
        }
    }

    /// Carries what the node hands out to its disk, the network and its state machine.
    fn carry(&mut self, id: NodeId) {
        let delay = self.dice.below(self.plan.disk + 1);
        let due = self.now + delay;
        let peer = self.peers.get_mut(&id).expect("a node of the cluster");
        let Some(raft) = peer.raft.as_mut() else {
            return;
        };
        if peer.paused_until > self.now {
            return;
        }
        let output = raft.output(Room {
            messages: true,
            write: true,
            entry_bytes: 100,
            ..Room::NOTHING
        });
        if let Some(write) = output.write {
            peer.disk.submit(due, write);
        }
        let (messages, entries) = (output.messages, output.entries);
        for envelope in &messages {
            self.checker.leaves(envelope, raft, &peer.disk);
        }
        self.checker.executes(peer.applied, &entries);
        peer.applied += entries.len() as u64;
        raft.applied(peer.applied);
        self.checker.reads_decided(output.reads);
        for envelope in messages {
            self.post(envelope);
        }
    }

    /// Hands an input to the node, unless it is down or paused, and has the checker judge the
    /// result.
    pub fn input(&mut self, id: NodeId, input: impl FnOnce(&mut Raft)) {
        let now = self.now;
        let peer = self.peer(id);
        if peer.paused_until > now {
            return;
        }
        let Some(raft) = peer.raft.as_mut() else {
            return;
        };
        input(raft);
        let disks = self.peers.values().map(|peer| (peer.member(), &peer.disk));
        let lost = self.lost.iter().map(|(member, disk)| (*member, disk));
        let disks = disks.chain(lost).collect();
        if let Some(raft) = &self.peers[&id].raft {
            let me = self.peers[&id].member();
            self.checker.stepped(raft, me, &disks);
        }
    }

    /// The leader of the highest term, with that term.
    pub fn leader(&self) -> Option<(u64, NodeId)> {
        let all: Vec<NodeId> = self.peers.keys().copied().collect();
        self.leader_among(&all)
    }

    pub fn leader_among(&self, nodes: &[NodeId]) -> Option<(u64, NodeId)> {
        let up = nodes.iter().filter_map(|id| self.peers[id].raft.as_ref());
        let leaders = up.filter(|raft| raft.role() == RoleName::Leader);
        leaders.map(|raft| (raft.term(), raft.id())).max()
    }

    /// The index up to which all of these nodes have executed.
    pub fn applied_by(&self, nodes: &[NodeId]) -> u64 {
        let applied = nodes.iter().map(|id| self.peers[id].applied);
        applied.min().unwrap_or(0)
    }

    /// Where every node stands, for a person who looks into a failure.
    pub fn describe(&self) -> String {
        let nodes = self.peers.values().filter_map(|peer| peer.raft.as_ref());
        let lines = nodes.map(|raft| {
            let (id, role, term) = (raft.id(), raft.role(), raft.term());
            let (last, commit) = (raft.last(), raft.commit());
            let (members, since) = (
                &raft.configuration().configuration,
                raft.configuration().index,
            );
            format!(
                "node {id}: {role} in term {term}, last {last}, commit {commit}, since {since} \
                 the members {members}\n"
            )
        });
        lines.collect()
    }

    pub fn peer(&mut self, id: NodeId) -> &mut Peer {
        self.peers.get_mut(&id).expect("a node of the cluster")
    }
}
