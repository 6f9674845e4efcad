//! The measurements of a run: latencies, figures for each moment, gaps and errors.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::clients::Done;
use super::load::Kind;
use crate::client::{Error, Kind as ErrorKind};

/// The bounds of the histograms, in nanoseconds. Latencies are kept to three digits, up to an hour.
const LOWEST_NS: u64 = 100;
const HIGHEST_NS: u64 = 3_600_000_000_000;

/// The length of a *moment*: a short stretch of the run, whose latencies are counted apart. The
/// length doubles whenever moments are joined.
const MOMENT: Duration = Duration::from_millis(100);

/// How many moments are kept at most. When there are so many, each two neighbours are joined into
/// one, so that memory stays bounded.
const MAX_MOMENTS: usize = 1200;

/// How many kinds of errors are counted separately at most.
const MAX_ERRORS: usize = 16;

/// A histogram of latencies in nanoseconds.
pub type Latencies = Histogram<u64>;

fn latencies(digits: u8) -> Latencies {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, digits)
        .expect("the bounds are those of a histogram")
}

/// Returns a time in nanoseconds, at most `u64::MAX`.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The latencies and counts of one moment, a short stretch of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// How many requests succeeded in this moment of the run.
    pub successes: u64,
    /// How many requests failed in this moment of the run.
    pub failures: u64,
    /// The median latency of the moment's successful requests, in microseconds.
    pub p50_us: f64,
    /// The 99th percentile of these latencies, in microseconds.
    pub p99_us: f64,
    /// The longest of these latencies, in microseconds.
    pub max_us: f64,
}

/// A stretch of time in which no request succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long the gap was.
    pub length: Duration,
    /// When the gap began, counted from the start of the measurement.
    pub since: Duration,
}

impl Gap {
    fn see(&mut self, since: Duration, until: Duration, start: Duration) {
        let length = until.saturating_sub(since);
        if length > self.length {
            let since = since.saturating_sub(start);
            *self = Gap { length, since };
        }
    }
}

/// The measurement, which begins after the warm-up. It leaves out the latencies of requests that
/// were due during the warm-up.
#[derive(Debug)]
pub struct Measure {
    start: Duration,
    /// When the measurement ends; `None` while it is to end after a given number of requests.
    end: Option<Duration>,
    kinds: [Latencies; 4],
    /// How many requests succeeded before the measurement ended. The throughput is computed from
    /// this number.
    in_time: u64,
    last_success: Duration,
    errors: BTreeMap<String, (u64, String)>,
    failures: u64,
    moments: Vec<Moment>,
    moment: Duration,
    present: Latencies,
    present_failures: u64,
    seen: Vec<Duration>,
    client_gap: Gap,
    gap: Gap,
}

impl Measure {
    /// Makes a measurement that begins at `start`, for this many clients.
    pub fn new(start: Duration, end: Option<Duration>, clients: usize) -> Self {
        Measure {
            start,
            end,
            kinds: std::array::from_fn(|_| latencies(3)),
            in_time: 0,
            last_success: start,
            errors: BTreeMap::new(),
            failures: 0,
            moments: Vec::new(),
            moment: MOMENT,
            present: latencies(2),
            present_failures: 0,
            seen: vec![start; clients],
            client_gap: Gap::default(),
            gap: Gap::default(),
        }
    }

