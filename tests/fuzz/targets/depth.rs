//! How deep inputs get: a fuzz target whose inputs are all refused at the door shows nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts that an input has come to this point, by the thread that runs it.
pub fn reached(goal: &'static str) {
    REACHED.with_borrow_mut(|reached| *reached.entry(goal).or_default() += 1);
}

/// What this thread's inputs have reached since the last call, and how often.
#[allow(dead_code, reason = "the deterministic run looks at it")]
pub fn take() -> BTreeMap<&'static str, u64> {
    REACHED.take()
}
