//! Runs a test from several seeds, and says which one to run again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use raftkv::sim::lab::{Lab, Setup};
use raftkv::sim::{Canary, Trace};

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
        let canary = variable("RAFTKV_LAB_CANARY");
        let canary = canary.map(|name| Canary::named(&name).expect("the name of a canary"));
        if let Some(seed) = number("RAFTKV_LAB_SEED") {
            self.from(seed, canary, Trace::Print);
            return;
        }
        for seed in 1..=number("RAFTKV_LAB_SEEDS").unwrap_or(SEEDS) {
            let run = || self.from(seed, canary, Trace::Off);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                eprintln!(
                    "seed {seed}; again, with a trace: RAFTKV_LAB_SEED={seed} cargo test \
                     --release --no-default-features --features sim --test virtual {name} -- \
                     --nocapture"
                );
                resume_unwind(panic);
            }
        }
    }

    /// Runs the test from one seed, and returns the hash of its trace.
    pub fn from(self, seed: u64, canary: Option<Canary>, trace: Trace) -> u64 {
        let mut lab = Lab::new(Setup {
            seed,
            servers: self.servers,
            clients: self.clients,
            canary,
            trace,
        });
        (self.body)(&mut lab);
        lab.check_logs();
        lab.trace_hash()
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    Some(variable(name)?.parse().expect("a number"))
}

/// Makes a test of each function: it is run on so many servers, with so many clients.
macro_rules! course_tests {
    ($($name:ident: $servers:literal servers $(, $clients:literal clients)?;)*) => {
        mod from_every_seed {
            $(
                #[test]
                fn $name() {
                    let test = crate::seeds::Test {
                        servers: $servers,
                        clients: 0 $(+ $clients)?,
                        body: super::$name,
                    };
                    test.run(concat!(stringify!($name)));
                }
            )*
        }
    };
}
pub(crate) use course_tests;