    /// Adds a request that has ended to the counts, latencies and gaps.
    pub fn done(&mut self, done: &Done) {
        if done.at >= self.start {
            self.move_on(done.at);
            if done.result.is_ok() {
                self.close_gaps(done.client, done.at);
            }
        }
        if done.intended < self.start {
            return;
        }
        let Some(kind) = done.kind else {
            return;
        };
        match &done.result {
            Ok(()) => {
                let latency = nanos(done.at.saturating_sub(done.intended));
                self.kinds[kind as usize].saturating_record(latency);
                self.present.saturating_record(latency);
                if self.end.is_none_or(|end| done.at <= end) {
                    self.in_time += 1;
                }
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: &Error) {
        self.failures += 1;
        self.present_failures += 1;
        let name = match error.kind() {
            ErrorKind::No => "no",
            ErrorKind::Refused => "refused",
            ErrorKind::Unknown => "unknown",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Usage => "usage",
        };
        if self.errors.len() < MAX_ERRORS || self.errors.contains_key(name) {
            let entry = self.errors.entry(name.into());
            entry.or_insert_with(|| (0, error.to_string())).0 += 1;
        }
    }

    fn close_gaps(&mut self, client: usize, at: Duration) {
        self.gap.see(self.last_success, at, self.start);
        self.client_gap.see(self.seen[client], at, self.start);
        self.last_success = at;
        self.seen[client] = at;
    }

    /// Completes the figures of all moments that are over at `now`.
    pub fn move_on(&mut self, now: Duration) {
        while now.saturating_sub(self.start) >= self.moment * (self.moments.len() as u32 + 1) {
            self.end_moment();
            if self.moments.len() == MAX_MOMENTS {
                self.moment *= 2;
                self.moments = self.moments.chunks(2).map(joined).collect();
            }
        }
    }

    fn end_moment(&mut self) {
        let us = |ns: u64| ns as f64 / 1000.0;
        let present = &self.present;
        self.moments.push(Moment {
            successes: present.len(),
            failures: self.present_failures,
            p50_us: us(present.value_at_quantile(0.5)),
            p99_us: us(present.value_at_quantile(0.99)),
            max_us: us(present.max()),
        });
        if !self.present.is_empty() {
            self.present.reset();
        }
        self.present_failures = 0;
    }

    /// Ends the measurement. The time from the last success to the end counts as a gap, too.
    pub fn finish(&mut self, now: Duration) {
        let end = self.end.map_or(now, |end| end.min(now));
        self.move_on(end);
        // Keep the figures of the last moment, although it may be shorter than the others.
        if !self.present.is_empty() || self.present_failures > 0 {
            self.end_moment();
        }
        self.gap.see(self.last_success, end, self.start);
        let first = self.seen.iter().min().copied().unwrap_or(end);
        self.client_gap.see(first, end, self.start);
        if self.end.is_none() || self.end > Some(now) {
            self.end = Some(now);
        }
    }

    /// How long the measurement has taken, without the warm-up.
    pub fn length(&self) -> Duration {
        let end = self.end.unwrap_or(self.last_success);
        end.saturating_sub(self.start)
    }

    /// The throughput: successes within the measured time, per second.
    pub fn throughput(&self) -> f64 {
        match self.length().as_secs_f64() {
            seconds if seconds > 0.0 => self.in_time as f64 / seconds,
            _ => 0.0,
        }
    }

    /// How many requests of all kinds succeeded.
    pub fn successes(&self) -> u64 {
        self.kinds.iter().map(Histogram::len).sum()
    }

    /// How many requests of all kinds failed.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// For each kind of error, how many requests failed with such an error, and the message of the
    /// first one.
    pub fn errors(&self) -> &BTreeMap<String, (u64, String)> {
        &self.errors
    }

    /// The latencies of one kind of request.
    pub fn kind(&self, kind: Kind) -> &Latencies {
        &self.kinds[kind as usize]
    }

    /// The latencies of all requests.
    pub fn all(&self) -> Latencies {
        let mut all = latencies(3);
        for kind in &self.kinds {
            all.add(kind).expect("all histograms have the same bounds");
        }
        all
    }

    /// The length of a moment, and the figures of all moments in order.
    pub fn moments(&self) -> (Duration, &[Moment]) {
        (self.moment, &self.moments)
    }

    /// The longest time between two successes of the same client, and the longest time between two
    /// successes of any clients.
    pub fn gaps(&self) -> (Gap, Gap) {
        (self.client_gap, self.gap)
    }
}

/// Joins two moments into one. Each percentile of the result is the higher of the two: the exact
/// one is not known, and must not look better than it was.
fn joined(pair: &[Moment]) -> Moment {
    pair.iter().fold(Moment::default(), |sum, moment| Moment {
        successes: sum.successes + moment.successes,
        failures: sum.failures + moment.failures,
        p50_us: sum.p50_us.max(moment.p50_us),
        p99_us: sum.p99_us.max(moment.p99_us),
        max_us: sum.max_us.max(moment.max_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn done(client: usize, intended: u32, at: u32) -> Done {
        Done {
            slot: client,
            client,
            kind: Some(Kind::Put),
            intended: intended * MS,
            at: at * MS,
            result: Ok(()),
        }
    }

    #[test]
    fn latency_counts_from_when_a_request_was_due_and_the_warm_up_is_left_out() {
        let mut measure = Measure::new(1000 * MS, Some(2000 * MS), 1);
        for (due, at) in [(999, 1500), (1000, 1250), (1900, 2100)] {
            measure.done(&done(0, due, at));
        }
        measure.finish(2100 * MS);
        let put = measure.kind(Kind::Put);
        assert_eq!(put.len(), 2);
        assert!(
            (249_000_000..251_000_000).contains(&put.max()),
            "{}",
            put.max()
        );
        // The last request was answered after the end, so it does not count for the throughput.
        assert_eq!(measure.throughput(), 1.0);
    }

    #[test]
    fn the_longest_gap_is_between_two_successes_or_at_either_end() {
        let gaps = |times: &[(usize, u32)], end: u32| {
            let mut measure = Measure::new(Duration::ZERO, Some(end * MS), 2);
            for (client, at) in times {
                measure.done(&done(*client, *at, *at));
            }
            measure.finish(end * MS);
            let (client, all) = measure.gaps();
            (client.length.as_millis(), all.length.as_millis())
        };
        assert_eq!(gaps(&[(0, 10), (1, 20), (0, 90), (1, 95)], 100), (80, 70));
        assert_eq!(gaps(&[(0, 10), (1, 60)], 100), (90, 50));
        assert_eq!(gaps(&[], 100), (100, 100));
    }

    #[test]
    fn an_error_is_counted_by_its_kind_with_what_the_first_one_said() {
        let mut measure = Measure::new(Duration::ZERO, None, 1);
        for reason in ["first", "second"] {
            let error = Error::No {
                server: "a:1".into(),
                reason: reason.into(),
            };
            measure.done(&Done {
                result: Err(error),
                ..done(0, 1, 2)
            });
        }
        let (count, first) = &measure.errors()["no"];
        assert_eq!((*count, first.as_str()), (2, "a:1 says no: first"));
        assert_eq!((measure.failures(), measure.successes()), (2, 0));
    }

    #[test]
    fn moments_stay_few_however_long_it_lasts_and_lose_no_request() {
        let mut measure = Measure::new(Duration::ZERO, None, 1);
        let requests = 5000;
        for number in 1..=requests {
            measure.done(&done(0, number * 100 - 1, number * 100));
        }
        measure.move_on((requests + 1) * 100 * 8 * MS);
        let (length, moments) = measure.moments();
        assert!(moments.len() < MAX_MOMENTS);
        assert!(length > MOMENT);
        let counted: u64 = moments.iter().map(|moment| moment.successes).sum();
        assert_eq!(counted, u64::from(requests));
    }
}
