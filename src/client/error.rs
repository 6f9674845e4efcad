//! The errors of a client's call, in sentences for people.

use std::fmt;
use std::time::Duration;

use crate::kv::SessionId;
use crate::wire::client::{Doubt, NotLeader};

/// Why a call has no result. [`Error::kind`] tells whether a write may have been executed
/// nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cluster refuses the request, and would refuse it again, because the request breaks a
    /// limit or is malformed. Not executed.
    #[error("{server} says no: {reason}")]
    No {
        /// The address of the server that refused; "this client" if the client did not send the
        /// request.
        server: String,
        /// Why the request was refused, in a sentence.
        reason: String,
    },
    /// There is a leader, but until the call's deadline it had too many requests under way to
    /// accept this one. Not executed.
    #[error(
        "not executed: the cluster was too busy for {} s{}. Try again later, or with fewer \
         requests at a time",
        seconds(waited),
        Asked(asked)
    )]
    Refused {
        /// The servers that were asked, each with the result of the last attempt.
        asked: Vec<LastWord>,
        /// How long the call went on before it gave up.
        waited: Duration,
    },
    /// There is a leader, but its disk was full until the call's deadline, and no other node could
    /// lead. Not executed.
    #[error(
        "not executed: for {} s the leader had no space on its disk{}",
        seconds(waited),
        Asked(asked)
    )]
    NoSpace {
        /// The servers that were asked, each with the result of the last attempt.
        asked: Vec<LastWord>,
        /// How long the call went on before it gave up.
        waited: Duration,
    },
    /// No server that leads could be reached until the call's deadline. Not executed.
    #[error(
        "not executed: no leader answered within {} s{}. {}",
        seconds(waited),
        Asked(asked),
        Advice(asked)
    )]
    Unavailable {
        /// The servers that were asked, each with the result of the last attempt.
        asked: Vec<LastWord>,
        /// How long the call went on before it gave up.
        waited: Duration,
    },
    /// The write was sent, and until the deadline no answer said whether it was executed. It may
    /// have been, or may still be, at most once.
    #[error(
        "outcome unknown: the write may or may not be executed, nobody confirmed it within \
         {} s{}. Read the key before you repeat the write. {}",
        seconds(waited),
        Asked(asked),
        Advice(asked)
    )]
    Unknown {
        /// The servers that were asked, each with the result of the last attempt.
        asked: Vec<LastWord>,
        /// How long the call went on before it gave up.
        waited: Duration,
    },
    /// The session ended while the outcome of the write was not known. An earlier copy may have
    /// been executed, and the cluster can no longer tell.
    #[error(
        "outcome unknown: session {session} has expired while the write was repeated, so the \
         cluster no longer knows whether it was executed{}. Read the key before you repeat the \
         write",
        Asked(asked)
    )]
    SessionExpired {
        /// The id of the session that has ended.
        session: SessionId,
        /// The servers that were asked, each with the result of the last attempt.
        asked: Vec<LastWord>,
    },
    /// The call was cancelled, by a [`Canceller`](super::Canceller).
    #[error("cancelled; {}", if *maybe_executed {
        "the write may or may not be executed: read the key before you repeat it"
    } else {
        "not executed"
    })]
    Cancelled {
        /// Whether a write may have been executed before the call was cancelled, or may still be.
        maybe_executed: bool,
    },
    /// A server of another cluster answers, which has the same name: the cluster was made anew, by
    /// a restore or a recovery, while this client was running.
    #[error(
        "{server} belongs to another cluster of the same name: the cluster was made anew while \
         this client was running, and this client does not go on with it, because it may lack \
         what this client wrote; {}. Make sure that the server is one of the cluster that you \
         mean, and start the client again",
        if *maybe_executed { "outcome unknown" } else { "not executed" }
    )]
    MadeAnew {
        /// The address of the server.
        server: String,
        /// Whether a write may have been executed, in one of the two clusters.
        maybe_executed: bool,
    },
    /// The answer does not fit the request: the server has another version or is faulty. The
    /// request may have been executed.
    #[error(
        "outcome unknown: the answer makes no sense here: {0}. Do client and server have the same \
         version?"
    )]
    BadAnswer(String),
    /// The list of servers cannot be used. The text says why.
    #[error("{0}")]
    Servers(String),
}

/// The classes of [`Error`]s: whether the request was executed, and whether to try again. Programs
/// make their exit codes from these classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not executed: the cluster refused the request and would refuse it again.
    No,
    /// Not executed; the same request may succeed later.
    Refused,
    /// The outcome is unknown: the write may or may not have been executed.
    Unknown,
    /// No leader answered; not executed.
    Unavailable,
    /// The list of servers that was passed to the Clerk cannot be used.
    Usage,
}

impl Error {
    pub(super) fn bad_answer(answer: &dyn fmt::Debug, to: &str) -> Self {
        Error::BadAnswer(format!("{} to {to}", shortened(answer)))
    }

