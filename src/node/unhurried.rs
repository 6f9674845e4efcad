//! Writing a file that no request waits for, without getting in the way of threads on which
//! requests wait.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::clock::Clock;

/// The writer works for at least so long before it rests. A thread that is woken while a thread of
/// low priority runs may have to wait until that one sleeps: a scheduler lets it run for its slice,
/// which is ten times as long as this.
const BURST: Duration = Duration::from_micros(50);

/// How many times as long as a burst the rest after it is.
const REST: u32 = 4;

/// The longest rest. If the disk hangs for seconds, a burst takes as long; to rest for a multiple
/// of that would help nobody.
const LONGEST_REST: Duration = Duration::from_millis(10);

/// How the writer goes on after a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// The writer rests, so that other threads have most of the processor and of the disk.
    Rest,
    /// The writer goes on at once, because the file is wanted soon.
    Hurry,
    /// Writing fails, because the file is not wanted any more.
    GiveUp,
}

/// A writer that writes in bursts, and asks `pace` after each burst how to go on.
pub(super) struct Unhurried<W, P> {
    out: W,
    clock: Clock,
    pace: P,
    /// When the burst began.
    since: Instant,
}

impl<W: Write, P: Fn() -> Pace> Unhurried<W, P> {
    pub fn new(out: W, clock: Clock, pace: P) -> Self {
        Self {
            out,
            clock,
            pace,
            since: (clock.now)(),
        }
    }

    /// Returns the writer to which the bytes went.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write, P: Fn() -> Pace> Write for Unhurried<W, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        let took = (self.clock.now)() - self.since;
        if took >= BURST {
            match (self.pace)() {
                Pace::Rest => (self.clock.rest)((took * REST).min(LONGEST_REST)),
                Pace::Hurry => {}
                Pace::GiveUp => return Err(io::Error::other("it is not wanted any more")),
            }
            self.since = (self.clock.now)();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::node::sync;

    /// A writer that takes a millisecond for each write.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let begun = sync::now();
            while sync::now() - begun < Duration::from_millis(1) {}
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_rests_for_most_of_the_time() {
        let begun = sync::now();
        let mut out = Unhurried::new(Slow(Vec::new()), Clock::default(), || Pace::Rest);
        for _ in 0..10 {
            out.write_all(b"piece ").unwrap();
        }
        assert_eq!(out.into_inner().0, b"piece ".repeat(10));
        assert!(sync::now() - begun >= Duration::from_millis(50));
    }

    #[test]
    fn whether_there_is_time_is_asked_after_each_burst_alone() {
        let asked = Cell::new(0);
        let pace = || {
            asked.set(asked.get() + 1);
            Pace::Hurry
        };
        let mut out = Unhurried::new(Slow(Vec::new()), Clock::default(), pace);
        for piece in [&b"piece "[..], b"", b"piece "] {
            out.write_all(piece).unwrap();
        }
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_given_up_after_one_burst() {
        let mut out = Unhurried::new(Slow(Vec::new()), Clock::default(), || Pace::GiveUp);
        assert!(out.write_all(b"piece ").is_err());
        assert_eq!(out.into_inner().0, b"piece ");
    }
}
