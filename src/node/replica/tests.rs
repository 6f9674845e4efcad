//! Tests of a replica by itself, without threads.

use super::*;
use crate::raft::{Config, Configuration, HardState, LoggedConfiguration, Message, Payload};

fn leader() -> Replica<&'static str> {
    let config = Config::new(1, Configuration::of_voters([1]), 1);
    let raft = Raft::new(config, HardState::default(), Vec::new());
    let mut replica = Replica::new(raft, 10, None);
    while replica.raft().role() != RoleName::Leader {
        replica.tick();
        if let Some(write) = replica.output(Wanted::WRITE).write {
            replica.durable(write.id);
        }
    }
    replica
}

#[test]
fn a_request_that_comes_after_the_end_is_ended_at_once_and_leaves_no_trace() {
    let mut replica = leader();
    let last = replica.raft().last();
    replica.submit(Bytes::from("command"), 100, "before");
    replica.abandon();
    assert_eq!(replica.submit(Bytes::from("command"), 100, "command"), None);
    replica.query(Bytes::from("query"), 100, "query");
    let shutting_down = End::Unknown(Doubt::ShuttingDown);
    let ended = ["before", "command", "query"].map(|waiter| (waiter, shutting_down));
    assert_eq!(replica.output(Wanted::NOTHING).ended, ended);
    assert_eq!(replica.raft().last().index, last.index + 1);
}

#[test]
fn a_snapshot_that_is_wanted_before_anything_has_happened_leaves_no_work() {
    let config = Config::new(1, Configuration::of_voters([1, 2]), 1);
    let raft = Raft::new(config, HardState::default(), Vec::new());
    let mut replica: Replica<()> = Replica::new(raft, 1, None);
    assert!(!replica.want_snapshot());
    // Otherwise the thread that carries the work out would never rest.
    assert!(!replica.output(Wanted::NOTHING).left.work);
}

/// The header of a snapshot has the members, and a reader refuses one without any.
#[test]
fn a_node_that_knows_no_member_yet_takes_no_snapshot() {
    let config = Config::new(1, Configuration::default(), 1);
    let raft = Raft::new(config, HardState::default(), Vec::new());
    let mut replica = Replica::new(raft, 10, None);
    replica.step(append(EntryId::ZERO));
    write(&mut replica);
    let work = replica.output(Wanted::work(Share::EVERYTHING)).work;
    assert_eq!(work.entries.len(), 1);
    assert!(replica.want_snapshot());
    let applied = EntryId { term: 1, index: 1 };
    assert_eq!(replica.begin_snapshot(applied, 0), None);
    let members = Payload::Configuration(Box::new(Configuration::of_voters([1, 2])));
    let mut second = append(applied);
    if let Message::Append { entries, .. } = &mut second.message {
        entries[0].payload = members;
    }
    replica.step(second);
    write(&mut replica);
    let work = replica.output(Wanted::work(Share::EVERYTHING)).work;
    assert_eq!(work.entries.len(), 1);
    assert!(replica.want_snapshot());
    let applied = EntryId { term: 1, index: 2 };
    let meta = replica.begin_snapshot(applied, 0);
    assert_eq!(meta.map(|meta| meta.configuration.index), Some(2));
}

const SHORT: Share = Share {
    takes: Takes::Short,
    ..Share::EVERYTHING
};

/// An append of one entry after `after`, with a commit index that covers the entry.
fn append(after: EntryId) -> Envelope {
    let entry = Entry {
        id: EntryId {
            term: 1,
            index: after.index + 1,
        },
        time_ms: 0,
        payload: Payload::Command("command".into()),
    };
    Envelope {
        from: 2,
        from_folder: 2,
        to: 1,
        to_folder: Some(1),
        term: 1,
        message: Message::Append {
            prev: after,
            commit: entry.id.index,
            entries: vec![entry],
        },
    }
}

fn write(replica: &mut Replica<&'static str>) {
    while let Some(write) = replica.output(Wanted::WRITE).write {
        replica.durable(write.id);
    }
}

#[test]
fn a_thread_that_others_wait_for_takes_neither_a_snapshot_nor_what_follows_it() {
    let founding = Configuration::of_voters([1, 2]);
    let config = Config::new(1, founding.clone(), 1);
    let raft = Raft::new(config, HardState::default(), Vec::new());
    let mut replica = Replica::new(raft, 10, None);
    replica.step(append(EntryId::ZERO));
    write(&mut replica);
    // A snapshot comes in after there was work that any thread could execute.
    assert!(replica.output(Wanted::NOTHING).left.work);
    let last = EntryId { term: 1, index: 5 };
    let meta = SnapshotMeta {
        last,
        time_ms: 0,
        configuration: LoggedConfiguration::founding(founding),
    };
    let bytes = 100;
    assert!(replica.install(StoredSnapshot { meta, bytes }));
    replica.step(append(last));
    write(&mut replica);
    assert!(replica.output(Wanted::work(SHORT)).work.is_empty());
    assert!(replica.output(Wanted::NOTHING).left.work);
    let work = replica.output(Wanted::work(Share::EVERYTHING)).work;
    assert_eq!(work.install.map(|meta| meta.last), Some(last));
    assert_eq!(work.entries.len(), 1);
    replica.step(append(EntryId { term: 1, index: 6 }));
    write(&mut replica);
    assert_eq!(replica.output(Wanted::work(SHORT)).work.entries.len(), 1);
}

#[test]
fn a_node_whose_core_has_found_a_fault_has_no_work() {
    let config = Config::new(1, Configuration::of_voters([1, 2, 3]), 1);
    let raft = Raft::new(config, HardState::default(), Vec::new());
    let mut replica = Replica::new(raft, 10, None);
    let of_one_leader = append(EntryId::ZERO);
    let of_another = Envelope {
        from: 3,
        ..of_one_leader.clone()
    };
    replica.step(of_one_leader);
    write(&mut replica);
    assert!(replica.output(Wanted::NOTHING).left.work);
    replica.step(of_another);
    let consequences = replica.output(Wanted::work(Share::EVERYTHING));
    assert!(consequences.fault.is_some());
    assert!(consequences.work.is_empty());
    assert!(!replica.output(Wanted::NOTHING).left.work);
}

/// A configuration that is not committed may be taken back, and a snapshot cannot be.
#[test]
fn a_snapshot_names_the_members_as_of_its_last_entry_and_none_that_may_be_taken_back() {
    let founding = Configuration::of_voters([1, 2]);
    let config = Config::new(1, founding.clone(), 1);
    let raft = Raft::new(config, HardState::default(), Vec::new());
    let mut replica = Replica::new(raft, 10, None);
    replica.step(append(EntryId::ZERO));
    write(&mut replica);
    let work = replica.output(Wanted::work(Share::EVERYTHING)).work;
    let applied = work.entries.last().expect("it is committed").0.id;
    replica.applied(applied.index);
    // What follows is not committed.
    let mut change = append(applied);
    if let Message::Append {
        entries, commit, ..
    } = &mut change.message
    {
        let alone = Box::new(Configuration::of_voters([2]));
        (entries[0].payload, *commit) = (Payload::Configuration(alone), applied.index);
    }
    replica.step(change);
    write(&mut replica);
    assert_eq!(replica.raft().configuration().index, 2);
    assert!(replica.want_snapshot());
    let meta = replica.begin_snapshot(applied, 0).expect("one is due");
    let (index, named) = (meta.configuration.index, meta.configuration.configuration);
    assert_eq!((index, named), (0, founding), "behind its last entry");
}
