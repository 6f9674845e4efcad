//! An arena on threads: whole nodes with the network in memory between them, in real time.

mod clerks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use raftkv::kv::{Query, Reply};
use raftkv::machine::StateMachine;
use raftkv::node::{Config, End, Outcome, Pending};
use raftkv::raft::{Entry, EntryId, Index, Message, NodeId, Payload, RoleName, Term};
use raftkv::testkit::{Cluster, Link};
use raftkv::wire::client::{Doubt, Status};
use raftkv::wire::frame;

use super::executions::{Executions, Watched, is_command};
use super::{Arena, Scripted, Service, View, server_of};
use crate::sim::lab::{Ended, Every, Numbering, Submitted, Ticket, is_request};
use crate::sim::{Random, Time};
use clerks::Clerks;

/// Longer than any scenario: a command that was submitted ends by itself before.
const LONG: Duration = Duration::from_secs(120);

/// How long to look away between two looks.
const GLANCE: Duration = Duration::from_millis(5);

/// Of this a quarter is what the log in memory may keep behind a snapshot: about two entries. By
/// itself a server takes a snapshot only when the log weighs as much as a snapshot's file, which
/// takes more than 8 KiB.
const LOG_BYTES: u64 = 440;

/// The course's unreliable network. It delays a message either way, and now and then it repeats a
/// message.
const UNRELIABLE: Link = Link {
    cut: false,
    min_delay: Duration::ZERO,
    max_delay: Duration::from_millis(26),
    late_permille: 0,
    late_delay: Duration::ZERO,
    loss_permille: 100,
    twice_permille: 20,
};

/// A command that was submitted: the end is yet to come, or is known.
enum Start {
    UnderWay(Pending<Reply>),
    Ended(Ended),
}

/// What the servers sent to each other.
#[derive(Default)]
struct Traffic {
    requests: BTreeMap<NodeId, u64>,
    bytes: u64,
    /// To whom a snapshot was sent, and its last entry.
    snapshots: BTreeSet<(NodeId, Index)>,
}

/// Servers whose threads run in real time.
pub struct Threads {
    /// Dropped before the servers, to which each says goodbye.
    clerks: Clerks,
    cluster: Cluster<Watched>,
    executions: Executions,
    traffic: Arc<Mutex<Traffic>>,
    started: Instant,
    /// Servers of the same side reach each other, over links of this kind.
    sides: Vec<u64>,
    link: Link,
    random: Random,
    numbering: Numbering,
    starts: Vec<Start>,
    /// What was submitted, by the entry that it became.
    commands: HashMap<(u64, Index), Bytes>,
    /// When servers are asked for a snapshot, and when to look next whether it is time.
    every: Option<Every>,
    look_at: Time,
    /// Who has led, as far as anybody looked.
    leaders: Mutex<BTreeMap<Term, usize>>,
}

impl Threads {
    /// Starts so many servers, which never take a snapshot by themselves, and so many clients.
    pub fn new(servers: usize, clients: usize) -> Self {
        Self::with_log_bytes(servers, clients, None)
    }

    fn with_log_bytes(servers: usize, clients: usize, log_bytes: Option<u64>) -> Self {
        let executions = Executions::default();
        let replicas = executions.clone();
        let adjust = |config: &mut Config| config.snapshot_log_bytes = log_bytes;
        let cluster = Cluster::start_with(servers as u64, move || replicas.machine(), adjust);
        let traffic = Arc::new(Mutex::new(Traffic::default()));
        let count = traffic.clone();
        // A leader is elected a quarter of a second after the start at the earliest, so all that
        // matters is counted.
        cluster.network().set_filter(move |envelope| {
            let mut bytes = Vec::new();
            frame::put(envelope, &mut bytes);
            let mut count = count.lock();
            count.bytes += bytes.len() as u64;
            if is_request(&envelope.message) {
                *count.requests.entry(envelope.to).or_insert(0) += 1;
            }
            if let Message::Snapshot { meta, .. } = &envelope.message {
                count.snapshots.insert((envelope.to, meta.last.index));
            }
            true
        });
        Self {
            clerks: Clerks::new(&cluster, clients),
            cluster,
            executions,
            traffic,
            started: Instant::now(),
            sides: vec![0; servers],
            link: Link::default(),
            random: Random::new(servers as u64),
            numbering: Numbering::default(),
            starts: Vec::new(),
            commands: HashMap::new(),
            every: None,
            look_at: 0,
            leaders: Mutex::default(),
        }
    }

    fn rewire(&self) {
        for (from, side) in self.sides.iter().enumerate() {
            for (to, other) in self.sides.iter().enumerate().filter(|(to, _)| *to != from) {
                let link = if side == other { self.link } else { Link::CUT };
                let network = self.cluster.network();
                network.set_link(id_of(from), id_of(to), link);
            }
        }
    }

