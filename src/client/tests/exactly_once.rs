//! The Clerk over a cluster in memory that executes commands as the store does, naively, and a
//! network that loses requests and answers, repeats requests late, and moves the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::client::{CallError, CasOutcome, Clerk, Error, Kind, Options, Stop, Transport, WINDOW};
use crate::kv::{Command, Item, Op, Page, Query, Reply, Scan, SessionId};
use crate::raft::RoleName;
use crate::wire::client::{Answer, Ask, Doubt, NotLeader};
use crate::wire::codec;

const SERVERS: [&str; 3] = ["a:1", "b:1", "c:1"];

/// How often the network does what, in percent. What remains is delivered.
#[derive(Clone, Copy, Default)]
struct Trouble {
    not_sent: u64,
    request_lost: u64,
    answer_lost: u64,
    in_doubt: u64,
    busy: u64,
    leader_moves: u64,
}

/// Executes like the store, with the simplest session table that is right.
#[derive(Default)]
struct Store {
    index: u64,
    sessions: BTreeMap<SessionId, (u64, BTreeMap<u64, Reply>)>,
    values: BTreeMap<Bytes, Vec<u8>>,
    executed: u64,
    repeats: u64,
    closed: Vec<SessionId>,
    /// Every command of a number must be the same bytes.
    commands: BTreeMap<(SessionId, u64), Bytes>,
}

impl Store {
    fn submit(&mut self, bytes: &Bytes) -> Reply {
        self.index += 1;
        match codec::decode(bytes).unwrap() {
            Command::OpenSession => {
                self.sessions.insert(self.index, Default::default());
                Reply::Opened(self.index)
            }
            Command::CloseSession { session } => {
                self.sessions.remove(&session);
                self.closed.push(session);
                Reply::Done
            }
            Command::KeepAlive { .. } => panic!("a Clerk keeps nothing alive"),
            Command::Execute {
                session,
                seq,
                lowest_unanswered,
                op,
            } => {
                let first = self.commands.entry((session, seq));
                assert_eq!(
                    first.or_insert(bytes.clone()),
                    bytes,
                    "a number means one command"
                );
                assert!(lowest_unanswered <= seq && seq - lowest_unanswered < WINDOW);
                self.execute(session, seq, lowest_unanswered, &op)
            }
        }
    }

    fn execute(&mut self, session: SessionId, seq: u64, lowest: u64, op: &Op) -> Reply {
        let Some((bound, replies)) = self.sessions.get_mut(&session) else {
            return Reply::NoSession(session);
        };
        *bound = lowest.max(*bound);
        *replies = replies.split_off(bound);
        if seq < *bound {
            return Reply::AnswerDropped;
        }
        if let Some(reply) = replies.get(&seq) {
            self.repeats += 1;
            return reply.clone();
        }
        self.executed += 1;
        let reply = apply(&mut self.values, op);
        replies.insert(seq, reply.clone());
        reply
    }

    fn query(&self, bytes: &Bytes) -> Reply {
        match codec::decode(bytes).unwrap() {
            Query::Get { key } => Reply::Value(self.value(&key)),
            Query::Scan(scan) => {
                let mut items = self.values.range(scan.start..).map(|(key, value)| Item {
                    key: key.clone(),
                    value: value.clone().into(),
                });
                let page = items.by_ref().take(scan.limit as usize).collect();
                let next = items.next().map(|item| item.key);
                Reply::Page(Page { items: page, next })
            }
        }
    }

    fn value(&self, key: &Bytes) -> Option<Bytes> {
        self.values.get(key).map(|value| value.clone().into())
    }
}

fn apply(values: &mut BTreeMap<Bytes, Vec<u8>>, op: &Op) -> Reply {
    match op.clone() {
        Op::Get { key } => Reply::Value(values.get(&key).map(|value| value.clone().into())),
        Op::Put { key, value } => {
            values.insert(key, value.to_vec());
            Reply::Done
        }
        Op::Append { key, value } => {
            let present = values.entry(key).or_default();
            present.extend_from_slice(&value);
            Reply::Appended(present.len() as u64)
        }
        Op::Delete { key } => Reply::Deleted(values.remove(&key).is_some()),
        Op::Cas {
            key,
            expected,
            value,
        } => {
            let present = values.get(&key).map(|value| Bytes::from(value.clone()));
            if present == expected {
                values.insert(key, value.to_vec());
                Reply::Swapped(Ok(()))
            } else {
                Reply::Swapped(Err(present))
            }
        }
    }
}

