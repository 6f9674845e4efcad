//! How long a stage has taken lately: a histogram of the last 10 to 20 seconds in constant memory.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::wire::client::Stage;

/// The period that one histogram covers. Two histograms are shown together, the one that is being
/// filled and the one before it, so the figures are of the last 10 to 20 seconds. Figures of the
/// whole life of a node would hardly move after a few hours, and would not show that something has
/// become slow.
const PERIOD: Duration = Duration::from_secs(10);

/// A time that is shorter counts as this; short times differ in steps of about this size.
const SHORTEST_NS: u64 = 100;
/// A time that is longer counts as this.
const LONGEST_NS: u64 = 60_000_000_000;
/// How exact a histogram is, in decimal digits: to one part in a hundred, which takes 12 KiB.
const DIGITS: u8 = 2;

type Times = Histogram<u32>;

fn times() -> Times {
    Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS)
        .expect("the bounds are those of a histogram")
}

/// The times that a stage has taken lately. To note a time takes a few nanoseconds and no
/// allocation. The caller brings both moments: no clock is read here.
pub struct Recent {
    /// When the present period began.
    began: Instant,
    present: Times,
    previous: Times,
}

impl Recent {
    /// A histogram without times. The first period begins at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            present: times(),
            previous: times(),
        }
    }

    /// Notes that the stage took from the one moment to the other.
    pub fn note(&mut self, from: Instant, to: Instant) {
        self.move_on(to);
        let took = to.saturating_duration_since(from).as_nanos();
        self.present
            .saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
    }

    /// Copies of what was noted in the previous and the present period. They are summed up by the
    /// caller, without the lock under which this is called: to sum up takes longer than others
    /// should have to wait.
    pub fn copy(&mut self, now: Instant) -> [Times; 2] {
        self.move_on(now);
        [self.previous.clone(), self.present.clone()]
    }

    /// Begins the next period if the present one is over. Threads read the clock before they come
    /// here, so `now` may be a little earlier than in the last call.
    fn move_on(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < PERIOD {
            return;
        }
        std::mem::swap(&mut self.present, &mut self.previous);
        self.present.reset();
        self.began += PERIOD;
        if passed >= 2 * PERIOD {
            // Nothing was noted for a whole period.
            self.previous.reset();
            self.began = now;
        }
    }
}

/// The figures of the two copies together.
pub fn sum_up(name: &str, [mut times, others]: [Times; 2]) -> Stage {
    times += others;
    Stage {
        name: name.to_string(),
        count: times.len(),
        p50_ns: times.value_at_quantile(0.5),
        p99_ns: times.value_at_quantile(0.99),
        max_ns: times.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    fn shown(recent: &mut Recent, now: Instant) -> Stage {
        sum_up("it", recent.copy(now))
    }

    /// Asserts that the times are equal to one part in a hundred.
    #[track_caller]
    fn assert_close(ns: u64, expected: Duration) {
        let expected = expected.as_nanos() as u64;
        let error = ns.abs_diff(expected);
        assert!(error <= expected / 100 + 64, "{ns} instead of {expected}");
    }

    #[test]
    fn percentiles_and_the_longest_are_those_of_what_was_noted() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        for n in 1..=1000 {
            recent.note(start, start + n * MICROSECOND);
        }
        let stage = shown(&mut recent, start);
        assert_eq!((&*stage.name, stage.count), ("it", 1000));
        assert_close(stage.p50_ns, 500 * MICROSECOND);
        assert_close(stage.p99_ns, 990 * MICROSECOND);
        assert_close(stage.max_ns, 1000 * MICROSECOND);
    }

    #[test]
    fn what_is_older_than_two_periods_is_forgotten_and_what_is_younger_than_one_is_not() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        let counts = |recent: &mut Recent, at| shown(recent, at).count;
        recent.note(start, start + 3 * MICROSECOND);
        let second = start + PERIOD;
        recent.note(second, second + 5 * MICROSECOND);
        assert_eq!(counts(&mut recent, second), 2);
        let third = start + 2 * PERIOD;
        assert_eq!(counts(&mut recent, third - MICROSECOND), 2);
        assert_eq!(counts(&mut recent, third), 1);
        assert_close(shown(&mut recent, third).max_ns, 5 * MICROSECOND);
        assert_eq!(counts(&mut recent, third + PERIOD), 0);
    }

    #[test]
    fn after_a_long_silence_nothing_is_left_of_what_was_before() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        recent.note(start, start + MICROSECOND);
        let later = start + 100 * PERIOD;
        recent.note(later, later);
        assert_eq!(shown(&mut recent, later).count, 1);
        assert_eq!(shown(&mut recent, later + PERIOD).count, 1);
        assert_eq!(shown(&mut recent, later + 2 * PERIOD).count, 0);
    }

    #[test]
    fn what_is_out_of_bounds_counts_as_the_bound_and_clocks_that_disagree_as_no_time() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        recent.note(start + MICROSECOND, start);
        assert!(shown(&mut recent, start).max_ns < 2 * SHORTEST_NS);
        let hour = start + Duration::from_secs(3600);
        recent.note(start, hour);
        assert_close(
            shown(&mut recent, hour).max_ns,
            Duration::from_nanos(LONGEST_NS),
        );
    }

    #[test]
    fn the_memory_for_one_is_as_documented() {
        let bytes = times().distinct_values() * size_of::<u32>();
        assert!((11 << 10..=12 << 10).contains(&bytes), "{bytes}");
    }
}
