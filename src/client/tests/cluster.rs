//! A cluster in memory with a naive store, reached over a network that loses requests and answers,
//! delivers copies of requests late, and changes the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::client::{Answered, CallError, Clerk, Options, Stop, Transport, WINDOW};
use crate::kv::{Command, Item, Op, Page, Query, Reply, SessionId};
use crate::raft::{Index, RoleName};
use crate::wire::client::{Answer, Ask, Doubt, NotLeader};
use crate::wire::codec;

const SERVERS: [&str; 3] = ["a:1", "b:1", "c:1"];

/// How often the network makes each kind of trouble, in percent of the requests. All other requests
/// are delivered.
#[derive(Clone, Copy, Default)]
pub(super) struct Trouble {
    pub(super) not_sent: u64,
    pub(super) request_lost: u64,
    pub(super) answer_lost: u64,
    pub(super) in_doubt: u64,
    pub(super) busy: u64,
    pub(super) leader_moves: u64,
}

/// A naive store: the real one's results, with the simplest table of sessions that is correct.
#[derive(Default)]
pub(super) struct Store {
    pub(super) index: u64,
    pub(super) sessions: BTreeMap<SessionId, (u64, BTreeMap<u64, Reply>)>,
    pub(super) values: BTreeMap<Bytes, Vec<u8>>,
    pub(super) executed: u64,
    pub(super) repeats: u64,
    pub(super) closed: Vec<SessionId>,
    /// The command that came under each number: every copy must consist of the same bytes.
    pub(super) commands: BTreeMap<(SessionId, u64), Bytes>,
}

impl Store {
    pub(super) fn submit(&mut self, bytes: &Bytes) -> Reply {
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

    pub(super) fn value(&self, key: &Bytes) -> Option<Bytes> {
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

/// Three servers, one of which leads, reached over a network that loses, repeats and delays
/// requests.
pub(super) struct ScriptedCluster {
    pub(super) inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) leader: usize,
    pub(super) trouble: Trouble,
    pub(super) random: ChaCha8Rng,
    /// Copies of requests that are still in the network and may arrive later.
    pub(super) late: Vec<Bytes>,
    /// Given results of the next calls, in place of what the network would do. The next call takes
    /// the last of them.
    pub(super) script: Vec<Result<Answer, CallError>>,
}

impl ScriptedCluster {
    pub(super) fn new(seed: u64, trouble: Trouble) -> Arc<Self> {
        Arc::new(ScriptedCluster {
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

    pub(super) fn clerk(self: &Arc<Self>, deadline: Duration) -> Clerk {
        let options = Options {
            deadline,
            attempt_timeout: Duration::from_millis(100),
            seed: 7,
            ..Options::default()
        };
        Clerk::over(Arc::clone(self) as Arc<dyn Transport>, SERVERS, options).unwrap()
    }

    pub(super) fn reliable() -> Arc<Self> {
        ScriptedCluster::new(7, Trouble::default())
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
            Ask::Status | Ask::Snapshot | Ask::Members | Ask::Change { .. } | Ask::Join(_) => {
                Answer::Invalid("not here".into())
            }
        }
    }

    /// Handles a request that ends in doubt: the leader executes it now, later, or never.
    fn execute_perhaps(&mut self, ask: &Ask) {
        match (ask, self.random.next_u64() % 3) {
            (Ask::Submit(command), 0) => self.late.push(command.clone()),
            (_, 1) => drop(self.lead(ask)),
            _ => {}
        }
    }
}

impl Transport for ScriptedCluster {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        _: Index,
        _: Duration,
        _: &Stop,
    ) -> Result<Answered, CallError> {
        self.answer(server, ask).map(Answered::from)
    }
}

impl ScriptedCluster {
    fn answer(&self, server: &str, ask: &Ask) -> Result<Answer, CallError> {
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
