//! A whole cluster in one thread, on virtual time, from one seed.
//!
//! The simulator drives the code that production runs: whole nodes, put together and carried on by
//! the same functions as in production ([`steps`](raftkv::node::steps)); the store; the encoding of
//! messages; and the parts of a client that decide ([`Call`](raftkv::client::Call),
//! [`Session`](raftkv::client::Session), [`Routes`](raftkv::client::Routes)). It replaces threads,
//! sockets, the clock and the disk: the simulator takes each step that a thread would take, at a
//! virtual time that it draws. `client.rs` does what a Clerk does.
//!
//! A run has two phases (`phases.rs`): first faults, under which nothing may go wrong; then most
//! faults end, and a quorum must make progress. The checks are in `check`. `docs/testing.md` says
//! how to run the simulator, how to read its output, and what it does not prove.

mod carrying;
mod check;
mod client;
mod clock;
mod disk;
mod durable;
mod faults;
mod folders;
mod greeting;
mod healing;
mod history;
pub mod lab;
mod looking;
mod members;
mod network;
mod newcomer;
mod node;
mod outside;
mod phases;
mod plan;
mod queue;
mod random;
mod rot;
mod snapshots;
mod trace;
mod workload;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use check::seen;
pub use history::{Action, End, Record};
pub use trace::Trace;
pub use world::Stats;

pub(crate) use random::Random;

use world::World;

/// Virtual time in microseconds since the start of the run.
pub type Time = u64;

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Everything that happens follows from this.
    pub seed: u64,
    /// What to do with the trace.
    pub trace: Trace,
    /// What kind of run it is.
    pub scenario: Scenario,
}

/// What kind of run it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scenario {
    /// The seed decides.
    #[default]
    Drawn,
    /// Members change all the time.
    Members,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub seed: u64,
    /// What did not hold.
    pub failure: Option<Failure>,
    /// What happened, in numbers.
    pub stats: Stats,
    /// The hash of the trace, where [`Trace::Hash`] was asked for.
    pub trace_hash: u64,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {sentence}")]
pub struct Failure {
    /// Which checker says so.
    pub check: &'static str,
    /// What it saw.
    pub sentence: String,
}

impl Failure {
    fn new(check: &'static str, sentence: impl fmt::Display) -> Self {
        Self {
            check,
            sentence: sentence.to_string(),
        }
    }
}

/// Runs one seed to its end, or to the first promise that is broken. A panic anywhere in the
/// product or in the simulator counts as one.
pub fn run(options: Options) -> Report {
    let mut world = World::new(options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match result {
        Ok(result) => result.err(),
        Err(panic) => Some(Failure::new("an invariant", sentence_of(&*panic))),
    };
    if let Some(failure) = &failure {
        trace::trace!(world, "FAILED: {failure}");
    }
    Report {
        seed: options.seed,
        failure,
        trace_hash: world.tracer.hash(),
        stats: world.stats(),
    }
}

fn sentence_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a sentence".to_string())
}
