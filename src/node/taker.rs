//! Writing a snapshot of this node's own state.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::NodeError;
use super::courier::stored_as;
use super::hub::Hub;
use super::sync::{self, Nudged};
use super::unhurried::{Pace, Unhurried};
use crate::machine::StateMachine;
use crate::raft::{EntryId, Index, SnapshotMeta};
use crate::storage::{Sealed, SnapshotInfo, SnapshotWriter, StorageError};

/// A copy of the state, and what it stands for. The copy is made in O(1) between two commands.
pub(super) struct Copied<S: StateMachine> {
    pub meta: SnapshotMeta,
    pub state: S::Snapshot,
}

/// Writes copies of the state to the disk, one at a time. If a snapshot fails, the node goes on and
/// its log stays as long as it is: nothing that was acknowledged depends on a snapshot.
pub struct Taker<S: StateMachine> {
    under_way: Option<Stage<S>>,
}

/// How far a snapshot is on its way to the disk. A step takes it from one stage to the next;
/// between two steps anything else may happen to the node, a crash included.
enum Stage<S: StateMachine> {
    /// The state is copied, nothing is written.
    Copied(Copied<S>),
    /// The whole state is in the file, which is neither complete nor durable.
    Written(EntryId, SnapshotWriter),
    /// The file is complete and durable, under a name that the next start removes.
    Sealed(EntryId, Sealed),
}

impl<S: StateMachine> Taker<S> {
    pub(super) fn new() -> Self {
        Self { under_way: None }
    }

    /// Takes the next step with the snapshot that is under way, or takes on the copy that waits.
    /// Returns false if there is no snapshot to go on with.
    pub fn step(&mut self, hub: &Hub<S>) -> bool {
        if let Some(stage) = self.under_way.take() {
            let index = stage.last().index;
            match stage.advance(hub) {
                Ok(ControlFlow::Continue(stage)) => self.under_way = Some(stage),
                Ok(ControlFlow::Break(info)) => {
                    log::info!("snapshot up to {index}: {} bytes", info.bytes);
                    hub.files.cut_log(hub);
                    hub.input(|replica| replica.snapshot_taken(stored_as(info)));
                }
                Err(error) => {
                    tell_of_failure(index, &*error, hub.is_stopping());
                    // The core may not know the snapshot that is there: a late report that a file
                    // with the same contents is gone makes the core forget it. Without this word
                    // the core would want another one, which would be refused, and so on.
                    let there = hub
                        .files
                        .snapshots
                        .newest()
                        .filter(|_| is_overtaken(&*error));
                    hub.input(|replica| match there {
                        Some(info) => replica.snapshot_taken(stored_as(info)),
                        None => replica.snapshot_failed(),
                    });
                }
            }
        }
        if self.under_way.is_none() {
            self.under_way = hub.next_copied().map(Stage::Copied);
        }
        self.under_way.is_some()
    }

    /// Whether there is a snapshot to go on with.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// If the next step gives the snapshot its final name, the last entry of that snapshot.
    pub fn placing(&self) -> Option<EntryId> {
        match self.under_way {
            Some(Stage::Sealed(last, _)) => Some(last),
            _ => None,
        }
    }

    /// The body of the snapshot thread: writes snapshots until the node stops. It runs at a low
    /// priority, for no request waits for a snapshot.
    pub(super) fn run(mut self, hub: &Arc<Hub<S>>, nudged: &Nudged) -> Result<(), NodeError> {
        sync::yield_to_others();
        while !hub.is_stopping() {
            if !self.step(hub) {
                nudged.wait();
            }
        }
        Ok(())
    }
}

impl<S: StateMachine> Stage<S> {
    fn last(&self) -> EntryId {
        match self {
            Self::Copied(copied) => copied.meta.last,
            Self::Written(last, _) | Self::Sealed(last, _) => *last,
        }
    }

    /// Takes the step to the next stage. Breaks with the snapshot when it has its final name.
    fn advance(
        self,
        hub: &Hub<S>,
    ) -> Result<ControlFlow<SnapshotInfo, Self>, Box<dyn Error + Send + Sync>> {
        let stage = match self {
            Self::Copied(copied) => {
                let last = copied.meta.last;
                // A node that stops gives the snapshot up: to write the state of a large store
                // takes minutes, and the caller of the shutdown waits for this thread.
                let pace = || match hub.is_stopping() {
                    true => Pace::GiveUp,
                    false if hub.replica().snapshot_is_late() => Pace::Hurry,
                    false => Pace::Rest,
                };
                let file = hub.files.snapshots.create(copied.meta)?;
                let mut file = Unhurried::new(file, hub.clock(), pace);
                S::write_snapshot(&copied.state, &mut file)?;
                Self::Written(last, file.into_inner())
            }
            Self::Written(last, file) => Self::Sealed(last, file.seal()?),
            Self::Sealed(_, sealed) => return Ok(ControlFlow::Break(sealed.place()?)),
        };
        Ok(ControlFlow::Continue(stage))
    }
}

fn tell_of_failure(index: Index, error: &(dyn Error + 'static), is_stopping: bool) {
    if is_stopping {
        log::info!("no snapshot up to {index}: the node stops");
    } else if is_overtaken(error) {
        log::info!("no snapshot up to {index}: a newer one has come from the leader");
    } else {
        log::error!("no snapshot up to {index}: {error}. The log keeps growing");
    }
}

/// Whether a snapshot failed only because a newer one is on disk by now.
pub(super) fn is_overtaken(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref();
    matches!(error, Some(StorageError::Superseded { .. }))
}
