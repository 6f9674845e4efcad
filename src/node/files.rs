//! The files of a node, and the work on them that one thread leaves to another: the taker of
//! snapshots and the courier tell the replicator how far the log may be cut, and the replicator
//! leaves files to the courier to be removed.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::hub::Hub;
use super::signals::Task;
use super::sync::{AtomicU64, Mutex};
use crate::machine::StateMachine;
use crate::raft::Index;
use crate::storage::{Snapshots, Spares, Storage, Unneeded};

/// The files of a node, as the replicator, the courier and the taker of snapshots share them.
pub(super) struct Files {
    /// The snapshots on this node's disk.
    pub snapshots: Snapshots,
    /// What makes the log's next segments ready.
    pub spares: Spares,
    /// The size of the log on disk, for the status.
    log_bytes: AtomicU64,
    /// Up to this index, inclusive, the replicator may let go of the log; 0 if there is nothing to
    /// let go of.
    cut_to: AtomicU64,
    /// Files that the replicator has let go of and the courier has not removed yet. At most
    /// one item for each snapshot that was taken since.
    unneeded: Mutex<VecDeque<Unneeded>>,
}

impl Files {
    pub fn of(storage: &Storage) -> Self {
        Self {
            snapshots: storage.snapshots(),
            spares: storage.spares(),
            log_bytes: AtomicU64::new(storage.log_bytes()),
            cut_to: AtomicU64::new(0),
            unneeded: Mutex::new(VecDeque::new()),
        }
    }

    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub fn note_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The index up to which, inclusive, the replicator is to let go of the log, if there is one.
    /// The next call returns another one only after another [`cut_log`](Self::cut_log).
    pub fn take_cut(&self) -> Option<Index> {
        match self.cut_to.swap(0, Ordering::SeqCst) {
            0 => None,
            index => Some(index),
        }
    }

    /// The index that [`take_cut`](Self::take_cut) would return; 0 if it would return none.
    pub fn cut_to(&self) -> Index {
        self.cut_to.load(Ordering::SeqCst)
    }

    pub fn next_unneeded(&self) -> Option<Unneeded> {
        self.unneeded.lock().pop_front()
    }

    /// Lets the courier remove what the log does not need any more.
    pub fn leave_to_courier<S: StateMachine>(&self, hub: &Hub<S>, unneeded: Unneeded) {
        if !unneeded.is_empty() {
            self.unneeded.lock().push_back(unneeded);
            hub.wake(Task::Carry);
        }
    }

    /// Lets the courier make the log's next segment ready, if the log has come near the end of the
    /// present one.
    pub fn want_spare<S: StateMachine>(&self, hub: &Hub<S>) {
        if self.spares.are_wanted() {
            hub.wake(Task::Carry);
        }
    }

    /// Called when a new snapshot is in its place: lets the replicator cut the log up to the
    /// snapshot before it.
    pub fn cut_log<S: StateMachine>(&self, hub: &Hub<S>) {
        let index = self.snapshots.log_needed_behind();
        self.cut_to.fetch_max(index, Ordering::SeqCst);
        hub.wake(Task::Replicate);
    }
}
