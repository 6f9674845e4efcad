//! The commands and queries that clients send to the store, and the store's replies.
//!
//! Each type is encoded by [`codec`], on the network and in the log. The encoding depends on the
//! order of variants and fields, and existing logs contain it: add a new variant only at the end.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::scan::{Page, Scan};
use crate::wire::codec::{self, DecodeError};

/// The id of a session: the index of the log entry that opened it. No two entries have the same
/// index, so an id is never used again.
pub type SessionId = u64;

/// A command of the store that owns its keys and values, as a client makes it. The entries of the
/// Raft log contain encoded commands.
pub type Command = CommandOf<Bytes>;

/// An operation on one key that owns its key and values, as a client makes it.
pub type Op = OpOf<Bytes>;

/// A command, generic over the type `B` of its keys and values: [`Bytes`] at the client, which
/// makes it, and `&[u8]` at the server, which decodes it without a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOf<B> {
    /// Opens a session. If the command is repeated, each copy opens a session; that is harmless,
    /// because a session that no client uses expires.
    OpenSession,
    /// Keeps a session from expiring, and drops its kept replies to the numbers below
    /// `lowest_unanswered`.
    KeepAlive {
        /// The session to keep alive.
        session: SessionId,
        /// The lowest sequence number that the client still waits for.
        lowest_unanswered: u64,
    },
    /// Ends a session and drops its kept replies.
    CloseSession {
        /// The session to end.
        session: SessionId,
    },
    /// Executes an operation exactly once, however often the command is repeated (thesis 6.3).
    Execute {
        /// The id of the client's session.
        session: SessionId,
        /// The operation's number within the session; the first is 1.
        seq: u64,
        /// The lowest sequence number that the client still waits for, at most `seq`. The session
        /// drops its kept replies to lower numbers.
        lowest_unanswered: u64,
        /// The operation to execute.
        op: OpOf<B>,
    },
}

/// An operation on one key, generic over the type `B` of its key and values; see [`CommandOf`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpOf<B> {
    /// Reads the value of a key through the log. A repeated command returns the value that the
    /// first copy read.
    Get {
        /// The key to read.
        key: B,
    },
    /// Sets the value of a key, whether or not the key exists.
    Put {
        /// The key to set.
        key: B,
        /// The value to set.
        value: B,
    },
    /// Adds to the end of a value; a missing key counts as empty.
    Append {
        /// The key whose value grows.
        key: B,
        /// The bytes to add.
        value: B,
    },
    /// Removes a key and its value.
    Delete {
        /// The key to remove.
        key: B,
    },
    /// Sets the value of a key if the present value is the expected one (compare-and-swap).
    Cas {
        /// The key to set.
        key: B,
        /// The value that must be present; `None`: the key must be missing.
        expected: Option<B>,
        /// The value to set if the present value is the expected one.
        value: B,
    },
}

/// A question about the state. It changes nothing, and is answered without an entry in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Reads the value of a key, linearizably.
    Get {
        /// The key to read.
        key: Bytes,
    },
    /// Reads a page of a range of keys, in order, linearizably.
    Scan(Scan),
}

/// The store's reply to a command or a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The reply to [`Command::OpenSession`]: the id of the new session.
    Opened(SessionId),
    /// The reply to a put, and to a command that keeps a session alive or closes it: done.
    Done,
    /// The reply to a get: the value, or `None` if the key is missing.
    Value(Option<Bytes>),
    /// The reply to a delete: whether the key existed.
    Deleted(bool),
    /// The reply to a compare-and-swap: `Ok` if the value was set, else the value that was present,
    /// or `None` if the key was missing.
    Swapped(Result<(), Option<Bytes>>),
    /// The reply to an append: the value's length after it, in bytes.
    Appended(u64),
    /// The reply to a scan: one page of keys and values.
    Page(Page),
    /// Not executed: the session has expired, was closed, or never existed.
    NoSession(SessionId),
    /// This copy of the command was not executed: a later command of the same client said that the
    /// client no longer waits for this sequence number, so the session dropped the reply. An
    /// earlier copy may have been executed.
    AnswerDropped,
    /// Not executed: too many operations of the session are unanswered, or their kept replies are
    /// too large. The client may send the command again when it has the answer to a lower sequence
    /// number.
    TooManyInFlight,
    /// Not executed, because the command breaks a limit or is malformed. The sentence says what is
    /// wrong, such as which limit was exceeded and by how much.
    Refused(String),
}

impl Command {
    /// Encodes the command for the log.
    pub fn to_bytes(&self) -> Bytes {
        codec::to_bytes(self)
    }
}

impl<'a> CommandOf<&'a [u8]> {
    /// Decodes a command. Its keys and values are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not exactly one command.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

impl Query {
    /// Encodes the query, to be sent to a server.
    pub fn to_bytes(&self) -> Bytes {
        codec::to_bytes(self)
    }

    /// Decodes a query.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not exactly one query.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

impl Reply {
    /// Decodes a reply that came from a server.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not exactly one reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execute(op: Op) -> Command {
        Command::Execute {
            session: 7,
            seq: 300,
            lowest_unanswered: 2,
            op,
        }
    }

    /// Existing logs contain commands in this encoding, so these bytes must not change.
    #[test]
    fn commands_have_the_form_that_old_logs_hold() {
        let key = || Bytes::from_static(b"k");
        let value = || Bytes::from_static(b"vw");
        let keep_alive = Command::KeepAlive {
            session: 7,
            lowest_unanswered: 2,
        };
        let cas = |expected| Op::Cas {
            key: key(),
            expected,
            value: value(),
        };
        // The codec writes a number up to 250 as one byte. It writes 300 as the byte 251 and two
        // bytes of the number.
        let head = [3, 7, 251, 44, 1, 2];
        let tails: [(Op, &[u8]); 6] = [
            (Op::Get { key: key() }, b"\0\x01k"),
            (
                Op::Put {
                    key: key(),
                    value: value(),
                },
                b"\x01\x01k\x02vw",
            ),
            (
                Op::Append {
                    key: key(),
                    value: value(),
                },
                b"\x02\x01k\x02vw",
            ),
            (Op::Delete { key: key() }, b"\x03\x01k"),
            (cas(None), b"\x04\x01k\0\x02vw"),
            (cas(Some(key())), b"\x04\x01k\x01\x01k\x02vw"),
        ];
        assert_eq!(&Command::OpenSession.to_bytes()[..], [0]);
        assert_eq!(&keep_alive.to_bytes()[..], [1, 7, 2]);
        assert_eq!(&Command::CloseSession { session: 7 }.to_bytes()[..], [2, 7]);
        for (op, tail) in tails {
            let bytes = execute(op.clone()).to_bytes();
            assert_eq!(bytes, [&head[..], tail].concat(), "{op:?}");
        }
    }

    #[test]
    fn a_command_is_read_in_place() {
        let bytes = execute(Op::Put {
            key: "k".into(),
            value: "value".into(),
        })
        .to_bytes();
        let Ok(CommandOf::Execute {
            op: OpOf::Put { key, value },
            ..
        }) = CommandOf::decode(&bytes)
        else {
            panic!("the command must decode");
        };
        assert_eq!((key, value), (&b"k"[..], &b"value"[..]));
        assert!(bytes.as_ptr_range().contains(&value.as_ptr()));
    }
}
