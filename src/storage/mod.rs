//! What a node keeps on disk: its log, its term and vote, and whose they are.
//!
//! One thread owns a [`Storage`] and hands it the writes of the core, one after the other; each is
//! durable when [`Storage::write`] returns.
//!
//! | room | what is in it | the files that it keeps |
//! | --- | --- | --- |
//! | [`log`] | the entries: writing, replaying and cutting them | `log-` and a number |
//! | [`snapshot`] | states that take the place of a part of the log | `snapshot-`, an index and a term |
//! | [`voter`] | who votes, how it voted, whether its vote counts | `identity`, `vote`, `peers` |
//! | [`disk`] | how this module reaches any disk, real or simulated | `lock` |
//! | `recovery.rs` | which snapshot a node starts from, and what of the log follows it | |
//! | `archive.rs` | backups, and folders made from them | |
//! | `inspection.rs` | what a folder holds, for a person | |
//! | `block.rs` | the form of everything that is not a record of the log | |
//! | `error.rs` | what can go wrong, and what to do then | |
//!
//! Each file's format is specified at the top of the source file that writes it. A file whose name
//! ends in `.new` is not complete yet, or is kept for a new segment; the next start removes it. A
//! snapshot that was found damaged is renamed to its name and `.damaged`, and never removed.
//!
//! # What holds
//!
//! 1. **Any prefix of the disk writes recovers to a log that was true at some moment.** A log that
//!    is never overwritten but only continued makes it so: a record that starts within the log
//!    replaces its tail when it is replayed, wholly or not at all.
//! 2. **A write is there after a crash if it was acknowledged, and may be there if it was not.**
//!    Term and vote are durable before the entries of the same write.
//! 3. **A torn tail is cut, damage is not.** There is one record for each write and none is written
//!    before the last one is durable, so only the last one can be torn; and it is taken for torn
//!    only if a part of it was never written: see `torn_bytes` in `log/segment.rs`. Cutting is
//!    noted; on damage nothing is changed and the node does not start.
//! 4. **The first error of a write or a sync is the last**: nothing more is written, for nobody
//!    knows what the disk holds. Recovery trusts only what it has written and synced itself.
//! 5. **Log and snapshot fit, whichever is older.** A snapshot is in its place, wholly and durably,
//!    before the part of the log that it covers is removed or the log starts anew behind it; a
//!    crash in between is made up for: see `recovery.rs`. The log reaches back to the newest
//!    snapshot but one, so that a damaged newest one is no loss, unless the leader had sent it: of
//!    what precedes a received snapshot, the log has nothing that could continue an older one.
//!    Until the node has taken the next one itself, it does not start without the received one.
//! 6. **A folder belongs to one node**, and each file in it says to which.
//!
//! What it cannot notice: that the disk lost synced records from the end of the log and left what
//! was there before, or that the folder was replaced by an older copy of itself.

mod archive;
mod block;
mod disk;
mod error;
mod inspection;
mod log;
mod recovery;
mod snapshot;
#[cfg(test)]
mod tests;
mod voter;

use std::sync::Arc;

use crate::raft::{Entry, EntryId, HardState, Index, Write};

pub use archive::{Backup, back_up, restore};
pub use disk::{Disk, DiskFile, Outcome, ReadOnlyDisk, RealDisk, SimDisk};
pub use error::StorageError;
pub use inspection::{
    InspectedCommand, InspectedSegment, InspectedSnapshot, Inspection, Judge, inspect, inspect_with,
};
pub use log::{Spares, Unneeded};
pub use snapshot::{Incoming, Sealed, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots};
pub use voter::{Acquaintance, Identity, Peers, welcomes_needed};

use disk::Folder;
use error::VOTE_ADVICE;
use log::replay;
use log::writer::{self, LogWriter};
use recovery::Fit;
use voter::identity::{self, FolderOwner};
use voter::vote::{self, VoteFile};

