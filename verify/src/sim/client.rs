//! Simulated clients. They do as events what a Clerk does with its threads (`client::shared`). The
//! product's [`Call`], [`Session`] and [`Routes`] make all decisions.

mod asides;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::history::{Action, End, Record, open_session};
use super::members::place_of;
use super::network::Kind;
use super::node::{Packet, Waiter, address};
use super::plan::Plan;
use super::random::Random;
use super::trace::trace;
use super::world::{Event, World};
use raftkv::client::{
    Call, CallError, Error, Heard, Issue, Kind as ErrorKind, Nature, Next, Routes, Session, Ticket,
};
use raftkv::kv::{Op, Reply};
use raftkv::raft::Index;
use raftkv::wire::client::{Answer, Ask};

/// Keys that begin like this are only ever appended to and read.
pub(super) const APPEND_KEYS: &[u8] = b"a";

/// A client process with its Clerk.
pub(super) struct Client {
    /// Counts its deaths; what belongs to an earlier life is dropped.
    pub life: u64,
    routes: Routes,
    session: Session,
    /// Whether a call of this client is opening a session; the others wait for it.
    opening: bool,
    calls: BTreeMap<u64, Active>,
    /// The requests under way, with their calls, the servers that they went to as this client
    /// numbers them, and the nodes that these are.
    attempts: BTreeMap<u64, (u64, usize, usize)>,
    /// The index of the list of members that it has; 0 if it has learned none.
    known: Index,
    /// What it last saw of each key.
    pub seen: BTreeMap<Bytes, Option<Bytes>>,
    /// How many operations have had their reply since the faults ended.
    pub done: u64,
}

/// What happens at a client by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wake {
    /// The next operation begins.
    Begin,
    /// A call goes on after a pause, or its deadline has passed.
    Call(u64),
    /// An attempt has waited long enough.
    Timeout(u64),
}

/// A call under way.
struct Active {
    purpose: Purpose,
    call: Call,
    ask: Option<Ask>,
}

#[derive(Clone)]
enum Purpose {
    Query {
        record: usize,
    },
    Execute {
        record: usize,
        ticket: Option<Ticket>,
        op: Op,
    },
    /// Opens a session, wanted by another call.
    Open {
        wanted_by: u64,
    },
}

impl Client {
    /// A client that knows some of those that the cluster was founded with, in any order; all of
    /// them, where members do not change.
    pub fn drawn(plan: &Plan, random: &mut Random) -> Self {
        let mut servers: Vec<String> = (0..plan.nodes).map(address).collect();
        if plan.members_change() {
            random.shuffle(&mut servers);
            servers.truncate(random.between(1, plan.nodes as u64) as usize);
        }
        Self::new(servers, random.number())
    }

    /// A client that knows these servers.
    pub fn new(servers: Vec<String>, seed: u64) -> Self {
        Self {
            life: 0,
            routes: Routes::new(servers, seed).expect("the addresses have their form"),
            session: Session::new(),
            opening: false,
            calls: BTreeMap::new(),
            attempts: BTreeMap::new(),
            known: 0,
            seen: BTreeMap::new(),
            done: 0,
        }
    }

    /// The nodes that it knows.
    pub fn servers(&self) -> impl Iterator<Item = usize> {
        let servers = self.routes.servers().iter();
        servers.filter_map(|server| place_of(server))
    }

    /// Its user names another server.
    pub fn told_of(&mut self, address: &str) {
        self.routes.learn(address);
    }

    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }
}

impl World {
    pub(super) fn wake_client(&mut self, c: usize, life: u64, wake: Wake) {
        if self.clients[c].life != life {
            return;
        }
        match wake {
            Wake::Begin => self.begin_operation(c),
            Wake::Call(id) => self.proceed(c, id),
            Wake::Timeout(attempt) => {
                let lost = Err(CallError::Lost("no answer in time".into()));
                self.heard(c, attempt, lost);
            }
        }
    }

