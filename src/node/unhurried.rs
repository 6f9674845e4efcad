//! Writing what nobody waits for.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::clock::Clock;

/// How long it works at a time, at least. Where a thread of low priority has the processor, one
/// that is woken may have to wait for it to sleep: a scheduler lets each run for its slice, which
/// is ten times as long.
const BURST: Duration = Duration::from_micros(50);

/// So many times as long as it has worked, it rests.
const REST: u32 = 4;

/// The longest rest. A disk that hangs for seconds is no reason to wait for much longer.
const LONGEST_REST: Duration = Duration::from_millis(10);

/// Writes in bursts and rests after each, so that the others have most of the processor and of the
/// disk, except while `hurries` says that there is no time left.
pub(super) struct Unhurried<W, H> {
    out: W,
    clock: Clock,
    hurries: H,
    since: Instant,
}

impl<W: Write, H: Fn() -> bool> Unhurried<W, H> {
    pub fn new(out: W, clock: Clock, hurries: H) -> Self {
        Self {
            out,
            clock,
            hurries,
            since: (clock.now)(),
        }
    }

    /// What it has written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write, H: Fn() -> bool> Write for Unhurried<W, H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        let took = (self.clock.now)() - self.since;
        if took >= BURST {
            if !(self.hurries)() {
                (self.clock.rest)((took * REST).min(LONGEST_REST));
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

    /// Takes a millisecond for each write.
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
        let mut out = Unhurried::new(Slow(Vec::new()), Clock::default(), || false);
        for _ in 0..10 {
            out.write_all(b"piece ").unwrap();
        }
        assert_eq!(out.into_inner().0, b"piece ".repeat(10));
        assert!(sync::now() - begun >= Duration::from_millis(50));
    }

    #[test]
    fn whether_there_is_time_is_asked_after_each_burst_alone() {
        let asked = Cell::new(0);
        let hurries = || {
            asked.set(asked.get() + 1);
            true
        };
        let mut out = Unhurried::new(Slow(Vec::new()), Clock::default(), hurries);
        for piece in [&b"piece "[..], b"", b"piece "] {
            out.write_all(piece).unwrap();
        }
        assert_eq!(asked.get(), 2);
    }
}