    fn put_on_side(&mut self, server: usize, side: u64) {
        self.sides[server] = side;
        self.rewire();
    }

    fn status(&self, server: usize) -> Option<Status> {
        let status = self.cluster.node_if_up(id_of(server))?.status();
        if status.role == RoleName::Leader {
            let mut leaders = self.leaders.lock();
            let first = *leaders.entry(status.term).or_insert(server);
            assert_eq!(first, server, "two leaders in term {}", status.term);
        }
        Some(status)
    }

    /// Waits until a client's operation ends, at most for a glance, and not beyond `end`.
    fn wait(&mut self, end: Time) {
        self.take_snapshots();
        let left = Duration::from_micros(end.saturating_sub(self.now()));
        self.clerks.wait(left.min(GLANCE));
    }

    /// Asks those servers for a snapshot for which it is time.
    fn take_snapshots(&mut self) {
        let now = self.now();
        let Some(every) = self.every.filter(|_| now >= self.look_at) else {
            return;
        };
        self.look_at = self.after(GLANCE);
        for server in 0..self.servers() {
            let Some(node) = self.cluster.node_if_up(id_of(server)) else {
                continue;
            };
            let status = node.status();
            let is_time = match every {
                Every::Entries(entries) => status.applied >= status.snapshot_index + entries,
                Every::Bytes(bytes) => self.log_bytes(server) >= bytes,
            };
            if is_time && !status.snapshot_pending {
                node.take_snapshot();
            }
        }
    }

    fn executed_up_to(&self, index: Index) -> usize {
        let all = (0..self.servers()).filter_map(|server| self.status(server));
        all.filter(|status| status.applied >= index).count()
    }
}

