//! The course's Raft tests, part D: snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raftkv::raft::{Message, NodeId};
use raftkv::testkit::Link;

use super::lab::UNRELIABLE;
use super::raft_commands::RaftLab;

/// How many entries the course has between two snapshots.
const INTERVAL: u64 = 10;

/// The course's limit of 2,000 bytes: an entry of these tests weighs about 44.
const MOST: u64 = 2000 / 44;

/// For the share of the log that stays in memory behind a snapshot: two entries or three.
const LOG_BYTES: u64 = INTERVAL * 44;

/// What befalls the victim of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    None,
    Disconnected,
    Crashed,
}

/// Runs with a snapshot every ten entries.
fn with_snapshots(link: Link, body: impl FnOnce(&RaftLab)) {
    let lab = RaftLab::with_snapshots(3, Some(LOG_BYTES));
    lab.set_links(link);
    lab.cluster.while_taking_snapshots(INTERVAL, || {
        body(&lab);
        lab.check_log_size(MOST);
    });
    lab.check_snapshots(true);
}

/// The course's common procedure. It always has 30 rounds.
fn rounds(rounds: u64, fate: Fate, link: Link) {
    let sent = Arc::new(AtomicU64::new(0));
    with_snapshots(link, |lab| {
        let sent = sent.clone();
        lab.cluster.network().set_filter(move |envelope| {
            let is_snapshot = matches!(envelope.message, Message::Snapshot { .. });
            sent.fetch_add(u64::from(is_snapshot), Ordering::Relaxed);
            true
        });
        lab.agree(3);
        let mut leader = lab.check_one_leader();
        for round in 0..rounds {
            let next = lab.after(leader, 1);
            let (sender, victim) = match round % 3 {
                1 => (next, leader),
                _ => (leader, next),
            };
            strike(lab, fate, victim);
            for _ in 0..INTERVAL / 2 + lab.below(INTERVAL) {
                lab.submit(sender, lab.fresh());
            }
            match fate {
                Fate::None => lab.agree(3),
                _ => lab.agree(2),
            };
            lab.check_log_size(MOST);
            match fate {
                Fate::None => continue,
                Fate::Disconnected => lab.connect(victim),
                Fate::Crashed => lab.start(victim),
            }
            lab.agree(3);
            leader = lab.check_one_leader();
        }
    });
    // Else the victims came back without one, and the test has shown nothing.
    let sent = sent.load(Ordering::Relaxed);
    assert!(fate == Fate::None || sent > 0, "no snapshot was sent");
}

fn strike(lab: &RaftLab, fate: Fate, victim: NodeId) {
    match fate {
        Fate::None => return,
        Fate::Disconnected => lab.disconnect(victim),
        Fate::Crashed => lab.crash(victim),
    }
    lab.agree(2);
}

#[test]
fn snapshot_basic() {
    rounds(30, Fate::None, Link::default());
}

/// 15 rounds, five of which depose the leader.
#[test]
fn snapshot_install() {
    rounds(15, Fate::Disconnected, Link::default());
}

/// 15 rounds, five of which depose the leader.
#[test]
fn snapshot_install_unreliable() {
    rounds(15, Fate::Disconnected, UNRELIABLE);
}

/// 15 rounds, five of which depose the leader.
#[test]
fn snapshot_install_crash() {
    rounds(15, Fate::Crashed, Link::default());
}

/// 15 rounds, five of which depose the leader.
#[test]
fn snapshot_install_un_crash() {
    rounds(15, Fate::Crashed, UNRELIABLE);
}

#[test]
fn snapshot_all_crash() {
    with_snapshots(UNRELIABLE, |lab| {
        lab.agree(3);
        for _ in 0..5 {
            for _ in 0..INTERVAL / 2 + lab.below(INTERVAL) {
                lab.agree(3);
            }
            let before = lab.agree(3);
            lab.restart_all();
            let after = lab.agree(3);
            assert!(after > before, "{after} after {before}");
        }
    });
}

#[test]
fn snapshot_init() {
    with_snapshots(UNRELIABLE, |lab| {
        let count = |n| (0..n).map(|_| lab.agree(3)).max();
        let mut last = count(1 + INTERVAL + 1);
        for _ in 0..2 {
            lab.restart_all();
            // A single one, so that no snapshot follows the restart.
            let next = count(1);
            assert!(next > last, "{next:?} after {last:?}");
            last = next;
        }
    });
}