    fn at_client(&mut self, c: usize, delay: Duration, wake: Wake) {
        let life = self.clients[c].life;
        let at = self.now + delay.as_micros() as u64;
        self.queue.add(at, Event::Client(c, life, wake));
    }

    /// Some time later the client begins another operation.
    pub(super) fn think(&mut self, c: usize) {
        let pause = 1 + self.random.exponential(self.plan.think);
        self.at_client(c, Duration::from_micros(pause), Wake::Begin);
    }

    fn begin_operation(&mut self, c: usize) {
        if !self.may_begin(c) {
            return;
        }
        let action = self.draw_action(c);
        self.begin(c, action);
    }

    /// A client begins an operation. Returns its place in the history.
    pub(super) fn begin(&mut self, c: usize, action: Action) -> usize {
        trace!(self, "client {c} begins {action:?}");
        let record = self.history.len();
        self.history.push(Record {
            client: c,
            action: action.clone(),
            called: self.now,
            number: None,
            end: None,
        });
        self.stats.operations += 1;
        let ask = action.query().map(Ask::Query);
        let (nature, purpose) = match action {
            Action::Execute(op) => {
                let nature = match op {
                    Op::Get { .. } => Nature::Harmless,
                    _ => Nature::Once,
                };
                let ticket = None;
                (nature, Purpose::Execute { record, ticket, op })
            }
            _ => (Nature::Harmless, Purpose::Query { record }),
        };
        let deadline = Duration::from_micros(self.plan.deadline);
        self.add_call(c, purpose, nature, deadline, ask);
        record
    }

    fn add_call(
        &mut self,
        c: usize,
        purpose: Purpose,
        nature: Nature,
        within: Duration,
        ask: Option<Ask>,
    ) {
        self.last_id += 1;
        let id = self.last_id;
        let attempt_timeout = Duration::from_micros(self.plan.attempt_timeout);
        let call = Call::new(nature, self.time(), within, attempt_timeout);
        let active = Active { purpose, call, ask };
        self.clients[c].calls.insert(id, active);
        self.proceed(c, id);
    }

    fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// Carries a call on until it has to wait for something.
    fn proceed(&mut self, c: usize, id: u64) {
        if !self.has_number(c, id) {
            return;
        }
        let now = self.time();
        let client = &mut self.clients[c];
        let under_way = client.attempts.values().any(|(call, _, _)| *call == id);
        let Some(active) = client.calls.get_mut(&id).filter(|_| !under_way) else {
            return;
        };
        match active.call.next(now, &mut client.routes) {
            Next::Ask { server, timeout } => {
                let ask = active.ask.clone().expect("it is known what to ask");
                self.ask(c, id, server, timeout, ask);
            }
            Next::Pause(pause) => self.at_client(c, pause, Wake::Call(id)),
            Next::End(error) => self.failed(c, id, error),
        }
    }

    /// Sees to it that an operation has its number. False if it has to wait for one, or there is
    /// no such call any more.
    fn has_number(&mut self, c: usize, id: u64) -> bool {
        let now = self.time();
        let client = &mut self.clients[c];
        let Some(active) = client.calls.get_mut(&id) else {
            return false;
        };
        let Purpose::Execute { record, ticket, op } = &mut active.purpose else {
            return true;
        };
        if ticket.is_some() {
            return true;
        }
        let left = active.call.deadline().saturating_sub(now);
        match client.session.issue() {
            Issue::Ticket(issued) => {
                *ticket = Some(issued);
                active.ask = Some(Ask::Submit(issued.command(op.clone())));
                self.history[*record].number = Some((issued.session, issued.seq));
                return true;
            }
            _ if left.is_zero() => {
                let end = End::NotExecuted("no session until the deadline".into());
                self.finish(c, id, end);
            }
            Issue::NoSession if !client.opening => {
                client.opening = true;
                let ask = Some(Ask::Submit(open_session()));
                let purpose = Purpose::Open { wanted_by: id };
                self.add_call(c, purpose, Nature::Harmless, left, ask);
            }
            Issue::NoSession | Issue::Full => self.at_client(c, left, Wake::Call(id)),
        }
        false
    }

