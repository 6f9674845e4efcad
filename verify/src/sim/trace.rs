//! The trace of a run: one line for each thing that happens.

use std::io::{self, Write};

/// Where the lines of a trace go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// Nowhere: they are not even made.
    #[default]
    Off,
    /// Into a hash, by which two runs can be compared.
    Hash,
    /// To the standard output.
    Print,
}

/// Takes the lines.
pub(super) struct Tracer {
    mode: Trace,
    hash: u64,
}

impl Tracer {
    pub fn new(mode: Trace) -> Self {
        Self {
            mode,
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub fn is_on(&self) -> bool {
        self.mode != Trace::Off
    }

    pub fn line(&mut self, now: super::Time, line: &str) {
        match self.mode {
            Trace::Off => {}
            Trace::Print => {
                let ms = now as f64 / 1000.0;
                // Whoever closed the output does not want to see it.
                let _ = writeln!(io::stdout(), "{ms:>10.3} ms  {line}");
            }
            Trace::Hash => {
                // FNV-1a.
                for byte in now.to_le_bytes().iter().chain(line.as_bytes()) {
                    self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                }
            }
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Adds a line to the trace of a world, if anybody wants it.
macro_rules! trace {
    ($world:expr, $($arguments:tt)*) => {
        if $world.tracer.is_on() {
            let line = format!($($arguments)*);
            $world.tracer.line($world.now, &line);
        }
    };
}
pub(super) use trace;
