//! The clock of a node.

use std::time::{Duration, Instant};

use super::sync;

/// Where a node gets the time from, and how it rests. A simulator brings a clock of its own; all
/// others take the [default](Clock::default).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The present moment. It never goes back.
    pub now: fn() -> Instant,
    /// Waits for this long, and lets other threads work meanwhile.
    pub rest: fn(Duration),
}

impl Default for Clock {
    /// The clock of the system.
    fn default() -> Self {
        Self {
            now: sync::now,
            rest: sync::thread::sleep,
        }
    }
}
