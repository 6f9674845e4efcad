//! The locks, signals, threads and the clock of a node, in one place, so that a test can replace
//! them: with the feature `shuttle`, by ones whose schedule the test decides.

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

    use std::time::Duration;

    pub use crossbeam::channel::{Receiver, bounded};
    use crossbeam::sync::{Parker, Unparker};
    pub use parking_lot::{Condvar, Mutex, MutexGuard};

    /// The sending end of a channel with room for one token: a signal that can neither block nor
    /// get lost. A parker is used and not a channel for values: a channel spins before it sleeps,
    /// and would take the processor from the thread whose work it waits for.
    pub struct Nudger(Unparker);

    /// The receiving end of a [`Nudger`].
    pub struct Nudged(Parker);

    /// A channel with room for one token: the two ends of a signal.
    pub fn nudges() -> (Nudger, Nudged) {
        let parker = Parker::new();
        (Nudger(parker.unparker().clone()), Nudged(parker))
    }

    impl Nudger {
        /// Puts the token in. If a token is there already, that one is enough.
        pub fn nudge(&self) {
            self.0.unpark();
        }
    }

    impl Nudged {
        /// Waits for the token and takes it.
        pub fn wait(&self) {
            self.0.park();
        }

        /// As [`wait`](Self::wait), but no longer than `timeout`.
        pub fn wait_for(&self, timeout: Duration) {
            self.0.park_timeout(timeout);
        }
    }

    /// Gives the calling thread a low priority: no request waits for what it does. If the system
    /// has no priorities of threads, or refuses, the thread keeps the one that it has.
    pub fn yield_to_others() {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
    }

    /// The present moment.
    pub fn now() -> std::time::Instant {
        std::time::Instant::now()
    }
}
