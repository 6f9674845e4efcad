//! How one task of a node wakes another.

use super::sync::{Nudged, Nudger, nudges};

/// The tasks of a node. Each task waits for other events than the rest, so each has a thread of its
/// own in production; the simulator carries out all tasks in one thread, a step at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Executes committed commands and answers reads: [`Hub::apply`](super::hub::Hub::apply).
    Apply,
    /// Writes the log: [`Replicator`](super::replicator::Replicator).
    Replicate,
    /// Sends parts of snapshots to followers, stores received parts, and removes files that the log
    /// needs no more: [`Courier`](super::courier::Courier).
    Carry,
    /// Writes a snapshot of the state: [`Taker`](super::taker::Taker).
    TakeSnapshot,
    /// Counts time: [`Ticker`](super::ticker::Ticker). It sleeps until its next tick is due, and is
    /// woken by others only when the node stops.
    Tick,
    /// Verifies the files of the log and of snapshots: [`Scrubber`](super::scrubber::Scrubber). It
    /// sleeps until its next step is due, and is woken by others only when the node stops.
    Scrub,
}

/// Wakes the thread of a task. It must neither block nor lose a wake-up: a task that is woken
/// during a step takes another step afterwards. It is called without the replica's lock.
pub type Wake = Box<dyn Fn(Task) + Send + Sync>;

/// The receiving ends of the signals, at which the threads of a node wait: one for each task.
pub(super) struct Sleepers {
    pub apply: Nudged,
    pub replicate: Nudged,
    pub carry: Nudged,
    pub take_snapshot: Nudged,
    pub tick: Nudged,
    pub scrub: Nudged,
}

/// The signals between threads. Each is a channel with room for one token. One is enough: the token
/// says "look again", and a thread that looks sees everything that was put in before.
pub(super) fn between_threads() -> (Wake, Sleepers) {
    let (apply_end, apply) = nudges();
    let (replicate_end, replicate) = nudges();
    let (carry_end, carry) = nudges();
    let (snapshot_end, take_snapshot) = nudges();
    let (tick_end, tick) = nudges();
    let (scrub_end, scrub) = nudges();
    let wake = move |task| {
        let nudger: &Nudger = match task {
            Task::Apply => &apply_end,
            Task::Replicate => &replicate_end,
            Task::Carry => &carry_end,
            Task::TakeSnapshot => &snapshot_end,
            Task::Tick => &tick_end,
            Task::Scrub => &scrub_end,
        };
        nudger.nudge();
    };
    let sleepers = Sleepers {
        apply,
        replicate,
        carry,
        take_snapshot,
        tick,
        scrub,
    };
    (Box::new(wake), sleepers)
}
