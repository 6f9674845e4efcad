//! Which key comes next, and what became of the requests.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Failure;
use crate::plan::{Kind, Plan};

/// What all clients share.
pub struct Tally {
    plan: Rc<Plan>,
    random: u64,
    asked: u64,
    /// When the load began.
    begun: Instant,
    /// Requests that began earlier are not counted.
    start: Instant,
    /// No request begins later, but for those of [`Kind::Fill`].
    end: Instant,
    latencies: Histogram<u64>,
    /// Successes that ended by `end`.
    in_time: u64,
    failures: u64,
    /// Of each client, when it last succeeded.
    succeeded: Vec<Instant>,
    /// The longest time that any client was without success.
    gap: Duration,
    /// When any client last succeeded.
    last: Instant,
    /// The longest time in which no client succeeded.
    gap_of_all: Duration,
}

impl Tally {
    /// An empty tally of a load that begins now.
    pub fn new(plan: Rc<Plan>, now: Instant) -> Result<Self, Failure> {
        let warm_up = if plan.kind == Kind::Fill {
            0.0
        } else {
            plan.warm_up
        };
        let start = now + Duration::from_secs_f64(warm_up);
        Ok(Tally {
            random: 0x9e37_79b9_7f4a_7c15,
            asked: 0,
            begun: now,
            start,
            end: start + Duration::from_secs_f64(plan.seconds),
            latencies: Histogram::new_with_bounds(100, 3_600_000_000_000, 3)?,
            in_time: 0,
            failures: 0,
            succeeded: vec![now; plan.clients],
            gap: Duration::ZERO,
            last: now,
            gap_of_all: Duration::ZERO,
            plan,
        })
    }

    /// The number of the key that the next request is about, and when the request is due; none when
    /// the load is over.
    pub fn next(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let due = match self.plan.rate {
            Some(rate) => self.begun + Duration::from_secs_f64(self.asked as f64 / rate),
            None => now,
        };
        self.next_key(due).map(|key| (key, due))
    }

    fn next_key(&mut self, now: Instant) -> Option<u64> {
        let is_fill = self.plan.kind == Kind::Fill;
        let is_over = if is_fill {
            self.asked >= self.plan.keys
        } else {
            now >= self.end
        };
        if is_over {
            return None;
        }
        // A xorshift: any spread over the keys will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let number = if is_fill { self.asked } else { self.random };
        self.asked += 1;
        Some(number % self.plan.keys)
    }

    /// Counts a request that has ended.
    pub fn ended(&mut self, client: usize, begun: Instant, now: Instant, success: bool) {
        if success && now >= self.start {
            let before = std::mem::replace(&mut self.succeeded[client], now);
            self.gap = self.gap.max(now.duration_since(before.max(self.start)));
            let before = std::mem::replace(&mut self.last, now);
            let of_all = now.duration_since(before.max(self.start));
            self.gap_of_all = self.gap_of_all.max(of_all);
        }
        if begun < self.start {
            return;
        }
        if !success {
            self.failures += 1;
            return;
        }
        let latency = now.duration_since(begun).as_nanos() as u64;
        self.latencies.saturating_record(latency);
        self.in_time += u64::from(self.plan.kind == Kind::Fill || now <= self.end);
    }

    /// The result as one line of `name=value` words.
    pub fn report(&self, now: Instant) -> String {
        let us = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(us);
        let until = if self.plan.kind == Kind::Fill {
            now
        } else {
            self.end
        };
        let seconds = until.duration_since(self.start).as_secs_f64();
        // A gap that has not ended counts as well.
        let open = self
            .succeeded
            .iter()
            .map(|last| until.duration_since(*last));
        let gap = open.fold(self.gap, Duration::max).as_secs_f64() * 1000.0;
        let open = until.saturating_duration_since(self.last);
        let gap_of_all = self.gap_of_all.max(open).as_secs_f64() * 1000.0;
        format!(
            "throughput={:.0} requests={} failures={} seconds={seconds:.3} p50_us={p50:.1} \
             p99_us={p99:.1} max_us={max:.1} client_gap_ms={gap:.1} \
             gap_ms={gap_of_all:.1}",
            self.in_time as f64 / seconds,
            self.latencies.len(),
            self.failures,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(words: &str) -> (Tally, Instant) {
        let words = format!("127.0.0.1:1 {words}");
        let plan = Plan::parse(words.split(' ').map(str::to_owned)).expect("a command line");
        let now = Instant::now();
        (Tally::new(Rc::new(plan), now).expect("a tally"), now)
    }

    #[test]
    fn a_fill_names_each_key_once() {
        let (mut tally, now) = tally("kind=fill keys=3");
        let keys: Vec<_> = std::iter::from_fn(|| tally.next_key(now)).collect();
        assert_eq!(keys, [0, 1, 2]);
    }

    #[test]
    fn the_gap_is_the_longest_time_without_success() {
        let (mut tally, begun) = tally("warm_up=0 seconds=2");
        let at = |ms| begun + Duration::from_millis(ms);
        tally.ended(0, at(0), at(100), true);
        tally.ended(0, at(100), at(500), false);
        tally.ended(0, at(500), at(700), true);
        tally.ended(0, at(700), at(1800), true);
        let report = tally.report(at(2000));
        assert!(
            report.contains("throughput=2 requests=3 failures=1 seconds=2.000"),
            "{report}"
        );
        assert!(
            report.ends_with("client_gap_ms=1100.0 gap_ms=1100.0"),
            "{report}"
        );
    }

    #[test]
    fn with_a_rate_requests_are_due_at_fixed_times_however_late_it_is() {
        let (mut tally, begun) = tally("warm_up=0 seconds=1 rate=4");
        let late = begun + Duration::from_millis(900);
        let due: Vec<_> = std::iter::from_fn(|| tally.next(late)).collect();
        let after = due
            .iter()
            .map(|(_, due)| due.duration_since(begun).as_millis());
        assert_eq!(after.collect::<Vec<_>>(), [0, 250, 500, 750]);
    }
}
