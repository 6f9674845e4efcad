//! A simulated cluster whose faults a test writes down instead of drawing them: who is cut off,
//! crashed and started, which command is submitted to which server, and how much virtual time
//! passes.
//!
//! Everything else comes from the simulator: the product's code on simulated disks, the clients,
//! and the checks of all nodes after each event. A check that fails panics with its message. A test
//! panics, too, if it takes longer than the course allows.
//!
//! The network behaves as the course's network does ([`law`]). The procedures of the course, which
//! run in virtual time as well as on threads, are in `verify/src/course`.

mod clients;
mod desk;
mod law;
mod servers;
mod snapshots;

use std::time::Duration;

pub use clients::Call;
pub use desk::{Ended, Ticket};
pub use servers::{Numbering, Submitted};
pub use snapshots::Every;

pub(super) use desk::{DESK, Desk};
pub(crate) use law::is_request;
pub(super) use law::{Law, kind_of};
pub(crate) use snapshots::FRAME;

use super::plan::Plan;
use super::random::Random;
use super::world::World;
use super::{Options, Stats, Time, Trace};
use raftkv::raft::Index;

/// How long a test may take, in virtual time: what the course gives it.
const MOST: Duration = Duration::from_secs(120);

/// The course's nominal election timeout, by which its tests wait.
pub const T: Duration = Duration::from_millis(1000);

/// What a test starts from.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Everything that the script leaves open follows from this.
    pub seed: u64,
    /// How many servers there are, all of them up and connected.
    pub servers: usize,
    /// How many clients there are, which do what they are told.
    pub clients: usize,
    /// What to do with the trace.
    pub trace: Trace,
}

/// Servers from 0 on, and clients from 0 on.
pub struct Lab {
    world: World,
    /// Servers of the same side reach each other.
    sides: Vec<u64>,
    pub(crate) numbering: Numbering,
    every: Option<Every>,
    /// How far each server was when it was last asked whether it wants a snapshot.
    looked: Vec<Index>,
}

impl Lab {
    /// Starts a cluster.
    pub fn new(setup: Setup) -> Self {
        let options = Options {
            seed: setup.seed,
            trace: setup.trace,
            ..Options::default()
        };
        let plan = Plan::calm(setup.servers, setup.clients);
        let mut world = World::of(options, plan, Random::new(setup.seed));
        // No faults but those of the script, and no operations.
        (world.faults_go_on, world.closing) = (false, true);
        world.network.law = Some(Law::reliable());
        let mut lab = Self {
            world,
            sides: vec![0; setup.servers],
            numbering: Numbering::default(),
            every: None,
            looked: vec![0; setup.servers],
        };
        (0..setup.servers).for_each(|n| lab.boot(n));
        lab
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Time {
        self.world.now
    }

    /// The moment so much later than now.
    pub fn after(&self, time: Duration) -> Time {
        self.world.now + micros(time)
    }

    /// What happened so far, in numbers.
    pub fn stats(&self) -> Stats {
        self.world.stats()
    }

    /// The hash of all that happened, where [`Trace::Hash`] was asked for.
    pub fn trace_hash(&self) -> u64 {
        self.world.tracer.hash()
    }

    /// Lets time pass until something holds, at most for the limit. Returns whether it holds.
    pub fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.after(limit);
        while !holds(self) {
            if self.world.queue.next_at().is_none_or(|at| at > end) {
                self.run_to(end);
                return holds(self);
            }
            self.next();
        }
        true
    }

    /// Lets time pass up to this moment.
    pub fn run_to(&mut self, end: Time) {
        while self.world.queue.next_at().is_some_and(|at| at <= end) {
            self.next();
        }
        self.world.now = self.world.now.max(end);
    }

    fn next(&mut self) {
        if let Err(failure) = self.world.next() {
            panic!("{failure}");
        }
        self.take_snapshots();
        let took = self.world.now;
        assert!(took <= micros(MOST), "the test takes more than {MOST:?}");
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.world.random.below(bound)
    }

    /// The course's unreliable network, or the one without loss and delay.
    pub fn set_unreliable(&mut self, unreliable: bool) {
        self.law().unreliable = unreliable;
    }

    /// Whether two thirds of the answers are late by up to 2.2 seconds.
    pub fn set_long_reordering(&mut self, long_reordering: bool) {
        self.law().long_reordering = long_reordering;
    }

    /// Whether a client that asks a server which is cut off or down hears of that after up to seven
    /// seconds, instead of a tenth of one.
    pub fn set_long_delays(&mut self, long_delays: bool) {
        self.law().long_delays = long_delays;
    }

    fn law(&mut self) -> &mut Law {
        let law = self.world.network.law.as_mut();
        law.expect("the network of a script has a law")
    }
}

fn micros(time: Duration) -> Time {
    time.as_micros() as Time
}
