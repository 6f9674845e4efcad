//! The history of a run as the clients saw it: each operation, when it was called, when and how it
//! ended.

use std::fmt;

use bytes::Bytes;

use super::Time;
use raftkv::kv::{Command, CommandOf, Op, Query, Reply, Scan, SessionId};

/// What a client asked for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Through the log, in a session.
    Execute(Op),
    /// The value of a key, by a confirmed read.
    Get(Bytes),
    /// A page of keys and values, by a confirmed read.
    Scan(Scan),
}

/// How it ended.
#[derive(Clone)]
pub enum End {
    /// With the state machine's reply.
    Reply(Reply),
    /// Certainly not executed, and never to be.
    NotExecuted(#[allow(dead_code, reason = "read by a person, through Debug")] String),
    /// Nobody knows.
    Unknown(#[allow(dead_code, reason = "read by a person, through Debug")] String),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Reply(reply) => write!(f, "{reply:?}"),
            End::NotExecuted(why) => write!(f, "not executed ({why})"),
            End::Unknown(why) => write!(f, "unknown ({why})"),
        }
    }
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which client it was.
    pub client: usize,
    /// What it asked for.
    pub action: Action,
    /// When it asked. Any clock will do that all clients share.
    pub called: Time,
    /// The number in a session under which it was last sent. Earlier ones were certainly not
    /// executed.
    pub number: Option<(SessionId, u64)>,
    /// When and how it ended; never, if the client died first.
    pub end: Option<(Time, End)>,
}

impl Record {
    /// The state machine's reply, if there was one.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.end {
            Some((_, End::Reply(reply))) => Some(reply),
            _ => None,
        }
    }

    /// Whether it is known that it was not executed.
    pub fn was_refused(&self) -> bool {
        matches!(self.end, Some((_, End::NotExecuted(_))))
    }
}

impl Action {
    /// The question to the state machine; `None` for what goes through the log.
    pub fn query(&self) -> Option<Bytes> {
        match self {
            Action::Execute(_) => None,
            Action::Get(key) => Some(Query::Get { key: key.clone() }.to_bytes()),
            Action::Scan(scan) => Some(Query::Scan(scan.clone()).to_bytes()),
        }
    }
}

/// The session and number of an operation in the form in which it entered the log.
pub(super) fn number_of(command: &[u8]) -> Option<(SessionId, u64)> {
    match CommandOf::decode(command) {
        Ok(CommandOf::Execute { session, seq, .. }) => Some((session, seq)),
        _ => None,
    }
}

/// What opens a session.
pub(super) fn open_session() -> Bytes {
    Command::OpenSession.to_bytes()
}
