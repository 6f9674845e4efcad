//! A replicator that never comes to rest: whenever a write is done, the next one is there.

use std::sync::{OnceLock, Weak};

use super::*;
use crate::storage::Options;
use crate::testkit::{Access, HookedDisk};

/// How many writes follow each other without a pause.
const WRITES: usize = 300;
/// After so many of them a snapshot is taken, and again after twice as many: the log is needed
/// behind the older one of two.
const WRITES_PER_SNAPSHOT: usize = 100;
/// So that these writes fill many segments.
const SEGMENT: u64 = 64 << 10;
const COMMAND: usize = 4 << 10;

/// What is done within each sync of the log.
type DuringSync = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// What the status says of the log after all these writes.
#[derive(Debug)]
struct Seen {
    log_bytes: u64,
    /// What was written since the first of them.
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
        storage,
        recovered,
        seed: 1,
        admitted: true,
    };
    let node = launch(config, machine, opened, Arc::new(Nowhere), Box::new(|| {}));
    let node = Arc::new(node.expect("the node starts"));
    assert!(node.wait_until(PATIENCE, |raft| raft.role() == RoleName::Leader));
    node
}

/// Waits until a snapshot is there that holds all that is executed by now.
fn take_snapshot(node: &Handle<Machine>) {
    let before = node.status().snapshot_index;
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

/// One write, of those that follow each other without a pause.
fn go_on(node: &Handle<Machine>, written: usize) {
    // The next one, put in before this one is done.
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
    // Two snapshots were taken, each after a third of the writes: what lies before the first one is
    // not needed any more, but for the segment in which it ends.
    let needed = seen.written - seen.written / 3;
    let is_cut = seen.log_bytes <= needed + 2 * SEGMENT;
    let is_reported = seen.log_bytes >= needed - 2 * SEGMENT;
    assert!(is_cut && is_reported, "{seen:?}");
    node.shutdown();
}
