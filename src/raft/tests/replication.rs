//! How entries get from the leader to everybody.

use super::harness::Cluster;

#[test]
fn three_nodes_elect_one_leader_and_execute_the_same_commands() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    for command in ["a", "b", "c"] {
        cluster.propose(leader, command);
    }
    cluster.until("all have executed all", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a", "b", "c"])
    });
}

#[test]
fn the_cluster_goes_on_without_its_leader_and_the_old_one_catches_up() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.propose(old, "a");
    cluster.settle();
    cluster.isolate(old);
    cluster.propose(old, "lost");
    cluster.until("another leader", |cluster| cluster.leader() != Some(old));
    let new = cluster.elect();
    cluster.propose(new, "b");
    cluster.settle();
    cluster.heal();
    cluster.until("all have executed the same", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a", "b"])
    });
}

#[test]
fn a_crash_of_all_loses_nothing_that_was_committed() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose(leader, "a");
    cluster.settle();
    for id in 1..=3 {
        cluster.crash(id);
    }
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.until("all have executed it again", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a"])
    });
}
