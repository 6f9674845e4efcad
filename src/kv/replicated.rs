//! The store and the sessions as one state machine.
//!
//! Everything here runs on every replica for every entry of the log, so it must be deterministic:
//! what a command does depends on the command, its index, its cluster time, the state, and the
//! limits, which are the same on all nodes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::command::{CommandOf, Query, Reply};
use super::digest::Digest;
use super::limits::Limits;
use super::sessions::Sessions;
use super::snapshot::Snapshot;
use super::store::Store;
use crate::machine::{At, Gate, StateMachine};
use crate::wire::codec;

/// How many bytes a reply counts for in [`Kv::weight`](StateMachine::weight), in addition to the
/// value or the page in it. Without this overhead, any number of empty replies would count as no
/// work.
const REPLY_OVERHEAD: usize = 64;

/// The key/value store that the cluster replicates. A clone is made in O(1).
///
/// ```
/// use bytes::Bytes;
/// use raftkv::kv::{Command, Kv, Limits, Op, Query, Reply};
/// use raftkv::machine::{At, StateMachine};
///
/// let mut kv = Kv::new(Limits::default());
/// let at = |index| At { index, time_ms: 0 };
///
/// let opened = kv.apply(at(1), &Command::OpenSession.to_bytes());
/// assert_eq!(opened, Reply::Opened(1));
///
/// let append = Command::Execute {
///     session: 1,
///     seq: 1,
///     lowest_unanswered: 1,
///     op: Op::Append { key: "greeting".into(), value: "hello".into() },
/// };
/// assert_eq!(kv.apply(at(2), &append.to_bytes()), Reply::Appended(5));
///
/// // The network repeats the command: it gets the same answer, and nothing happens twice.
/// assert_eq!(kv.apply(at(3), &append.to_bytes()), Reply::Appended(5));
///
/// let get = Query::Get { key: "greeting".into() };
/// assert_eq!(kv.query(&get.to_bytes()), Reply::Value(Some(Bytes::from("hello"))));
/// ```
#[derive(Clone)]
pub struct Kv {
    limits: Limits,
    store: Store,
    sessions: Sessions,
    /// The index and the cluster time of the last command applied; zeros if there was none.
    last: At,
}

impl Kv {
    /// An empty store.
    ///
    /// # Panics
    /// If the limits do not pass [`Limits::validate`]. If a person has chosen the limits, call
    /// `validate` first and show its error.
    pub fn new(limits: Limits) -> Self {
        if let Err(error) = limits.validate() {
            panic!("these limits cannot work: {error}");
        }
        Self {
            limits,
            store: Store::default(),
            sessions: Sessions::default(),
            last: At {
                index: 0,
                time_ms: 0,
            },
        }
    }

    /// An empty store with the limits that an [identity](StateMachine::identity) names, such as the
    /// one that a data folder was made with. `None` if it is not the identity of this version's
    /// store.
    pub fn of_identity(identity: &str) -> Option<Self> {
        let mut limits = Limits::default();
        for word in identity.split_once(':')?.1.split_whitespace() {
            let (name, value) = word.split_once('=')?;
            limits = limits.with(name, value.parse().ok()?)?;
        }
        limits.validate().ok()?;
        // If the identity leaves a limit out, or names another version of the store, then the store
        // made here has another identity and is not returned.
        Some(Self::new(limits)).filter(|store| store.identity() == identity)
    }

    /// Called before each command is applied: records its index and cluster time, and removes a few
    /// expired sessions from memory.
    fn advance(&mut self, at: At) {
        assert!(
            at.index > self.last.index && at.time_ms >= self.last.time_ms,
            "a command is applied at {at:?} after one at {:?}: index and time must not go back",
            self.last
        );
        self.last = at;
        self.sessions.clear_away(at.time_ms, &self.limits);
    }
}

impl StateMachine for Kv {
    type Reply = Reply;
    type Snapshot = Snapshot;

    const QUICK: bool = true;

    fn identity(&self) -> String {
        let limits = self
            .limits
            .named()
            .map(|(name, limit)| format!(" {name}={limit}"));
        format!("raftkv store, version 1:{}", limits.concat())
    }

    fn gate(&self) -> Gate {
        let limits = self.limits.clone();
        Arc::new(move |command| limits.admit(command).map(drop))
    }

