//! The files of snapshots: the one that is being taken over stays, and no other one beyond the
//! newest two.

use std::io::Write as _;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use crossbeam::channel::bounded;
use raftkv::machine::StateMachine;
use raftkv::node::Handle;
use raftkv::raft::{
    Configuration, EntryId, Envelope, HardState, Index, LoggedConfiguration, Message, SnapshotMeta,
    Write,
};
use raftkv::storage::{Disk, Identity, Options, SimDisk, Storage};
use raftkv::testkit::{Access, HookedDisk};

use super::probe::{PATIENCE, Probe, config, entry, follower, from_leader, wait_for};

/// The message with the whole file of a snapshot up to this index of the first term.
pub fn snapshot_of(index: Index) -> Envelope {
    let identity = Identity {
        cluster: config(3).cluster,
        node: 2,
        machine: Probe::new(|_| ()).identity(),
    };
    let disk = Arc::new(SimDisk::new(index));
    let (mut storage, _) = Storage::open(disk, &identity, Options::default()).unwrap();
    let last = EntryId { term: 1, index };
    storage
        .write(&Write {
            id: 1,
            hard_state: Some(HardState {
                term: 1,
                vote: None,
            }),
            entries: Vec::new(),
            restart: None,
        })
        .unwrap();
    let meta = SnapshotMeta {
        last,
        time_ms: 0,
        configuration: LoggedConfiguration::founding(Configuration::of_voters([1, 2, 3])),
    };
    let mut file = storage.snapshots().create(meta.clone()).unwrap();
    file.write_all(b"nothing").unwrap();
    let bytes = file.finish().unwrap().bytes;
    let data: Bytes = storage
        .snapshots()
        .read_chunk(last, 0, bytes as usize)
        .unwrap();
    from_leader(Message::Snapshot {
        meta,
        bytes,
        offset: 0,
        data,
    })
}

pub fn deliver(node: &Handle<Probe>, message: &Envelope) {
    node.deliver([message.clone()]);
}

#[test]
fn a_snapshot_that_is_being_taken_over_stays_however_many_newer_ones_come() {
    // Room for one: only the first time is waited for.
    let ((begins, begun), (go, held)) = (bounded(1), bounded::<()>(0));
    let disk = HookedDisk::new(SimDisk::new(1), move |name, access| {
        let opens = access == Access::Open && name.starts_with("snapshot-");
        let is_held = opens && thread::current().name() == Some("apply");
        if is_held && begins.try_send(()).is_ok() {
            let _ = held.recv_timeout(PATIENCE);
        }
    });
    let (node, sent) = follower(Probe::new(|_| ()), Arc::new(disk));
    deliver(&node, &snapshot_of(10));
    // The token stays in the channel until the end of the test.
    wait_for(
        || "the snapshot is not taken over".to_string(),
        || !begun.is_empty(),
    );
    for index in [20, 30] {
        deliver(&node, &snapshot_of(index));
        sent.wait_for_accepted(index);
    }
    drop(go);
    let up_to_date = node.wait_until(PATIENCE, |raft| raft.applied_index() == 30);
    node.shutdown();
    assert!(
        up_to_date,
        "the file went while its state was to be taken over: {:?}",
        node.wait()
    );
}

#[test]
fn a_snapshot_that_was_taken_over_goes_when_there_are_two_newer_ones() {
    let disk = SimDisk::new(1);
    let (node, sent) = follower(Probe::new(|_| ()), Arc::new(disk.clone()));
    deliver(&node, &snapshot_of(10));
    assert!(node.wait_until(PATIENCE, |raft| raft.applied_index() == 10));
    for index in 11..=13 {
        node.deliver([from_leader(Message::Append {
            prev: EntryId {
                term: 1,
                index: index - 1,
            },
            entries: vec![entry(index, 1)],
            commit: index,
        })]);
        sent.wait_for_accepted(index);
        assert!(node.wait_until(PATIENCE, |raft| raft.applied_index() == index));
        assert!(node.take_snapshot(), "there is something new");
        let taken = || {
            let status = node.status();
            status.snapshot_index == index && !status.snapshot_pending
        };
        wait_for(|| format!("no snapshot up to {index} is taken"), taken);
    }
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("snapshot-"));
    assert_eq!(
        names.len(),
        2,
        "snapshots beyond the newest two stay: {names:?}"
    );
}
