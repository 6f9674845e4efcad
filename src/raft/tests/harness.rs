//! A small deterministic cluster of cores. Messages wait in one queue until they are delivered;
//! disks are prompt unless a test holds them back.

mod changing;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::raft::{
    Config, Configuration, ConfigurationEvent, DecidedReads, Entry, EntryId, Envelope, Event,
    HardState, NodeId, Output, Part, PartRequest, Payload, Raft, RoleName, Room, SnapshotMeta,
    StoredSnapshot, Write,
};

pub use changing::{envelope, members};

/// The entries that each snapshot holds, for all nodes: no snapshot has a file here.
type Library = Rc<RefCell<BTreeMap<EntryId, Vec<Entry>>>>;

/// How large the file of each snapshot is said to be, in bytes.
pub const SNAPSHOT_BYTES: u64 = 1000;

pub const WRITE: Room = Room {
    write: true,
    ..Room::NOTHING
};
pub const PARTS: Room = Room {
    parts: true,
    ..Room::NOTHING
};
pub const EXECUTION: Room = Room {
    install: true,
    entry_bytes: usize::MAX,
    ..Room::NOTHING
};

/// The next write of a core that stands alone. This function and those below drop whatever else the
/// core hands out with it.
pub fn take_write(raft: &mut Raft) -> Option<Write> {
    raft.output(WRITE).write
}

pub fn take_messages(raft: &mut Raft) -> Vec<Envelope> {
    raft.output(Room::MESSAGES).messages
}

pub fn take_entries(raft: &mut Raft, entry_bytes: usize) -> Vec<Entry> {
    let room = Room {
        entry_bytes,
        ..Room::NOTHING
    };
    raft.output(room).entries
}

/// One core with its disk and what it has executed.
pub struct Node {
    pub raft: Raft,
    config: Config,
    /// Term, vote and log on disk: they survive a crash.
    disk: (HardState, Vec<Entry>),
    /// Writes that the core has handed out and that are not on disk yet.
    pending: VecDeque<Write>,
    /// While set, writes stay in `pending`.
    pub disk_held: bool,
    pub applied: Vec<Entry>,
    /// Here and below: what else the core has handed out since a test last took it.
    pub decided: DecidedReads,
    pub events: Vec<Event>,
    pub configuration_events: Vec<ConfigurationEvent>,
    pub wants_snapshot: bool,
    to_store: VecDeque<Part>,
    to_send: Vec<PartRequest>,
    library: Library,
    /// The newest snapshot on disk.
    snapshot: Option<StoredSnapshot>,
    /// The snapshot that is coming in, and how many bytes of it have come.
    incoming: Option<(EntryId, u64)>,
}

pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub queue: VecDeque<Envelope>,
    /// Directed links, each as sender and receiver, that lose every message.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub down: BTreeSet<NodeId>,
}

impl Node {
    fn new(config: Config, library: Library) -> Self {
        Self {
            library,
            snapshot: None,
            incoming: None,
            raft: Raft::new(config.clone(), HardState::default(), Vec::new()),
            config,
            disk: (HardState::default(), Vec::new()),
            pending: VecDeque::new(),
            disk_held: false,
            applied: Vec::new(),
            decided: DecidedReads::default(),
            events: Vec::new(),
            configuration_events: Vec::new(),
            wants_snapshot: false,
            to_store: VecDeque::new(),
            to_send: Vec::new(),
        }
    }

    /// What the core hands out, except what this function moves into the fields of the node.
    fn output(&mut self, room: Room) -> Output {
        let mut output = self.raft.output(room);
        assert_eq!(output.fault, None);
        self.decided.ready.append(&mut output.reads.ready);
        self.decided.failed.append(&mut output.reads.failed);
        self.events.append(&mut output.events);
        self.configuration_events
            .append(&mut output.configuration_events);
        self.wants_snapshot |= output.wants_snapshot;
        self.to_store.append(&mut output.to_store);
        self.to_send.extend(output.to_send.take());
        output
    }

    /// Moves what the core hands out: writes to the disk, committed entries to `applied`.
    fn carry(&mut self) {
        let write = self.output(WRITE).write;
        self.pending.extend(write);
        while !self.disk_held {
            let Some(write) = self.pending.pop_front() else {
                break;
            };
            let id = write.id;
            execute(&mut self.disk, write);
            self.raft.durable(id);
            let write = self.output(WRITE).write;
            self.pending.extend(write);
        }
        self.store_parts();
        let Output {
            install, entries, ..
        } = self.output(EXECUTION);
        if let Some(meta) = install {
            self.applied = self.library.borrow()[&meta.last].clone();
            self.raft.applied(meta.last.index);
        }
        if let Some(last) = entries.last() {
            let index = last.id.index;
            self.applied.extend(entries);
            self.raft.applied(index);
        }
        assert_eq!(self.raft.fault(), None);
    }

