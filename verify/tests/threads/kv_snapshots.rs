//! The course's tests of a key/value service with snapshots.

use raftkv::client::Clerk;

use super::kv_generic::{EVERY, Generic, KvLab, MOST, THRESHOLD};
use super::lab::T;

/// What a snapshot's file takes besides the state: a block at either end, and what precedes a
/// piece.
const FRAME: u64 = 2 * 4096 + 12;

const CRASHES: Generic = Generic {
    clients: 5,
    servers: 5,
    unreliable: false,
    crash: true,
    partitions: false,
    random_keys: false,
    snapshots: true,
};

fn value(clerk: &Clerk, key: &str) -> Option<String> {
    let value = clerk.get(key).unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn snapshot_rpc() {
    let kv = KvLab::with_snapshots(3, false, Some(THRESHOLD));
    let lab = &kv.lab;
    lab.cluster.while_taking_snapshots(EVERY, || {
        let all = kv.clerk();
        all.put("a", "A").unwrap();
        assert_eq!(value(&all, "a").as_deref(), Some("A"));

        let majority = kv.clerk_of(vec![1, 2]);
        lab.split(&[3]);
        for n in 0..50 {
            majority.put(n.to_string(), n.to_string()).unwrap();
        }
        lab.let_time_pass(T);
        majority.put("b", "B").unwrap();
        lab.check_log_size_of(&[1, 2], MOST);

        // Now the third is needed, which has nothing of this and cannot get it as a log.
        let first = lab.cluster.node(1).status().first_index;
        assert!(lab.cluster.node(3).status().last_index < first);
        lab.split(&[2]);
        let with_third = kv.clerk_of(vec![1, 3]);
        with_third.put("c", "C").unwrap();
        with_third.put("d", "D").unwrap();
        assert_eq!(value(&with_third, "a").as_deref(), Some("A"));
        assert_eq!(value(&with_third, "b").as_deref(), Some("B"));
        assert_eq!(value(&with_third, "1").as_deref(), Some("1"));
        assert_eq!(value(&with_third, "49").as_deref(), Some("49"));

        lab.split(&[]);
        all.put("e", "E").unwrap();
        for (key, expected) in [("c", "C"), ("e", "E"), ("1", "1")] {
            assert_eq!(value(&all, key).as_deref(), Some(expected));
        }
        lab.cluster.wait_for_agreement();
    });
    lab.check_snapshots(true);
}

/// 50 rounds; the course has 200.
#[test]
fn snapshot_size() {
    let kv = KvLab::with_snapshots(3, false, Some(THRESHOLD));
    let clerk = kv.clerk();
    kv.lab.cluster.while_taking_snapshots(EVERY, || {
        for _ in 0..50 {
            for expected in ["0", "1"] {
                clerk.put("x", expected).unwrap();
                assert_eq!(value(&clerk, "x").as_deref(), Some(expected));
            }
        }
        kv.lab.cluster.wait_for_agreement();
        kv.lab.check_log_size(MOST);
    });
    kv.lab.check_snapshots(true);
    for (id, status) in kv.lab.statuses() {
        let bytes = status.snapshot_bytes - FRAME;
        assert!(bytes <= 500, "node {id}: {bytes} bytes for one short value");
    }
}

#[test]
fn snapshot_recover() {
    Generic {
        clients: 1,
        ..CRASHES
    }
    .run();
}

#[test]
fn snapshot_recover_many_clients() {
    Generic {
        clients: 20,
        ..CRASHES
    }
    .run();
}

#[test]
fn snapshot_unreliable() {
    Generic {
        unreliable: true,
        crash: false,
        ..CRASHES
    }
    .run();
}

#[test]
fn snapshot_unreliable_recover() {
    Generic {
        unreliable: true,
        ..CRASHES
    }
    .run();
}

#[test]
fn snapshot_unreliable_recover_concurrent_partition() {
    Generic {
        unreliable: true,
        partitions: true,
        ..CRASHES
    }
    .run();
}

#[test]
fn snapshot_unreliable_recover_concurrent_partition_linearizable() {
    Generic {
        clients: 15,
        servers: 7,
        unreliable: true,
        partitions: true,
        random_keys: true,
        ..CRASHES
    }
    .run();
}
