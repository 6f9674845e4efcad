//! The clock of a node.

use std::time::{Duration, Instant};

use super::sync;

/// How a node reads the time and how it sleeps. The simulator has a clock of its own; every other
/// program takes the [default](Clock::default).
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
