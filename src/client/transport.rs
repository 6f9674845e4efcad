//! The seam between the [`Clerk`](super::Clerk) and the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire::client::{Answer, Ask};

/// Carries one request to one server and its answer back. Used by many threads at once.
pub trait Transport: Send + Sync {
    /// Asks the server at `server` (host:port), and waits for the answer until `timeout` has
    /// passed or `stop` is set.
    ///
    /// # Errors
    /// [`CallError`]; the difference between its variants decides whether a write may have been
    /// executed, so [`CallError::NotSent`] must be certain.
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Answer, CallError>;

    /// Whether a request to this server could leave at once, without connecting first.
    fn is_connected(&self, server: &str) -> bool {
        let _ = server;
        true
    }
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing that could be executed reached the server: it was certainly not executed.
    #[error("not reached: {0}")]
    NotSent(String),
    /// It was sent, at least in part, and no answer came: nobody knows.
    #[error("no answer: {0}")]
    Lost(String),
}

/// Tells a call that is under way to end early. It is looked at every few dozen milliseconds.
#[derive(Clone, Debug)]
pub struct Stop {
    epoch: Arc<AtomicU64>,
    since: u64,
}

impl Stop {
    /// One that is never set.
    pub fn never() -> Self {
        Stop::after(&Arc::new(AtomicU64::new(0)))
    }

    /// One that is set as soon as `epoch` moves on from its present value.
    pub(super) fn after(epoch: &Arc<AtomicU64>) -> Self {
        Stop {
            epoch: Arc::clone(epoch),
            since: epoch.load(Ordering::SeqCst),
        }
    }

    /// Whether to end now.
    pub fn is_set(&self) -> bool {
        self.epoch.load(Ordering::SeqCst) != self.since
    }
}