    fn apply(&mut self, at: At, command: &Bytes) -> Reply {
        self.advance(at);
        let limits = &self.limits;
        // The gate has admitted this command with the same function and the same limits on every
        // node, before the entry was appended. Otherwise the log or this program is faulty, and
        // to skip the command might make this replica differ from the others.
        let decoded = limits.admit(command).unwrap_or_else(|reason| {
            panic!(
                "the log holds a command at index {} that its gate refuses: {reason}",
                at.index
            )
        });
        match decoded {
            // This command has no sequence number, so a repeated copy opens another session. The
            // client uses the session whose id it receives; the other sessions expire.
            CommandOf::OpenSession => self.sessions.open(at, limits),
            // KeepAlive and CloseSession need no sequence number either: a repeated copy changes
            // nothing.
            CommandOf::KeepAlive {
                session,
                lowest_unanswered,
            } => (self.sessions).keep_alive(at, session, lowest_unanswered, limits),
            CommandOf::CloseSession { session } => self.sessions.close(at, session, limits),
            CommandOf::Execute {
                session,
                seq,
                lowest_unanswered,
                op,
            } => {
                // The session decides whether `execute` is called: at most once for each sequence
                // number.
                let execute = || self.store.execute(command, op, limits);
                let number = (seq, lowest_unanswered);
                self.sessions.once(at, session, number, limits, execute)
            }
        }
    }

    fn query(&self, query: &Bytes) -> Reply {
        let answer = self.query_within(query, usize::MAX);
        answer.expect("no answer weighs more than all memory")
    }

    /// A query that is malformed or breaks a limit is answered however little `room` there is,
    /// because the answer is one sentence.
    fn query_within(&self, query: &Bytes, room: usize) -> Option<Reply> {
        let room = room.saturating_sub(REPLY_OVERHEAD);
        // A query does not pass the gate, so it may be malformed. That is the client's fault:
        // answer with a refusal, and do not panic.
        match Query::decode(query) {
            Ok(Query::Get { key }) => match self.limits.check_key(&key) {
                Ok(()) => {
                    let value = self.store.get_within(&key, room);
                    value.map(Reply::Value)
                }
                Err(reason) => Some(Reply::Refused(reason)),
            },
            Ok(Query::Scan(scan)) => {
                let page = self.store.scan_within(&scan, &self.limits, room);
                page.map(Reply::Page)
            }
            Err(error) => {
                let reason = format!("this is not a query of the store: {error}");
                Some(Reply::Refused(reason))
            }
        }
    }

    fn weight(reply: &Reply) -> usize {
        REPLY_OVERHEAD
            + match reply {
                Reply::Value(Some(value)) | Reply::Swapped(Err(Some(value))) => value.len(),
                Reply::Page(page) => page.weight(),
                _ => 0,
            }
    }

    fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
        codec::encode(reply, out);
    }

    /// Copies the state in O(1): the copy shares the memory of the store and the sessions.
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            last: self.last,
            session_ttl_ms: self.limits.session_ttl_ms,
            store: self.store.clone(),
            sessions: self.sessions.clone(),
        }
    }

    fn write_snapshot(snapshot: &Snapshot, out: &mut dyn io::Write) -> io::Result<()> {
        snapshot.write(out)
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        let Snapshot {
            last,
            store,
            sessions,
            ..
        } = Snapshot::read(input, &self.limits)?;
        Ok(Self {
            limits: self.limits.clone(),
            store,
            sessions,
            last,
        })
    }

    /// A hash of the state that commands have changed, and of nothing else, so replicas that have
    /// applied the same index have the same digest. The limits are left out because they are part
    /// of the identity.
    fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        digest.number(self.last.index);
        digest.number(self.last.time_ms);
        self.store.digest(&mut digest);
        (self.sessions).digest(self.last.time_ms, self.limits.session_ttl_ms, &mut digest);
        digest.finish()
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let kept = self.sessions.kept();
        vec![
            ("keys", self.store.len() as u64),
            ("bytes", self.store.bytes()),
            ("sessions", self.sessions.len() as u64),
            ("replies", kept.replies),
            ("reply_bytes", kept.bytes),
            ("duplicates", self.sessions.duplicates()),
        ]
    }
}

#[cfg(test)]
mod tests;
