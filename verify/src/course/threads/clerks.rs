//! The clients of an arena on threads: each is a thread with a Clerk, which does one thing at a
//! time, over a way to the servers that the scenario can cut and make lossy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender, bounded};
use parking_lot::Mutex;
use raftkv::client::{Answered, CallError, Clerk, Error, Options, Stop, Transport};
use raftkv::kv::Reply;
use raftkv::machine::StateMachine;
use raftkv::raft::{Index, NodeId};
use raftkv::testkit::{ClientLink, Cluster, Unreliable, address};
use raftkv::wire::client::Ask;

use super::{Threads, id_of};
use crate::course::{Arena, Service};
use crate::sim::lab::{Call, FRAME};
use crate::sim::{self, Action, End, Random, Record, Time};

/// The course's unreliable network between clients and servers.
const UNRELIABLE: ClientLink = ClientLink {
    max_delay: Duration::from_millis(26),
    lost_requests_permille: 100,
    lost_answers_permille: 100,
};

/// After how many microseconds, at the most, a client hears that a server is out of its reach.
const PATIENCE: u64 = 100_000;

/// The same with long delays.
const LONG_DELAY: u64 = 7_000_000;

/// No call may fail; one that takes so long has.
const DEADLINE: Duration = Duration::from_secs(30);

/// All clients, and all that they did.
pub struct Clerks {
    clients: Vec<Client>,
    law: Arc<Law>,
    history: Vec<Record>,
    ended: Receiver<Ended>,
    /// Without it a wait would end at once where there is no client.
    _another_may_end: Sender<Ended>,
}

/// What holds for the ways of all clients.
#[derive(Default)]
struct Law {
    unreliable: AtomicBool,
    long_delays: AtomicBool,
}

struct Client {
    clerk: Arc<Clerk>,
    reached: Arc<Mutex<BTreeSet<String>>>,
    asks: Option<Sender<(usize, Action)>>,
    thread: Option<JoinHandle<()>>,
    last: Option<usize>,
}

/// An operation that has ended: its place in the history, when it began, and its end.
struct Ended {
    place: usize,
    called: Time,
    end: (Time, End),
}

impl Clerks {
    /// So many clients, who reach all servers.
    pub fn new<S: StateMachine>(cluster: &Cluster<S>, clients: usize) -> Self {
        let (end, ended) = bounded(clients.max(1));
        let law = Arc::new(Law::default());
        let begun = Instant::now();
        let start = |seed| Client::start(cluster, seed, law.clone(), begun, end.clone());
        Self {
            clients: (0..clients as u64).map(start).collect(),
            law,
            history: Vec::new(),
            ended,
            _another_may_end: end,
        }
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    pub fn history(&self) -> &[Record] {
        &self.history
    }

    pub fn set_unreliable(&self, unreliable: bool) {
        self.law.unreliable.store(unreliable, Ordering::Relaxed);
    }

    pub fn set_long_delays(&self, long_delays: bool) {
        self.law.long_delays.store(long_delays, Ordering::Relaxed);
    }

    /// Lets a client reach these servers and no others.
    pub fn connect(&self, client: usize, servers: impl Iterator<Item = NodeId>) {
        *self.clients[client].reached.lock() = servers.map(address).collect();
    }

    pub fn begin(&mut self, client: usize, action: Action) -> Call {
        let place = self.history.len();
        self.history.push(Record {
            client,
            action: action.clone(),
            // The client's thread says it more exactly.
            called: 0,
            number: None,
            end: None,
        });
        let client = &mut self.clients[client];
        let last = client.last.replace(place);
        let is_idle = last.is_none_or(|last| self.history[last].end.is_some());
        assert!(is_idle, "a client does one thing at a time");
        let asks = client.asks.as_ref().expect("the client goes on");
        asks.send((place, action)).expect("its thread runs");
        Call(place)
    }

    /// Waits until a client's operation ends, at most so long.
    pub fn wait(&mut self, most: Duration) {
        if let Ok(ended) = self.ended.recv_timeout(most) {
            let record = &mut self.history[ended.place];
            record.called = ended.called;
            record.end = Some(ended.end);
        }
    }

    pub fn attempts(&self) -> u64 {
        let clerks = self.clients.iter().map(|client| client.clerk.stats());
        clerks.map(|stats| stats.attempts).sum()
    }
}

impl Drop for Clerks {
    fn drop(&mut self) {
        for client in &mut self.clients {
            client.asks = None;
            client.clerk.canceller().cancel();
        }
        for client in &mut self.clients {
            // If the thread has panicked, the test has failed by what did not end.
            let _ = client.thread.take().map(JoinHandle::join);
        }
    }
}

impl Client {
    fn start<S: StateMachine>(
        cluster: &Cluster<S>,
        seed: u64,
        law: Arc<Law>,
        begun: Instant,
        ended: Sender<Ended>,
    ) -> Self {
        let reached = Arc::new(Mutex::new(cluster.ids().map(address).collect()));
        let way = Way {
            reliable: cluster.transport(),
            unreliable: Unreliable::new(cluster.transport(), UNRELIABLE, seed),
            reached: reached.clone(),
            law,
            random: Mutex::new(Random::new(seed)),
        };
        let options = Options {
            deadline: DEADLINE,
            seed,
            ..Options::default()
        };
        let clerk = Clerk::over(Arc::new(way), cluster.ids().map(address), options);
        let clerk = Arc::new(clerk.expect("the addresses have their form"));
        let (asks, asked) = bounded::<(usize, Action)>(1);
        let own = clerk.clone();
        let now = move || begun.elapsed().as_nanos() as Time;
        let thread = thread::spawn(move || {
            for (place, action) in asked {
                let called = now();
                let end = match carry_out(&own, action) {
                    Ok(reply) => End::Reply(reply),
                    Err(error) => End::Unknown(error.to_string()),
                };
                let end = (now(), end);
                let _ = ended.send(Ended { place, called, end });
            }
        });
        Self {
            clerk,
            reached,
            asks: Some(asks),
            thread: Some(thread),
            last: None,
        }
    }
}

fn carry_out(clerk: &Clerk, action: Action) -> Result<Reply, Error> {
    match action {
        Action::Execute(op) => clerk.execute(op),
        Action::Get(key) => clerk.get(key).map(Reply::Value),
        Action::Scan(scan) => clerk.scan(scan).map(Reply::Page),
    }
}

/// A client's way to the servers.
struct Way {
    reliable: Arc<dyn Transport>,
    unreliable: Unreliable,
    reached: Arc<Mutex<BTreeSet<String>>>,
    law: Arc<Law>,
    random: Mutex<Random>,
}

impl Way {
    fn reaches(&self, server: &str) -> bool {
        self.reached.lock().contains(server)
    }

