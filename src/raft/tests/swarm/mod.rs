//! Random clusters under random faults: after every step nothing may be wrong, and once the faults
//! end the cluster must get on with its work.
//!
//! `RAFT_SWARM_SEEDS=5000` runs more seeds, `RAFT_SWARM_SEED=17` runs one again.

pub(super) mod checker;
pub(super) mod disk;
mod faults;
mod members;
mod plan;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::raft::{Config, NodeId};
use world::World;

/// How many ticks a run has faults, and how many ticks it may then take to get back to work.
const DISTURBED: u64 = 400;
const RECOVERY: u64 = 500;

/// What a run has done, so that a harness which does nothing does not pass for a success.
#[derive(Debug, Default)]
struct Totals {
    committed: u64,
    crashes: u64,
    reads: u64,
    changes: u64,
    wipes: u64,
}

/// The same with members that change, and folders that are lost.
fn run_with_changes(seed: u64) -> Totals {
    let mut world = World::new(seed, true, |_| {});
    for _ in 0..DISTURBED {
        world.tick();
    }
    world.heal();
    let mut members = None;
    for _ in 0..4 * RECOVERY {
        world.tick();
        members = world.repair();
        if members.is_some() {
            break;
        }
    }
    let Some(members) = members else {
        let state = world.describe();
        panic!("after the last fault the members are not what they should be:\n{state}");
    };
    get_back_to_work(&mut world, &members);
    end_of_reads(&mut world);
    Totals {
        changes: world.changes,
        wipes: world.wipes,
        ..totals(&world)
    }
}

fn totals(world: &World) -> Totals {
    Totals {
        committed: world.checker.canonical.len() as u64,
        crashes: world.crashes,
        reads: world.checker.reads_ready,
        ..Totals::default()
    }
}

fn run(seed: u64, adjust: impl Fn(&mut Config)) -> Totals {
    let mut world = World::new(seed, false, adjust);
    for _ in 0..DISTURBED {
        world.tick();
    }
    let majority = world.heal_majority();
    get_back_to_work(&mut world, &majority);
    world.heal();
    let all: Vec<NodeId> = (1..=world.plan.size).collect();
    get_back_to_work(&mut world, &all);
    end_of_reads(&mut world);
    totals(&world)
}

/// Among `nodes`, which have no faults, a new command must reach every one, whatever the other
/// nodes do.
fn get_back_to_work(world: &mut World, nodes: &[NodeId]) {
    let mut asked = None;
    for _ in 0..RECOVERY {
        if let Some((term, id)) = world.leader_among(nodes)
            && asked.is_none_or(|(asked_in, _)| asked_in != term)
        {
            asked = world.propose(id).map(|index| (term, index));
        }
        world.tick();
        if asked.is_some_and(|(_, index)| world.applied_by(nodes) >= index) {
            return;
        }
    }
    let state = world.describe();
    panic!("{RECOVERY} ticks after the last fault of {nodes:?} nothing is done:\n{state}");
}

/// Every read must be answered or fail.
fn end_of_reads(world: &mut World) {
    for _ in 0..RECOVERY {
        if world.checker.reads_pending() == 0 {
            return;
        }
        world.tick();
    }
    let (reads, state) = (world.checker.reads_pending(), world.describe());
    panic!("{RECOVERY} ticks after the last fault {reads} reads wait:\n{state}");
}

/// Runs the seed. An error holds the message of the panic that ended the run.
fn failure(seed: u64, run: impl Fn(u64) -> Totals) -> Result<Totals, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        text.unwrap_or_default()
    })
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the seeds from 0 on, or the one that is asked for, of the test whose name begins like this.
/// Returns how many runs there were and what they have seen; nothing if one was asked for.
fn run_all(test: &str, run: impl Fn(u64) -> Totals) -> Option<(u64, Totals)> {
    let one = from_environment("RAFT_SWARM_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("RAFT_SWARM_SEEDS").unwrap_or(200),
    };
    let mut totals = Totals::default();
    for seed in seeds.clone() {
        match failure(seed, &run) {
            Ok(run) => {
                totals.committed += run.committed;
                totals.crashes += run.crashes;
                totals.reads += run.reads;
                totals.changes += run.changes;
                totals.wipes += run.wipes;
            }
            Err(sentence) => panic!(
                "seed {seed}: {sentence}\nrun it again: RAFT_SWARM_SEED={seed} cargo test --lib \
                 raft::tests::swarm::{test}"
            ),
        }
    }
    one.is_none().then_some((seeds.end, totals))
}

#[test]
fn whatever_happens_nothing_is_wrong_and_afterwards_the_work_goes_on() {
    if let Some((runs, totals)) = run_all("whatever_happens_nothing", |seed| run(seed, |_| {})) {
        let enough = totals.committed > 10 * runs && totals.crashes > runs && totals.reads > runs;
        assert!(enough, "{runs} runs saw too little: {totals:?}");
    }
}

#[test]
fn whatever_happens_while_members_change_nothing_is_wrong_and_all_are_members_again() {
    if let Some((runs, totals)) = run_all("whatever_happens_while", run_with_changes) {
        let enough = totals.committed > 10 * runs && totals.changes > 3 * runs;
        let enough = enough && totals.wipes > runs / 10;
        assert!(enough, "{runs} runs saw too little: {totals:?}");
    }
}
