//! What a run may do to its cluster: drawn from the seed, so that some runs know no loss and
//! others no crash. A mix of everything hides what needs one fault alone, or another's absence.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::raft::{Config, Configuration, NodeId};

/// The only source of randomness in a run.
pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A random number below `bound`; zero if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A random rate up to `most`; zero in half of the runs.
    fn rate(&mut self, most: u64) -> u64 {
        if self.chance(500) {
            0
        } else {
            self.below(most) + 1
        }
    }
}

/// What may happen in a run. Rates are per mille: of messages for the network, of ticks for the
/// rest.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes the cluster begins with.
    pub size: u64,
    /// How many nodes there are. Those beyond `size` know nobody, and nobody knows them.
    pub nodes: u64,
    /// How often somebody asks a node for a change of members.
    pub change: u64,
    /// How often a node loses its folder.
    pub wipe: u64,
    pub loss: u64,
    pub duplication: u64,
    /// The longest delay of a message, in ticks. Messages that are due in the same tick arrive in
    /// any order.
    pub delay: u64,
    pub cut: u64,
    pub heal: u64,
    pub crash: u64,
    pub restart: u64,
    pub pause: u64,
    /// How often a disk completes nothing for a while.
    pub stall: u64,
    /// The longest time that a write takes, in ticks.
    pub disk: u64,
    /// How often the output of a core is not collected for a while, so that more gathers.
    pub lazy: u64,
    /// How often the slowest clock misses a tick.
    pub skew: u64,
    pub propose: u64,
    pub read: u64,
    pub transfer: u64,
    /// The limits of the core, so small that a run reaches them.
    pub max_append_bytes: usize,
    pub max_inflight_bytes: usize,
    pub max_inflight_messages: usize,
}

impl Plan {
    pub fn draw(dice: &mut Dice) -> Self {
        let size = [1, 2, 3, 3, 3, 4, 5, 5, 5, 5][dice.below(10) as usize];
        Self {
            size,
            nodes: size,
            change: 0,
            wipe: 0,
            loss: dice.rate(300),
            duplication: dice.rate(200),
            delay: dice.rate(8),
            cut: dice.rate(100),
            heal: dice.below(50) + 10,
            crash: dice.rate(40),
            restart: dice.below(100) + 20,
            pause: dice.rate(30),
            stall: dice.rate(30),
            disk: dice.rate(12),
            lazy: dice.rate(700),
            skew: dice.rate(950),
            propose: dice.below(400) + 50,
            read: dice.below(800) + 20,
            transfer: dice.rate(15),
            max_append_bytes: 1 + dice.below(200) as usize,
            max_inflight_bytes: 1 + dice.below(600) as usize,
            max_inflight_messages: 1 + dice.below(8) as usize,
        }
    }

    /// The same with members that change, up to seven nodes, and folders that are lost.
    pub fn with_changes(self, dice: &mut Dice) -> Self {
        Self {
            nodes: 7.min(self.size + 1 + dice.below(4)),
            change: dice.below(100) + 20,
            wipe: dice.rate(10),
            ..self
        }
    }

    /// The same plan without faults.
    pub fn healed(&self) -> Self {
        Self {
            loss: 0,
            duplication: 0,
            delay: 0,
            cut: 0,
            heal: 0,
            crash: 0,
            restart: 0,
            pause: 0,
            stall: 0,
            disk: 0,
            lazy: 0,
            change: 0,
            wipe: 0,
            skew: 0,
            propose: 0,
            read: 0,
            transfer: 0,
            ..self.clone()
        }
    }

    pub fn config(&self, id: NodeId, seed: u64) -> Config {
        let is_founder = id <= self.size;
        let founding = match is_founder {
            true => Configuration::of_voters(1..=self.size),
            false => Configuration::default(),
        };
        Config {
            election_ticks: 10,
            heartbeat_ticks: 3,
            max_append_bytes: self.max_append_bytes,
            max_inflight_bytes: self.max_inflight_bytes,
            max_inflight_messages: self.max_inflight_messages,
            max_uncommitted_bytes: 2000,
            max_pending_reads: 20,
            // The checker compares whole logs.
            keeps_matched: true,
            admitted: is_founder,
            ..Config::new(id, founding, seed ^ (id << 32))
        }
    }
}
