//! A log that begins after a snapshot, and parts of another snapshot (figure 13).

use super::*;
use crate::raft::{Fault, LoggedConfiguration, SnapshotMeta, StoredSnapshot};

fn meta(last: EntryId) -> SnapshotMeta {
    SnapshotMeta {
        last,
        time_ms: 0,
        configuration: LoggedConfiguration::founding(Configuration::of_voters(1..=3)),
    }
}

/// Node 1 of three, in term 9, whose log begins after entry 3 of term 5.
fn restored() -> Raft {
    let config = Config::new(1, Configuration::of_voters(1..=3), 7);
    let hard_state = HardState {
        term: 9,
        vote: None,
    };
    let snapshot = StoredSnapshot {
        meta: meta(id(3, 5)),
        bytes: 100,
    };
    Raft::restore(config, hard_state, Some(snapshot), Vec::new())
}

#[test]
fn a_leader_that_contradicts_the_last_entry_of_the_snapshot_is_proof_of_a_fault() {
    let mut raft = restored();
    give(&mut raft, 2, 9, append(id(1, 1), entries(2, &[1, 1, 1]), 0));
    let (leader, index) = (2, 3);
    let fault = Fault::CommittedEntryContradicted { leader, index };
    assert_eq!((raft.fault(), raft.last()), (Some(fault), id(3, 5)));
}

#[test]
fn entries_that_the_snapshot_covers_are_passed_over() {
    let mut raft = restored();
    give(&mut raft, 2, 9, append(id(1, 1), entries(2, &[1, 5, 6]), 0));
    assert_eq!((raft.fault(), raft.last()), (None, id(4, 6)));
}

#[test]
fn a_snapshot_up_to_what_no_leader_has_is_not_looked_at() {
    for last in [id(4, 0), id(4, 10), id(Index::MAX, 9)] {
        let mut raft = restored();
        let part = Message::Snapshot {
            meta: meta(last),
            bytes: 100,
            offset: 0,
            data: vec![0; 100].into(),
        };
        give(&mut raft, 2, 9, part);
        assert_eq!(
            (raft.output(Room::NOTHING).left.parts, said(&mut raft)),
            (false, vec![])
        );
    }
}

/// Every correct leader's part has data and lies within the file; a part that does not is dropped.
#[test]
fn a_part_without_data_or_beyond_the_end_of_the_file_is_not_looked_at() {
    for (offset, length) in [(0, 0), (100, 0), (90, 11), (100, 1), (u64::MAX, 1)] {
        let mut raft = restored();
        let part = Message::Snapshot {
            meta: meta(id(4, 9)),
            bytes: 100,
            offset,
            data: vec![0; length].into(),
        };
        give(&mut raft, 2, 9, part);
        let looked_at = raft.output(Room::NOTHING).left.parts;
        let case = format!("{length} bytes at {offset}");
        assert_eq!((looked_at, said(&mut raft)), (false, vec![]), "{case}");
    }
}
