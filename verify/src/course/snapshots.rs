//! The course's Raft tests, part D: snapshots.

use super::{Arena, Procedures, Scripted};
use crate::sim::lab::Every;

/// How many entries the course has between two snapshots.
const INTERVAL: u64 = 10;

/// The course's limit on the saved Raft state, in bytes.
const MOST: usize = 2000;

/// The log's files are cut in whole segments, of 8 KiB here, of which a block of 4 KiB precedes the
/// records; and an entry that is written alone takes a sector of 512 bytes, ten times its weight.
const MOST_IN_FILES: usize = 64 << 10;

/// What befalls the victim of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    None,
    Disconnected,
    Crashed,
}

fn check_size(arena: &mut impl Arena) {
    arena.check_log_bytes(&[0, 1, 2], MOST);
    for server in 0..3 {
        let bytes = arena.log_file_bytes(server);
        assert!(
            bytes.is_none_or(|bytes| bytes <= MOST_IN_FILES),
            "{bytes:?} bytes of log on disk"
        );
    }
}

/// The course's common procedure.
fn rounds(arena: &mut impl Arena, fate: Fate, unreliable: bool) {
    arena.set_unreliable(unreliable);
    arena.snapshot(Every::Entries(INTERVAL));
    arena.agree(3);
    let mut leader = arena.check_one_leader();
    let rounds = arena.rounds(30);
    for round in 0..rounds {
        let next = arena.behind(leader, 1);
        let (sender, victim) = match round % 3 {
            1 => (next, leader),
            _ => (leader, next),
        };
        strike(arena, fate, victim);
        for _ in 0..INTERVAL / 2 + arena.below(INTERVAL) {
            let command = arena.fresh();
            arena.submit(sender, command);
        }
        match fate {
            Fate::None => arena.agree(3),
            _ => arena.agree(2),
        };
        check_size(arena);
        match fate {
            Fate::None => continue,
            Fate::Disconnected => arena.connect(victim),
            Fate::Crashed => arena.start(victim),
        }
        arena.agree(3);
        leader = arena.check_one_leader();
    }
    arena.check_snapshots(true);
    // Else the victims came back without one, and the test has shown nothing.
    let installs = arena.installs();
    assert!(
        fate == Fate::None || installs >= rounds / 6,
        "{installs} snapshots were sent"
    );
}

fn strike(arena: &mut impl Arena, fate: Fate, victim: usize) {
    match fate {
        Fate::None => return,
        Fate::Disconnected => arena.disconnect(victim),
        Fate::Crashed => arena.crash(victim),
    }
    arena.agree(2);
}

/// The log stays short while commands are executed.
pub fn snapshot_basic(arena: &mut impl Arena) {
    rounds(arena, Fate::None, false);
}

/// A server that was cut off gets a snapshot in place of what it missed.
pub fn snapshot_install(arena: &mut impl Arena) {
    rounds(arena, Fate::Disconnected, false);
}

/// As [`snapshot_install`], with messages that are lost and late.
pub fn snapshot_install_unreliable(arena: &mut impl Arena) {
    rounds(arena, Fate::Disconnected, true);
}

/// A server that was down gets a snapshot in place of what it missed.
pub fn snapshot_install_crash(arena: &mut impl Arena) {
    rounds(arena, Fate::Crashed, false);
}

/// As [`snapshot_install_crash`], with messages that are lost and late.
pub fn snapshot_install_un_crash(arena: &mut impl Arena) {
    rounds(arena, Fate::Crashed, true);
}

/// Commands outlive a crash of all servers, whether or not a snapshot covers them. On an unreliable
/// network, as in the course of 2025.
pub fn snapshot_all_crash(arena: &mut impl Arena) {
    arena.set_unreliable(true);
    arena.snapshot(Every::Entries(INTERVAL));
    arena.agree(3);
    for _ in 0..5 {
        for _ in 0..INTERVAL / 2 + arena.below(INTERVAL) {
            arena.agree(3);
        }
        let before = arena.agree(3);
        arena.restart_all();
        let after = arena.agree(3);
        assert!(after > before, "{after} after {before}");
    }
    arena.check_snapshots(true);
    check_size(arena);
}

/// A server that starts from a snapshot and crashes at once starts from it again. On an unreliable
/// network, as in the course of 2025.
pub fn snapshot_init(arena: &mut impl Arena) {
    arena.set_unreliable(true);
    arena.snapshot(Every::Entries(INTERVAL));
    let mut last = (0..1 + INTERVAL + 1).map(|_| arena.agree(3)).last();
    for _ in 0..2 {
        arena.restart_all();
        // A single one, so that no snapshot follows the restart.
        let next = Some(arena.agree(3));
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
    }
    arena.check_snapshots(true);
}
