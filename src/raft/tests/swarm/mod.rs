//! Random clusters under random faults: after every step nothing may be wrong, and once the faults
//! end the cluster must get on with its work.
//!
//! `RAFT_SWARM_SEEDS=5000` runs more seeds, `RAFT_SWARM_SEED=17` runs one again.

mod canaries;
mod checker;
mod disk;
mod plan;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::raft::Config;
use world::World;

/// How long a run is disturbed, and how long it may take to get back to work, in ticks.
const DISTURBED: u64 = 400;
const RECOVERY: u64 = 500;

/// What a run has seen, so that a harness which does nothing does not pass for a success.
#[derive(Debug, Default)]
struct Totals {
    committed: u64,
    crashes: u64,
    reads: u64,
}

fn run(seed: u64, adjust: impl Fn(&mut Config)) -> Totals {
    let mut world = World::new(seed, adjust);
    for _ in 0..DISTURBED {
        world.tick();
    }
    world.heal();
    get_back_to_work(&mut world);
    Totals {
        committed: world.checker.canonical.len() as u64,
        crashes: world.crashes,
        reads: world.checker.reads_ready,
    }
}

/// Without faults a new command must reach every node, and every read an end.
fn get_back_to_work(world: &mut World) {
    let mut asked = None;
    for _ in 0..RECOVERY {
        let leader = world.leader();
        if let Some((term, id)) = leader
            && asked.is_none_or(|(asked_in, _)| asked_in != term)
        {
            asked = world.propose(id).map(|index| (term, index));
        }
        world.tick();
        let done = asked.is_some_and(|(_, index)| world.applied_everywhere() >= index);
        if done && world.checker.reads_pending() == 0 {
            return;
        }
    }
    let (nodes, reads) = (world.describe(), world.checker.reads_pending());
    panic!("{RECOVERY} ticks after the last fault, {reads} reads wait and:\n{nodes}");
}

/// Why the run of this seed fails, if it does.
fn failure(seed: u64, adjust: impl Fn(&mut Config)) -> Result<Totals, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, adjust))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        text.unwrap_or_default()
    })
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_nothing_is_wrong_and_afterwards_the_work_goes_on() {
    let one = from_environment("RAFT_SWARM_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("RAFT_SWARM_SEEDS").unwrap_or(300),
    };
    let mut totals = Totals::default();
    for seed in seeds.clone() {
        match failure(seed, |_| {}) {
            Ok(run) => {
                totals.committed += run.committed;
                totals.crashes += run.crashes;
                totals.reads += run.reads;
            }
            Err(sentence) => panic!(
                "seed {seed}: {sentence}\nrun it again: RAFT_SWARM_SEED={seed} cargo test --lib \
                 raft::tests::swarm::whatever"
            ),
        }
    }
    if one.is_none() {
        let runs = seeds.end;
        let enough = totals.committed > 10 * runs && totals.crashes > runs && totals.reads > runs;
        assert!(enough, "{runs} runs saw too little: {totals:?}");
    }
}
