//! The files of a node, and the work on them that one thread leaves to another: the snapshot thread
//! and the courier tell the replicator how far it may cut the log on disk, and the replicator
//! leaves files to the courier to be removed.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::hub::Hub;
use super::own_disk::DiskState;
use super::signals::Task;
use super::sync::{AtomicBool, AtomicU64, Mutex};
use crate::machine::StateMachine;
use crate::raft::{Index, LoggedConfiguration, WriteId};
use crate::storage::{AddressBook, Snapshots, Spares, Storage, Unneeded};
use crate::wire::client::DiskStatus;

/// Stands for no write.
const NO_WRITE: WriteId = WriteId::MAX;

/// The files of a node, as the replicator, the courier and the taker of snapshots share them.
pub(super) struct Files {
    /// The snapshots on this node's disk.
    pub snapshots: Snapshots,
    /// Makes the log's next segments ready.
    pub spares: Spares,
    /// The size of the log on disk, for the status.
    log_bytes: AtomicU64,
    /// The replicator may drop the log on disk up to this index, inclusive; 0 if nothing is to be
    /// dropped.
    cut_to: AtomicU64,
    /// The write of the log that is under way, or [`NO_WRITE`].
    write: AtomicU64,
    /// Whether a write that waits for space may be tried again.
    may_write_again: AtomicBool,
    /// How many bytes have been verified since the start, and how many times all of them.
    verified_bytes: AtomicU64,
    verified_times: AtomicU64,
    /// What was found damaged, and is not repaired.
    damage: Mutex<Option<String>>,
    /// Files that the log needs no more and that the courier has not removed yet. At most one item
    /// for each snapshot that was taken since.
    unneeded: Mutex<VecDeque<Unneeded>>,
    /// The file in which the courier writes down the members.
    address_book: Mutex<AddressBook>,
    /// The index of the newest committed members, and these, if the courier has to write them.
    members: Mutex<(Index, Option<LoggedConfiguration>)>,
}

impl Files {
    pub fn of(storage: &Storage) -> Self {
        Self {
            snapshots: storage.snapshots(),
            spares: storage.spares(),
            log_bytes: AtomicU64::new(storage.log_bytes()),
            cut_to: AtomicU64::new(0),
            write: AtomicU64::new(NO_WRITE),
            may_write_again: AtomicBool::new(false),
            verified_bytes: AtomicU64::new(0),
            verified_times: AtomicU64::new(0),
            damage: Mutex::new(None),
            unneeded: Mutex::new(VecDeque::new()),
            address_book: Mutex::new(storage.address_book()),
            members: Mutex::new((0, None)),
        }
    }

    /// Leaves committed members to the courier, which writes them down. Two threads may come here
    /// in another order than the one in which they got their news, so older ones do not count.
    pub fn note_members<S: StateMachine>(&self, hub: &Hub<S>, members: LoggedConfiguration) {
        let mut newest = self.members.lock();
        if members.index > newest.0 {
            *newest = (members.index, Some(members));
            drop(newest);
            hub.wake(Task::Carry);
        }
    }

    pub fn next_members(&self) -> Option<LoggedConfiguration> {
        self.members.lock().1.take()
    }

    /// Writes the members down. Only the courier does this. If it fails, the node goes on: the
    /// address book is of use only when the other files are damaged.
    pub fn write_members(&self, members: &LoggedConfiguration) {
        if let Err(error) = self.address_book.lock().write(members) {
            log::warn!("the members are not written down for a later start: {error}");
        }
    }

    /// Writes down that this node asks to be let in, so that it goes on with that after a restart.
    /// If it fails, the node asks all the same, until it stops.
    pub fn write_that_it_asks(&self) {
        if let Err(error) = self.address_book.lock().ask() {
            log::warn!(
                "it is not written down that this node asks to be let in: {error}. If it stops \
                 before it is let in, start it with --join on an empty data folder"
            );
        }
    }

    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub fn note_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The replicator notes which write is under way, from when the core hands it out until it is
    /// durable.
    pub fn note_write(&self, write: Option<WriteId>) {
        self.write
            .store(write.unwrap_or(NO_WRITE), Ordering::Relaxed);
    }

    /// So many more bytes have been verified.
    pub fn verified(&self, bytes: u64) {
        self.verified_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of the log and all snapshots have been verified once more.
    pub fn verified_all(&self) {
        self.verified_times.fetch_add(1, Ordering::Relaxed);
    }

    /// Something was found damaged, or has been repaired.
    pub fn note_damage(&self, damage: Option<String>) {
        *self.damage.lock() = damage;
    }

    pub fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// How the disk is, for the status. `write_ms` is how long the present write has been under
    /// way.
    pub fn disk_status(&self, write_ms: u64) -> DiskStatus {
        DiskStatus {
            write_ms,
            no_space: self.spares.shortage().map(|shortage| shortage.reason),
            verified_bytes: self.verified_bytes.load(Ordering::Relaxed),
            verified_times: self.verified_times.load(Ordering::Relaxed),
            damage: self.damage(),
        }
    }

    /// How the disk is, for the next tick.
    pub fn disk_state(&self) -> DiskState {
        let write = self.write.load(Ordering::Relaxed);
        DiskState {
            is_full: self.spares.shortage().is_some(),
            write: Some(write).filter(|write| *write != NO_WRITE),
        }
    }

    /// Has the courier and the replicator look whether a full disk has space again. No system tells
    /// that by itself, so the ticker calls this now and then.
    pub fn look_for_space<S: StateMachine>(&self, hub: &Hub<S>) {
        let Some(shortage) = self.spares.shortage() else {
            return;
        };
        if shortage.log_waits {
            self.may_write_again.store(true, Ordering::SeqCst);
            hub.wake(Task::Replicate);
        } else {
            self.spares.try_again();
            hub.wake(Task::Carry);
        }
    }

    /// Whether a write that waits for space may be tried again; only once for each
    /// [`look_for_space`](Self::look_for_space).
    pub fn take_another_try(&self) -> bool {
        self.may_write_again.swap(false, Ordering::SeqCst)
    }

    /// The index up to which, inclusive, the replicator is to drop the log on disk, if there is
    /// one. The next call returns an index only after another [`cut_log`](Self::cut_log).
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

    /// Leaves files that the log needs no more to the courier, which removes them.
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

    /// Called when a new snapshot has its final name: lets the replicator cut the log on disk up to
    /// where the older of the newest two snapshots ends.
    pub fn cut_log<S: StateMachine>(&self, hub: &Hub<S>) {
        let index = self.snapshots.log_needed_behind();
        self.cut_to.fetch_max(index, Ordering::SeqCst);
        hub.wake(Task::Replicate);
    }
}
