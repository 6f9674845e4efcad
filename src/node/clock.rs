//! The clock of a node.

use std::time::{Duration, Instant};

use super::sync;

/// Where a node gets the time from, and how it rests. A simulator brings its own; everybody else
/// takes the [default](Clock::default).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The present moment. It never goes back.
    pub now: fn() -> Instant,
    /// Waits for so long, and lets others work meanwhile.
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