/// How the log uses its space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment that has reached this size is followed by another one, in bytes. A write that is
    /// larger makes a larger segment.
    pub segment_bytes: u64,
    /// In the first segment, the space ahead of the log is filled with zeros in steps of so many
    /// bytes; each step costs a sync more. Later segments are filled ahead of time, see [`Spares`].
    pub allocate_bytes: u64,
    /// How many bytes of the state a piece of a new snapshot stands for: 1 to 65536. A piece is
    /// what is checked and compressed as a whole.
    pub snapshot_piece_bytes: usize,
    /// The file of a snapshot is synced each time so many bytes more of it have been written. Were
    /// all of it left to one sync at the end, the log's syncs would have to wait behind that one.
    pub snapshot_sync_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self::of_sizes(16 << 20, 1 << 20)
    }
}

impl Options {
    /// Segments and steps of these sizes, in bytes.
    pub const fn of_sizes(segment_bytes: u64, allocate_bytes: u64) -> Self {
        Self {
            segment_bytes,
            allocate_bytes,
            snapshot_piece_bytes: snapshot::PIECE,
            snapshot_sync_bytes: 512 << 10,
        }
    }
}

/// What a node knew when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The term and vote.
    pub hard_state: HardState,
    /// The snapshot to start from: the newest one that is valid.
    pub snapshot: Option<SnapshotInfo>,
    /// The entry behind which the log starts: the snapshot's last one, or [`EntryId::ZERO`].
    pub base: EntryId,
    /// The log behind it.
    pub entries: Vec<Entry>,
    /// What was found out of order and repaired, for the node's own log: one sentence each.
    pub notes: Vec<String>,
}

/// The data folder of a running node, open for writing.
pub struct Storage {
    folder: Folder,
    owner: FolderOwner,
    vote: VoteFile,
    log: LogWriter,
    snapshots: Snapshots,
    /// Why nothing more may be written.
    stopped: Option<String>,
}

