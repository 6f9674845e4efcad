//! A replicator that always has a write: whenever one is done, the next one is there.

use std::sync::{OnceLock, Weak};

use super::*;
use crate::storage::{Identity, Options, Storage};
use crate::testkit::{Access, HookedDisk};

/// How many writes follow each other without a pause.
const WRITES: usize = 300;
/// A snapshot is taken after this many writes, and another one after twice as many. The log on disk
/// is needed from the end of the older of the two snapshots on.
const WRITES_PER_SNAPSHOT: usize = 100;
/// The size of a segment, so small that these writes fill many.
const SEGMENT: u64 = 64 << 10;
const COMMAND: usize = 4 << 10;

/// A function that runs during each sync of the log.
type DuringSync = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// What the status says of the log's size after all these writes.
#[derive(Debug)]
struct Seen {
    log_bytes: u64,
    /// How many bytes were written to the log by these writes.
    written: u64,
}

fn busy_node(during_sync: &DuringSync) -> Arc<Handle<Machine>> {
    let machine = Machine(Box::new(|| {}), |_| Ok(()));
    let during_sync = during_sync.clone();
    let disk = HookedDisk::new(SimDisk::new(1), move |_, access| {
        if access == Access::Sync
            && sync::thread::current().name() == Some("replicator")
            && let Some(during_sync) = during_sync.get()
        {
            during_sync();
        }
    });
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let config = Config {
        snapshot_log_bytes: None,
        ..config()
    };
    let identity = Identity {
        cluster: config.cluster.clone(),
        node: 1,
        machine: machine.identity(),
    };
    let options = Options::of_sizes(SEGMENT, 4 << 10);
    let (storage, recovered) = Storage::open(disk, &identity, options).expect("a new folder opens");
    let opened = Opened {
        anew: None,
        seated: 0,
        storage,
        recovered,
        seed: 1,
        admitted: true,
        logged: None,
    };
    let node = launch(config, machine, opened, Arc::new(Nowhere), Box::new(|| {}));
    let node = Arc::new(node.expect("the node starts"));
    assert!(node.wait_until(PATIENCE, |raft| raft.role() == RoleName::Leader));
    node
}

/// Waits until there is a snapshot of all commands that are executed by now.
fn take_snapshot(node: &Handle<Machine>) {
    let before = node.status().snapshot_index;
    // What is written is executed by other threads, which may be far behind this one.
    let is_executed =
        |raft: &Raft| raft.applied_index() > before && raft.applied_index() == raft.commit();
    assert!(
        node.wait_until(PATIENCE, is_executed),
        "nothing is executed"
    );
    assert!(node.take_snapshot(), "there is nothing new to be in it");
    let deadline = Instant::now() + PATIENCE;
    let is_newer = |raft: &Raft| {
        let newest = raft.newest_snapshot();
        newest.is_some_and(|newest| newest.meta.last.index > before)
    };
    while !node.wait_until(Duration::from_millis(10), is_newer) {
        assert!(Instant::now() < deadline, "no snapshot is taken");
    }
}

/// Proposes the next command, before the write that is under way is done.
fn go_on(node: &Handle<Machine>, written: usize) {
    // The command for the next write, put in before the present write is done.
    drop(start(node, vec![0; COMMAND].into()));
    if written.is_multiple_of(WRITES_PER_SNAPSHOT) {
        take_snapshot(node);
    }
}

#[test]
fn a_log_that_is_written_to_without_a_pause_is_cut_and_its_size_reported() {
    let during_sync = DuringSync::default();
    let node = busy_node(&during_sync);
    let (tell, told) = sync_channel(1);
    let (weak, writes) = (Arc::downgrade(&node), AtomicUsize::new(0));
    let hook = move || {
        let written = 1 + writes.fetch_add(1, Ordering::SeqCst);
        let node = Weak::upgrade(&weak).expect("the test keeps it");
        if written < WRITES {
            go_on(&node, written);
        } else if written == WRITES {
            let seen = Seen {
                log_bytes: node.status().log_bytes,
                written: (WRITES * COMMAND) as u64,
            };
            tell.send(seen).expect("room for one");
        }
    };
    assert!(during_sync.set(Box::new(hook)).is_ok());
    drop(start(&node, vec![0; COMMAND].into()));
    let seen = told
        .recv_timeout(PATIENCE)
        .expect("the writes come to an end");
    // Two snapshots were taken, after a third and after two thirds of the writes. Of the log before
    // the first one only the segment in which the first one ends is needed.
    let needed = seen.written - seen.written / 3;
    let is_cut = seen.log_bytes <= needed + 2 * SEGMENT;
    let is_reported = seen.log_bytes >= needed - 2 * SEGMENT;
    assert!(is_cut && is_reported, "{seen:?}");
    node.shutdown();
}
