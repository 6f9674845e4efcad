//! The tasks of a node as steps, for who brings threads, clock and network of their own: the
//! simulator, above all. Everybody else starts a node with [`Node::start`](super::Node::start).
//!
//! [`assemble`] puts a node together on what was found on its disk. From then on each task wants a
//! step whenever [`Surroundings::wake`] says so, and again as long as a step says that there is
//! more to do; the [`Ticker`] says itself when it is due. Nothing happens between steps. The steps
//! of one task are taken one after the other; those of different tasks in any order, and from any
//! thread.

use std::sync::Arc;
use std::time::Instant;

use super::admissible;
use super::config::Config;
use super::courier::stored_as;
use super::execution::Machine;
use super::executor::Executor;
use super::files::Files;
use super::replica::Replica;
use super::{NodeError, StartError};
use crate::machine::StateMachine;
use crate::raft::{self, Raft, SnapshotMeta};
use crate::storage::{Recovered, SnapshotInfo, Snapshots, Storage};

pub use super::clock::Clock;
pub use super::courier::Courier;
pub use super::executor::restore;
pub use super::hub::{Hub, Surroundings};
pub use super::intake::Intake;
pub use super::outcome::Waiter;
pub use super::replicator::Replicator;
pub use super::service::{snapshot, transfer};
pub use super::signals::{Task, Wake};
pub use super::taker::Taker;
pub use super::ticker::Ticker;

/// The parts of a node that does not run yet.
pub struct Parts<S: StateMachine> {
    /// What the tasks share.
    pub hub: Arc<Hub<S>>,
    /// Carries out [`Task::Replicate`].
    pub replicator: Replicator,
    /// Carries out [`Task::Carry`].
    pub courier: Courier,
    /// Carries out [`Task::TakeSnapshot`].
    pub taker: Taker<S>,
    /// Carries out [`Task::Tick`].
    pub ticker: Ticker,
}

/// Puts a node together: the core with the settings `core` and the log that was found, the machine
/// with the state of the newest snapshot, if there is one. `now` is when it starts.
///
/// # Errors
/// [`StartError`] if the log holds a command that the machine cannot execute, or the machine cannot
/// take over the snapshot. Nothing on disk was changed.
pub fn assemble<S: StateMachine>(
    config: Config,
    core: raft::Config,
    machine: S,
    (storage, recovered): (Storage, Recovered),
    surroundings: Surroundings,
    now: Instant,
) -> Result<Parts<S>, StartError> {
    admissible::in_log(&machine.gate(), &config.data, &recovered.entries)?;
    let files = Files::of(&storage);
    let (machine, meta) = revive(machine, &files.snapshots, recovered.snapshot.as_ref())?;
    let executor = Executor::behind(meta);
    let snapshot = recovered.snapshot.clone().map(stored_as);
    let raft = Raft::restore(core, recovered.hard_state, snapshot, recovered.entries);
    log::info!(
        "node {} of cluster \"{}\" starts in term {} with a log up to {}",
        config.id,
        config.cluster,
        raft.term(),
        raft.last().index
    );
    let replica = Replica::new(raft, config.max_waiting, config.snapshot_log_bytes);
    let machine = Machine::new(machine, executor);
    let ticker = Ticker::new(&config.timing, now);
    let hub = Hub::new(config, replica, machine, files, surroundings);
    Ok(Parts {
        hub: Arc::new(hub),
        replicator: Replicator::new(storage),
        courier: Courier::default(),
        taker: Taker::new(),
        ticker,
    })
}

/// The machine with the state of the snapshot, if there is one, and what that stands for.
fn revive<'a, S: StateMachine>(
    machine: S,
    files: &Snapshots,
    snapshot: Option<&'a SnapshotInfo>,
) -> Result<(S, Option<&'a SnapshotMeta>), StartError> {
    let Some(SnapshotInfo { meta, .. }) = snapshot else {
        return Ok((machine, None));
    };
    match restore(&machine, files, meta) {
        Ok(restored) => Ok((restored, Some(meta))),
        Err(NodeError::Storage(error)) => Err(error.into()),
        Err(error) => Err(StartError::Restore(error)),
    }
}
