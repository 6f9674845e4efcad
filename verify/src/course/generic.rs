//! The course's generic test of a key/value service: clients work while the network is cut and
//! mended at random and all servers are restarted; in the end nothing is lost, doubled or out of
//! order, and the history of each key is linearizable.
//!
//! The course of 2024 and that of 2025 have the clients do different things. Here they do both: in
//! each iteration first the one and then the other, or the other way round.

use std::time::Duration;

use bytes::Bytes;

use super::clients::{append, get, put, value_in};
use super::{Calls, Procedures, Scripted, Service};
use crate::sim::Action;
use crate::sim::lab::{Call, Every};
use raftkv::kv::{Op, Reply};

/// How many iterations the course has.
const ITERATIONS: u64 = 3;

/// How many keys the course of 2025 has if they are drawn.
const COUNTERS: u64 = 100;

/// With so many clients there is less time, for their values grow all the time.
const MANY: usize = 20;

/// How long the last operations may take once all is well.
const ENDING: Duration = Duration::from_secs(10);

/// What the course varies, besides the numbers of clients and servers.
#[derive(Clone, Copy)]
pub(super) struct Generic {
    unreliable: bool,
    crashes: bool,
    partitions: bool,
    random_keys: bool,
    /// When a snapshot is due, in bytes of log; if not, there must be none.
    threshold: Option<usize>,
}

/// Neither a fault nor a snapshot.
pub(super) const PLAIN: Generic = Generic {
    unreliable: false,
    crashes: false,
    partitions: false,
    random_keys: false,
    threshold: None,
};

/// What the clients do.
#[derive(Clone, Copy)]
enum Load {
    /// 2024: each appends to a key of its own and reads it, and knows what it must find.
    OwnKey,
    /// 2024, with keys that are drawn, of as many as there are clients: half appends, 5 % puts,
    /// else reads.
    AnyKey,
    /// 2025: each reads one of so many numbers, and replaces it by the next one if it is still the
    /// same. The course puts a value if the key still has the version that was read; here the value
    /// stands for the version.
    Counters(u64),
}

impl Generic {
    pub const fn unreliable(self) -> Self {
        let unreliable = true;
        Self { unreliable, ..self }
    }

    pub const fn crashes(self) -> Self {
        let crashes = true;
        Self { crashes, ..self }
    }

    pub const fn partitions(self) -> Self {
        let partitions = true;
        Self { partitions, ..self }
    }

    pub const fn random_keys(self) -> Self {
        let random_keys = true;
        Self {
            random_keys,
            ..self
        }
    }

    pub const fn threshold(self, bytes: usize) -> Self {
        let threshold = Some(bytes);
        Self { threshold, ..self }
    }

    pub fn run(self, service: &mut impl Service) {
        service.set_unreliable(self.unreliable);
        if let Some(bytes) = self.threshold {
            service.snapshot(Every::Bytes(bytes));
        }
        let mut workers: Vec<Worker> = (0..service.clients()).map(Worker::new).collect();
        // A single server does so much in a second that it takes long to check.
        let is_short = workers.len() >= MANY || service.servers() == 1;
        let seconds = if is_short { 1 } else { 5 };
        let mut loads = match self.random_keys {
            false => [(Load::OwnKey, seconds), (Load::Counters(1), 1)],
            true => [(Load::AnyKey, seconds), (Load::Counters(COUNTERS), 1)],
        };
        for _ in 0..service.rounds(ITERATIONS) {
            self.iterate(service, &mut workers, loads);
            loads.reverse();
        }
        service.check_history();
        let idle = workers.iter().find(|worker| worker.done == 0);
        assert!(idle.is_none(), "a client got nothing done");
        let swaps: u64 = workers.iter().map(|worker| worker.swaps).sum();
        assert!(swaps > 0, "nobody has counted");
    }

    fn iterate(self, service: &mut impl Service, workers: &mut [Worker], loads: [(Load, u64); 2]) {
        let nominal_timeout = service.nominal_timeout();
        set_load(workers, Some(loads[0].0));
        if self.partitions {
            work(service, nominal_timeout, workers);
        }
        for (load, seconds) in loads {
            set_load(workers, Some(load));
            self.disturb(service, seconds, workers);
        }
        set_load(workers, None);
        if self.partitions {
            service.connect_all();
            work(service, nominal_timeout, workers);
        }
        if self.crashes {
            (0..service.servers()).for_each(|server| service.crash(server));
            work(service, nominal_timeout, workers);
            (0..service.servers()).for_each(|server| service.start(server));
        }
        let ended = service.run_until(ENDING, |service| {
            workers.iter_mut().for_each(|worker| worker.go_on(service));
            workers.iter().all(|worker| worker.under_way.is_none())
        });
        assert!(ended, "operations do not end though all is well");
        self.check(service, workers);
    }

    /// Has the clients work for so many nominal timeouts, each about a second in the course.
    fn disturb(self, service: &mut impl Service, seconds: u64, workers: &mut [Worker]) {
        for _ in 0..service.rounds(seconds) {
            let mut time = service.nominal_timeout();
            if self.partitions {
                let all = 0..service.servers();
                let side: Vec<usize> = all.filter(|_| service.chance(50)).collect();
                service.split(&side);
                time += time / 100 * service.below(20) as u32;
            }
            work(service, time, workers);
        }
    }

