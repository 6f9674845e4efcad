//! The interface between the [`Clerk`](super::Clerk) and the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::raft::Index;
use crate::wire::client::{Answer, Ask};
use crate::wire::members::MemberList;

/// Carries a request to a server, and the answer back. Many threads use it at once.
pub trait Transport: Send + Sync {
    /// Asks the server at `server` (host:port), and waits for the answer until `timeout` has
    /// passed or `stop` is set. `known` is the index of the newest list of members that the client
    /// has, 0 without one: if the server has a newer list, its answer brings it.
    ///
    /// # Errors
    /// [`CallError`]. A call counts a request that was [not sent](CallError::NotSent) as not
    /// executed. So return `NotSent` only if it is certain that no server can execute the request,
    /// now or later.
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        known: Index,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Answered, CallError>;

    /// Whether there is a connection to this server, so that a request could be sent at once.
    fn is_connected(&self, server: &str) -> bool {
        let _ = server;
        true
    }
}

/// The answer of a server, with the list of members if the server has a newer one than the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// How the request ended.
    pub answer: Answer,
    /// The committed list of members; `None` if the client has the newest that the server knows.
    pub members: Option<Box<MemberList>>,
}

/// An answer without news of the members.
impl From<Answer> for Answered {
    fn from(answer: Answer) -> Self {
        let members = None;
        Answered { answer, members }
    }
}

/// Why the transport has no answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server did not get the whole request, so the request is certainly not executed.
    #[error("not reached: {0}")]
    NotSent(String),
    /// The request was sent, and no answer came. It may have been executed, or may still be.
    #[error("no answer: {0}")]
    Lost(String),
}

/// The signal by which a call that is under way is told to end early. A transport checks it every
/// few dozen milliseconds.
///
/// A stop is set when the counter `epoch` no longer has the value that it had when the call began.
/// So one increment of the counter ends all calls that are under way, and no call that begins
/// later.
#[derive(Clone, Debug)]
pub struct Stop {
    epoch: Arc<AtomicU64>,
    since: u64,
}

impl Stop {
    /// Makes a stop that is never set, for a call that nobody cancels.
    pub fn never() -> Self {
        Stop::after(&Arc::new(AtomicU64::new(0)))
    }

    /// Makes a stop for a call that begins now: it is set as soon as `epoch` changes from its
    /// present value.
    pub(super) fn after(epoch: &Arc<AtomicU64>) -> Self {
        Stop {
            epoch: Arc::clone(epoch),
            since: epoch.load(Ordering::SeqCst),
        }
    }

    /// Whether the call is to end now.
    pub fn is_set(&self) -> bool {
        self.epoch.load(Ordering::SeqCst) != self.since
    }
}