/// Three servers of which one leads, and the network before them.
struct Cluster {
    inner: Mutex<Inner>,
}

struct Inner {
    store: Store,
    leader: usize,
    trouble: Trouble,
    random: ChaCha8Rng,
    /// Requests that are still somewhere in the network.
    late: Vec<Bytes>,
    /// Calls that are to end in a certain way whatever the trouble, the next one last.
    script: Vec<Result<Answer, CallError>>,
}

impl Cluster {
    fn new(seed: u64, trouble: Trouble) -> Arc<Self> {
        Arc::new(Cluster {
            inner: Mutex::new(Inner {
                store: Store::default(),
                leader: 0,
                trouble,
                random: ChaCha8Rng::seed_from_u64(seed),
                late: Vec::new(),
                script: Vec::new(),
            }),
        })
    }

    fn clerk(self: &Arc<Self>, deadline: Duration) -> Clerk {
        let options = Options {
            deadline,
            attempt_timeout: Duration::from_millis(100),
            seed: 7,
            ..Options::default()
        };
        Clerk::over(Arc::clone(self) as Arc<dyn Transport>, SERVERS, options).unwrap()
    }

    fn reliable() -> Arc<Self> {
        Cluster::new(7, Trouble::default())
    }
}

impl Inner {
    fn happens(&mut self, percent: u64) -> bool {
        self.random.next_u64() % 100 < percent
    }

    fn lead(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::Submit(command) => Answer::Reply(codec::to_bytes(&self.store.submit(command))),
            Ask::Query(query) => Answer::Reply(codec::to_bytes(&self.store.query(query))),
            Ask::Transfer(_) => Answer::Transferring,
            Ask::Status => Answer::Invalid("not here".into()),
        }
    }

    /// What a leader does with a request that ends in doubt: execute it or not, or later.
    fn execute_perhaps(&mut self, ask: &Ask) {
        match (ask, self.random.next_u64() % 3) {
            (Ask::Submit(command), 0) => self.late.push(command.clone()),
            (_, 1) => drop(self.lead(ask)),
            _ => {}
        }
    }
}

impl Transport for Cluster {
    fn call(&self, server: &str, ask: &Ask, _: Duration, _: &Stop) -> Result<Answer, CallError> {
        let mut inner = self.inner.lock();
        let Trouble {
            not_sent,
            request_lost,
            answer_lost,
            in_doubt,
            busy,
            leader_moves,
        } = inner.trouble;
        if let Some(scripted) = inner.script.pop() {
            return scripted;
        }
        if inner.happens(leader_moves) {
            inner.leader = (inner.leader + 1) % SERVERS.len();
        }
        if inner.happens(10) && !inner.late.is_empty() {
            let late = inner.late.remove(0);
            inner.store.submit(&late);
        }
        if inner.happens(not_sent) {
            return Err(CallError::NotSent("refused".into()));
        }
        if inner.happens(request_lost) {
            return Err(CallError::Lost("the request got lost".into()));
        }
        if server != SERVERS[inner.leader] {
            return Ok(Answer::NotLeader(NotLeader {
                id: 1,
                role: RoleName::Follower,
                term: 3,
                leader: Some((2, SERVERS[inner.leader].into())),
            }));
        }
        if inner.happens(busy) {
            return Ok(Answer::Busy);
        }
        if inner.happens(in_doubt) {
            inner.execute_perhaps(ask);
            return Ok(Answer::Unknown(Doubt::LeadershipLost));
        }
        let answer = inner.lead(ask);
        match inner.happens(answer_lost) {
            true => Err(CallError::Lost("the answer got lost".into())),
            false => Ok(answer),
        }
    }
}

