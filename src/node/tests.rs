//! How a node ends, on real threads.

mod always_writing;
pub(super) mod disk;
mod greetings;
mod handshakes;
mod members;
mod shutdown;
mod snapshots;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::machine::{At, Gate};
use crate::raft::{Raft, RoleName};
use crate::storage::SimDisk;
use crate::wire::client::Doubt;

/// Longer than anything in these tests takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);

type Step = Box<dyn FnMut() + Send>;

/// A function that writes a state to a snapshot.
type WriteState = fn(&mut dyn io::Write) -> io::Result<()>;

/// A machine that calls one function for each command, and another to write its state.
struct Machine(Step, WriteState);

impl StateMachine for Machine {
    type Reply = ();
    type Snapshot = WriteState;

    fn identity(&self) -> String {
        "a test's machine".into()
    }

    fn gate(&self) -> Gate {
        Arc::new(|_| Ok(()))
    }

    fn apply(&mut self, _: At, _: &Bytes) {
        (self.0)();
    }

    fn query(&self, _: &Bytes) {}

    fn encode_reply((): &(), _: &mut Vec<u8>) {}

    fn snapshot(&self) -> WriteState {
        self.1
    }

    fn write_snapshot(write: &WriteState, out: &mut dyn io::Write) -> io::Result<()> {
        write(out)
    }

    fn restore(&self, _: &mut dyn io::Read) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn digest(&self) -> u64 {
        0
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A transport that drops all messages.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: Vec<Envelope>) {}
}

fn config() -> Config {
    let mut config = Config::new(1, [(1, "node-1:1".to_string())], "in memory");
    config.timing.heartbeat = Duration::from_millis(10);
    config.timing.election = Duration::from_millis(30);
    config
}

fn leader(machine: Machine, on_stop: Box<dyn Fn() + Send + Sync>) -> Handle<Machine> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let opened = open(&config(), &disk, &machine.identity()).expect("a new folder opens");
    let node = launch(config(), machine, opened, Arc::new(Nowhere), on_stop);
    let node = node.expect("the node starts");
    // The longest timeout there is: its end lies beyond what a clock can count to.
    assert!(node.wait_until(Duration::MAX, |raft| raft.role() == RoleName::Leader));
    node
}

fn start(node: &Handle<Machine>, command: Bytes) -> Pending<()> {
    let started = node.start(command, PATIENCE);
    started.unwrap_or_else(|end| panic!("refused: {end:?}"))
}

const SHUTTING_DOWN: Outcome<()> = Outcome::Ended(End::Unknown(Doubt::ShuttingDown));

#[test]
fn a_panic_in_the_state_machine_stops_the_node_and_ends_every_request() {
    let machine = Machine(Box::new(|| panic!("as the test wants it")), |_| Ok(()));
    let node = leader(machine, Box::new(|| {}));
    let first = start(&node, Bytes::new());
    assert_eq!(first.wait(PATIENCE), SHUTTING_DOWN);
    let end = node.wait();
    assert!(matches!(end, Err(NodeError::Panicked("apply"))), "{end:?}");
    // No tick and no thread would end these requests later on.
    let asked = Instant::now();
    let refused = node.start(Bytes::new(), PATIENCE).err();
    assert_eq!(refused, Some(SHUTTING_DOWN));
    assert_eq!(node.query(Bytes::new(), PATIENCE), SHUTTING_DOWN);
    assert!(
        asked.elapsed() < PATIENCE / 2,
        "they waited for their time to be up"
    );
}

#[test]
fn a_panic_while_a_snapshot_is_written_stops_the_node_instead_of_ending_all_snapshots() {
    let machine = Machine(Box::new(|| {}), |_| panic!("as the test wants it"));
    let node = leader(machine, Box::new(|| {}));
    assert_eq!(
        start(&node, Bytes::new()).wait(PATIENCE),
        Outcome::Reply(())
    );
    assert!(node.take_snapshot());
    let end = node.wait();
    assert!(
        matches!(end, Err(NodeError::Panicked("snapshot"))),
        "{end:?}"
    );
}

/// A machine that waits within its first command until it gets a message, or until no sender of one
/// is left. Returns it with the sender, a signal that the command has begun, and the number of
/// commands begun.
fn held() -> (Machine, SyncSender<()>, Receiver<()>, Arc<AtomicUsize>) {
    let (go, held) = sync_channel::<()>(0);
    let (begins, begun) = sync_channel(1);
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let step = move || {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            begins.send(()).expect("the test waits for it");
            let _ = held.recv_timeout(PATIENCE);
        }
    };
    (Machine(Box::new(step), |_| Ok(())), go, begun, count)
}

#[test]
fn a_stop_ends_requests_while_their_clients_can_still_be_told_and_executes_nothing_more() {
    let (machine, go, begun, executed) = held();
    let waiting: Arc<Mutex<Option<Pending<()>>>> = Arc::default();
    let (tell, told) = sync_channel(1);
    let (go, pending) = (Mutex::new(Some(go)), waiting.clone());
    let on_stop = move || {
        // At this point a node tells its event loop to end.
        if let Some(pending) = pending.lock().take() {
            tell.send(pending.wait(Duration::ZERO))
                .expect("room for one");
        }
        drop(go.lock().take());
    };
    let node = leader(machine, Box::new(on_stop));
    // Each command is as large as a whole batch.
    let commands = [(); 3].map(|()| start(&node, vec![0; 1 << 20].into()));
    begun.recv_timeout(PATIENCE).expect("the first one begins");
    let deadline = Instant::now() + PATIENCE;
    while !node.wait_until(Duration::from_millis(10), |raft| raft.commit() >= 4) {
        assert!(Instant::now() < deadline, "the commands are not committed");
    }
    let [first, _, last] = commands;
    *waiting.lock() = Some(last);
    node.shutdown();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(SHUTTING_DOWN));
    assert_eq!(first.wait(PATIENCE), Outcome::Reply(()));
    assert_eq!(executed.load(Ordering::SeqCst), 1);
}

#[test]
fn a_status_does_not_wait_for_a_command_that_takes_long() {
    let (machine, go, begun, _) = held();
    let node = leader(machine, Box::new(|| {}));
    let pending = start(&node, Bytes::new());
    begun.recv_timeout(PATIENCE).expect("the command begins");
    let asked = Instant::now();
    assert_eq!(node.status().role, RoleName::Leader);
    assert!(asked.elapsed() < PATIENCE / 2, "it waited for the command");
    drop(go);
    assert_eq!(pending.wait(PATIENCE), Outcome::Reply(()));
}

#[test]
fn a_node_can_be_dropped_by_a_thread_of_its_own() {
    let slot: Arc<Mutex<Option<Handle<Machine>>>> = Arc::default();
    let (ends, ended) = sync_channel(1);
    let (go, held) = sync_channel::<()>(1);
    let last = slot.clone();
    let step = move || {
        held.recv_timeout(PATIENCE).expect("the test lets it go");
        let node = last.lock().take();
        drop(node);
        ends.send(()).expect("room for one");
    };
    let node = leader(Machine(Box::new(step), |_| Ok(())), Box::new(|| {}));
    let pending = start(&node, Bytes::new());
    *slot.lock() = Some(node);
    go.send(()).expect("room for one");
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(()), "it waits for itself");
    assert_eq!(pending.wait(PATIENCE), Outcome::Reply(()));
}
