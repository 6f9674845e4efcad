//! Heartbeats carrying the load: a write that waits for the next heartbeat takes as long as one.

use std::time::{Duration, Instant};

use raftkv::kv::{Kv, Limits};
use raftkv::testkit::Cluster;

const HEARTBEAT: Duration = Duration::from_millis(100);

#[test]
fn a_thousand_writes_of_one_client_do_not_wait_for_heartbeats() {
    let machine = || Kv::new(Limits::default());
    let cluster = Cluster::start_with(3, machine, |config| {
        config.timing.heartbeat = HEARTBEAT;
        config.timing.election = 10 * HEARTBEAT;
    });
    let clerk = cluster.clerk();
    clerk.append("key", "x").unwrap();
    let started = Instant::now();
    for _ in 0..1000 {
        clerk.append("key", "x").unwrap();
    }
    let heartbeats = started.elapsed().as_millis() / HEARTBEAT.as_millis();
    // The course allows three writes per heartbeat. A bound on an order of magnitude, not on
    // speed: with one write per heartbeat there would be a thousand of them.
    assert!(heartbeats < 1000 / 3 / 4, "{heartbeats} heartbeats");
    assert_eq!(clerk.get("key").unwrap().unwrap().len(), 1001);
}

#[test]
fn a_get_does_not_wait_for_a_heartbeat_either() {
    let cluster = Cluster::start_with(
        3,
        || Kv::new(Limits::default()),
        |config| {
            config.timing.heartbeat = HEARTBEAT;
            config.timing.election = 10 * HEARTBEAT;
        },
    );
    let clerk = cluster.clerk();
    clerk.put("key", "value").unwrap();
    let started = Instant::now();
    for _ in 0..300 {
        clerk.get("key").unwrap();
    }
    let heartbeats = started.elapsed().as_millis() / HEARTBEAT.as_millis();
    assert!(heartbeats < 300 / 3 / 4, "{heartbeats} heartbeats");
}
