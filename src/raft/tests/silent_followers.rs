//! Snapshots and followers that do not answer.

use super::harness::SNAPSHOT_BYTES;
use super::snapshots::{all_have, cluster, cluster_with, fall_behind, parts};

/// Otherwise each part would be read from the disk for nothing, and for the first one the whole
/// file.
#[test]
fn a_follower_that_does_not_answer_is_sent_no_snapshot_before_it_answers_again() {
    // Two messages without an answer fill the window. So the leader knows of the third command that
    // the follower lacks it.
    let mut cluster = cluster_with(|config| config.max_inflight_messages = 2);
    let leader = cluster.elect();
    let behind = (1..=3).find(|id| *id != leader).expect("two followers");
    cluster.isolate(behind);
    (0..60).for_each(|_| cluster.tick());
    for command in ["a", "b", "c"] {
        cluster.propose(leader, command);
        cluster.settle();
    }
    cluster.take_snapshot(leader);
    assert!(parts(&mut cluster, |_| false).is_empty());
    assert!(!cluster.nodes[&leader].wants_snapshot);
    cluster.heal();
    let once: Vec<u64> = (0..SNAPSHOT_BYTES / 100).map(|part| part * 100).collect();
    assert_eq!(parts(&mut cluster, |_| false), once);
    assert!(all_have(&cluster, &["a", "b", "c"]));
}

#[test]
fn a_follower_that_falls_silent_on_the_way_is_sent_the_rest_once_it_answers_again() {
    let mut cluster = cluster();
    let (leader, behind) = fall_behind(&mut cluster);
    cluster.heal();
    parts(&mut cluster, |number| number > 4);
    let received = cluster
        .node(leader)
        .snapshots_sending()
        .first()
        .map(|of| of.1);
    assert_eq!(received, Some(400));
    cluster.isolate(behind);
    // Until the leader notices that the follower is gone, it sends a part now and then.
    (0..60).for_each(|_| cluster.tick());
    assert!(parts(&mut cluster, |_| false).is_empty());
    cluster.heal();
    cluster.until("the snapshot has arrived", |c| {
        all_have(c, &["a", "b", "c", "d"])
    });
}