impl Arena for Threads {
    fn nominal_timeout(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn pause_before_look(&mut self) -> Duration {
        GLANCE
    }

    fn glance(&self) -> Duration {
        GLANCE
    }

    fn rounds(&self, course: u64) -> u64 {
        match course {
            0..100 => course.div_ceil(2),
            _ => course / 5,
        }
    }

    fn set_unreliable(&mut self, unreliable: bool) {
        self.link = match unreliable {
            true => UNRELIABLE,
            false => Link::default(),
        };
        self.clerks.set_unreliable(unreliable);
        self.rewire();
    }

    /// The course has two thirds of the answers come late, by 200 to 2,200 ms; here it is a third
    /// of all messages, by half as much.
    fn set_long_reordering(&mut self, long_reordering: bool) {
        self.link.late_permille = if long_reordering { 333 } else { 0 };
        self.link.late_delay = Duration::from_millis(1100);
        self.rewire();
    }

    fn now(&self) -> Time {
        self.started.elapsed().as_micros() as Time
    }

    fn run_to(&mut self, end: Time) {
        while self.now() < end {
            self.wait(end);
        }
    }

    fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.after(limit);
        loop {
            if holds(self) {
                return true;
            }
            if self.now() >= end {
                return false;
            }
            self.wait(end);
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn servers(&self) -> usize {
        self.sides.len()
    }

    fn disconnect(&mut self, server: usize) {
        self.put_on_side(server, 1 + server as u64);
    }

    fn connect(&mut self, server: usize) {
        self.put_on_side(server, 0);
    }

    fn is_connected(&self, server: usize) -> bool {
        self.is_up(server) && self.sides[server] == 0
    }

    fn is_up(&self, server: usize) -> bool {
        self.cluster.is_up(id_of(server))
    }

    fn crash(&mut self, server: usize) {
        self.disconnect(server);
        if self.is_up(server) {
            self.cluster.crash(id_of(server));
        }
    }

    /// In real time a server that crashes ends its threads, which tell whoever waits.
    fn stop(&mut self, server: usize) {
        self.crash(server);
    }

    fn start(&mut self, server: usize) {
        self.cluster.restart(id_of(server));
        self.connect(server);
    }

    /// Each command from a thread of its own.
    fn submit_all(&mut self, server: usize, commands: Vec<Bytes>) -> Vec<Option<Submitted>> {
        let Some(node) = self.cluster.node_if_up(id_of(server)) else {
            return vec![None; commands.len()];
        };
        let all: Vec<_> = thread::scope(|scope| {
            let start = |command: &Bytes| node.start(command.clone(), LONG).ok();
            let threads = commands
                .iter()
                .map(|command| scope.spawn(move || start(command)));
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("to submit does not panic"))
                .collect()
        });
        let mut submitted = Vec::new();
        for (pending, command) in all.into_iter().zip(commands) {
            submitted.push(pending.map(|pending| {
                let entry = pending.id();
                let ticket = Ticket(self.starts.len() as u64);
                self.starts.push(Start::UnderWay(pending));
                self.commands.insert((entry.term, entry.index), command);
                Submitted { entry, ticket }
            }));
        }
        submitted
    }

    fn ended(&mut self, ticket: Ticket) -> Option<Ended> {
        let start = &mut self.starts[ticket.0 as usize];
        if let Start::UnderWay(pending) = start {
            *start = Start::Ended(match pending.wait(Duration::ZERO) {
                Outcome::Reply(reply) => Ended::Reply(reply),
                Outcome::Ended(End::Unknown(Doubt::Timeout)) => return None,
                Outcome::Ended(End::Unknown(doubt)) => Ended::Unknown(doubt),
                other => Ended::Not(format!("{other:?}")),
            });
        }
        match start {
            Start::Ended(ended) => Some(ended.clone()),
            Start::UnderWay(_) => None,
        }
    }

    fn numbering(&mut self) -> &mut Numbering {
        &mut self.numbering
    }

    fn view(&self, server: usize) -> Option<View> {
        let status = self.status(server)?;
        Some(View {
            term: status.term,
            leader: status.leader.map(server_of),
            leads: status.role == RoleName::Leader,
        })
    }

    fn executed_entry(&self, entry: EntryId) -> usize {
        let submitted = self.commands.get(&(entry.term, entry.index));
        let executed = self.executions.at(entry.index);
        match executed.is_some() && executed.as_ref() == submitted {
            true => self.executed_up_to(entry.index),
            false => 0,
        }
    }

    fn place(&self, index: Index) -> u64 {
        self.executions.up_to(index).len() as u64
    }

    fn executed(&self, n: u64) -> usize {
        let executed = self.executions.up_to(Index::MAX);
        let index = executed.get(n as usize - 1);
        index.map_or(0, |index| self.executed_up_to(*index))
    }

    fn place_in_log(&self, server: usize, index: Index) -> u64 {
        let node = self.cluster.node(id_of(server));
        let mut places = 0;
        node.wait_until(Duration::ZERO, |raft| {
            let held = raft.first_index()..=index;
            let entries = held.filter_map(|index| raft.entry(index));
            let commands = entries.filter(|entry| match &entry.payload {
                Payload::Command(command) => is_command(command),
                Payload::Empty | Payload::Configuration(_) => false,
            });
            // What every member has executed need not be held any more.
            let executed = self.executions.up_to(raft.first_index() - 1);
            places = executed.len() + commands.count();
            true
        });
        places as u64
    }

    fn value_at(&self, server: usize, key: &[u8]) -> Bytes {
        let key = Bytes::copy_from_slice(key);
        let query = Query::Get { key }.to_bytes();
        let node = self.cluster.node(id_of(server));
        match node.with_machine(|machine| machine.kv.query(&query)) {
            Reply::Value(value) => value.unwrap_or_default(),
            other => panic!("a get is answered {other:?}"),
        }
    }

    /// Starts the cluster anew, for its settings differ.
    fn snapshot(&mut self, every: Every) {
        let is_fresh = self.starts.is_empty() && self.clerks.history().is_empty();
        assert!(is_fresh, "something happened before");
        let unreliable = self.link.loss_permille > 0;
        *self = Self::with_log_bytes(self.servers(), self.clients(), Some(LOG_BYTES));
        self.every = Some(every);
        self.set_unreliable(unreliable);
    }

    fn snapshot_index(&self, server: usize) -> Index {
        self.status(server)
            .map_or(0, |status| status.snapshot_index)
    }

    fn installs(&self) -> u64 {
        self.traffic.lock().snapshots.len() as u64
    }

    fn held(&self, server: usize) -> RangeInclusive<Index> {
        let status = self.status(server).expect("the server is up");
        status.first_index..=status.last_index
    }

    fn log_bytes(&self, server: usize) -> usize {
        let mut bytes = 0;
        if let Some(node) = self.cluster.node_if_up(id_of(server)) {
            node.wait_until(Duration::ZERO, |raft| {
                let held = raft.first_index()..=raft.last().index;
                let entries = held.filter_map(|index| raft.entry(index));
                bytes = entries.map(Entry::weight).sum();
                true
            });
        }
        bytes
    }

    fn log_file_bytes(&self, _: usize) -> Option<usize> {
        None
    }

    fn requests(&self) -> u64 {
        self.traffic.lock().requests.values().sum()
    }

    fn requests_to(&self, server: usize) -> u64 {
        let traffic = self.traffic.lock();
        let requests = traffic.requests.get(&id_of(server));
        requests.copied().unwrap_or(0)
    }

    fn bytes(&self) -> u64 {
        self.traffic.lock().bytes
    }

    fn check_end(&mut self) {
        assert_eq!(self.executions.contradiction(), None);
        self.check_logs();
    }
}

/// The id of a server.
fn id_of(server: usize) -> NodeId {
    server as NodeId + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_stays_unreliable_when_snapshots_begin() {
        let mut arena = Threads::new(1, 0);
        arena.set_unreliable(true);
        arena.snapshot(Every::Entries(10));
        assert_eq!(arena.link, UNRELIABLE);
    }
}
