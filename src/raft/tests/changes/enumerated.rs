//! A crash at every step of every kind of change, on every node.
//!
//! A run without a crash says how many steps a change takes, where a step is one write or one
//! message of any node. Then the run is repeated with each node crashing before each step, and, if
//! the step is a write, also when the write is done and nobody was told of it.

use std::panic::{catch_unwind, resume_unwind};

use super::stepwise::{Order, Step, World};
use super::{Change, MemberRole, NodeId};
use crate::raft::{Configuration, Member};

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    Add,
    Promote,
    Remove,
    RemoveLeader,
    Demote,
    Replace,
}

const STORIES: [Story; 6] = [
    Story::Add,
    Story::Promote,
    Story::Remove,
    Story::RemoveLeader,
    Story::Demote,
    Story::Replace,
];

/// A crash of one node before a step.
#[derive(Clone, Copy, Debug)]
struct Crash {
    step: u64,
    node: NodeId,
    /// Its next write, which would have been the step, is on its disk.
    written: bool,
    /// The node stays away for long, and what is on its way from and to it is lost. Otherwise it is
    /// back at once.
    is_long: bool,
}

/// The ticks within which a change ends, or a node that is away is no longer waited for.
const PATIENCE: u32 = 400;

/// The node that a story is about.
fn subject(story: Story, size: u64, leader: NodeId) -> NodeId {
    match story {
        Story::Add | Story::Promote => size + 1,
        Story::RemoveLeader => leader,
        Story::Remove | Story::Demote | Story::Replace => leader % size + 1,
    }
}

/// A cluster that is ready for the change, and the change.
fn prepare(story: Story, size: u64, order: Order) -> (World, NodeId, Change) {
    let mut world = World::new(size, order);
    assert!(world.propose("before"), "{story:?}: it does not come up");
    let leader = world.leader().expect("it has served");
    let id = subject(story, size, leader);
    if story == Story::Replace {
        world.wipe(id);
        // The others notice that the old folder is gone.
        assert!(!world.until(30, |_| false));
    }
    let (folder, address) = (world.folder(id), format!("node-{id}"));
    let add = |role| {
        Change::Add(Member {
            id,
            folder: Some(folder),
            address: address.clone(),
            role,
        })
    };
    if story == Story::Promote {
        world.want(add(MemberRole::Learner));
        let learns = |world: &World| {
            let known = world.configuration();
            known.is_some_and(|(known, is_end)| is_end && known.contact(id).is_some())
        };
        assert!(world.until(PATIENCE, learns));
    }
    let change = match story {
        Story::Add => add(MemberRole::Joining),
        Story::Promote => Change::Promote(id),
        Story::Remove | Story::RemoveLeader => Change::Remove(id),
        Story::Demote => Change::Demote(id),
        Story::Replace => Change::Replace {
            id,
            folder,
            address,
        },
    };
    (world, id, change)
}

/// Whether the change is made, according to this configuration.
fn is_made(story: Story, id: NodeId, world: &World, known: &Configuration) -> bool {
    let member = known.contact(id);
    match story {
        Story::Remove | Story::RemoveLeader => member.is_none(),
        Story::Demote => member.is_some_and(|member| member.role == MemberRole::Learner),
        Story::Add | Story::Promote | Story::Replace => member.is_some_and(|member| {
            member.role == MemberRole::Voter && member.folder == Some(world.folder(id))
        }),
    }
}

/// Runs one story; returns the steps up to its end, or up to the crash, and whether the change was
/// made without asking for it again.
fn run(story: Story, size: u64, order: Order, crash: Option<Crash>) -> (Vec<Step>, bool) {
    let (mut world, id, change) = prepare(story, size, order);
    let is_end = |world: &World| world.configuration().is_some_and(|(_, is_end)| is_end);
    let is_done = |world: &World| {
        let known = world.configuration();
        known.is_some_and(|(known, is_end)| is_end && is_made(story, id, world, known))
    };
    let mut steps = Vec::new();
    let mut ticks = 0;
    world.want(change.clone());
    while !is_done(&world) {
        let Some(step) = world.next() else {
            ticks += 1;
            assert!(ticks < PATIENCE, "the change does not end");
            world.tick();
            continue;
        };
        if let Some(crash) = crash.filter(|crash| crash.step == steps.len() as u64) {
            world.crash(crash.node, crash.written);
            if crash.is_long {
                world.lose_messages(crash.node);
                world.until(40, is_done);
            }
            world.restart(crash.node);
            break;
        }
        world.take(step);
        steps.push(step);
    }
    // The cluster finishes the change, or takes it back.
    assert!(world.until(PATIENCE, is_end), "it is not brought to an end");
    let was_made = is_done(&world);
    // Whoever asks again has it in the end.
    world.want(change);
    assert!(world.until(PATIENCE, is_done), "it is not made");
    assert!(world.propose("after"), "it does not serve any more");
    world.check_nothing_is_lost();
    (steps, was_made)
}

/// Every crash that may come in this run.
fn crashes(steps: &[Step], nodes: &[NodeId]) -> Vec<Crash> {
    let mut all = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        for node in nodes {
            for is_long in [false, true] {
                let crash = |written| Crash {
                    step: at as u64,
                    node: *node,
                    written,
                    is_long,
                };
                all.push(crash(false));
                if *step == Step::Write(*node) {
                    all.push(crash(true));
                }
            }
        }
    }
    all
}

fn crash_everywhere(size: u64, orders: &[Order]) {
    let nodes: Vec<NodeId> = (1..=size + 1).collect();
    let (mut made, mut taken_back) = (0, 0);
    for story in STORIES {
        for order in orders {
            let (steps, _) = run(story, size, *order, None);
            assert!(steps.len() > 8, "{story:?} takes {} steps", steps.len());
            for crash in crashes(&steps, &nodes) {
                let ran = catch_unwind(|| run(story, size, *order, Some(crash)));
                match ran {
                    Ok((_, true)) => made += 1,
                    Ok((_, false)) => taken_back += 1,
                    Err(panic) => {
                        println!("{story:?} of {size} nodes, {order:?}, {crash:?}");
                        resume_unwind(panic);
                    }
                }
            }
        }
    }
    // Both happen, so that the crashes do come in the midst of changes.
    assert!(
        made > 100 && taken_back > 10,
        "{made} made, {taken_back} taken back"
    );
}

#[test]
fn a_crash_at_any_step_of_any_change_of_three_nodes_loses_nothing() {
    crash_everywhere(3, &[Order::WritesFirst, Order::MessagesFirst]);
}

#[test]
fn a_crash_at_any_step_of_any_change_of_four_nodes_loses_nothing() {
    crash_everywhere(4, &[Order::MessagesFirst]);
}
