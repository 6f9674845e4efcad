//! `kill -9`: nothing that was acknowledged is lost, and nothing happens twice.

use std::hash::{BuildHasher, RandomState};

use super::cluster::Cluster;
use super::load::Load;

/// A number below `bound`, another one in each run: where in its work a node is hit must differ.
fn chance(bound: u64) -> usize {
    (RandomState::new().hash_one(bound) % bound) as usize
}

#[test]
fn acknowledged_writes_outlive_a_crash_of_all_nodes_under_load() {
    let mut cluster = Cluster::start(3);
    for _ in 0..3 {
        let load = Load::start(&cluster, 4);
        load.await_more(20 + chance(200));
        cluster.kill(1..=3).unwrap();
        cluster.restart(1..=3).unwrap();
        // The clients repeat what was under way, and go on.
        load.await_more(20);
        let expected = load.stop();
        cluster.kill(1..=3).unwrap();
        cluster.restart(1..=3).unwrap();
        expected.check(&cluster.clerk());
        clear(&cluster);
    }
}

/// The next round begins with nothing.
fn clear(cluster: &Cluster) {
    let clerk = cluster.clerk();
    for client in 0..4 {
        assert_eq!(clerk.delete(format!("key-{client}")), Ok(true));
    }
}

#[test]
fn a_leader_that_is_killed_under_load_takes_nothing_with_it() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    for _ in 0..3 {
        let leader = cluster.leader();
        load.await_more(20 + chance(100));
        cluster.kill([leader]).unwrap();
        load.await_more(50);
        cluster.restart([leader]).unwrap();
        load.await_more(20);
    }
    let expected = load.stop();
    expected.check(&cluster.clerk());
}