    fn ask(&mut self, c: usize, id: u64, server: usize, timeout: Duration, ask: Ask) {
        self.last_id += 1;
        let attempt = self.last_id;
        let node = place_of(self.clients[c].routes.address(server));
        let node = node.expect("clients know no other addresses");
        let under_way = (id, server, node);
        self.clients[c].attempts.insert(attempt, under_way);
        self.stats.attempts += 1;
        let from = Waiter { client: c, attempt };
        self.request(from, node, 0, timeout, ask);
        self.at_client(c, timeout, Wake::Timeout(attempt));
    }

    /// Puts a request on the network.
    fn request(&mut self, from: Waiter, server: usize, delay: u64, timeout: Duration, ask: Ask) {
        let place = self.nodes.len() + from.client;
        let (now, way) = (self.now, (place, server, Kind::Request));
        let arrival = match delay {
            0 => {
                let arrivals = self.network.arrivals(way, now, &mut self.random);
                arrivals.first().copied()
            }
            _ => {
                let link = (place, server);
                self.network.stray(link, now + delay, &mut self.random)
            }
        };
        match arrival {
            Some(at) => {
                let timeout = timeout.as_micros() as u64;
                let packet = Packet::Request { from, timeout, ask };
                self.queue.add(at, Event::Packet(server, packet));
            }
            None => self.lost(from, server),
        }
    }

    /// Sends what was sent before once more, to anybody, now or later; nobody waits for an answer.
    /// Only where an early copy may have been executed: else the client could not be sure of a
    /// refusal.
    fn repeat(&mut self, c: usize, ask: &Ask) {
        while self.random.chance(self.plan.repeat) {
            let server = self.random.below(self.nodes.len() as u64) as usize;
            let delay = self.random.exponential(500_000);
            let nobody = Waiter {
                client: c,
                attempt: 0,
            };
            self.request(nobody, server, delay, Duration::from_secs(1), ask.clone());
            self.stats.repeats += 1;
        }
    }

    /// Something came of an attempt.
    pub(super) fn heard(&mut self, c: usize, attempt: u64, result: Result<Answer, CallError>) {
        let now = self.time();
        let client = &mut self.clients[c];
        let Some((id, server, node)) = client.attempts.remove(&attempt) else {
            return;
        };
        if result.is_ok() {
            self.learn(c, node);
        }
        let client = &mut self.clients[c];
        let Some(active) = client.calls.get_mut(&id) else {
            return;
        };
        trace!(self, "client {c} hears of node {}: {result:?}", node + 1);
        let heard = active.call.heard(now, server, result, &mut client.routes);
        let executed = matches!(heard, Heard::Reply(_)) || active.call.in_doubt();
        let once =
            matches!(&active.purpose, Purpose::Execute { op, .. } if !matches!(op, Op::Get { .. }));
        let ask = active.ask.clone().filter(|_| executed && once);
        match heard {
            Heard::GoOn => self.proceed(c, id),
            Heard::Reply(reply) => self.replied(c, id, reply),
            Heard::Reopen => self.reopen(c, id),
            Heard::Failed(error) => self.failed(c, id, error),
            Heard::Transferring | Heard::Changed { .. } => panic!("no call asks for that"),
        }
        if let Some(ask) = ask {
            self.repeat(c, &ask);
        }
    }

    /// An answer says who the members are, if the node knows a later list than the client.
    fn learn(&mut self, c: usize, node: usize) {
        let Some(running) = &self.nodes[node].running else {
            return;
        };
        let client = &mut self.clients[c];
        if let Some(list) = running.outside.list_after(client.known) {
            client.known = list.index;
            // Another lineage would be another cluster.
            let learned = client.routes.learned(&list);
            learned.expect("there is one cluster");
        }
    }

