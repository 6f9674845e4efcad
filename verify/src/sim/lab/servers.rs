//! How a test acts on the servers of a lab: it cuts them off, crashes and starts them, submits
//! commands to them, and reads how far they are.

use bytes::Bytes;

use super::{DESK, Ended, Lab, Ticket};
use crate::sim::Time;
use crate::sim::history::number_of;
use crate::sim::node::Waiter;
use raftkv::kv::{Kv, Query, Reply};
use raftkv::machine::StateMachine;
use raftkv::raft::{EntryId, Index, Raft};

/// A command submitted directly may take so many ticks; longer than any test.
const TICKS: u64 = 1_000_000;

/// A command that a leader has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The entry that it became.
    pub entry: EntryId,
    /// By which its end can be asked for.
    pub ticket: Ticket,
}

/// The session of a script's commands, and the number of its last command.
#[derive(Debug, Default)]
pub struct Numbering {
    pub(crate) session: Option<u64>,
    pub(crate) last_seq: u64,
}

/// Who reaches whom, and who is up.
impl Lab {
    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.sides.len()
    }

    /// Cuts a server off from all others, in both directions; its process goes on.
    pub fn disconnect(&mut self, server: usize) {
        self.sides[server] = 1 + server as u64;
        self.rewire();
    }

    /// Connects a server with all others that are connected.
    pub fn connect(&mut self, server: usize) {
        self.sides[server] = 0;
        self.rewire();
    }

    /// Puts these on one side and all others on the other.
    pub fn split(&mut self, side: &[usize]) {
        for server in 0..self.servers() {
            self.sides[server] = if side.contains(&server) { u64::MAX } else { 0 };
        }
        self.rewire();
    }

    fn rewire(&mut self) {
        for from in 0..self.servers() {
            for to in 0..self.servers() {
                match self.sides[from] == self.sides[to] {
                    true => self.world.network.mend(from, to),
                    false => self.world.network.cut(from, to, Time::MAX),
                }
            }
        }
    }

    /// Whether a server is up and connected.
    pub fn is_connected(&self, server: usize) -> bool {
        self.is_up(server) && self.sides[server] == 0
    }

    /// Whether a server is up.
    pub fn is_up(&self, server: usize) -> bool {
        self.world.nodes[server].running.is_some()
    }

    /// The power of a server fails: what was not synced is lost, torn or kept by chance. It is
    /// disconnected, too. If it is down already, it stays so.
    pub fn crash(&mut self, server: usize) {
        self.disconnect(server);
        self.world.nodes[server].retired = true;
        self.world.crash(server, true);
    }

    /// A server stops in good order: whoever waits for it is told so.
    pub fn stop(&mut self, server: usize) {
        if self.is_up(server)
            && let Err(failure) = self.world.abandon(server)
        {
            panic!("{failure}");
        }
        self.crash(server);
    }

    /// Starts a server that is down from what its disk holds, and connects it.
    pub fn start(&mut self, server: usize) {
        assert!(!self.is_up(server), "server {server} is up");
        self.world.nodes[server].retired = false;
        self.boot(server);
        self.connect(server);
    }

    pub(super) fn boot(&mut self, server: usize) {
        if let Err(failure) = self.world.start(server) {
            panic!("{failure}");
        }
    }
}

/// Commands that are submitted to servers directly.
impl Lab {
    /// Submits a command to a server. `None` if that does not take it, because it does not lead.
    pub fn submit(&mut self, server: usize, command: Bytes) -> Option<Submitted> {
        if !self.is_up(server) {
            return None;
        }
        self.world.last_id += 1;
        let attempt = self.world.last_id;
        let waiter = Waiter {
            client: DESK,
            attempt,
        };
        let submitted = self.world.input(server, |hub, outside| {
            let waiter = outside.to_answer(waiter);
            hub.input(|replica| replica.submit(command, TICKS, waiter))
        });
        let entry = match submitted {
            Ok(entry) => entry?,
            Err(failure) => panic!("{failure}"),
        };
        let ticket = Ticket(attempt);
        Some(Submitted { entry, ticket })
    }

    /// How a command has ended, if it has.
    pub fn ended(&self, ticket: Ticket) -> Option<&Ended> {
        self.world.desk.answer(ticket)
    }
}

/// How far the servers are.
impl Lab {
    /// The core of a server that is up.
    pub fn with_raft<T>(&self, server: usize, look: impl FnOnce(&Raft) -> T) -> Option<T> {
        let running = self.world.nodes[server].running.as_ref()?;
        Some(running.hub.with_raft(look))
    }

    /// How many servers have executed the entry of this id.
    pub fn executed_entry(&self, entry: EntryId) -> usize {
        let canonical = &self.world.checks.canonical;
        let known = canonical.get(entry.index as usize - 1);
        match known.is_some_and(|known| known.entry.id == entry) {
            true => self.executed_up_to(entry.index),
            false => 0,
        }
    }

    fn executed_up_to(&self, index: Index) -> usize {
        let applied = |server| self.with_raft(server, Raft::applied_index);
        let all = (0..self.servers()).filter_map(applied);
        all.filter(|applied| *applied >= index).count()
    }

    /// The place of the entry at this index among all commands that are committed; the first one
    /// is 1. What the course calls an index: the entry that opens a term has none, and neither
    /// has the opening of a session.
    pub fn place(&self, index: Index) -> u64 {
        let canonical = &self.world.checks.canonical[..index as usize];
        canonical.iter().filter(|c| is_command(&c.entry)).count() as u64
    }

    /// How many servers have executed at least `n` commands. Entries that are no commands, such as
    /// the one that opens a term, do not count.
    pub fn executed(&self, n: u64) -> usize {
        let canonical = self.world.checks.canonical.iter();
        let mut commands = canonical.filter(|c| is_command(&c.entry));
        let command = commands.nth(n as usize - 1);
        command.map_or(0, |c| self.executed_up_to(c.entry.id.index))
    }

    /// The place that an entry has among the commands of this server's log, committed or not.
    pub fn place_in_log(&self, server: usize, index: Index) -> u64 {
        let place = self.with_raft(server, |raft| {
            let entries = (raft.first_index()..=index).filter_map(|index| raft.entry(index));
            entries.filter(|entry| is_command(entry)).count() as u64
        });
        place.expect("the server is up")
    }

    /// What a server's state holds under a key.
    pub fn value_at(&self, server: usize, key: &[u8]) -> Bytes {
        let key = Bytes::copy_from_slice(key);
        match self.machine(server).query(&Query::Get { key }.to_bytes()) {
            Reply::Value(value) => value.unwrap_or_default(),
            other => panic!("a get is answered {other:?}"),
        }
    }

    pub(super) fn machine(&self, server: usize) -> Kv {
        let running = self.world.nodes[server].running.as_ref();
        running.expect("the server is up").state()
    }

    /// How many requests the servers sent each other, lost ones included.
    pub fn requests(&self) -> u64 {
        self.world.desk.traffic.requests()
    }

    /// How many requests were sent to a server.
    pub fn requests_to(&self, server: usize) -> u64 {
        self.world.desk.traffic.requests_to(server)
    }

    /// How many bytes the servers sent each other: all requests, and the answers that arrived, in
    /// frames.
    pub fn bytes(&self) -> u64 {
        self.world.desk.traffic.bytes()
    }
}

fn is_command(entry: &raftkv::raft::Entry) -> bool {
    match &entry.payload {
        raftkv::raft::Payload::Command(command) => number_of(command).is_some(),
        raftkv::raft::Payload::Empty | raftkv::raft::Payload::Configuration(_) => false,
    }
}
