//! A cluster of cores that does one write or delivers one message at a time, so that a test can
//! crash a node between any two of them. The swarm's checker judges each input and each message.

use std::collections::{BTreeMap, VecDeque};

use crate::raft::tests::swarm::checker::Checker;
use crate::raft::tests::swarm::disk::Disk;
use crate::raft::{
    Change, Config, Configuration, Entry, Envelope, FolderId, HardState, Member, MemberId,
    MemberRole, NodeId, Payload, Raft, RoleName, Room,
};

struct Node {
    config: Config,
    /// `None` while the node is down.
    raft: Option<Raft>,
    disk: Disk,
    /// How many entries the node has executed since its last start.
    applied: u64,
}

/// What a node does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The disk of this node executes its next write.
    Write(NodeId),
    /// The message that was sent first arrives.
    Message,
}

/// Which of two things that may happen next does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Disks are faster than the network.
    WritesFirst,
    /// The network is faster than the disks.
    MessagesFirst,
}

pub struct World {
    nodes: BTreeMap<NodeId, Node>,
    /// What was in the folders that are lost.
    lost: BTreeMap<MemberId, Disk>,
    checker: Checker,
    network: VecDeque<Envelope>,
    order: Order,
    /// What is still to be asked of a leader.
    asked: Option<Change>,
}

impl World {
    /// Founders 1 to `size`, and one node behind them that is no member yet.
    pub fn new(size: u64, order: Order) -> Self {
        let founding = Configuration::of_voters(1..=size);
        let node = |id| {
            let is_founder = id <= size;
            let known = match is_founder {
                true => founding.clone(),
                false => Configuration::default(),
            };
            let config = Config {
                election_ticks: 10,
                heartbeat_ticks: 3,
                // The checker compares whole logs.
                keeps_matched: true,
                admitted: is_founder,
                ..Config::new(id, known, id)
            };
            let node = Node {
                raft: Some(Raft::new(config.clone(), HardState::default(), Vec::new())),
                config,
                disk: Disk::default(),
                applied: 0,
            };
            (id, node)
        };
        Self {
            nodes: (1..=size + 1).map(node).collect(),
            lost: BTreeMap::new(),
            checker: Checker::new(&founding),
            network: VecDeque::new(),
            order,
            asked: None,
        }
    }

