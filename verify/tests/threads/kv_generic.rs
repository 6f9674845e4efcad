//! The course's generic test of a key/value service: clients work while the network is cut and
//! mended at random and all servers are restarted; in the end nothing is lost, doubled or out of
//! order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use raftkv::client::{Clerk, Options};
use raftkv::kv::{Kv, Limits, Op, Reply};
use raftkv::raft::NodeId;
use raftkv::testkit::{ClientLink, Unreliable};
use raftkv_verify::sim::{self, Action, End, Record};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::lab::{Lab, T, UNRELIABLE};

/// The course's unreliable network between clients and servers.
const UNRELIABLE_CLIENT: ClientLink = ClientLink {
    max_delay: Duration::from_millis(26),
    lost_requests_permille: 100,
    lost_answers_permille: 100,
};

/// No call of these tests may fail; one that takes so long has.
const DEADLINE: Duration = Duration::from_secs(30);

/// One of these tests at a time: they keep the processor busy, and threads that do not get to run
/// in time look like servers that are gone.
static TURN: Mutex<()> = Mutex::new(());

/// Servers of a key/value service.
pub struct KvLab {
    pub lab: Lab<Kv>,
    unreliable: bool,
    _turn: MutexGuard<'static, ()>,
}

impl KvLab {
    /// Servers that never take a snapshot.
    pub fn new(servers: u64, unreliable: bool) -> Self {
        Self::with_snapshots(servers, unreliable, None)
    }

    /// Servers that take a snapshot after so many bytes of log.
    pub fn with_snapshots(servers: u64, unreliable: bool, log_bytes: Option<u64>) -> Self {
        let turn = TURN.lock();
        let lab = Lab::with_snapshots(servers, log_bytes, || Kv::new(Limits::default()));
        if unreliable {
            lab.set_links(UNRELIABLE);
        }
        Self {
            lab,
            unreliable,
            _turn: turn,
        }
    }

    pub fn clerk(&self) -> Clerk {
        self.clerk_of(self.lab.ids())
    }

    /// A client that knows these servers only, until it is told of others.
    pub fn clerk_of(&self, servers: Vec<NodeId>) -> Clerk {
        let link = match self.unreliable {
            true => UNRELIABLE_CLIENT,
            false => ClientLink::default(),
        };
        let seed = self.lab.below(u64::MAX);
        let way = Unreliable::new(self.lab.cluster.transport(), link, seed);
        let options = Options {
            deadline: DEADLINE,
            seed,
            ..Options::default()
        };
        self.lab.cluster.clerk_over(Arc::new(way), servers, options)
    }
}

/// What the course varies.
#[derive(Clone, Copy, Default)]
pub struct Generic {
    pub clients: u64,
    pub servers: u64,
    pub unreliable: bool,
    pub crash: bool,
    pub partitions: bool,
    pub random_keys: bool,
    pub snapshots: bool,
}

/// The course's threshold for a snapshot, in bytes.
pub const THRESHOLD: u64 = 1000;

/// The threshold in entries: a short write weighs about 65 bytes.
pub const EVERY: u64 = THRESHOLD / 65;

/// The course's limit on the log, eight times the threshold.
pub const MOST: u64 = 8 * EVERY;

/// Each of a second, or of four partitions; the course has three of five seconds.
const ITERATIONS: usize = 2;

impl Generic {
    pub fn run(self) {
        let threshold = self.snapshots.then_some(THRESHOLD);
        let kv = KvLab::with_snapshots(self.servers, self.unreliable, threshold);
        if self.snapshots {
            let cluster = &kv.lab.cluster;
            cluster.while_taking_snapshots(EVERY, || {
                self.work(&kv);
                kv.lab.check_log_size(MOST);
            });
        } else {
            self.work(&kv);
        }
        kv.lab.check_snapshots(self.snapshots);
    }

