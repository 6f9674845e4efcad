//! The course's tests of a key/value service with snapshots.

use std::time::Duration;

use raftkv_verify::course::Procedures;
use raftkv_verify::sim::lab::{Every, Lab, T};

use super::kv::{PLAIN, speed};
use super::kv_generic::Generic;
use super::seeds::course_tests;

course_tests! {
    speed_with_snapshots: 3 servers, 1 clients;
    snapshot_rpc: 3 servers, 3 clients;
    snapshot_size: 3 servers, 1 clients;
    snapshot_recover: 5 servers, 1 clients;
    snapshot_recover_many_clients: 5 servers, 20 clients;
    snapshot_unreliable: 5 servers, 5 clients;
    snapshot_unreliable_recover: 5 servers, 5 clients;
    snapshot_unreliable_recover_concurrent_partition: 5 servers, 5 clients;
    snapshot_unreliable_recover_concurrent_partition_linearizable: 7 servers, 15 clients;
}

/// The course's threshold for a snapshot, in bytes.
pub const THRESHOLD: usize = 1000;

/// The course's limit on the saved Raft state.
pub const MOST: usize = 8 * THRESHOLD;

/// The second of the course's two tests of this name.
pub fn speed_with_snapshots(lab: &mut Lab) {
    lab.snapshot(Every::Bytes(THRESHOLD));
    speed(lab);
    lab.check_log_bytes(&[0, 1, 2], MOST);
    lab.check_snapshots(true);
}

pub fn snapshot_rpc(lab: &mut Lab) {
    lab.snapshot(Every::Bytes(THRESHOLD));
    let (all, majority, with_third) = (0, 1, 2);
    lab.put(all, "a", "A");
    assert_eq!(lab.get(all, "a"), "A");

    lab.split(&[2]);
    lab.connect_client(majority, &[0, 1]);
    for n in 0..50 {
        lab.put(majority, &n.to_string(), &n.to_string());
    }
    lab.run_for(T);
    lab.put(majority, "b", "B");
    lab.check_log_bytes(&[0, 1], MOST);

    // Now the third is needed, which has nothing of this and cannot get it as a log.
    let first = lab.with_raft(0, |raft| raft.first_index());
    let lacks = first > lab.with_raft(2, |raft| raft.last().index + 1);
    assert!(lacks, "the third server can get the log");
    lab.split(&[1]);
    lab.connect_client(with_third, &[0, 2]);
    lab.put(with_third, "c", "C");
    lab.put(with_third, "d", "D");
    for (key, expected) in [("a", "A"), ("b", "B"), ("1", "1"), ("49", "49")] {
        assert_eq!(lab.get(with_third, key), expected);
    }
    assert!(lab.installs() > 0);

    lab.connect_all();
    lab.put(all, "e", "E");
    for (key, expected) in [("c", "C"), ("e", "E"), ("1", "1")] {
        assert_eq!(lab.get(all, key), expected);
    }
    lab.check_history();
    lab.check_snapshots(true);
}

pub fn snapshot_size(lab: &mut Lab) {
    lab.snapshot(Every::Bytes(THRESHOLD));
    let start = lab.now();
    for _ in 0..200 {
        for expected in ["0", "1"] {
            lab.put(0, "x", expected);
            assert_eq!(lab.get(0, "x"), expected);
        }
    }
    let took = Duration::from_micros(lab.now() - start);
    assert!(took < Duration::from_secs(20), "{took:?}");
    lab.check_history();
    lab.check_log_bytes(&[0, 1, 2], MOST);
    lab.check_snapshots(true);
    for server in 0..3 {
        let bytes = lab.snapshot_bytes(server);
        assert!(bytes <= 500, "{bytes} bytes for one short value");
    }
}

const SNAPSHOTS: Generic = Generic {
    threshold: Some(THRESHOLD),
    ..PLAIN
};

pub fn snapshot_recover(lab: &mut Lab) {
    let crash = true;
    Generic { crash, ..SNAPSHOTS }.run(lab);
}

pub fn snapshot_recover_many_clients(lab: &mut Lab) {
    snapshot_recover(lab);
}

pub fn snapshot_unreliable(lab: &mut Lab) {
    Generic {
        unreliable: true,
        ..SNAPSHOTS
    }
    .run(lab);
}

pub fn snapshot_unreliable_recover(lab: &mut Lab) {
    Generic {
        unreliable: true,
        crash: true,
        ..SNAPSHOTS
    }
    .run(lab);
}

pub fn snapshot_unreliable_recover_concurrent_partition(lab: &mut Lab) {
    Generic {
        unreliable: true,
        crash: true,
        partitions: true,
        ..SNAPSHOTS
    }
    .run(lab);
}

pub fn snapshot_unreliable_recover_concurrent_partition_linearizable(lab: &mut Lab) {
    Generic {
        unreliable: true,
        crash: true,
        partitions: true,
        random_keys: true,
        ..SNAPSHOTS
    }
    .run(lab);
}
