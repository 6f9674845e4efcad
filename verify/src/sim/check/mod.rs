//! The checks of a run: what must be true of the nodes after every event, and of the clients'
//! history at the end.

mod cluster;
mod deciding;
mod exactly_once;
mod linear;
mod members;
mod promised;
mod replay;

pub(super) use cluster::Checks;
pub(super) use deciding::{Folders, Look, member};
pub(super) use promised::Promised;

use super::Failure;
use super::history::Record;
use raftkv::kv::{Kv, Limits};

/// Checks that what clients saw is linearizable, key by key, with no log at hand.
pub fn seen(records: &[Record]) -> Result<(), Failure> {
    linear::check(records, None)
}

/// Checks what the clients saw, once everything is over. `machine` is that of a node that has
/// applied the whole log.
pub(super) fn history(
    checks: &Checks,
    records: &[Record],
    machine: &Kv,
    limits: &Limits,
) -> Result<(), Failure> {
    let replay = replay::Replay::of(checks, records, limits)?;
    replay.answers(records)?;
    exactly_once::check(records, machine, &replay)?;
    linear::check(records, Some(&replay))
}
