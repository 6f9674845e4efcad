//! Work that a node which stops does not wait for.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use bytes::Bytes;

use super::{Machine, PATIENCE, leader, start};
use crate::node::Outcome;

/// How many pieces the state of the machine has.
const PIECES: usize = 1 << 20;

static WRITTEN: AtomicUsize = AtomicUsize::new(0);
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

fn wait_until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it takes too long");
        thread::yield_now();
    }
}

/// Writes the first piece, and the others only once the node has been told to stop.
fn write_slowly(out: &mut dyn io::Write) -> io::Result<()> {
    for _ in 0..PIECES {
        out.write_all(b"a piece.")?;
        WRITTEN.fetch_add(1, Ordering::SeqCst);
        wait_until(|| IS_STOPPED.load(Ordering::SeqCst));
    }
    Ok(())
}

/// The snapshot of a large store takes minutes, and a supervisor that has told a node to stop does
/// not wait for so long: it kills the node.
#[test]
fn a_stop_does_not_wait_until_a_whole_snapshot_is_written() {
    let machine = Machine(Box::new(|| {}), write_slowly);
    let on_stop = || IS_STOPPED.store(true, Ordering::SeqCst);
    let node = leader(machine, Box::new(on_stop));
    let executed = start(&node, Bytes::new()).wait(PATIENCE);
    assert_eq!(executed, Outcome::Reply(()));
    assert!(node.take_snapshot());
    wait_until(|| WRITTEN.load(Ordering::SeqCst) > 0);
    node.shutdown();
    let written = WRITTEN.load(Ordering::SeqCst);
    assert!(written < PIECES, "all of the state was written");
}
