//! Which configuration is in force after a restart, after the log was cut back, and after a
//! snapshot.

use super::*;

fn snapshot(last: EntryId, index: Index, configuration: Configuration) -> StoredSnapshot {
    let meta = SnapshotMeta {
        last,
        time_ms: 0,
        configuration: LoggedConfiguration {
            index,
            configuration,
        },
    };
    StoredSnapshot { meta, bytes: 10 }
}

fn in_force(raft: &Raft) -> Index {
    raft.configuration().index
}

#[test]
fn an_uncommitted_joint_is_in_force_again_after_a_restart() {
    let joint = members([1, 4, 5], [1, 2, 3], []);
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, &joint), empty(3, 1)]);
    assert_eq!((in_force(&raft), raft.commit()), (2, 0));
    ask_for_votes(&mut raft, &[2, 4]);
    yes(&mut raft, 2);
    yes(&mut raft, 3);
    assert_eq!(
        raft.role(),
        RoleName::Candidate,
        "the old half alone elects"
    );
    yes(&mut raft, 5);
    assert_eq!(raft.role(), RoleName::Leader);
}

#[test]
fn a_snapshot_takes_back_what_its_log_contradicts() {
    // The configuration at 5 was never committed. The snapshot's is older, and it is right.
    let wrong = members([1, 7, 8], [1, 2, 3], []);
    let log = vec![empty(1, 1), empty(2, 1), empty(3, 1), empty(4, 1)];
    let log = [log, vec![change(5, 1, &wrong)]].concat();
    let mut raft = node(1, 3, log);
    assert_eq!(in_force(&raft), 5);
    give(&mut raft, 2, 3, append(id(4, 1), vec![], 0));
    assert!(raft.install(snapshot(id(4, 2), 2, three())));
    assert_eq!(in_force(&raft), 2);
    assert_eq!(raft.configuration().configuration, three());
    assert_eq!(raft.configuration_at(3).map(|logged| logged.index), Some(2));
    assert_eq!(raft.configuration_at(1), None);
}

#[test]
fn a_configuration_behind_a_snapshot_that_fits_stays() {
    let joint = members([1, 4, 5], [1, 2, 3], []);
    let log = vec![empty(1, 1), empty(2, 1), change(3, 1, &joint)];
    let mut raft = node(1, 1, log);
    assert!(raft.install(snapshot(id(2, 1), 0, three())));
    assert_eq!(in_force(&raft), 3);
    let before = raft.configuration_at(2).expect("it is known");
    assert_eq!((before.index, &before.configuration), (0, &three()));
}

#[test]
fn a_joint_arrives_in_a_snapshot() {
    let joint = members([1, 4, 5], [1, 2, 3], []);
    let mut raft = joiner(4, 4);
    give_to(&mut raft, Some(4), 2, append(id(9, 2), vec![], 0));
    assert!(raft.install(snapshot(id(9, 2), 8, joint.clone())));
    assert_eq!(raft.configuration().configuration, joint);
    // It is a voter of it, and committed.
    assert!(campaigns(&mut raft));
}

/// What is compacted away may be what an uncommitted configuration is taken back to.
#[test]
fn a_configuration_is_taken_back_to_one_that_the_log_does_not_hold_any_more() {
    let more = members([1, 2, 3, 4], [], []);
    let other = members([1, 2, 3, 4], [], [5]);
    let config = Config {
        trailing_bytes: 0,
        ..Config::new(1, three(), 1)
    };
    let log = vec![empty(1, 1), change(2, 1, &more), empty(3, 1)];
    let hard_state = HardState {
        term: 1,
        vote: None,
    };
    let mut raft = Raft::new(config, hard_state, log);
    give(
        &mut raft,
        2,
        1,
        append(id(3, 1), vec![change(4, 1, &other)], 3),
    );
    sync(&mut raft);
    let executed = super::super::harness::take_entries(&mut raft, usize::MAX);
    assert_eq!(executed.len(), 3);
    raft.applied(3);
    let at_three = raft.configuration_at(3).expect("it is known").clone();
    assert_eq!(at_three.index, 2, "never an uncommitted one");
    raft.snapshot_taken(snapshot(id(3, 1), 2, more.clone()));
    assert_eq!((raft.first_index(), in_force(&raft)), (4, 4));
    give(&mut raft, 3, 2, append(id(3, 1), vec![empty(4, 2)], 3));
    assert_eq!(in_force(&raft), 2);
    assert_eq!(raft.configuration().configuration, more);
}

#[test]
fn what_is_no_configuration_is_not_taken_from_a_leader() {
    let nobody = members([], [], [1]);
    let mut raft = node(1, 1, vec![empty(1, 1)]);
    give(
        &mut raft,
        2,
        1,
        append(id(1, 1), vec![change(2, 1, &nobody)], 0),
    );
    assert_eq!((raft.last().index, said(&mut raft)), (1, vec![]));
    let StoredSnapshot { meta, bytes } = snapshot(id(9, 1), 10, three());
    let part = Message::Snapshot {
        meta,
        bytes,
        offset: 0,
        data: "a part".into(),
    };
    give(&mut raft, 2, 1, part);
    let stored = raft.output(super::super::harness::PARTS).to_store;
    assert!(
        stored.is_empty(),
        "a configuration from behind the snapshot"
    );
}
