//! The course's generic test of a key/value service: clients work while the network is cut and
//! mended at random and all servers are restarted; in the end nothing is lost, doubled or out of
//! order, and the history of each key is linearizable.

use std::time::Duration;

use raftkv::kv::Reply;
use raftkv_verify::course::{Procedures, Scripted};
use raftkv_verify::sim::lab::{Call, Every, Lab, T, append, put, value_in};

/// What the course varies, besides the numbers of clients and servers.
#[derive(Clone, Copy, Default)]
pub struct Generic {
    pub unreliable: bool,
    pub crash: bool,
    pub partitions: bool,
    pub random_keys: bool,
    /// When a snapshot is due, in bytes of log; if not, there must be none.
    pub threshold: Option<usize>,
}

const ITERATIONS: usize = 3;
const ITERATION: Duration = Duration::from_secs(5);
/// For many clients the shorter time of the course of 2025: their values grow all the time.
const SHORT_ITERATION: Duration = Duration::from_secs(1);
const MANY: usize = 20;

impl Generic {
    pub fn run(self, lab: &mut Lab) {
        lab.set_unreliable(self.unreliable);
        if let Some(bytes) = self.threshold {
            lab.snapshot(Every::Bytes(bytes));
        }
        let mut workers: Vec<Worker> = (0..lab.clients())
            .map(|client| Worker::new(client, self.random_keys))
            .collect();
        for _ in 0..ITERATIONS {
            self.iterate(lab, &mut workers);
        }
        lab.check_history();
        let idle = workers.iter().find(|worker| worker.done == 0);
        assert!(idle.is_none(), "a client got nothing done");
    }

    fn iterate(self, lab: &mut Lab, workers: &mut [Worker]) {
        workers.iter_mut().for_each(|worker| worker.stops = false);
        self.disturb(lab, workers);
        workers.iter_mut().for_each(|worker| worker.stops = true);
        if self.partitions {
            lab.connect_all();
            work(lab, T, workers);
        }
        if self.crash {
            (0..lab.servers()).for_each(|server| lab.crash(server));
            work(lab, T, workers);
            (0..lab.servers()).for_each(|server| lab.start(server));
        }
        let ended = lab.run_until(10 * T, |lab| {
            workers.iter_mut().for_each(|worker| worker.go_on(lab));
            workers.iter().all(|worker| worker.call.is_none())
        });
        assert!(ended, "calls do not end though all is well");
        workers.iter().for_each(|worker| worker.check_own_key(lab));
        if let Some(bytes) = self.threshold {
            let all: Vec<usize> = (0..lab.servers()).collect();
            lab.check_log_bytes(&all, 8 * bytes);
        }
        lab.check_snapshots(self.threshold.is_some());
    }

    /// The time of one iteration.
    fn disturb(self, lab: &mut Lab, workers: &mut [Worker]) {
        let end = lab.after(ITERATION);
        if self.partitions {
            work(lab, T, workers);
            while lab.now() < end {
                let all = 0..lab.servers();
                let side: Vec<usize> = all.filter(|_| lab.chance(50)).collect();
                lab.split(&side);
                let time = T + Duration::from_millis(lab.below(200));
                work(lab, time, workers);
            }
        } else {
            let many = workers.len() >= MANY;
            let time = if many { SHORT_ITERATION } else { ITERATION };
            work(lab, time, workers);
        }
    }
}

/// Lets time pass in which clients work.
fn work(lab: &mut Lab, time: Duration, workers: &mut [Worker]) {
    lab.run_until(time, |lab| {
        workers.iter_mut().for_each(|worker| worker.go_on(lab));
        false
    });
}

/// A client that works on its own key and knows what it must find there, or on any key.
struct Worker {
    client: usize,
    random_keys: bool,
    stops: bool,
    /// What is under way, and the value that it must show.
    call: Option<(Call, Option<String>)>,
    /// What its key must hold.
    expected: String,
    done: u64,
}

impl Worker {
    fn new(client: usize, random_keys: bool) -> Self {
        Self {
            client,
            random_keys,
            stops: false,
            call: None,
            expected: String::new(),
            done: 0,
        }
    }

    /// Does the next thing once the one before is done.
    fn go_on(&mut self, lab: &mut Lab) {
        if let Some((call, expected)) = &self.call {
            let Some(reply) = lab.reply(*call) else {
                return;
            };
            match expected {
                Some(expected) => assert_eq!(value_in(reply), *expected, "client {}", self.client),
                None => assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}"),
            }
            (self.call, self.done) = (None, self.done + 1);
        }
        if !self.stops {
            self.call = Some(match self.random_keys {
                true => self.any_key(lab),
                false => self.own_key(lab),
            });
        }
    }

    fn part(&self) -> String {
        format!("x {} {} y", self.client, self.done)
    }

    fn own_key(&mut self, lab: &mut Lab) -> (Call, Option<String>) {
        let key = key(self.client);
        if lab.chance(50) {
            let part = self.part();
            self.expected.push_str(&part);
            (lab.begin(self.client, append(&key, &part)), None)
        } else {
            let call = lab.begin_get(self.client, &key);
            (call, Some(self.expected.clone()))
        }
    }

    /// Half appends, 5 % puts, else gets, on as many keys as there are clients.
    fn any_key(&mut self, lab: &mut Lab) -> (Call, Option<String>) {
        let key = format!("mixed {}", lab.below(lab.clients() as u64));
        let call = match lab.below(100) {
            0..50 => lab.begin(self.client, append(&key, &self.part())),
            50..55 => lab.begin(self.client, put(&key, &self.part())),
            _ => lab.begin_get(self.client, &key),
        };
        (call, None)
    }

    fn check_own_key(&self, lab: &mut Lab) {
        let value = lab.get(self.client, &key(self.client));
        assert_eq!(value, self.expected, "client {}", self.client);
    }
}

/// A key whose appends the checker counts.
fn key(client: usize) -> String {
    format!("a{client}")
}
