//! Snapshots in whole clusters within this process: the log stays bounded, and who fell behind it
//! comes back.

use raftkv::kv::{Kv, Limits};
use raftkv::testkit::Cluster;

/// Small enough for a handful of writes to make a snapshot due.
const LOG_BYTES: u64 = 8 << 10;

fn cluster(size: u64) -> Cluster {
    Cluster::start_with(
        size,
        || Kv::new(Limits::default()),
        |config| config.snapshot_log_bytes = Some(LOG_BYTES),
    )
}

fn write(cluster: &Cluster, from: u32, to: u32) {
    let clerk = cluster.clerk();
    for n in from..to {
        clerk
            .put(format!("key-{}", n % 50), format!("{n:0100}"))
            .unwrap();
    }
}

fn check(cluster: &Cluster, last: u32) {
    let clerk = cluster.clerk();
    for n in last - 50..last {
        let value = clerk.get(format!("key-{}", n % 50)).unwrap();
        assert_eq!(value, Some(format!("{n:0100}").into()));
    }
}

#[test]
fn every_node_takes_snapshots_and_its_log_stays_bounded() {
    let cluster = cluster(3);
    write(&cluster, 0, 1000);
    cluster.wait_for_agreement();
    for id in cluster.ids() {
        let status = cluster.node(id).status();
        assert!(status.snapshot_index > 0, "{status:?}");
        assert!(status.last_index - status.first_index < 500, "{status:?}");
    }
    check(&cluster, 1000);
}

#[test]
fn a_node_that_fell_behind_the_log_gets_a_snapshot_and_goes_on_from_there() {
    let cluster = cluster(3);
    write(&cluster, 0, 10);
    let leader = cluster.wait_for_leader();
    let behind = cluster.ids().find(|id| *id != leader).unwrap();
    cluster.crash(behind);
    write(&cluster, 10, 1000);
    cluster.restart(behind);
    cluster.wait_for_agreement();
    assert!(cluster.node(behind).status().snapshot_index > 10);
    write(&cluster, 1000, 1100);
    cluster.wait_for_agreement();
    check(&cluster, 1100);
}

#[test]
fn a_cut_off_node_gets_a_snapshot_over_a_bad_network() {
    let cluster = cluster(3);
    let leader = cluster.wait_for_leader();
    let behind = cluster.ids().find(|id| *id != leader).unwrap();
    cluster.isolate(behind);
    write(&cluster, 0, 1000);
    cluster.set_all_links(raftkv::testkit::Link {
        loss_permille: 100,
        twice_permille: 100,
        max_delay: std::time::Duration::from_millis(5),
        ..Default::default()
    });
    cluster.wait_for_agreement();
    cluster.heal();
    check(&cluster, 1000);
}

#[test]
fn restarts_of_all_nodes_twice_in_a_row_begin_from_the_snapshot() {
    let cluster = cluster(3);
    write(&cluster, 0, 1000);
    for _ in 0..2 {
        cluster.ids().for_each(|id| cluster.crash(id));
        cluster.ids().for_each(|id| cluster.restart(id));
        cluster.wait_for_leader();
    }
    check(&cluster, 1000);
    write(&cluster, 1000, 1050);
    cluster.wait_for_agreement();
    check(&cluster, 1050);
}

#[test]
fn a_write_repeated_after_a_restart_from_a_snapshot_takes_effect_once() {
    let cluster = cluster(1);
    let clerk = cluster.clerk();
    clerk.append("log", "once").unwrap();
    // The session and its replies come back with the snapshot.
    write(&cluster, 0, 500);
    cluster.crash(1);
    cluster.restart(1);
    cluster.wait_for_leader();
    clerk.append("log", ", twice").unwrap();
    assert_eq!(
        clerk.get("log").unwrap().as_deref(),
        Some(&b"once, twice"[..])
    );
    assert_eq!(clerk.stats().sessions, 1);
}
