//! Snapshots under the schedule explorer: one is written, sent or received while commands are
//! executed, callers wait for it, and the node is stopped.
//!
//! The node's disk is slow here: other threads may go on in the middle of each write of a file. Who
//! waits for a snapshot looks at the status again and again, as kvcli does; should it never end,
//! the explorer reports that the test takes too many steps.

use std::io::Write as _;
use std::sync::{LazyLock, Weak};

use raftkv::raft::{Configuration, Conflict, HardState, LoggedConfiguration, SnapshotMeta, Write};
use raftkv::storage::{Identity, Options, SimDisk, SnapshotInfo, Storage};
use raftkv::wire::client::{Answer, Ask};
use shuttle::sync::atomic::{AtomicBool, Ordering};

use super::*;

const LAST: EntryId = EntryId { term: 1, index: 5 };

/// A folder of node 1 in term 1, empty or with a snapshot of five commands.
fn folder(with_snapshot: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let (mut storage, _) = open(&disk);
    let write = Write {
        id: 1,
        hard_state: Some(HardState {
            term: 1,
            vote: None,
        }),
        entries: Vec::new(),
        restart: None,
    };
    storage.write(&write).unwrap();
    if with_snapshot {
        let mut writer = storage.snapshots().create(meta()).unwrap();
        writer.write_all(&LAST.index.to_le_bytes()).unwrap();
        writer.finish().unwrap();
    }
    disk
}

fn open(disk: &SimDisk) -> (Storage, Option<SnapshotInfo>) {
    let config = Config::new(1, [(1, "node-1:1".to_string())], "in memory");
    let identity = Identity {
        cluster: config.cluster,
        node: 1,
        machine: Counter::default().identity(),
    };
    let options = Options::of_sizes(64 << 20, 512);
    let opened = Storage::open(Arc::new(disk.clone()), &identity, options);
    let (storage, recovered) = opened.expect("what is on the disk is whole");
    (storage, recovered.snapshot)
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last: LAST,
        time_ms: 0,
        configuration: LoggedConfiguration::founding(Configuration::of_voters([1, 2, 3])),
    }
}

static EMPTY: LazyLock<SimDisk> = LazyLock::new(|| folder(false));
static WITH_SNAPSHOT: LazyLock<SimDisk> = LazyLock::new(|| folder(true));

/// The file of the snapshot, as it travels.
static FILE: LazyLock<Bytes> = LazyLock::new(|| {
    let (storage, _) = open(&WITH_SNAPSHOT.fork());
    let file = storage.snapshots().read_chunk(LAST, 0, usize::MAX);
    file.unwrap()
});

/// One half of the snapshot's file.
fn half(second: bool) -> Envelope {
    let middle = FILE.len() / 2;
    let (offset, data) = match second {
        false => (0, FILE.slice(..middle)),
        true => (middle, FILE.slice(middle..)),
    };
    from_leader(Message::Snapshot {
        meta: meta(),
        bytes: FILE.len() as u64,
        offset: offset as u64,
        data,
    })
}

/// The leader of a cluster of one that takes a snapshot after its first command, and its disk.
fn eager_leader() -> (Arc<Handle<Counter>>, Weak<HookedDisk>) {
    let disk = Arc::new(disk::slow(&EMPTY));
    let weak = Arc::downgrade(&disk);
    let (node, _) = node_with(disk, 1, Some(0));
    lead(&node);
    (node, weak)
}

/// Stops the node, of which nothing must be left.
fn end(node: Arc<Handle<Counter>>, disk: &Weak<HookedDisk>) {
    node.shutdown();
    let node = Arc::into_inner(node).expect("nobody else has it");
    drop(node);
    assert_eq!(disk.strong_count(), 0, "a thread outlives its node");
}

fn every_command_gets_into_a_snapshot() {
    let (node, disk) = eager_leader();
    let writer = node.clone();
    let writer = thread::spawn(move || start(&writer).wait(A_WHILE));
    let own = start(&node).wait(A_WHILE);
    for outcome in [own, writer.join().unwrap()] {
        assert!(matches!(outcome, Outcome::Reply(1 | 2)), "{outcome:?}");
    }
    // One may be under way that does not hold all of it.
    assert!(
        ask_and_wait(&node, &AtomicBool::new(false)),
        "there is none"
    );
    assert_eq!(node.status().snapshot_index, node.status().last_index);
    end(node, &disk);
}

#[test]
fn one_who_asks_while_a_snapshot_is_written_gets_another_one_that_holds_everything() {
    explore(every_command_gets_into_a_snapshot);
}

/// Asks for a snapshot and looks at the status until it is there, will never be, or nobody wants to
/// know any more. Returns whether it is there.
fn ask_and_wait(node: &Handle<Counter>, give_up: &AtomicBool) -> bool {
    let Answer::Snapshot { up_to, .. } = node.ask(&Ask::Snapshot, A_WHILE) else {
        panic!("no answer");
    };
    loop {
        let given_up = give_up.load(Ordering::SeqCst);
        let status = node.status();
        if status.snapshot_index >= up_to || !status.snapshot_pending || given_up {
            return status.snapshot_index >= up_to;
        }
        thread::yield_now();
    }
}

