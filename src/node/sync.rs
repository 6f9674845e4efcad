//! The locks, signals, threads and the clock of a node, in one place, so that a test can put
//! others in their stead: with the feature `shuttle`, ones whose schedule it decides.

#[cfg(feature = "shuttle")]
pub mod explored;
#[cfg(feature = "shuttle")]
pub(super) use explored::*;

#[cfg(not(feature = "shuttle"))]
pub(super) use real::*;

#[cfg(not(feature = "shuttle"))]
mod real {
    pub use std::sync::atomic::{AtomicBool, AtomicU64};
    pub use std::thread;

    pub use crossbeam::channel::{Receiver, Sender, bounded};
    pub use parking_lot::{Condvar, Mutex};

    /// The time.
    pub fn now() -> std::time::Instant {
        std::time::Instant::now()
    }
}
