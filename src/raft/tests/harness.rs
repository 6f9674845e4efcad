//! A small deterministic cluster of cores. Messages wait in one queue until they are delivered;
//! disks are prompt unless a test holds them back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::raft::{
    Config, Entry, Envelope, HardState, Membership, NodeId, Payload, Raft, RoleName, Write,
};

/// One core with its disk and what it has executed.
pub struct Node {
    pub raft: Raft,
    config: Config,
    /// What is on disk: survives a crash.
    disk: (HardState, Vec<Entry>),
    /// Handed out, but not on disk yet.
    pending: VecDeque<Write>,
    /// While set, writes stay in `pending`.
    pub disk_held: bool,
    pub applied: Vec<Entry>,
}

pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub queue: VecDeque<Envelope>,
    /// Directed links that lose everything.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub down: BTreeSet<NodeId>,
}

impl Node {
    fn new(config: Config) -> Self {
        Self {
            raft: Raft::new(config.clone(), HardState::default(), Vec::new()),
            config,
            disk: (HardState::default(), Vec::new()),
            pending: VecDeque::new(),
            disk_held: false,
            applied: Vec::new(),
        }
    }

    /// Moves what the core hands out: writes to the disk, committed entries to `applied`.
    fn carry(&mut self) {
        self.pending.extend(self.raft.take_write());
        while !self.disk_held {
            let Some(write) = self.pending.pop_front() else {
                break;
            };
            let id = write.id;
            execute(&mut self.disk, write);
            self.raft.durable(id);
            self.pending.extend(self.raft.take_write());
        }
        let entries = self.raft.take_committed(usize::MAX);
        if let Some(last) = entries.last() {
            let index = last.id.index;
            self.applied.extend(entries);
            self.raft.applied(index);
        }
        assert_eq!(self.raft.fault(), None);
    }
}

fn execute((hard_state, log): &mut (HardState, Vec<Entry>), write: Write) {
    if let Some(new) = write.hard_state {
        *hard_state = new;
    }
    if let Some(first) = write.entries.first() {
        log.retain(|entry| entry.id.index < first.id.index);
    }
    log.extend(write.entries);
}

impl Cluster {
    pub fn new(size: u64) -> Self {
        Self::with(size, |_| {})
    }

    pub fn with(size: u64, adjust: impl Fn(&mut Config)) -> Self {
        let membership = Membership::of_voters(1..=size);
        let node = |id| {
            let mut config = Config::new(id, membership.clone(), id);
            adjust(&mut config);
            (id, Node::new(config))
        };
        Self {
            nodes: (1..=size).map(node).collect(),
            queue: VecDeque::new(),
            cut: BTreeSet::new(),
            down: BTreeSet::new(),
        }
    }

    pub fn node(&mut self, id: NodeId) -> &mut Raft {
        &mut self.nodes.get_mut(&id).expect("a node of the cluster").raft
    }

    /// Collects what all nodes want to send.
    pub fn collect(&mut self) {
        for (id, node) in &mut self.nodes {
            if self.down.contains(id) {
                continue;
            }
            node.carry();
            self.queue.extend(node.raft.take_messages());
        }
    }

    /// Delivers the first message of the queue, unless its link is cut.
    pub fn deliver(&mut self) -> bool {
        let Some(envelope) = self.queue.pop_front() else {
            return false;
        };
        if !self.loses(&envelope) {
            self.node(envelope.to).step(envelope);
        }
        true
    }

    /// Whether the message is lost on its way.
    pub fn loses(&self, envelope: &Envelope) -> bool {
        let (from, to) = (envelope.from, envelope.to);
        self.cut.contains(&(from, to)) || self.down.contains(&to) || self.down.contains(&from)
    }

    /// Stops the node's disk, or lets it do what it was given.
    pub fn hold(&mut self, id: NodeId, held: bool) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.disk_held = held;
    }

    /// Delivers messages until nobody has anything left to say.
    pub fn settle(&mut self) {
        self.collect();
        while self.deliver() {
            self.collect();
        }
    }

    /// The same, but loses the messages of which `keep` says no.
    pub fn settle_for(&mut self, mut keep: impl FnMut(&Envelope) -> bool) {
        self.collect();
        while let Some(first) = self.queue.front() {
            if keep(first) {
                self.deliver();
            } else {
                self.queue.pop_front();
            }
            self.collect();
        }
    }

    /// Lets one tick pass everywhere and delivers what comes of it.
    pub fn tick(&mut self) {
        for (id, node) in &mut self.nodes {
            if !self.down.contains(id) {
                node.raft.tick();
            }
        }
        self.settle();
    }

    /// Ticks until the condition holds; fails after as many ticks as five elections may take.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..500 {
            if holds(self) {
                return;
            }
            self.tick();
        }
        panic!("never came true: {what}");
    }

    /// The leader of the highest term among the nodes that are up.
    pub fn leader(&self) -> Option<NodeId> {
        let up = self.nodes.iter().filter(|(id, _)| !self.down.contains(id));
        let leaders = up.filter(|(_, node)| node.raft.role() == RoleName::Leader);
        let highest = leaders.max_by_key(|(_, node)| node.raft.term());
        highest.map(|(id, _)| *id)
    }

    /// Ticks until there is a leader that has committed an entry of its term.
    pub fn elect(&mut self) -> NodeId {
        self.until("a leader that can serve", |cluster| {
            let leader = cluster.leader().map(|id| &cluster.nodes[&id].raft);
            leader.is_some_and(|raft| {
                let committed = raft.entry(raft.commit());
                committed.is_some_and(|entry| entry.id.term == raft.term())
            })
        });
        self.leader().expect("just found")
    }

    pub fn propose(&mut self, id: NodeId, command: &'static str) -> u64 {
        let accepted = self.node(id).propose(command.into());
        accepted.expect("the leader accepts").index
    }

    /// Cuts the node off from all others, in both directions.
    pub fn isolate(&mut self, id: NodeId) {
        for other in self.nodes.keys().copied().filter(|other| *other != id) {
            self.cut.extend([(id, other), (other, id)]);
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Loses all that is not on disk.
    pub fn crash(&mut self, id: NodeId) {
        self.down.insert(id);
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.pending.clear();
        node.disk_held = false;
        node.applied.clear();
    }

    pub fn restart(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let (hard_state, entries) = node.disk.clone();
        node.raft = Raft::new(node.config.clone(), hard_state, entries);
        self.down.remove(&id);
    }

    /// Starts the node anew with this on its disk.
    pub fn restart_with(&mut self, id: NodeId, hard_state: HardState, entries: Vec<Entry>) {
        self.crash(id);
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.disk = (hard_state, entries);
        self.restart(id);
    }

    /// The commands that the node has executed, in order.
    pub fn executed(&self, id: NodeId) -> Vec<String> {
        let commands = self.nodes[&id].applied.iter();
        let commands = commands.filter_map(|entry| match &entry.payload {
            Payload::Command(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Payload::Empty => None,
        });
        commands.collect()
    }
}