    /// What a client hears of a server that is cut off or down, after a while.
    fn in_vain(&self, server: &str, timeout: Duration) -> Result<Answered, CallError> {
        let most = match self.law.long_delays.load(Ordering::Relaxed) {
            true => LONG_DELAY,
            false => PATIENCE,
        };
        let time = Duration::from_micros(self.random.lock().below(most));
        let _ = channel::after(time.min(timeout)).recv();
        Err(CallError::Lost(format!("no answer from {server}")))
    }
}

impl Transport for Way {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        known: Index,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Answered, CallError> {
        if !self.reaches(server) {
            return self.in_vain(server, timeout);
        }
        let answer = match self.law.unreliable.load(Ordering::Relaxed) {
            true => self.unreliable.call(server, ask, known, timeout, stop),
            false => self.reliable.call(server, ask, known, timeout, stop),
        };
        match answer {
            Err(CallError::NotSent(_)) => self.in_vain(server, timeout),
            // The way may have been cut while the server was at work.
            Ok(_) if !self.reaches(server) => self.in_vain(server, timeout),
            // The scenario says which servers a client knows, so it does not learn others.
            Ok(Answered { answer, .. }) => Ok(answer.into()),
            lost => lost,
        }
    }
}

impl Service for Threads {
    fn clients(&self) -> usize {
        self.clerks.len()
    }

    fn split(&mut self, side: &[usize]) {
        for server in 0..self.servers() {
            self.sides[server] = if side.contains(&server) { u64::MAX } else { 0 };
        }
        self.rewire();
    }

    fn connect_client(&mut self, client: usize, servers: &[usize]) {
        self.clerks
            .connect(client, servers.iter().copied().map(id_of));
    }

    fn set_long_delays(&mut self, long_delays: bool) {
        self.clerks.set_long_delays(long_delays);
    }

    fn begin(&mut self, client: usize, action: Action) -> Call {
        self.clerks.begin(client, action)
    }

    fn record(&self, call: Call) -> &Record {
        &self.clerks.history()[call.0]
    }

    fn attempts(&self) -> u64 {
        self.clerks.attempts()
    }

    fn snapshot_bytes(&self, server: usize) -> u64 {
        let bytes = self.status(server).map_or(0, |s| s.snapshot_bytes);
        bytes.saturating_sub(FRAME)
    }

    fn check_history(&mut self) {
        self.cluster.wait_for_agreement();
        if let Err(failure) = sim::seen(self.clerks.history()) {
            panic!("{failure}");
        }
    }
}
