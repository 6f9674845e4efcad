//! A state machine that takes longer than a thread that others wait for can spare.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::after;
use parking_lot::Mutex;
use raftkv::storage::SimDisk;

use super::probe::{Probe, config, execute, leader};

/// More than twice the time after which a machine counts as slow.
const LONG: Duration = Duration::from_millis(6);

#[test]
fn a_machine_that_was_slow_is_left_to_the_thread_that_nobody_else_waits_for() {
    let executed_by: Arc<Mutex<Vec<String>>> = Arc::default();
    let names = executed_by.clone();
    let machine = Probe::quick(move |_| {
        let name = thread::current().name().unwrap_or_default().to_string();
        names.lock().push(name);
        let _ = after(LONG).recv();
    });
    let node = leader(config(1), machine, Arc::new(SimDisk::new(1)));
    for _ in 0..10 {
        execute(&node, "takes long");
    }
    let executed_by = executed_by.lock();
    // With the first one nobody can know.
    let known_slow = &executed_by[1..];
    assert!(
        known_slow.iter().all(|name| name == "apply"),
        "a thread that others wait for executes on a machine known to be slow: {executed_by:?}"
    );
}
