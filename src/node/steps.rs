//! The tasks of a node as steps, for a caller that brings its own threads, clock and network: the
//! simulator, above all. Other programs start a node with [`Node::start`](super::Node::start).
//!
//! [`assemble`] puts a node together from what was found on its disk. From then on the caller takes
//! a step of a task whenever [`Surroundings::wake`] names the task, and another one as long as a
//! step returns that there is more to do. The [`Ticker`] and the [`Scrubber`] return when their
//! next steps are due. Nothing
//! happens between steps. The steps of one task must be taken one after the other; those of
//! different tasks may be taken in any order, and from any thread.

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

pub use super::changing::Tell;
pub use super::clock::Clock;
pub use super::courier::Courier;
pub use super::executor::restore;
pub use super::greeter::Greeter;
pub use super::greeting::{
    Estranged, Given, Judged, Learned, Own, View, founding_digest, judge, learn, let_in,
};
pub use super::hub::{Hub, Surroundings};
pub use super::intake::Intake;
pub use super::outcome::Waiter;
pub use super::register::{Acquainted, Greeted, Register, Registrar, Written};
pub use super::replicator::Replicator;
pub use super::scrubber::Scrubber;
pub use super::service::{snapshot, transfer};
pub use super::signals::{Task, Wake};
pub use super::taker::Taker;
pub use super::ticker::Ticker;

/// The parts of a node that does not run yet.
pub struct Parts<S: StateMachine> {
    /// The state that the tasks share, and the signals by which they wake each other.
    pub hub: Arc<Hub<S>>,
    /// Carries out [`Task::Replicate`].
    pub replicator: Replicator,
    /// Carries out [`Task::Carry`].
    pub courier: Courier,
    /// Carries out [`Task::TakeSnapshot`].
    pub taker: Taker<S>,
    /// Carries out [`Task::Tick`].
    pub ticker: Ticker,
    /// Carries out [`Task::Scrub`].
    pub scrubber: Scrubber,
}

/// Puts a node together: the core with the settings `core` and the log that was found, and the
/// machine with the state of the newest snapshot, if there is one. The core counts with the folder
/// that `storage` has. `now` is the moment of the start.
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
    let identity = machine.identity();
    let (machine, meta) = revive(machine, &files.snapshots, recovered.snapshot.as_ref())?;
    let executor = Executor::behind(meta);
    let snapshot = recovered.snapshot.clone().map(stored_as);
    let core = raft::Config {
        folder: storage.own_folder(),
        ..core
    };
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
    let scrubber = Scrubber::new(storage.scrub(), config.scrub);
    let hub = Hub::new(config, identity, replica, machine, files, surroundings);
    Ok(Parts {
        hub: Arc::new(hub),
        replicator: Replicator::new(storage),
        courier: Courier::default(),
        taker: Taker::new(),
        ticker,
        scrubber,
    })
}

/// Restores the machine from `snapshot`, and returns it with the snapshot's meta data; without a
/// snapshot, returns the machine as it is.
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
