//! Events that befall all nodes at once, and the cluster time that passes for them together.

use super::harness::Cluster;
use crate::raft::{NodeId, RoleName};

/// As many ticks as the longest two election timeouts.
const SOON: u32 = 200;

/// Ticks until the condition holds; fails after [`SOON`] ticks. Returns how many ticks it took.
fn soon(cluster: &mut Cluster, what: &str, holds: impl Fn(&mut Cluster) -> bool) -> u32 {
    for ticks in 0..=SOON {
        if holds(cluster) {
            return ticks;
        }
        cluster.tick();
    }
    panic!("not within {SOON} ticks: {what}");
}

fn somebody_leads(cluster: &mut Cluster) -> bool {
    cluster.leader().is_some()
}

/// All nodes ask for votes in the same tick, so that perhaps nobody wins. Their next timeouts
/// differ.
#[test]
fn nodes_that_time_out_in_the_same_tick_elect_a_leader_soon() {
    let mut longest = 0;
    for size in [2, 3, 4, 5, 7] {
        for seed in 0..20 {
            let mut cluster = Cluster::with(size, |config| config.seed += 100 * seed);
            for id in 1..=size {
                while cluster.node(id).role() == RoleName::Follower {
                    cluster.node(id).tick();
                }
            }
            longest = longest.max(soon(&mut cluster, "a leader", somebody_leads));
        }
    }
    assert!(
        longest > 0,
        "the votes are never split: this is not the case"
    );
}

#[test]
fn a_cluster_that_restarts_as_a_whole_under_load_has_a_leader_soon_and_lost_nothing() {
    for size in [3, 4, 5, 7] {
        let mut cluster = Cluster::new(size);
        let commands = ["a", "b", "c", "d", "e"];
        for command in commands {
            soon(&mut cluster, "a leader", somebody_leads);
            let leader = cluster.elect();
            cluster.propose(leader, command);
            cluster.settle();
            // Some nodes have the entry, some have it on disk, and nobody has heard that it is
            // committed.
            cluster.propose(leader, "under way");
            cluster.hold(leader % size + 1, true);
            cluster.collect();
            for _ in 0..size {
                cluster.deliver();
            }
            cluster.queue.clear();
            (1..=size).for_each(|id| cluster.crash(id));
            (1..=size).for_each(|id| cluster.restart(id));
        }
        cluster.until("all have executed all", |cluster| {
            let executed = |id: NodeId| {
                let mut executed = cluster.executed(id);
                executed.retain(|command| command != "under way");
                executed
            };
            (1..=size).all(|id| executed(id) == commands)
        });
        let first = cluster.executed(1);
        assert!((2..=size).all(|id| cluster.executed(id) == first));
        assert!(first.len() <= 2 * commands.len(), "one came twice");
    }
}

/// Each node of a chain hears its neighbours only.
#[test]
fn in_a_chain_the_work_goes_on_soon_and_the_leader_stays() {
    for size in [3, 5] {
        for at in 0..size {
            let mut cluster = Cluster::new(size);
            let leader = cluster.elect();
            // The leader is in place `at` of the chain.
            let place = |id: NodeId| (id + size - leader + at) % size;
            for a in 1..=size {
                for b in (1..=size).filter(|b| place(a).abs_diff(place(*b)) > 1) {
                    cluster.cut.insert((a, b));
                }
            }
            // A leader with too few neighbours gives way to another.
            (0..SOON).for_each(|_| cluster.tick());
            let leader = cluster.leader().expect("somebody leads");
            let term = cluster.node(leader).term();
            let index = cluster.propose(leader, "a");
            soon(&mut cluster, "the command is committed", |cluster| {
                cluster.node(leader).commit() >= index
            });
            (0..5 * SOON).for_each(|_| cluster.tick());
            let now = (cluster.leader(), cluster.node(leader).term());
            assert_eq!(now, (Some(leader), term), "{size} nodes, from place {at}");
        }
    }
}

/// The cluster time that the leader gives the next command.
fn time_ms(cluster: &mut Cluster, leader: NodeId) -> u64 {
    let index = cluster.propose(leader, "what time is it?");
    let entry = cluster.node(leader).entry(index);
    entry.expect("it was proposed right now").time_ms
}

#[test]
fn cluster_time_is_the_time_for_which_leaders_have_led_and_nothing_else() {
    for size in [1, 3, 4, 5] {
        let mut cluster = Cluster::with(size, |config| config.tick_ms = 7);
        let leader = cluster.elect();
        let begun = time_ms(&mut cluster, leader);
        (0..100).for_each(|_| cluster.tick());
        let led = time_ms(&mut cluster, leader);
        assert_eq!(led - begun, 7 * 100);

        // The clocks of the others run fast, or jump: they lead nobody.
        for id in (1..=size).filter(|id| *id != leader) {
            (0..30).for_each(|_| cluster.node(id).tick());
        }
        cluster.settle();
        assert_eq!(time_ms(&mut cluster, leader), led);
        cluster.settle();

        // All machines are off for long. The next leader goes on from the last one's time.
        (1..=size).for_each(|id| cluster.crash(id));
        (0..10_000).for_each(|_| cluster.tick());
        (1..=size).for_each(|id| cluster.restart(id));
        if size > 1 {
            // One node is up by itself, for long, and cannot lead.
            cluster.isolate(1);
            cluster.down.extend(2..=size);
            (0..10_000).for_each(|_| cluster.tick());
            cluster.heal();
            cluster.down.clear();
        }
        let ticks = soon(&mut cluster, "a leader", somebody_leads);
        let leader = cluster.elect();
        let after = time_ms(&mut cluster, leader);
        let most = led + 7 * u64::from(ticks + SOON);
        assert!((led..=most).contains(&after), "{led} before, {after} after");
    }
}