    fn work(self, kv: &KvLab) {
        let lab = &kv.lab;
        let started = Instant::now();
        let history = Mutex::new(Vec::new());
        let clerks: Vec<_> = (0..self.clients).map(|id| (id, kv.clerk())).collect();
        let mut appends = vec![0; self.clients as usize];
        for iteration in 0..ITERATIONS {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let work = |id: u64, clerk, appended: &mut u64| match self.random_keys {
                    true => {
                        let seed = id + self.clients * iteration as u64;
                        let client = RandomClient {
                            id: id as usize,
                            clerk,
                            started,
                            history: &history,
                            random: ChaCha8Rng::seed_from_u64(seed),
                        };
                        client.run(self.clients, &stop);
                    }
                    false => own_key(id, clerk, appended, &stop),
                };
                for ((id, clerk), appended) in clerks.iter().zip(&mut appends) {
                    scope.spawn(move || work(*id, clerk, appended));
                }
                self.disturb(lab);
                stop.store(true, Ordering::Relaxed);
                // Clients may be in the middle of something that only ends when all is well.
                lab.split(&[]);
            });
            if self.crash {
                lab.ids().into_iter().for_each(|id| lab.crash(id));
                lab.let_time_pass(T);
                lab.ids().into_iter().for_each(|id| lab.start(id));
            }
            for ((id, clerk), appended) in clerks.iter().zip(&appends) {
                if !self.random_keys {
                    check_own_key(*id, clerk, *appended);
                }
            }
        }
        if self.random_keys {
            let history = history.into_inner();
            assert!(history.len() > 100, "only {} operations", history.len());
            if let Err(failure) = sim::seen(&history) {
                panic!("{failure}");
            }
        } else {
            assert!(appends.iter().all(|n| *n > 0), "{appends:?}");
        }
        lab.cluster.wait_for_agreement();
    }

    /// The time of one iteration.
    fn disturb(self, lab: &Lab<Kv>) {
        let second = Duration::from_secs(1);
        if !self.partitions {
            return lab.let_time_pass(second);
        }
        lab.let_time_pass(T);
        for _ in 0..3 {
            let mut side = lab.ids();
            side.retain(|_| lab.chance(50));
            lab.split(&side);
            lab.let_time_pass(T + Duration::from_millis(lab.below(100)));
        }
    }
}

/// A client that appends to its own key and reads it, and knows what it must find.
fn own_key(id: u64, clerk: &Clerk, appended: &mut u64, stop: &AtomicBool) {
    let key = id.to_string();
    let mut random = ChaCha8Rng::seed_from_u64(id + *appended);
    while !stop.load(Ordering::Relaxed) {
        if random.next_u32().is_multiple_of(2) {
            clerk.append(&key, part(id, *appended)).unwrap();
            *appended += 1;
        } else {
            check_own_key(id, clerk, *appended);
        }
    }
}

fn part(client: u64, number: u64) -> String {
    format!("x {client} {number} y")
}

fn check_own_key(id: u64, clerk: &Clerk, appended: u64) {
    let value = clerk.get(id.to_string()).unwrap().unwrap_or_default();
    let expected: String = (0..appended).map(|number| part(id, number)).collect();
    assert_eq!(String::from_utf8_lossy(&value), expected, "client {id}");
}

/// A client that works on any key and notes what it is told.
struct RandomClient<'a> {
    id: usize,
    clerk: &'a Clerk,
    started: Instant,
    history: &'a Mutex<Vec<Record>>,
    random: ChaCha8Rng,
}

impl RandomClient<'_> {
    /// Half appends, 5 % puts, else gets, on as many keys as there are clients.
    fn run(mut self, keys: u64, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let key = Bytes::from((self.random.next_u64() % keys).to_string());
            let value = Bytes::from(format!("{:x} ", self.random.next_u32()));
            let called = self.now();
            let (action, reply) = match self.random.next_u32() % 100 {
                0..50 => {
                    let len = self.clerk.append(&key, &value).unwrap();
                    (
                        Action::Execute(Op::Append { key, value }),
                        Reply::Appended(len),
                    )
                }
                50..55 => {
                    self.clerk.put(&key, &value).unwrap();
                    (Action::Execute(Op::Put { key, value }), Reply::Done)
                }
                _ => {
                    let value = self.clerk.get(&key).unwrap();
                    (Action::Get(key), Reply::Value(value))
                }
            };
            let record = Record {
                client: self.id,
                action,
                called,
                number: None,
                end: Some((self.now(), End::Reply(reply))),
            };
            self.history.lock().push(record);
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}