#[test]
fn two_thousand_appends_from_four_threads_over_a_bad_network_happen_once_each() {
    let trouble = Trouble {
        not_sent: 3,
        request_lost: 5,
        answer_lost: 10,
        in_doubt: 10,
        busy: 2,
        leader_moves: 2,
    };
    let cluster = Cluster::new(41, trouble);
    let clerk = cluster.clerk(Duration::from_secs(60));
    thread::scope(|scope| {
        for name in ["k", "l", "m", "n"] {
            let clerk = &clerk;
            scope.spawn(move || {
                for number in 0..500 {
                    clerk.append("log", format!("{name}{number} ")).unwrap();
                }
            });
        }
    });
    let stats = clerk.stats();
    drop(clerk);
    let mut inner = cluster.inner.lock();
    for late in std::mem::take(&mut inner.late) {
        inner.store.submit(&late);
    }
    let log = String::from_utf8(inner.store.values[&b"log"[..]].clone()).unwrap();
    for name in ["k", "l", "m", "n"] {
        let theirs: Vec<_> = log
            .split(' ')
            .filter(|word| word.starts_with(name))
            .collect();
        let expected: Vec<_> = (0..500).map(|number| format!("{name}{number}")).collect();
        assert_eq!(
            theirs, expected,
            "each append once, and those of a thread in order"
        );
    }
    assert_eq!(inner.store.executed, 2000);
    assert_eq!(stats.calls, 2001, "2000 appends and one session");
    // The network was as bad as it was meant to be.
    assert!(inner.store.repeats > 100, "{} repeats", inner.store.repeats);
    assert!(
        stats.repeats_in_doubt > 100 && stats.leader_changes > 5,
        "{stats:?}"
    );
}

#[test]
fn every_operation_brings_its_own_result() {
    let clerk = Cluster::reliable().clerk(Duration::from_secs(5));
    assert_eq!(clerk.get("k"), Ok(None));
    assert_eq!(clerk.put("k", "one"), Ok(()));
    assert_eq!(clerk.append("k", [0xff]), Ok(4));
    assert_eq!(clerk.get("k").unwrap().unwrap(), &b"one\xff"[..]);
    let other = CasOutcome::Mismatch(Some(Bytes::from_static(b"one\xff")));
    assert_eq!(clerk.cas("k", None, "two"), Ok(other));
    assert_eq!(
        clerk.cas("k", Some(b"one\xff"), ""),
        Ok(CasOutcome::Swapped)
    );
    assert_eq!(clerk.get("k"), Ok(Some(Bytes::new())));
    assert_eq!(
        clerk.cas("nothing", Some(b""), "x"),
        Ok(CasOutcome::Mismatch(None))
    );
    assert_eq!(clerk.delete("k"), Ok(true));
    assert_eq!(clerk.delete("k"), Ok(false));
    let get = Op::Get { key: "k".into() };
    assert_eq!(clerk.execute(get), Ok(Reply::Value(None)));
    assert_eq!(clerk.transfer(None), Ok(()));
}

#[test]
fn pages_follow_each_other_to_the_end_of_the_range() {
    let clerk = Cluster::reliable().clerk(Duration::from_secs(5));
    for key in ["a", "b", "c", "d", "e"] {
        clerk.put(key, key).unwrap();
    }
    let scan = Scan {
        start: "b".into(),
        end: None,
        limit: 2,
        limit_bytes: 0,
        keys_only: false,
    };
    let pages: Vec<Vec<Bytes>> = clerk
        .pages(scan)
        .map(|page| {
            page.unwrap()
                .items
                .into_iter()
                .map(|item| item.key)
                .collect()
        })
        .collect();
    assert_eq!(pages, [vec!["b", "c"], vec!["d", "e"]]);
}

#[test]
fn threads_that_begin_together_share_one_session() {
    let cluster = Cluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    let barrier = std::sync::Barrier::new(8);
    thread::scope(|scope| {
        for number in 0..8 {
            let (clerk, barrier) = (&clerk, &barrier);
            scope.spawn(move || {
                barrier.wait();
                clerk.put(format!("k{number}"), "v").unwrap();
            });
        }
    });
    assert_eq!(clerk.stats().sessions, 1);
    assert_eq!(cluster.inner.lock().store.sessions.len(), 1);
}

#[test]
fn a_session_that_expired_while_nothing_was_open_is_replaced_unnoticed() {
    let cluster = Cluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    clerk.append("k", "one").unwrap();
    cluster.inner.lock().store.sessions.clear();
    assert_eq!(clerk.append("k", "two"), Ok(6));
    assert_eq!(clerk.stats().sessions, 2);
}

