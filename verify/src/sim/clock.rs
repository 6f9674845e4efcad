//! The clock of a simulated node: virtual time in the form in which the product's code reads the
//! time.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::Time;
use super::world::TICK;

/// The moment at which virtual time begins. Only differences from it matter.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What a thread reads from the clock while a step is under way is a little later each time; once
/// in so many times a lot later, as if the step had been held up.
const HELD_UP_ONCE_IN: u64 = 16;
const HELD_UP_NS: u64 = 3_000_000;

thread_local! {
    /// The present moment in nanoseconds, and a number that decides how it goes on. A world runs on
    /// one thread.
    static NOW: Cell<(u64, u64)> = const { Cell::new((0, 1)) };
}

/// A step begins at this moment. How long its parts take follows from the seed.
pub(super) fn begin_step(now: Time, seed: u64) {
    NOW.set((now * 1000, seed | 1));
}

/// The time, as a node asks for it within a step.
pub(super) fn now() -> Instant {
    let (mut ns, mut state) = NOW.get();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    ns += match state % HELD_UP_ONCE_IN {
        0 => HELD_UP_NS,
        _ => state % 50_000,
    };
    NOW.set((ns, state));
    *ORIGIN + Duration::from_nanos(ns)
}

/// Nobody rests in virtual time: what nobody waits for is a step of its own.
pub(super) fn rest(_: Duration) {}

/// The clock on a node's own board, which may be faster or slower than virtual time.
pub(super) struct Board {
    /// At this virtual time...
    since: Time,
    /// ...it showed this.
    shown: Duration,
    /// How much virtual time it takes the clock to count one tick.
    tick: Time,
}

impl Board {
    pub fn new(now: Time, tick: Time) -> Self {
        let shown = Duration::from_micros(now);
        let since = now;
        Self { since, shown, tick }
    }

    /// What it shows at this virtual time.
    pub fn at(&self, now: Time) -> Instant {
        *ORIGIN + self.shown_at(now)
    }

    fn shown_at(&self, now: Time) -> Duration {
        self.shown + Duration::from_nanos((now - self.since) * 1000 * TICK / self.tick)
    }

    /// From now on a tick takes so much virtual time.
    pub fn set_tick(&mut self, now: Time, tick: Time) {
        (self.shown, self.since, self.tick) = (self.shown_at(now), now, tick);
    }

    /// How much virtual time from `now` on it takes the clock to show this moment.
    pub fn until(&self, now: Time, moment: Instant) -> Time {
        let left = moment.saturating_duration_since(self.at(now)).as_nanos() as u64;
        (left * self.tick).div_ceil(TICK * 1000)
    }
}
