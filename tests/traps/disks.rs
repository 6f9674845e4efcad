//! A disk that fails under a running node.

use std::thread;

use raftkv::node::{NodeError, Outcome};
use raftkv::storage::Disk;
use raftkv::storage::Outcome::Lost;

use super::support::{LONG, others, recorders, wait_for_leader_among};

/// Each operation of the disk fails once: the write of a record, and its sync. Of the leader and of
/// a follower.
#[test]
fn a_node_whose_write_or_sync_fails_stops_tries_nothing_again_and_the_others_go_on() {
    for (failing, of_leader) in [(0, true), (1, true), (0, false), (1, false)] {
        let (cluster, journal) = recorders(3);
        let leader = cluster.wait_for_leader();
        cluster.wait_for_agreement();
        let rest = others(&cluster, leader);
        let victim = if of_leader { leader } else { rest[0] };
        let (node, disk) = (cluster.node(victim), cluster.disk(victim));
        // The members are written down once, by another thread: that write must not take the
        // failure, which it would survive.
        let is_noted = |_: &_| {
            let durable = disk.crash_with(Lost);
            durable.contents("members").is_some()
        };
        assert!(cluster.wait_until(LONG, is_noted), "no members are noted");
        disk.fail_at(disk.operations() + failing);
        // Two others may commit it.
        let pending = cluster.node(leader).start("written", LONG).ok().unwrap();
        let end = thread::scope(|scope| {
            let ended = scope.spawn(|| node.wait());
            if !cluster.wait_until(LONG, |_| ended.is_finished()) {
                // Else the wait would never end.
                node.shutdown();
            }
            ended.join().unwrap()
        });
        assert!(matches!(end, Err(NodeError::Storage(_))), "{end:?}");
        let after = disk.operations();

        let up = others(&cluster, victim);
        let next = wait_for_leader_among(&cluster, &up);
        let more = cluster.node(next).start("more", LONG).ok().unwrap();
        assert!(matches!(more.wait(LONG), Outcome::Reply(_)));
        assert_eq!(disk.operations(), after, "it went on writing");
        assert!(disk.list().is_ok(), "the disk can be read");

        // What was acknowledged is there, and the node comes back with what its disk holds.
        if let Outcome::Reply(executed) = pending.wait(LONG) {
            assert!(journal.executed().contains(&executed));
        }
        cluster.crash(victim);
        cluster.restart(victim);
        cluster.wait_for_agreement();
        assert_eq!(journal.contradiction(), None);
    }
}