#[test]
fn a_session_that_expired_while_a_write_was_in_doubt_leaves_it_unknown() {
    let cluster = Cluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    clerk.append("k", "one").unwrap();
    {
        let mut inner = cluster.inner.lock();
        inner.store.sessions.clear();
        inner.script.push(Err(CallError::Lost("reset".into())));
    }
    let error = clerk.append("k", "two").unwrap_err();
    assert!(
        matches!(error, Error::SessionExpired { session: 1, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::Unknown);
    assert_eq!(
        clerk.append("k", "three"),
        Ok(8),
        "the next write has a session again"
    );
}

#[test]
fn a_write_given_up_does_not_hold_the_lowest_unanswered_down() {
    let cluster = Cluster::reliable();
    let clerk = cluster.clerk(Duration::from_millis(100));
    clerk.append("k", "one").unwrap();
    cluster.inner.lock().trouble.request_lost = 100;
    let error = clerk.append("k", "two").unwrap_err();
    assert_eq!(error.kind(), Kind::Unknown, "{error}");
    cluster.inner.lock().trouble.request_lost = 0;
    assert_eq!(clerk.append("k", "three"), Ok(8));
    let inner = cluster.inner.lock();
    let (bound, replies) = &inner.store.sessions[&1];
    assert_eq!((*bound, replies.len()), (3, 1));
}

#[test]
fn a_late_copy_of_a_write_given_up_is_not_executed_after_the_next_write() {
    let cluster = Cluster::reliable();
    let clerk = cluster.clerk(Duration::from_millis(100));
    clerk.put("k", "one").unwrap();
    cluster.inner.lock().trouble.answer_lost = 100;
    clerk.append("k", " two").unwrap_err();
    cluster.inner.lock().trouble.answer_lost = 0;
    clerk.put("k", "three").unwrap();
    let mut inner = cluster.inner.lock();
    let late = inner.store.commands[&(1, 2)].clone();
    assert_eq!(inner.store.submit(&late), Reply::AnswerDropped);
    assert_eq!(inner.store.value(&"k".into()).unwrap(), "three");
}

#[test]
fn the_session_is_closed_when_the_clerk_goes() {
    let cluster = Cluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    clerk.put("k", "v").unwrap();
    drop(clerk);
    assert_eq!(cluster.inner.lock().store.closed, [1]);
    drop(cluster.clerk(Duration::from_secs(5)));
    assert_eq!(
        cluster.inner.lock().store.closed,
        [1],
        "no session, nothing to close"
    );
}

#[test]
fn without_a_leader_a_write_ends_by_its_deadline_as_not_executed_and_says_who_said_what() {
    let cluster = Cluster::reliable();
    cluster.inner.lock().trouble.not_sent = 100;
    let clerk = cluster.clerk(Duration::from_millis(50));
    let begun = Instant::now();
    let error = clerk.put("k", "v").unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = error.to_string();
    for part in [
        "not executed",
        "a:1: not reached (refused)",
        "c:1",
        "None of 3 servers",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

#[test]
fn what_no_frame_can_hold_is_refused_before_it_is_sent() {
    let cluster = Cluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    let error = clerk.put("k", vec![0; 18 << 20]).unwrap_err();
    assert_eq!(error.kind(), Kind::No, "{error}");
    let error = clerk.get(vec![0; 18 << 20]).unwrap_err();
    assert_eq!(error.kind(), Kind::No, "{error}");
    assert_eq!(clerk.put("k", "v"), Ok(()));
}

#[test]
fn a_cancelled_pause_ends_at_once_and_says_whether_the_write_is_in_doubt() {
    for (trouble, maybe_executed) in [
        (
            Trouble {
                not_sent: 100,
                ..Trouble::default()
            },
            false,
        ),
        (
            Trouble {
                request_lost: 100,
                ..Trouble::default()
            },
            true,
        ),
    ] {
        let cluster = Cluster::reliable();
        let clerk = cluster.clerk(Duration::from_secs(60));
        clerk.put("k", "v").unwrap();
        cluster.inner.lock().trouble = trouble;
        let tried = clerk.stats().attempts;
        let canceller = clerk.canceller();
        thread::scope(|scope| {
            let call = scope.spawn(|| clerk.put("k", "w"));
            while clerk.stats().attempts < tried + 10 {
                thread::yield_now();
            }
            canceller.cancel();
            assert_eq!(
                call.join().unwrap(),
                Err(Error::Cancelled { maybe_executed })
            );
        });
        cluster.inner.lock().trouble = Trouble::default();
        assert_eq!(clerk.put("k", "x"), Ok(()), "later calls are not affected");
    }
}