    fn replied(&mut self, c: usize, id: u64, reply: Reply) {
        let client = &mut self.clients[c];
        match (&client.calls[&id].purpose, &reply) {
            (Purpose::Open { wanted_by }, Reply::Opened(session)) => {
                let wanted_by = *wanted_by;
                client.calls.remove(&id);
                client.opening = false;
                client.session.opened(*session);
                self.proceed(c, wanted_by);
                self.resume(c);
            }
            _ => self.finish(c, id, End::Reply(reply)),
        }
    }

    fn reopen(&mut self, c: usize, id: u64) {
        let client = &mut self.clients[c];
        let active = client.calls.get_mut(&id).expect("it was heard of");
        if let Purpose::Execute { ticket, .. } = &mut active.purpose
            && let Some(ticket) = ticket.take()
        {
            client.session.gone(ticket.session);
            client.session.settle(&ticket);
        }
        self.proceed(c, id);
        self.resume(c);
    }

    fn failed(&mut self, c: usize, id: u64, error: Error) {
        let sentence = error.to_string();
        let client = &mut self.clients[c];
        if let Purpose::Open { wanted_by } = client.calls[&id].purpose {
            client.calls.remove(&id);
            client.opening = false;
            self.finish(c, wanted_by, End::NotExecuted(sentence));
            return;
        }
        let end = match error.kind() {
            ErrorKind::Unknown => End::Unknown(sentence),
            ErrorKind::No | ErrorKind::Refused | ErrorKind::Unavailable | ErrorKind::Usage => {
                End::NotExecuted(sentence)
            }
        };
        self.finish(c, id, end);
    }

    /// An operation has ended.
    fn finish(&mut self, c: usize, id: u64, end: End) {
        let client = &mut self.clients[c];
        let Some(active) = client.calls.remove(&id) else {
            return;
        };
        let record = match active.purpose {
            Purpose::Query { record } => record,
            Purpose::Execute { record, ticket, .. } => {
                if let Some(ticket) = ticket {
                    client.session.settle(&ticket);
                }
                record
            }
            Purpose::Open { .. } => return,
        };
        let record = &mut self.history[record];
        if let End::Reply(reply) = &end {
            self.stats.replies += 1;
            client.done += u64::from(record.called >= self.healed_at);
            client.take_note(&record.action, reply);
        }
        trace!(self, "client {c} ends {:?}: {end:?}", record.action);
        record.end = Some((self.now, end));
        self.think(c);
        self.resume(c);
    }

    /// Lets the calls go on that waited for a number.
    fn resume(&mut self, c: usize) {
        let waits =
            |active: &Active| matches!(&active.purpose, Purpose::Execute { ticket: None, .. });
        let calls = self.clients[c].calls.iter();
        let waiting: BTreeSet<u64> = calls.filter(|(_, a)| waits(a)).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.proceed(c, id));
    }

    /// The connections of clients to a node that goes down break, and some of them notice.
    pub(super) fn connections_lost(&mut self, n: usize) {
        for c in 0..self.clients.len() {
            let attempts = self.clients[c].attempts.iter();
            let to_node = attempts.filter(|(_, (_, _, node))| *node == n);
            let attempts: Vec<u64> = to_node.map(|(attempt, _)| *attempt).collect();
            for attempt in attempts {
                if self.random.chance(0.5) {
                    let lost = Err(CallError::Lost("the connection broke".into()));
                    self.carry_answer(n, Waiter { client: c, attempt }, lost);
                }
            }
        }
    }
}

impl Client {
    /// Remembers what the client saw of a key, so that it can compare and swap.
    fn take_note(&mut self, action: &Action, reply: &Reply) {
        let (key, value) = match (action, reply) {
            (Action::Get(key) | Action::Execute(Op::Get { key }), Reply::Value(value)) => {
                (key, value.clone())
            }
            (Action::Execute(Op::Put { key, value }), Reply::Done) => (key, Some(value.clone())),
            (Action::Execute(Op::Cas { key, .. }), Reply::Swapped(Err(value))) => {
                (key, value.clone())
            }
            (Action::Execute(Op::Delete { key }), Reply::Deleted(_)) => (key, None),
            _ => return,
        };
        self.seen.insert(key.clone(), value);
    }
}

/// Bytes as people read them.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
