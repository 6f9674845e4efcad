//! A progress bar with the present rate of requests. It is shown only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The time between two drawings of the progress bar.
const EVERY: Duration = Duration::from_millis(200);

/// The progress bar of one part of a benchmark.
pub struct Progress {
    bar: ProgressBar,
    drawn: Duration,
    count: u64,
}

impl Progress {
    /// Makes a progress bar that is full at `length`. It shows nothing if standard error is not a
    /// terminal.
    pub fn new(what: &'static str, length: u64) -> Self {
        let bar = ProgressBar::new(length).with_prefix(what);
        let style = ProgressStyle::with_template("{prefix:9} [{bar:32}] {percent:>3}%  {msg}");
        Progress {
            bar: match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            },
            drawn: Duration::ZERO,
            count: 0,
        }
    }

    /// Draws the progress bar, at most once in 200 ms. `count` is the number of all requests so
    /// far, from which the rate is computed.
    pub fn show(&mut self, now: Duration, position: u64, count: u64) {
        let passed = now.saturating_sub(self.drawn);
        if passed < EVERY || self.bar.is_hidden() {
            return;
        }
        let rate = count.saturating_sub(self.count) as f64 / passed.as_secs_f64();
        (self.drawn, self.count) = (now, count);
        self.bar.set_position(position);
        self.bar.set_message(format!("{rate:.0} requests/s"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
