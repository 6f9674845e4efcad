//! A state machine that tells a test what it sees, and the nodes that execute commands with it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::after;
use parking_lot::{Condvar, Mutex};
use raftkv::machine::{At, Gate, StateMachine};
use raftkv::node::{Config, Handle, Node, Outcome, Pending, Transport};
use raftkv::raft::{Entry, EntryId, Envelope, Index, Message, Payload, RoleName};
use raftkv::storage::Disk;

/// How long a node may take for whatever a test waits for: far longer than it ever needs.
pub const PATIENCE: Duration = Duration::from_secs(15);

type Step = Arc<dyn Fn(At) + Send + Sync>;

/// Calls a function of the test for each command, and answers with the cluster time of it.
#[derive(Clone)]
pub struct Probe<const QUICK: bool = false>(Step);

impl Probe {
    pub fn new(step: impl Fn(At) + Send + Sync + 'static) -> Self {
        Self(Arc::new(step))
    }
}

impl Probe<true> {
    /// One that says of itself that it is quick.
    pub fn quick(step: impl Fn(At) + Send + Sync + 'static) -> Self {
        Self(Arc::new(step))
    }
}

impl<const QUICK: bool> StateMachine for Probe<QUICK> {
    type Reply = u64;
    type Snapshot = ();

    const QUICK: bool = QUICK;

    fn identity(&self) -> String {
        "probe".into()
    }

    fn gate(&self) -> Gate {
        Arc::new(|_| Ok(()))
    }

    fn apply(&mut self, at: At, _: &Bytes) -> u64 {
        (self.0)(at);
        at.time_ms
    }

    fn query(&self, _: &Bytes) -> u64 {
        0
    }

    fn encode_reply(reply: &u64, out: &mut Vec<u8>) {
        out.extend(reply.to_le_bytes());
    }

    fn snapshot(&self) {}

    fn write_snapshot((): &(), out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(b"nothing")
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        io::copy(input, &mut io::sink())?;
        Ok(self.clone())
    }

    fn digest(&self) -> u64 {
        0
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Keeps the messages that a node sends but for their entries, and lets a test wait for one.
#[derive(Default)]
pub struct Sent {
    messages: Mutex<Vec<Message>>,
    more: Condvar,
}

impl Transport for Sent {
    fn send(&self, messages: Vec<Envelope>) {
        let messages = messages.into_iter().map(|envelope| envelope.message);
        let kept = messages.filter(|message| !matches!(message, Message::Append { .. }));
        self.messages.lock().extend(kept);
        self.more.notify_all();
    }
}

impl Sent {
    /// Waits until the node has acknowledged the log up to this index.
    pub fn wait_for_accepted(&self, index: Index) {
        let awaited = Message::Accepted { matched: index };
        let deadline = Instant::now() + PATIENCE;
        let mut messages = self.messages.lock();
        while !messages.contains(&awaited) {
            let late = self.more.wait_until(&mut messages, deadline).timed_out();
            assert!(!late, "no {awaited:?} among {messages:?}");
        }
    }
}

/// The settings of node 1 of so many. It takes snapshots only when it is asked for them.
pub fn config(size: u64) -> Config {
    let members = (1..=size).map(|id| (id, format!("node-{id}:1")));
    let mut config = Config::new(1, members, "a test's folder");
    config.snapshot_log_bytes = None;
    config.timing.heartbeat = 2 * config.timing.tick;
    config.timing.election = 5 * config.timing.tick;
    config
}

/// The leader of a cluster of one.
pub fn leader<S: StateMachine>(config: Config, machine: S, disk: Arc<dyn Disk>) -> Handle<S> {
    let node = Node::start_on(config, machine, disk, Arc::new(Sent::default()));
    let node = node.expect("the node starts");
    let leads = node.wait_until(PATIENCE, |raft| raft.role() == RoleName::Leader);
    assert!(leads, "alone it is elected");
    node
}

/// A member of a cluster of three that nobody votes for.
pub fn follower(machine: Probe, disk: Arc<dyn Disk>) -> (Handle<Probe>, Arc<Sent>) {
    let sent = Arc::new(Sent::default());
    let mut config = config(3);
    // It stays a follower however slow this machine is.
    config.timing.election = Duration::from_secs(3600);
    let node = Node::start_on(config, machine, disk, sent.clone());
    (node.expect("the node starts"), sent)
}

pub fn start<S: StateMachine>(node: &Handle<S>, command: impl Into<Bytes>) -> Pending<S::Reply> {
    let pending = node.start(command, PATIENCE);
    pending.unwrap_or_else(|_| panic!("the command is refused"))
}

/// Has a command executed.
pub fn execute<S: StateMachine>(node: &Handle<S>, command: impl Into<Bytes>) -> S::Reply {
    match start(node, command).wait(PATIENCE) {
        Outcome::Reply(reply) => reply,
        Outcome::Invalid(why) => panic!("the command is refused: {why}"),
        Outcome::Ended(end) => panic!("the command has ended without a reply: {end:?}"),
    }
}

/// What node 2 sends as the leader of the first term.
pub fn from_leader(message: Message) -> Envelope {
    Envelope {
        from: 2,
        from_folder: 2,
        to: 1,
        to_folder: None,
        term: 1,
        message,
    }
}

/// The entry at this index of the first term, with a command of so many bytes.
pub fn entry(index: Index, bytes: usize) -> Entry {
    Entry {
        id: EntryId { term: 1, index },
        time_ms: 0,
        payload: Payload::Command(vec![7; bytes].into()),
    }
}

/// Looks again and again until the condition holds. `what` says what is wrong if it never does.
pub fn wait_for(what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{}", what());
        let _ = after(Duration::from_millis(2)).recv();
    }
}