    fn store_parts(&mut self) {
        // `output` moves the parts into `to_store` and `to_send`.
        drop(self.output(PARTS));
        for part in std::mem::take(&mut self.to_store) {
            let last = part.meta.last;
            let so_far = self.incoming.filter(|(of, _)| *of == last);
            let mut received = so_far.map_or(0, |(_, received)| received);
            if part.offset == received {
                received += part.data.len() as u64;
            }
            self.incoming = Some((last, received));
            if received < part.bytes {
                self.raft.part_stored(last, received);
                continue;
            }
            let snapshot = StoredSnapshot {
                meta: part.meta,
                bytes: part.bytes,
            };
            self.snapshot = Some(snapshot.clone());
            self.raft.install(snapshot);
        }
    }

    fn take_snapshot(&mut self) {
        let last = self.applied.last().expect("something was executed");
        let meta = SnapshotMeta {
            last: last.id,
            time_ms: last.time_ms,
            configuration: self
                .raft
                .configuration_at(last.id.index)
                .expect("it is known")
                .clone(),
        };
        let (last, bytes) = (meta.last, SNAPSHOT_BYTES);
        let executed = self.applied.clone();
        self.library.borrow_mut().insert(last, executed);
        let snapshot = StoredSnapshot { meta, bytes };
        self.snapshot = Some(snapshot.clone());
        self.raft.snapshot_taken(snapshot);
    }

    /// The messages that leave now. Parts of snapshots are among them, filled with zeros.
    fn messages(&mut self) -> Vec<Envelope> {
        let mut messages = self.output(Room::MESSAGES).messages;
        while self.output(PARTS).left.parts {}
        for request in std::mem::take(&mut self.to_send) {
            let data = vec![0; request.length as usize].into();
            messages.push(request.message(data));
        }
        messages
    }
}

fn execute((hard_state, log): &mut (HardState, Vec<Entry>), write: Write) {
    if let Some(new) = write.hard_state {
        *hard_state = new;
    }
    if write.restart.is_some() {
        log.clear();
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

    /// A cluster whose nodes do not know each other's folders yet.
    pub fn founded(size: u64, adjust: impl Fn(&mut Config)) -> Self {
        Self::with(size, |config| {
            let members = (1..=size).map(|id| (id, format!("node-{id}")));
            config.founding = Configuration::founding(members);
            adjust(config);
        })
    }

    pub fn with(size: u64, adjust: impl Fn(&mut Config)) -> Self {
        let founding = Configuration::of_voters(1..=size);
        let library = Library::default();
        let node = |id| {
            let mut config = Config {
                keeps_matched: true,
                ..Config::new(id, founding.clone(), id)
            };
            adjust(&mut config);
            (id, Node::new(config, library.clone()))
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
            self.queue.extend(node.messages());
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

    /// Delivers messages until no node has one to send.
    pub fn settle(&mut self) {
        self.collect();
        while self.deliver() {
            self.collect();
        }
    }

    /// As [`settle`](Self::settle), but messages for which `keep` returns false are lost.
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

    /// Lets one tick pass at every node that is up, and delivers all messages that follow.
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
            // A committed entry that the log holds no more is covered by a snapshot.
            leader.is_some_and(|raft| {
                let committed = raft.entry(raft.commit());
                raft.commit() > 0 && committed.is_none_or(|entry| entry.id.term == raft.term())
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

    /// Stops the node, which loses all that is not on its disk.
    pub fn crash(&mut self, id: NodeId) {
        self.down.insert(id);
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.pending.clear();
        node.disk_held = false;
        node.applied.clear();
        node.to_store.clear();
        node.to_send.clear();
        node.incoming = None;
    }

    pub fn restart(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let (hard_state, mut entries) = node.disk.clone();
        let snapshot = node.snapshot.clone();
        if let Some(StoredSnapshot { meta, .. }) = &snapshot {
            let behind = |entry: &Entry| entry.id.index > meta.last.index;
            entries.retain(behind);
            node.applied = node.library.borrow()[&meta.last].clone();
        }
        node.raft = Raft::restore(node.config.clone(), hard_state, snapshot, entries);
        self.down.remove(&id);
    }

    /// Lets the node take a snapshot of what it has executed.
    pub fn take_snapshot(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.take_snapshot();
    }

    /// Starts the node anew with this term, vote and log on its disk.
    pub fn restart_with(&mut self, id: NodeId, hard_state: HardState, entries: Vec<Entry>) {
        self.crash(id);
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.disk = (hard_state, entries);
        self.restart(id);
    }

    /// The node loses its folder and comes back with a new one, which is not admitted yet.
    pub fn wipe(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.config.admitted = false;
        node.config.folder += 1000;
        node.snapshot = None;
        self.restart_with(id, HardState::default(), Vec::new());
    }

    /// The node is admitted: enough other nodes know its folder.
    pub fn admit(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.config.admitted = true;
        node.raft.admit();
    }

    /// The commands that the node has executed, in order.
    pub fn executed(&self, id: NodeId) -> Vec<String> {
        let commands = self.nodes[&id].applied.iter();
        let commands = commands.filter_map(|entry| match &entry.payload {
            Payload::Command(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Payload::Empty | Payload::Configuration(_) => None,
        });
        commands.collect()
    }
}
