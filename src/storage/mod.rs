//! What a node keeps on disk: its log, its term and vote, and whose they are.
//!
//! One thread owns a [`Storage`] and hands it the writes of the core, one after the other; each is
//! durable when [`Storage::write`] returns.
//!
//! | room | what is in it | the files that it keeps |
//! | --- | --- | --- |
//! | `log/` | the entries: writing, replaying and cutting them | `log-` and a number |
//! | `snapshot/` | states that take the place of a part of the log | `snapshot-`, an index and a term |
//! | `voter/` | who votes, how it voted, whether its vote counts | `identity`, `vote`, `peers` |
//! | `disk/` | how this module reaches any disk, real or simulated | `lock` |
//! | `recovery.rs` | which snapshot a node starts from, and what of the log follows it | |
//! | `archive.rs` | backups, and folders made from them | |
//! | `inspection.rs` | what a folder holds, for a person | |
//! | `block.rs` | the form of the small files, and of the heads of segments and snapshots | |
//! | `error.rs` | what can go wrong, and what to do then | |
//!
//! Each file's format is specified at the top of the source file that writes it. A file whose name
//! ends in `.new` is not complete yet, or is kept for a new segment; the next start removes it. A
//! snapshot that was found damaged is renamed to its name and `.damaged`, and never removed.
//!
//! # Invariants
//!
//! 1. **Whatever a crash leaves of the writes, recovery finds a log that the node once had.**
//!    Records are only added. A record that starts within the log replaces the log's tail when it
//!    is replayed, and it is valid as a whole or not at all. See `log/mod.rs`.
//! 2. **A write that was acknowledged is there after a crash; one that was not may be there.** Both
//!    are right, since others rely only on what was acknowledged. Term and vote are durable before
//!    the entries of the same write, so no entry is of a later term than the node's.
//! 3. **A torn record is cut, damage is not.** A record is written only when all before it are
//!    durable. So only the last record can be torn, and it was not acknowledged. It counts as torn
//!    only if one of its sectors was never written: see `torn_bytes` in `log/segment.rs`. Cutting
//!    is noted. On damage nothing is changed, and the node does not start.
//! 4. **After the first write or sync that fails, nothing more is written.** Nobody knows what the
//!    disk holds then, and a later sync that succeeds proves nothing. For the same reason recovery
//!    writes and syncs again what it is going to rely on.
//! 5. **The log fits the snapshot from which the node starts.** A snapshot is durable under its own
//!    name before the log is cut up to it or starts anew behind it. A crash between the two leaves
//!    more of the log than needed, or a log that recovery starts anew: see `recovery.rs`, also for
//!    when an older snapshot can stand in for a damaged one.
//! 6. **A folder belongs to one node**, and each file in it says to which; a snapshot says to which
//!    cluster.
//!
//! # What it cannot notice
//!
//! - The disk loses synced sectors of the last record and gives back what was there before: the
//!   record is cut as torn.
//! - Both the header and the mark in the first sector of the last record are changed: the record is
//!   taken for one that was never written.
//! - The folder is replaced by an older copy of itself.

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
    /// The size of a segment in bytes. A record that does not fit into it begins the next segment;
    /// a record that is larger than a segment makes a larger one.
    pub segment_bytes: u64,
    /// The space behind the last record is filled with zeros in steps of so many bytes, and each
    /// step costs one more sync. This is for the first segment, and for segments that were not made
    /// ready as a whole: see [`Spares`].
    pub allocate_bytes: u64,
    /// How many bytes of the state a piece of a new snapshot holds: 1 to 65536. Each piece is
    /// compressed, and has a checksum, by itself.
    pub snapshot_piece_bytes: usize,
    /// The file of a snapshot is synced each time it has grown by so many bytes. If all of it were
    /// left to one sync at the end, the log's syncs would have to wait for that one.
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

/// What recovery has found: the state of the node when it ended. All of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The term and vote.
    pub hard_state: HardState,
    /// The snapshot to start from: the newest one that is valid.
    pub snapshot: Option<SnapshotInfo>,
    /// The entry behind which the log starts: the snapshot's last one, or [`EntryId::ZERO`].
    pub base: EntryId,
    /// The entries behind `base`, in order and without a gap.
    pub entries: Vec<Entry>,
    /// One sentence for each thing that was repaired, for the messages of the program.
    pub notes: Vec<String>,
}

/// The data folder of a running node, open for writing.
pub struct Storage {
    folder: Folder,
    owner: FolderOwner,
    vote: VoteFile,
    log: LogWriter,
    snapshots: Snapshots,
    /// The first error of a write. After it nothing more is written.
    stopped: Option<String>,
}

impl Storage {
    /// Opens the data folder, or makes a new one in an empty folder. All that is returned is
    /// durable.
    ///
    /// Everything is read and judged before anything is changed. So after an error about what the
    /// folder holds, the folder is as it was. The changes that follow write again what was read,
    /// cut a torn record, and rename or remove files that nothing depends on. So a crash among them
    /// leaves a folder from which the next start recovers the same.
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

    /// As [`write`](Self::write), and calls `written` between the write of the record and its sync.
    /// It is not called if there is no record to write, but only term and vote.
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

    /// Removes the segments at the start of the log that hold no entry above `up_to`, and returns
    /// how many bytes they had. Entries up to the index stay if they share a segment with later
    /// ones. [`Snapshots::log_needed_behind`] says which index to give.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Panics
    /// If there is no snapshot that holds the entries up to the index.
    pub fn cut(&mut self, up_to: Index) -> Result<u64, StorageError> {
        self.unless_stopped(|storage| storage.let_go(up_to).remove())
    }

    /// As [`cut`](Self::cut), but the caller removes the files, on any thread.
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

    /// The folders of the nodes that this node has met, and whether its own is admitted.
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

    /// What makes the files of the log's next segments ready, for any thread.
    pub fn spares(&self) -> Spares {
        self.log.spares()
    }

    fn newest_snapshot(&self) -> EntryId {
        let newest = self.snapshots.newest();
        newest.map_or(EntryId::ZERO, |info| info.meta.last)
    }

    /// Acts unless an earlier act failed. After the first error the disk may hold any part of what
    /// was written since the last good sync; a record behind that could not be told from a torn
    /// one.
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

    /// How many bytes the records of the log take, also those whose entries have been replaced.
    pub fn log_bytes(&self) -> u64 {
        self.log.record_bytes()
    }
}

/// Makes a new folder. The order of the steps is explained in [`identity`].
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

/// Checks that the node's term is at least that of the last entry. The term is durable before the
/// entry is written. So a lower term means that a vote file of an earlier time is in its place, and
/// the node could vote a second time.
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