#[test]
fn two_who_ask_for_a_snapshot_at_once_both_get_one_that_holds_what_they_saw() {
    explore(|| {
        let disk = Arc::new(disk::slow(&EMPTY));
        let weak = Arc::downgrade(&disk);
        let (node, _) = node_with(disk, 1, None);
        lead(&node);
        let never = Arc::new(AtomicBool::new(false));
        let callers = [(); 2].map(|()| {
            let (node, never) = (node.clone(), never.clone());
            thread::spawn(move || ask_and_wait(&node, &never))
        });
        assert!(matches!(start(&node).wait(A_WHILE), Outcome::Reply(1)));
        for caller in callers {
            assert!(caller.join().unwrap(), "there is none");
        }
        end(node, &weak);
    });
}

#[test]
fn a_shutdown_while_a_snapshot_is_written_and_waited_for_ends_every_thread() {
    explore(|| {
        let (node, disk) = eager_leader();
        let stopped = Arc::new(AtomicBool::new(false));
        let callers = [(); 2].map(|()| {
            let (node, stopped) = (node.clone(), stopped.clone());
            thread::spawn(move || ask_and_wait(&node, &stopped))
        });
        let writer = node.clone();
        let writer = thread::spawn(move || match writer.start("command", A_WHILE) {
            Ok(pending) => pending.wait(A_WHILE),
            Err(outcome) => outcome,
        });
        node.shutdown();
        stopped.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.join().unwrap();
        }
        let outcome = writer.join().unwrap();
        assert!(is_an_end(&outcome), "{outcome:?}");
        end(node, &disk);
    });
}

fn a_snapshot_comes_in_among_entries() {
    let disk = Arc::new(disk::slow(&EMPTY));
    let weak = Arc::downgrade(&disk);
    let (node, outgoing) = node_with(disk, 3, None);
    let entries = node.clone();
    let entries = thread::spawn(move || entries.deliver([append(0, 2)]));
    let (watch, done) = (node.clone(), Arc::new(AtomicBool::new(false)));
    let is_done = done.clone();
    let watch = thread::spawn(move || {
        let mut last = 0;
        while !is_done.load(Ordering::SeqCst) {
            let now = watch.with_machine(|counter| counter.0);
            assert!(
                now >= last && [0, 1, 2, 5, 6].contains(&now),
                "{last}, then {now}"
            );
            last = now;
            thread::yield_now();
        }
    });
    node.deliver([half(false)]);
    outgoing.wait_for(&Message::SnapshotReply {
        last: LAST,
        received: FILE.len() as u64 / 2,
    });
    node.deliver([half(true)]);
    outgoing.wait_for(&Message::Accepted {
        matched: LAST.index,
    });
    entries.join().unwrap();
    node.deliver([append(LAST.index, 1)]);
    assert!(node.wait_until(A_WHILE, |raft| raft.applied_index() == LAST.index + 1));
    assert_eq!(node.with_machine(|counter| counter.0), LAST.index + 1);
    done.store(true, Ordering::SeqCst);
    watch.join().unwrap();
    end(node, &weak);
}

#[test]
fn a_snapshot_is_installed_between_two_commands_and_what_follows_is_executed_once() {
    explore(a_snapshot_comes_in_among_entries);
}

#[test]
fn a_shutdown_while_a_snapshot_comes_in_leaves_all_of_it_or_nothing() {
    explore(|| {
        let disk = Arc::new(disk::slow(&EMPTY));
        let weak = Arc::downgrade(&disk);
        let left = disk.disk().clone();
        let (node, _) = node_with(disk, 3, None);
        let sender = node.clone();
        let sender = thread::spawn(move || {
            sender.deliver([half(false)]);
            sender.deliver([half(true)]);
        });
        let entries = node.clone();
        let entries = thread::spawn(move || entries.deliver([append(0, 2)]));
        node.shutdown();
        sender.join().unwrap();
        entries.join().unwrap();
        end(node, &weak);
        let (_, snapshot) = open(&left);
        assert!(snapshot.is_none_or(|info| info.meta == meta()));
    });
}

/// A leader whose log begins behind a snapshot, and a follower that says that it has nothing.
fn a_follower_without_a_log_is_helped(stop: bool) {
    let disk = Arc::new(disk::slow(&WITH_SNAPSHOT));
    let weak = Arc::downgrade(&disk);
    let (node, outgoing) = node_with(disk, 3, None);
    be_elected(&node, 2);
    let writer = node.clone();
    let writer = thread::spawn(move || drop(writer.start("command", A_WHILE)));
    let nothing = Message::Rejected {
        prev: LAST.index,
        conflict: Conflict {
            term: None,
            first_index: 1,
        },
    };
    let follower = node.clone();
    let follower = thread::spawn(move || follower.deliver([from(3, 2, nothing)]));
    if stop {
        node.shutdown();
    } else {
        outgoing
            .wait_until(|sent| matches!(sent, Message::Snapshot { data, .. } if *data == *FILE));
        let received = Message::Accepted {
            matched: LAST.index,
        };
        node.deliver([from(3, 2, received)]);
        outgoing.wait_until(|sent| match sent {
            Message::Append { prev, entries, .. } => *prev == LAST && !entries.is_empty(),
            _ => false,
        });
    }
    writer.join().unwrap();
    follower.join().unwrap();
    end(node, &weak);
}

#[test]
fn a_follower_whose_entries_are_gone_gets_the_snapshot_and_what_follows() {
    explore(|| a_follower_without_a_log_is_helped(false));
}

#[test]
fn a_shutdown_while_a_snapshot_is_sent_ends_every_thread() {
    explore(|| a_follower_without_a_log_is_helped(true));
}