    /// What happens next; `None` if only time can pass.
    pub fn next(&self) -> Option<Step> {
        let mut writing = self.nodes.iter().filter(|(_, node)| !node.disk.is_idle());
        let write = writing.next().map(|(id, _)| Step::Write(*id));
        let message = self.network.front().map(|_| Step::Message);
        match self.order {
            Order::WritesFirst => write.or(message),
            Order::MessagesFirst => message.or(write),
        }
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Write(id) => {
                let done = self.node(id).disk.work_once();
                let done = done.expect("the disk has something to write");
                self.input(id, |raft| raft.durable(done));
            }
            Step::Message => {
                let envelope = self.network.pop_front().expect("there is a message");
                self.input(envelope.to, |raft| raft.step(envelope));
            }
        }
    }

    /// Lets one tick pass everywhere. The operator tries again what no leader has taken up yet.
    pub fn tick(&mut self) {
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        all.into_iter().for_each(|id| self.input(id, Raft::tick));
        self.ask();
    }

    /// The operator wants this change: it is asked of whoever leads until one takes it up.
    pub fn want(&mut self, change: Change) {
        self.asked = Some(change);
        self.ask();
    }

    fn ask(&mut self) {
        if let (Some(leader), Some(change)) = (self.leader(), self.asked.clone()) {
            let mut is_taken = false;
            self.input(leader, |raft| {
                is_taken = raft.change(&change, false).is_ok();
            });
            self.asked = self.asked.take().filter(|_| !is_taken);
        }
    }

    /// Goes on until the condition holds; returns whether it came true.
    pub fn until(&mut self, ticks: u32, holds: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..ticks {
            while let Some(step) = self.next() {
                self.take(step);
            }
            if holds(self) {
                return true;
            }
            self.tick();
        }
        false
    }

    /// Proposes a command to whoever leads, and goes on until all members have executed it.
    pub fn propose(&mut self, command: &'static str) -> bool {
        let is_it = |entry: &Entry| match &entry.payload {
            Payload::Command(bytes) => bytes == command.as_bytes(),
            _ => false,
        };
        for _ in 0..10 {
            if let Some(leader) = self.leader() {
                // If it is refused, it is proposed again below.
                self.input(leader, |raft| _ = raft.propose(command.into()));
            }
            let everywhere = |world: &Self| {
                let index = world.checker.canonical.iter().position(is_it);
                let mut members = world.members().into_iter();
                index.is_some_and(|at| members.all(|id| world.nodes[&id].applied > at as u64))
            };
            if self.until(100, everywhere) {
                return true;
            }
        }
        false
    }

    /// The members that the newest leader knows.
    fn members(&self) -> Vec<NodeId> {
        let known = self.configuration().map(|known| known.0.members().to_vec());
        let members = known.unwrap_or_default().into_iter();
        members.map(|member| member.id).collect()
    }

    pub fn leader(&self) -> Option<NodeId> {
        let up = self.nodes.values().filter_map(|node| node.raft.as_ref());
        let leaders = up.filter(|raft| raft.role() == RoleName::Leader);
        let newest = leaders.max_by_key(|raft| raft.term());
        newest.map(Raft::id)
    }

    /// The configuration of the newest leader, and whether it is the end of a change: committed,
    /// stable, and nobody in it is on the way to become a voter.
    pub fn configuration(&self) -> Option<(&Configuration, bool)> {
        let raft = self.nodes[&self.leader()?].raft.as_ref()?;
        let logged = raft.configuration();
        let configuration = &logged.configuration;
        let is_joining = |member: &Member| member.role == MemberRole::Joining;
        let is_committed = logged.index <= raft.commit();
        let is_settled =
            !configuration.is_joint() && !configuration.members().iter().any(is_joining);
        Some((configuration, is_committed && is_settled))
    }

    pub fn folder(&self, id: NodeId) -> FolderId {
        self.nodes[&id].config.folder
    }

    /// The node stops. Its next write is `written` though nobody was told, or lost as the others
    /// that are under way.
    pub fn crash(&mut self, id: NodeId, written: bool) {
        let node = self.node(id);
        if node.raft.take().is_none() {
            return;
        }
        if written {
            node.disk.work_once();
        }
        node.disk.lose_writes();
        self.checker.crashed(id);
    }

    /// What the node has sent, or was sent, is lost.
    pub fn lose_messages(&mut self, id: NodeId) {
        self.network
            .retain(|message| message.from != id && message.to != id);
    }

    pub fn restart(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.raft.is_none() {
            let (hard_state, log) = (node.disk.hard_state, node.disk.log.clone());
            // Another seed than before, as each start of a process has.
            node.config.seed += 100;
            node.raft = Some(Raft::new(node.config.clone(), hard_state, log));
            node.applied = 0;
            self.carry(id);
        }
    }

    /// The node has lost its folder, and comes back with another one.
    pub fn wipe(&mut self, id: NodeId) {
        self.crash(id, false);
        self.lose_messages(id);
        let node = self.node(id);
        let folder = node.config.folder;
        let disk = std::mem::take(&mut node.disk);
        (node.config.folder, node.config.admitted) = (folder + 1000, false);
        self.lost.insert(MemberId { id, folder }, disk);
        self.restart(id);
    }

    /// Every member has all that was ever committed.
    pub fn check_nothing_is_lost(&self) {
        for id in self.members() {
            let held = self.nodes[&id].disk.log.iter();
            let committed = &self.checker.canonical;
            assert!(
                held.take(committed.len()).eq(committed),
                "node {id} lacks something that was committed"
            );
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the cluster")
    }

    /// Hands an input to the node, unless it is down, and has the checker judge the result.
    fn input(&mut self, id: NodeId, input: impl FnOnce(&mut Raft)) {
        let Some(raft) = self.node(id).raft.as_mut() else {
            return;
        };
        let state = |raft: &Raft| {
            let configuration = raft.configuration().index;
            let (last, commit) = (raft.last(), raft.commit());
            (raft.term(), raft.role(), last, commit, configuration)
        };
        let before = state(raft);
        input(raft);
        if state(raft) == before {
            // There is nothing to judge.
            return self.carry(id);
        }
        let member = |(id, node): (&NodeId, &Node)| MemberId {
            id: *id,
            folder: node.config.folder,
        };
        let present = self.nodes.iter().map(|all| (member(all), &all.1.disk));
        let lost = self.lost.iter().map(|(member, disk)| (*member, disk));
        let disks = present.chain(lost).collect();
        let node = &self.nodes[&id];
        if let Some(raft) = &node.raft {
            self.checker.stepped(raft, member((&id, node)), &disks);
        }
        self.carry(id);
    }

    /// Carries what the node hands out to its disk, the network and its state machine.
    fn carry(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let Some(raft) = node.raft.as_mut() else {
            return;
        };
        let output = raft.output(Room {
            messages: true,
            write: true,
            entry_bytes: usize::MAX,
            ..Room::NOTHING
        });
        assert_eq!(output.fault, None);
        if let Some(write) = output.write {
            node.disk.submit(0, write);
        }
        for envelope in &output.messages {
            self.checker.leaves(envelope, raft, &node.disk);
        }
        self.checker.executes(node.applied, &output.entries);
        node.applied += output.entries.len() as u64;
        raft.applied(node.applied);
        self.network.extend(output.messages);
    }
}