impl Storage {
    /// Opens the data folder, or makes a new one in an empty folder. All that is returned is
    /// durable. If there is an error about what the folder holds, nothing in it has been changed.
    ///
    /// # Errors
    /// [`StorageError::WrongFolder`] if it belongs to something else or is of another format,
    /// [`StorageError::Damaged`] if what was made durable is not there, [`StorageError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        identity: &Identity,
        options: Options,
    ) -> Result<(Self, Recovered), StorageError> {
        let folder = Folder::new(disk);
        let names = folder.list()?;
        let owner = match identity::read(&folder, &names, identity)? {
            Some(owner) => owner,
            None => create(&folder, identity, &options)?,
        };
        let found = vote::read(&folder, &owner)?;
        let snapshot_owner = snapshot::SnapshotOwner::from(identity);
        let snapshots = recovery::find(&folder, &snapshot_owner)?;
        let base = snapshots.last();
        let (mut replay, last) = replay::read(&folder, &owner, &options, base.index)?;
        let hard_state = found.state();
        check_term(&folder, hard_state, "the log", replay.outline.last())?;
        check_term(&folder, hard_state, "a snapshot", base)?;
        let fit = snapshots.fit(&folder, &mut replay)?;

        let recovered = Recovered {
            hard_state,
            base,
            notes: (found.note().into_iter())
                .chain(last.note())
                .chain(snapshots.notes())
                .collect(),
            snapshot: snapshots.newest.clone(),
            entries: std::mem::take(&mut replay.entries),
        };
        folder.remove_unfinished()?;
        let vote = found.settle()?;
        let writing = snapshot::SnapshotOptions::from(&options);
        let mut log = LogWriter::settle(&folder, options, replay, last)?;
        let kept = snapshots.settle(&folder)?;
        folder.sync()?;
        if fit == Fit::StartsAnew {
            log.append(Some(base), &[], || ())?;
        }
        let storage = Self {
            owner,
            vote,
            log,
            snapshots: Snapshots::new(&folder, snapshot_owner, kept, writing),
            folder,
            stopped: None,
        };
        Ok((storage, recovered))
    }

    /// Makes a write durable: when this returns, no crash can undo it.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it could not be made durable; it may be there after a restart, or
    /// not. From then on always [`StorageError::Stopped`].
    ///
    /// # Panics
    /// If the write breaks the order that recovery relies on: the term or the vote goes back, an
    /// entry is of a later term than the node's, the entries do not continue the log, or the log
    /// would start anew behind an entry of which there is no snapshot.
    pub fn write(&mut self, write: &Write) -> Result<(), StorageError> {
        self.write_and_tell(write, || ())
    }

    /// As [`write`](Self::write); and calls `written` when the record is with the system, before
    /// its sync. It is not called if there is nothing to write but the term and the vote.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Panics
    /// As [`write`](Self::write).
    pub fn write_and_tell(
        &mut self,
        write: &Write,
        written: impl FnOnce(),
    ) -> Result<(), StorageError> {
        self.unless_stopped(|storage| storage.write_in_order(write, written))
    }

    /// Takes from the start of the log the files that hold nothing behind the index; returns how
    /// many bytes they have. Some entries up to the index may stay. Which index to give is what
    /// [`Snapshots::log_needed_behind`] says.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Panics
    /// If there is no snapshot that holds the entries up to the index.
    pub fn cut(&mut self, up_to: Index) -> Result<u64, StorageError> {
        self.unless_stopped(|storage| storage.let_go(up_to).remove())
    }

    /// As [`cut`](Self::cut), but leaves it to the caller, and to any thread, to remove the files.
    ///
    /// # Panics
    /// If there is no snapshot that holds the entries up to the index.
    pub fn let_go(&mut self, up_to: Index) -> Unneeded {
        let newest = self.newest_snapshot();
        assert!(
            up_to <= newest.index,
            "the log would be cut up to {up_to}, and the newest snapshot is of entry {newest}"
        );
        self.log.let_go(up_to)
    }

    /// Whom this node knows, and whether the others know it.
    ///
    /// # Errors
    /// [`StorageError::Damaged`], [`StorageError::Io`].
    pub fn peers(&self) -> Result<Peers, StorageError> {
        Peers::open(&self.folder, &self.owner)
    }

    /// The snapshots in the folder, for any thread.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// Makes the segments ready that the log will need next, for any thread.
    pub fn spares(&self) -> Spares {
        self.log.spares()
    }

    fn newest_snapshot(&self) -> EntryId {
        let newest = self.snapshots.newest();
        newest.map_or(EntryId::ZERO, |info| info.meta.last)
    }

    /// After the first error there is no other attempt.
    fn unless_stopped<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Some(reason) = self.stopped.clone() {
            return Err(StorageError::Stopped { reason });
        }
        let result = act(self);
        if let Err(error) = &result {
            self.stopped = Some(error.to_string());
        }
        result
    }

    fn write_in_order(
        &mut self,
        write: &Write,
        written: impl FnOnce(),
    ) -> Result<(), StorageError> {
        if let Some(hard_state) = write.hard_state {
            self.vote.store(hard_state)?;
        }
        let last = write.entries.last().map(|entry| entry.id);
        let Some(last) = last.or(write.restart) else {
            return Ok(());
        };
        assert!(
            last.term <= self.vote.state().term,
            "entry {last} is of a later term than the node's, which is {}",
            self.vote.state().term
        );
        if let Some(base) = write.restart {
            let newest = self.newest_snapshot();
            assert!(
                base.index <= newest.index,
                "the log would start behind entry {base}, and the newest snapshot is of {newest}"
            );
        }
        self.log.append(write.restart, &write.entries, written)
    }

    /// How many bytes the records of the log occupy, those included that were replaced since.
    pub fn log_bytes(&self) -> u64 {
        self.log.record_bytes()
    }
}

/// Makes a new folder: see [`identity`] for the order.
fn create(
    folder: &Folder,
    identity: &Identity,
    options: &Options,
) -> Result<FolderOwner, StorageError> {
    let owner = identity::begin(folder, identity)?;
    vote::create(folder, &owner)?;
    writer::create(folder, &owner, options)?;
    identity::finish(folder)?;
    Ok(owner)
}

/// A node knows the term of every entry before it writes the entry.
fn check_term(
    folder: &Folder,
    state: HardState,
    what: &str,
    last: EntryId,
) -> Result<(), StorageError> {
    if last.term <= state.term {
        return Ok(());
    }
    Err(StorageError::Damaged {
        path: folder.path().join(vote::NAME),
        offset: 0,
        problem: format!(
            "it holds term {}, but {what} ends with entry {last}: a vote has been lost",
            state.term
        ),
        advice: VOTE_ADVICE,
    })
}
