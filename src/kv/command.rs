//! What clients ask of the store, and what it answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Names a session: the index of the log entry that opened it, so that no two sessions of a
/// cluster's life ever share an id.
pub type SessionId = u64;

/// What enters the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a session. Repeated, it opens another; the one nobody uses expires.
    OpenSession,
    /// Keeps a session from expiring and drops the replies below `lowest_unanswered`.
    KeepAlive {
        /// The session.
        session: SessionId,
        /// The lowest sequence number that the client still waits for.
        lowest_unanswered: u64,
    },
    /// Ends a session and forgets its replies.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// Executes an operation once, however often the command is repeated (thesis 6.3).
    Execute {
        /// The client's session.
        session: SessionId,
        /// The operation's number within the session; the first is 1.
        seq: u64,
        /// The lowest sequence number that the client still waits for, at most `seq`. Replies to
        /// lower ones are dropped.
        lowest_unanswered: u64,
        /// What to do.
        op: Op,
    },
}

/// An operation on the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Reads a value through the log: a repeated one returns what the first one read.
    Get {
        /// The key to read.
        key: Bytes,
    },
    /// Sets a value.
    Put {
        /// The key to set.
        key: Bytes,
        /// The new value.
        value: Bytes,
    },
    /// Adds to the end of a value; a missing key counts as empty.
    Append {
        /// The key whose value grows.
        key: Bytes,
        /// What to add.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key to remove.
        key: Bytes,
    },
    /// Sets a value if the present one is as expected.
    Cas {
        /// The key to set.
        key: Bytes,
        /// The value that must be present; `None`: the key must be missing.
        expected: Option<Bytes>,
        /// The new value.
        value: Bytes,
    },
}

/// A question that changes nothing and is answered without an entry in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Reads a value.
    Get {
        /// The key to read.
        key: Bytes,
    },
    /// Reads a range of keys, in order.
    Scan(Scan),
}

/// Which keys to read, and how many at the most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The first key of the range, inclusive. Empty: from the first key of all.
    pub start: Bytes,
    /// The end of the range, exclusive. `None`: to the last key of all.
    pub end: Option<Bytes>,
    /// How many items to return at the most. Zero counts as the server's limit.
    pub limit: u32,
    /// How many bytes of keys and values to return at the most; one item is returned however
    /// large it is. Zero counts as the server's limit.
    pub limit_bytes: u32,
    /// Leave the values out: every item's value comes back empty.
    pub keys_only: bool,
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Command::OpenSession`]: the new session.
    Opened(SessionId),
    /// To a command that has nothing else to say.
    Done,
    /// To a get: the value, or `None` if the key is missing.
    Value(Option<Bytes>),
    /// To a delete: whether the key was there.
    Deleted(bool),
    /// To a compare-and-swap: `Ok` if the value was set, else the value that was present.
    Swapped(Result<(), Option<Bytes>>),
    /// To an append: the value's length after it, in bytes.
    Appended(u64),
    /// To a scan.
    Page(Page),
    /// Not executed: the session has expired, was closed, or never existed.
    NoSession(SessionId),
    /// Not executed now: the number is below the session's lowest unanswered one, so its answer
    /// has been dropped.
    AnswerDropped,
    /// Not executed: so many operations of the session are unanswered that this one has to wait.
    TooManyInFlight,
    /// Not executed. A sentence says which limit was passed, and by how much.
    Refused(String),
}

/// One page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The items, in ascending order of their keys.
    pub items: Vec<Item>,
    /// Where the next page starts, if there is more in the range.
    pub next: Option<Bytes>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}