    /// The class of this error: whether the request was executed, and whether to try again.
    pub fn kind(&self) -> Kind {
        match self {
            Error::No { .. } => Kind::No,
            Error::Refused { .. } | Error::NoSpace { .. } => Kind::Refused,
            Error::Cancelled {
                maybe_executed: false,
            } => Kind::Refused,
            Error::Unavailable { .. } => Kind::Unavailable,
            Error::Unknown { .. }
            | Error::SessionExpired { .. }
            | Error::BadAnswer(_)
            | Error::Cancelled {
                maybe_executed: true,
            } => Kind::Unknown,
            Error::MadeAnew { maybe_executed, .. } => match maybe_executed {
                true => Kind::Unknown,
                false => Kind::Usage,
            },
            Error::Servers(_) => Kind::Usage,
        }
    }
}

/// The result of a call's last attempt at one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWord {
    /// The server's address.
    pub server: String,
    /// The result of the last attempt at this server.
    pub word: Word,
}

/// The result of one attempt, as error messages tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The request did not reach the server. The text says why.
    NotSent(String),
    /// The request was sent, and no answer came. The text says why.
    Lost(String),
    /// The server does not lead, so it has not appended the command. It may name the leader.
    NotLeader(NotLeader),
    /// The server refused the request, because too many requests were under way there.
    Busy,
    /// The server leads, and its disk is full. The text says what to do.
    NoSpace(String),
    /// The session refused the operation, because too many of its operations were unanswered, or
    /// their replies were too large.
    TooManyInFlight,
    /// The server could not tell whether the command was, or will be, committed.
    InDoubt(Doubt),
    /// The session does not exist, or no longer exists.
    NoSession,
    /// The session has already dropped the reply to this operation.
    AnswerDropped,
    /// The server calls the request invalid. The text says why.
    Invalid(String),
    /// The server's answer does not fit the request. The text says how.
    Garbled(String),
}

impl Word {
    /// Whether the server gave any answer to the attempt, even a refusal.
    fn is_answer(&self) -> bool {
        !matches!(self, Word::NotSent(_) | Word::Lost(_))
    }
}

impl fmt::Display for LastWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.word)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::NotSent(why) => write!(f, "not reached ({why})"),
            Word::Lost(why) => write!(f, "no answer ({why})"),
            Word::NotLeader(NotLeader {
                id,
                role,
                term,
                leader,
            }) => {
                write!(f, "node {id}, {role} in term {term}, ")?;
                match leader {
                    Some((leader, address)) => write!(f, "follows node {leader} at {address}"),
                    None => write!(f, "knows no leader"),
                }
            }
            Word::Busy => write!(f, "busy"),
            Word::NoSpace(why) => write!(f, "{why}"),
            Word::TooManyInFlight => write!(f, "too many requests of this client are under way"),
            Word::InDoubt(Doubt::LeadershipLost) => write!(f, "lost its leadership meanwhile"),
            Word::InDoubt(Doubt::Timeout) => write!(f, "leads, but no quorum answered it in time"),
            Word::InDoubt(Doubt::ShuttingDown) => write!(f, "was shutting down"),
            Word::NoSession => write!(f, "does not know the session"),
            Word::AnswerDropped => write!(f, "no longer has the answer"),
            Word::Invalid(why) => write!(f, "calls the request invalid: {why}"),
            Word::Garbled(why) => write!(f, "answered nonsense ({why})"),
        }
    }
}

/// Returns the first 200 characters of a value's debug form. An answer may contain megabytes, which
/// must not end up in an error message.
pub(super) fn shortened(value: &dyn fmt::Debug) -> String {
    let mut shown = format!("{value:?}");
    if let Some((end, _)) = shown.char_indices().nth(200) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// Writes a duration as seconds with one decimal.
fn seconds(waited: &Duration) -> String {
    format!("{:.1}", waited.as_secs_f64())
}

/// Shows the last result at each server as a list in brackets.
struct Asked<'a>(&'a [LastWord]);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.0.iter().enumerate() {
            write!(f, "{}{word}", if i == 0 { " (" } else { "; " })?;
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, ")")
        }
    }
}

/// A sentence that tells the user what to do when no leader was found.
struct Advice<'a>(&'a [LastWord]);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.0.len();
        let answered = self.0.iter().filter(|last| last.word.is_answer()).count();
        match (asked, answered) {
            (0, _) => write!(
                f,
                "Other calls of this client were still waiting for the cluster"
            ),
            (_, 0) => write!(
                f,
                "None of {asked} servers answers: check the addresses and whether the nodes run"
            ),
            _ if answered * 2 <= asked => write!(
                f,
                "{answered} of {asked} servers answer, which is no majority: start the others"
            ),
            _ => write!(
                f,
                "{answered} of {asked} servers answer: look at their status, an election may be \
                 under way or the nodes may not reach each other"
            ),
        }
    }
}
