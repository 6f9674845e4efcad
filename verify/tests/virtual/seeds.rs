//! Runs a test from several seeds, and says which one to run again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use raftkv_verify::course::Arena;
use raftkv_verify::sim::Trace;
use raftkv_verify::sim::lab::{Lab, Setup};

/// How many seeds each test is run from.
const SEEDS: u64 = 5;

/// A test, and the cluster that it wants.
#[derive(Clone, Copy)]
pub struct Test {
    pub servers: usize,
    pub clients: usize,
    pub body: fn(&mut Lab),
}

impl Test {
    /// Runs the test from each seed.
    pub fn run(self, name: &str) {
        if let Some(seed) = number("RAFTKV_LAB_SEED") {
            self.from(seed, Trace::Print);
            return;
        }
        for seed in 1..=number("RAFTKV_LAB_SEEDS").unwrap_or(SEEDS) {
            let run = || self.from(seed, Trace::Off);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                eprintln!(
                    "seed {seed}; again, with a trace: RAFTKV_LAB_SEED={seed} cargo test \
                     --profile verify -p raftkv-verify --test virtual {name} -- --nocapture"
                );
                resume_unwind(panic);
            }
        }
    }

    /// Runs the test from one seed, and returns the hash of its trace.
    pub fn from(self, seed: u64, trace: Trace) -> u64 {
        let mut lab = Lab::new(Setup {
            seed,
            servers: self.servers,
            clients: self.clients,
            trace,
        });
        (self.body)(&mut lab);
        lab.check_end();
        lab.trace_hash()
    }
}

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}