    fn check(self, service: &mut impl Service, workers: &[Worker]) {
        if self.random_keys {
            let done: u64 = workers.iter().map(|worker| worker.done).sum();
            assert!(done > 100, "only {done} operations");
        } else {
            for worker in workers {
                let value = service.get(worker.client, &key(worker.client));
                assert_eq!(value, worker.appended, "client {}", worker.client);
            }
            let swaps: u64 = workers.iter().map(|worker| worker.swaps).sum();
            let counted = service.get(0, &counter(0));
            assert_eq!(number(&counted), swaps, "swaps that were acknowledged");
        }
        if let Some(bytes) = self.threshold {
            let all: Vec<usize> = (0..service.servers()).collect();
            service.check_log_bytes(&all, 8 * bytes);
        }
        service.check_snapshots(self.threshold.is_some());
    }
}

fn set_load(workers: &mut [Worker], load: Option<Load>) {
    workers.iter_mut().for_each(|worker| worker.load = load);
}

/// Lets time pass in which clients work.
fn work(service: &mut impl Service, time: Duration, workers: &mut [Worker]) {
    service.run_until(time, |service| {
        workers.iter_mut().for_each(|worker| worker.go_on(service));
        false
    });
}

/// A client at work.
struct Worker {
    client: usize,
    /// What to do after what is under way; if not, nothing.
    load: Option<Load>,
    under_way: Option<(Call, Purpose)>,
    /// A counter that was read, and what it held.
    seen: Option<(Bytes, Option<Bytes>)>,
    /// What was appended to its own key.
    appended: String,
    /// How many operations have had their reply, and how many of them were swaps that succeeded.
    done: u64,
    swaps: u64,
}

/// What a client has under way.
enum Purpose {
    /// The reply says nothing that the client could know.
    Blind,
    /// Reads the client's own key.
    Own,
    /// Reads a counter.
    Look(Bytes),
    /// Counts up.
    Swap,
}

impl Worker {
    fn new(client: usize) -> Self {
        Self {
            client,
            load: None,
            under_way: None,
            seen: None,
            appended: String::new(),
            done: 0,
            swaps: 0,
        }
    }

    /// Does the next thing once the one before is done.
    fn go_on(&mut self, service: &mut impl Service) {
        if let Some((call, purpose)) = &self.under_way {
            let Some(reply) = service.reply(*call) else {
                return;
            };
            assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
            match (purpose, reply) {
                (Purpose::Blind, _) => {}
                (Purpose::Own, reply) => {
                    assert_eq!(value_in(reply), self.appended, "client {}", self.client);
                }
                (Purpose::Look(key), Reply::Value(seen)) => {
                    self.seen = Some((key.clone(), seen.clone()));
                }
                (Purpose::Swap, Reply::Swapped(swapped)) => {
                    self.swaps += u64::from(swapped.is_ok());
                }
                (_, reply) => panic!("a read or a swap is answered {reply:?}"),
            }
            (self.under_way, self.done) = (None, self.done + 1);
        }
        if let Some(load) = self.load {
            let (action, purpose) = match load {
                Load::OwnKey => self.own_key(service),
                Load::AnyKey => self.any_key(service),
                Load::Counters(counters) => self.count(service, counters),
            };
            self.under_way = Some((service.begin(self.client, action), purpose));
        }
    }

    fn part(&self) -> String {
        format!("x {} {} y", self.client, self.done)
    }

    fn own_key(&mut self, service: &mut impl Service) -> (Action, Purpose) {
        let key = key(self.client);
        if service.chance(50) {
            let part = self.part();
            self.appended.push_str(&part);
            (Action::Execute(append(&key, &part)), Purpose::Blind)
        } else {
            (get(&key), Purpose::Own)
        }
    }

    fn any_key(&mut self, service: &mut impl Service) -> (Action, Purpose) {
        let key = format!("mixed {}", service.below(service.clients() as u64));
        let action = match service.below(100) {
            0..50 => Action::Execute(append(&key, &self.part())),
            50..55 => Action::Execute(put(&key, &self.part())),
            _ => get(&key),
        };
        (action, Purpose::Blind)
    }

    fn count(&mut self, service: &mut impl Service, counters: u64) -> (Action, Purpose) {
        let Some((key, expected)) = self.seen.take() else {
            let key = counter(service.below(counters));
            return (get(&key), Purpose::Look(key.into()));
        };
        let seen = expected.as_deref().unwrap_or_default();
        let value = (number(&String::from_utf8_lossy(seen)) + 1).to_string();
        let value = value.into();
        let op = Op::Cas {
            key,
            expected,
            value,
        };
        (Action::Execute(op), Purpose::Swap)
    }
}

/// A client's own key, whose appends the simulator's checker counts.
fn key(client: usize) -> String {
    format!("a{client}")
}

fn counter(n: u64) -> String {
    format!("count {n}")
}

/// The number in a counter; zero in one that is missing.
fn number(value: &str) -> u64 {
    match value {
        "" => 0,
        value => value.parse().expect("a counter holds a number"),
    }
}
