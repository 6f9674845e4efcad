//! The loop that begins requests in free slots: in closed loop as soon as a slot is free, in open
//! loop at the time when a request is due.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clients::{Clients, Done, Work};

/// The longest time between two calls of [`Phase::tick`].
const TICK: Duration = Duration::from_millis(50);

/// How long requests that are under way may take to end after Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer of a benchmark's phase when a slot is free: work to begin, or when to ask again.
#[derive(Debug)]
pub enum Pull {
    /// The slot begins this work, which was due at this time.
    Begin(Work, Duration),
    /// The phase has no work before this time.
    Later(Duration),
    /// The phase has no more work.
    Never,
}

/// A part of a benchmark, such as putting the keys, or the measurement.
pub trait Phase {
    /// Asks the phase for work for a free slot.
    fn pull(&mut self, now: Duration) -> Pull;
    /// Tells the phase that the work of a slot has ended.
    fn done(&mut self, done: Done);
    /// Tells the phase the present time, at least 20 times a second.
    fn tick(&mut self, now: Duration, clients: &Clients);
}

/// Runs one phase of the load: starts its requests on the clients `slots`, and hands the answers to
/// the phase. Ends when the phase has no more requests to start and none is unanswered, or earlier
/// when `stop` is set. Returns true unless `stop` ended it.
///
/// # Errors
/// If the operating system cannot wait for sockets.
pub fn drive(
    clients: &mut Clients,
    slots: impl Iterator<Item = usize>,
    phase: &mut dyn Phase,
    stop: &AtomicBool,
) -> io::Result<bool> {
    // Take the slot that was free for the longest time, so that in open loop all clients get the
    // same number of requests.
    let mut free: VecDeque<usize> = slots.collect();
    let (mut busy, mut over) = (0_usize, false);
    let mut stopped: Option<Duration> = None;
    let mut done = Vec::new();
    loop {
        let now = clients.now();
        let mut until = now + TICK;
        phase.tick(now, clients);
        if stopped.is_none() && stop.load(Ordering::Relaxed) {
            stopped = Some(now);
            over = true;
        }
        while !over && let Some(slot) = free.front().copied() {
            match phase.pull(now) {
                Pull::Begin(work, intended) => {
                    free.pop_front();
                    busy += 1;
                    clients.begin(slot, work, intended, now);
                }
                Pull::Later(time) => {
                    until = until.min(time);
                    break;
                }
                Pull::Never => over = true,
            }
        }
        let out_of_patience = stopped.is_some_and(|since| now - since >= PATIENCE);
        if over && (busy == 0 || out_of_patience) {
            return Ok(stopped.is_none());
        }
        clients.wait(until, &mut done)?;
        for done in done.drain(..) {
            busy -= 1;
            free.push_back(done.slot);
            phase.done(done);
        }
    }
}
