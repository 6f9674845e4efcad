//! The course's tests of a key/value service with snapshots.

use std::time::Duration;

use super::generic::{Generic, PLAIN};
use super::kv::speed;
use super::{Calls, Procedures, Scripted, Service};
use crate::sim::lab::Every;

/// The course's threshold for a snapshot, in bytes.
const THRESHOLD: usize = 1000;

/// The course's limit on the saved Raft state.
const MOST: usize = 8 * THRESHOLD;

const SNAPSHOTS: Generic = PLAIN.threshold(THRESHOLD);

/// The second of the course's two tests of this name.
pub fn speed_with_snapshots(service: &mut impl Service) {
    service.snapshot(Every::Bytes(THRESHOLD));
    speed(service);
    service.check_log_bytes(&[0, 1, 2], MOST);
    service.check_snapshots(true);
}

/// A server that was cut off for long is needed for a majority: it catches up by a snapshot.
pub fn snapshot_rpc(service: &mut impl Service) {
    service.snapshot(Every::Bytes(THRESHOLD));
    let (all, majority, with_third) = (0, 1, 2);
    service.put(all, "a", "A");
    assert_eq!(service.get(all, "a"), "A");

    service.split(&[2]);
    service.connect_client(majority, &[0, 1]);
    for n in 0..50 {
        service.put(majority, &n.to_string(), &n.to_string());
    }
    service.run_for(service.nominal_timeout());
    service.put(majority, "b", "B");
    service.check_log_bytes(&[0, 1], MOST);

    // Now the third is needed, which has nothing of this and cannot get it as a log.
    let (held, has) = (service.held(0), service.held(2));
    assert!(*held.start() > has.end() + 1, "{held:?} follows {has:?}");
    service.split(&[1]);
    service.connect_client(with_third, &[0, 2]);
    service.put(with_third, "c", "C");
    service.put(with_third, "d", "D");
    for (key, expected) in [("a", "A"), ("b", "B"), ("1", "1"), ("49", "49")] {
        assert_eq!(service.get(with_third, key), expected);
    }
    assert!(service.installs() > 0, "it got the log");

    service.connect_all();
    service.put(all, "e", "E");
    for (key, expected) in [("c", "C"), ("e", "E"), ("1", "1")] {
        assert_eq!(service.get(all, key), expected);
    }
    service.check_history();
    service.check_snapshots(true);
}

/// Neither log nor snapshot grow while one value is written again and again.
pub fn snapshot_size(service: &mut impl Service) {
    service.snapshot(Every::Bytes(THRESHOLD));
    let start = service.now();
    for _ in 0..200 {
        for expected in ["0", "1"] {
            service.put(0, "x", expected);
            assert_eq!(service.get(0, "x"), expected);
        }
    }
    let took = Duration::from_micros(service.now() - start);
    assert!(took < Duration::from_secs(20), "{took:?}");
    service.check_history();
    service.check_log_bytes(&[0, 1, 2], MOST);
    service.check_snapshots(true);
    for server in 0..3 {
        let bytes = service.snapshot_bytes(server);
        assert!(bytes <= 500, "{bytes} bytes for one short value");
    }
}

/// All servers crash and start again from snapshots.
pub fn snapshot_recover(service: &mut impl Service) {
    SNAPSHOTS.crashes().run(service);
}

/// As [`snapshot_recover`], with many clients.
pub fn snapshot_recover_many_clients(service: &mut impl Service) {
    SNAPSHOTS.crashes().run(service);
}

/// Messages are lost and late.
pub fn snapshot_unreliable(service: &mut impl Service) {
    SNAPSHOTS.unreliable().run(service);
}

/// As [`snapshot_recover`], with messages that are lost and late.
pub fn snapshot_unreliable_recover(service: &mut impl Service) {
    SNAPSHOTS.unreliable().crashes().run(service);
}

/// As [`snapshot_unreliable_recover`], with servers that are split into two groups again and again.
pub fn snapshot_unreliable_recover_concurrent_partition(service: &mut impl Service) {
    let generic = SNAPSHOTS.unreliable().crashes();
    generic.partitions().run(service);
}

/// As [`snapshot_unreliable_recover_concurrent_partition`], with keys that all clients share.
pub fn snapshot_unreliable_recover_concurrent_partition_linearizable(service: &mut impl Service) {
    let generic = SNAPSHOTS.unreliable().crashes();
    generic.partitions().random_keys().run(service);
}
