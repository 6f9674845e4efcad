//! The course's Raft tests, part D: snapshots.

use raftkv_verify::course::{Procedures, Scripted};
use raftkv_verify::sim::lab::{Every, Lab};

use super::seeds::course_tests;

course_tests! {
    snapshot_basic: 3 servers;
    snapshot_install: 3 servers;
    snapshot_install_unreliable: 3 servers;
    snapshot_install_crash: 3 servers;
    snapshot_install_un_crash: 3 servers;
    snapshot_all_crash: 3 servers;
    snapshot_init: 3 servers;
}

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

fn check_size(lab: &mut Lab) {
    lab.check_log_bytes(&[0, 1, 2], MOST);
    for server in 0..3 {
        let bytes = lab.log_file_bytes(server);
        assert!(bytes <= MOST_IN_FILES, "{bytes} bytes of log on disk");
    }
}

/// The course's common procedure.
fn rounds(lab: &mut Lab, fate: Fate, unreliable: bool) {
    lab.set_unreliable(unreliable);
    lab.snapshot(Every::Entries(INTERVAL));
    lab.agree(3);
    let mut leader = lab.check_one_leader();
    for round in 0..30 {
        let next = lab.behind(leader, 1);
        let (sender, victim) = match round % 3 {
            1 => (next, leader),
            _ => (leader, next),
        };
        strike(lab, fate, victim);
        for _ in 0..INTERVAL / 2 + lab.below(INTERVAL) {
            let command = lab.fresh();
            lab.submit(sender, command);
        }
        match fate {
            Fate::None => lab.agree(3),
            _ => lab.agree(2),
        };
        check_size(lab);
        match fate {
            Fate::None => continue,
            Fate::Disconnected => lab.connect(victim),
            Fate::Crashed => lab.start(victim),
        }
        lab.agree(3);
        leader = lab.check_one_leader();
    }
    lab.check_snapshots(true);
    // Else the victims came back without one, and the test has shown nothing.
    let installs = lab.installs();
    assert!(
        fate == Fate::None || installs >= 5,
        "{installs} snapshots were sent"
    );
}

fn strike(lab: &mut Lab, fate: Fate, victim: usize) {
    match fate {
        Fate::None => return,
        Fate::Disconnected => lab.disconnect(victim),
        Fate::Crashed => lab.crash(victim),
    }
    lab.agree(2);
}

pub fn snapshot_basic(lab: &mut Lab) {
    rounds(lab, Fate::None, false);
}

pub fn snapshot_install(lab: &mut Lab) {
    rounds(lab, Fate::Disconnected, false);
}

pub fn snapshot_install_unreliable(lab: &mut Lab) {
    rounds(lab, Fate::Disconnected, true);
}

pub fn snapshot_install_crash(lab: &mut Lab) {
    rounds(lab, Fate::Crashed, false);
}

pub fn snapshot_install_un_crash(lab: &mut Lab) {
    rounds(lab, Fate::Crashed, true);
}

/// On an unreliable network, as in the course of 2025.
pub fn snapshot_all_crash(lab: &mut Lab) {
    lab.set_unreliable(true);
    lab.snapshot(Every::Entries(INTERVAL));
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
    lab.check_snapshots(true);
    check_size(lab);
}

/// On an unreliable network, as in the course of 2025.
pub fn snapshot_init(lab: &mut Lab) {
    lab.set_unreliable(true);
    lab.snapshot(Every::Entries(INTERVAL));
    let mut last = (0..1 + INTERVAL + 1).map(|_| lab.agree(3)).last();
    for _ in 0..2 {
        lab.restart_all();
        // A single one, so that no snapshot follows the restart.
        let next = Some(lab.agree(3));
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
    }
    lab.check_snapshots(true);
}
