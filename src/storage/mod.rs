//! What a node keeps on disk, in its data folder: the log, snapshots, term and vote, and the
//! identity of the node that the folder belongs to.
//!
//! One thread, the replicator, owns a [`Storage`] and passes it the writes of the Raft core, one
//! after the other. Each write is durable when [`Storage::write`] returns.
//!
//! | module | what is in it | its files in the folder |
//! | --- | --- | --- |
//! | `log/` | writes, replays and cuts the log | `log-` and a number |
//! | `snapshot/` | states that take the place of a part of the log | `snapshot-`, an index and a term |
//! | `voter/` | who votes, how it voted, whether its vote counts | `identity`, `vote`, `peers`, `members` |
//! | `disk/` | reads and writes any disk, real or simulated | `lock` |
//! | `recovery.rs` | chooses the snapshot to start from, and fits the log to it | |
//! | `archive.rs` | makes backups, and data folders from backups | |
//! | `repair/` | puts a new folder in the place of one that is damaged, or has lost its cluster | |
//! | `scrub.rs` | reads the files of a running node again, and verifies them | |
//! | `inspection.rs` | reports what a folder holds, for `kvnode inspect` | |
//! | `block.rs` | the format of the small files, and of the heads of segments and snapshots | |
//! | `error.rs` | the errors, each with advice for the operator | |
//!
//! The format of each file is specified at the top of the source file that writes it. A file whose
//! name ends in `.new` is either incomplete or a spare for the log's next segment; the next start
//! removes it. A snapshot that is found damaged is renamed, so that its name ends in `.damaged`,
//! and is never removed. A read that fails is no damage: nothing is changed because of it.
//!
//! # Invariants
//!
//! 1. **After any crash, recovery finds a log that the node once had.** Each write of the Raft core
//!    becomes one record, appended to the records that are there. If the log already has an entry
//!    at the index of the record's first entry, the record's entries replace the log's from that
//!    index on; recovery reads the records in order and replaces in the same way. A record is valid
//!    as a whole or not at all. See `log/mod.rs`.
//! 2. **An acknowledged write survives a crash; a write without an acknowledgement may survive.**
//!    The second is safe either way, because other nodes rely only on what was acknowledged. Term
//!    and vote are durable before the entries of the same write, so no entry on disk is of a later
//!    term than the node's.
//! 3. **A torn record is cut off; damage is not.** A record is written only when all earlier
//!    records are durable. So only the last record can be torn, and a torn record was never
//!    acknowledged. A record counts as torn only if one of its sectors was never written: see
//!    `torn_bytes` in `log/segment.rs`. The operator is told of each cut. If the log is damaged,
//!    recovery changes nothing and the node does not start.
//! 4. **After the first write or sync that fails, the storage writes nothing more.** Nobody knows
//!    what the disk holds after such a failure, and a later sync that succeeds proves nothing. A
//!    lack of space is no such failure if it shows when space is made for a record, before any byte
//!    of it is written: then nothing that a record is in was touched, and the same write is tried
//!    again when there is space. A sync that fails is one, whatever its reason. The
//!    process that wrote the files may have ended after such a failure, so a start does not trust
//!    that what it can read is on the disk: it writes the log's last record and the vote file once
//!    more, and syncs them.
//! 5. **The log fits the snapshot from which the node starts.** A snapshot is durable under its own
//!    name before the log changes on account of it. The log changes in one of two ways: the entries
//!    that the snapshot covers are removed, or the log *starts anew*, which means that all of its
//!    entries are discarded and the next entry is the one after the snapshot's last. A crash
//!    between snapshot and change leaves a log that is longer than needed, or a log that does not
//!    fit the snapshot and that recovery starts anew. `recovery.rs` says why both are safe, and
//!    when an older snapshot can replace a damaged one.
//! 6. **A folder belongs to one node.** The segments and the files `identity`, `vote` and `peers`
//!    name that node. A snapshot names only the cluster and the state machine, because nodes send
//!    snapshots to each other.
//!
//! # What it cannot notice
//!
//! - The disk loses synced sectors of the last record and returns what was there before. Recovery
//!   takes such a record for a torn one and cuts it off.
//! - The first sector of the last record is changed in two places: in the record's header, and in
//!   the number at the sector's end that tells that the sector was written (its *mark*, see
//!   `log/sectors.rs`). Recovery takes such a record for one that was never written.
//! - The folder is replaced by an older copy of itself.

mod archive;
mod block;
mod disk;
mod error;
mod inspection;
mod log;
mod recovery;
mod repair;
mod scrub;
mod snapshot;
#[cfg(test)]
mod tests;
mod voter;

use std::sync::Arc;

use crate::raft::{Entry, EntryId, FolderId, HardState, Index, Write};

pub use archive::{Backup, back_up, restore};
pub use disk::{Disk, DiskFile, Outcome, Parent, ReadOnlyDisk, RealDisk, SimDisk, Unreadable};
pub use error::StorageError;
pub use inspection::{
    InspectedCommand, InspectedSegment, InspectedSnapshot, Inspection, Judge, inspect, inspect_with,
};
pub use log::{Shortage, Spares, Unneeded};
pub use repair::{
    DamagedFolder, Recovery, SetAside, Survivor, finish_interrupted, finish_recovery,
    finish_recovery_in, interrupted_recovery,
};
pub use scrub::{DamagedPart, Scrub, Scrubbed};
pub use snapshot::{Incoming, Sealed, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots};
pub use voter::{
    Acquaintance, AddressBook, Grounds, Identity, Peers, may_witness, welcomes_needed,
};

use disk::Folder;
use log::writer::{self, LogWriter};
use recovery::{Contents, Fit};
use voter::identity::{self, FolderOwner};
use voter::vote::{self, VoteFile};

/// Sizes and sync intervals of the files of the log and of snapshots, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The size of a segment, which is one file of the log, in bytes. A record that would exceed
    /// this size begins the next segment. A record that is larger than a whole segment gets a
    /// segment as large as it needs.
    pub segment_bytes: u64,
    /// How many bytes of zeros the log writes at a time after its last record, to have space for
    /// the next records. Each time costs one more sync. Only the first segment needs this, and
    /// segments whose file was not prepared in full by [`Spares`].
    pub allocate_bytes: u64,
    /// How many bytes of the state one piece of a new snapshot holds: 1 to 65536. Each piece is
    /// compressed and has a checksum of its own.
    pub snapshot_piece_bytes: usize,
    /// A snapshot's file is synced each time it has grown by this many bytes. If the whole file
    /// were synced once at its end, the log's syncs would have to wait for that long sync.
    pub snapshot_sync_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self::of_sizes(16 << 20, 1 << 20)
    }
}

impl Options {
    /// Options with the given sizes of a segment and of an allocation, in bytes; snapshots have the
    /// default sizes.
    pub const fn of_sizes(segment_bytes: u64, allocate_bytes: u64) -> Self {
        Self {
            segment_bytes,
            allocate_bytes,
            snapshot_piece_bytes: snapshot::PIECE,
            snapshot_sync_bytes: 512 << 10,
        }
    }
}

/// The node's state, as recovery read it from the data folder. All of it is durable when
/// [`Storage::open`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The node's term, and its vote in that term.
    pub hard_state: HardState,
    /// The newest valid snapshot, from which the node starts; `None` if there is no valid snapshot.
    pub snapshot: Option<SnapshotInfo>,
    /// The last entry that the snapshot covers, or [`EntryId::ZERO`] without a snapshot. The first
    /// entry of the log is the one after it.
    pub base: EntryId,
    /// The log's entries after `base`, in order and without a gap.
    pub entries: Vec<Entry>,
    /// One sentence for the operator about each thing that recovery repaired or passed over.
    pub notes: Vec<String>,
}

/// The data folder of a running node, open for writing.
pub struct Storage {
    folder: Folder,
    owner: FolderOwner,
    vote: VoteFile,
    log: LogWriter,
    snapshots: Snapshots,
    /// The first error of writing the log or of removing its start. Once it is set, every further
    /// write fails with [`StorageError::Stopped`].
    stopped: Option<String>,
}

impl Storage {
    /// Opens the data folder of a node, or makes a new one in an empty folder. The state that is
    /// returned is durable.
    ///
    /// Recovery reads and checks every file before it changes any of them. So after an error about
    /// what the folder holds, the folder is unchanged. Only then recovery writes the last record
    /// and the vote again, cuts off a torn record, starts the log anew if it does not fit the
    /// snapshot, and renames or removes files that nothing depends on. A crash during these changes
    /// leaves a folder from which the next start recovers the same state.
    ///
    /// # Errors
    /// [`StorageError::WrongFolder`] if the folder belongs to another node, cluster or state
    /// machine, or is of another format; [`StorageError::Damaged`] if something that was durable is
    /// missing or changed; [`StorageError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        identity: &Identity,
        options: Options,
    ) -> Result<(Self, Recovered), StorageError> {
        let folder = Folder::new(disk);
        let names = folder.list()?;
        let found = identity::read(&folder, &names, identity)?;
        let owner = match &found {
            Some(found) => found.owner.clone(),
            None => create(&folder, identity, &options)?,
        };
        let snapshot_owner = snapshot::SnapshotOwner::from(identity);
        let Contents {
            vote,
            snapshots,
            mut replay,
            last,
            fit,
        } = recovery::read(&folder, &owner, &snapshot_owner, &options)?;
        let base = snapshots.last();
        let recovered = Recovered {
            hard_state: vote.state(),
            base,
            notes: (vote.note().into_iter())
                .chain(last.note())
                .chain(snapshots.notes())
                .collect(),
            snapshot: snapshots.newest.clone(),
            entries: std::mem::take(&mut replay.entries),
        };
        if let Some(found) = &found {
            found.settle(&folder)?;
        }
        folder.remove_unfinished()?;
        let vote = vote.settle()?;
        let writing = snapshot::SnapshotOptions::from(&options);
        let mut log = LogWriter::settle(&folder, options, replay, last)?;
        let kept = snapshots.settle(&folder)?;
        folder.sync()?;
        if fit == Fit::StartsAnew {
            log.append(Some(base), &[], || ())
                .map_err(StorageError::at_start)?;
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

    /// Makes a write of the Raft core durable: when this returns, no crash can undo the write.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the write could not be made durable; after a restart it may be there
    /// or not. Every later write then fails with [`StorageError::Stopped`].
    /// [`StorageError::NoSpace`] if there is no space for the write's entries: they are not
    /// written, but its term and vote are durable. The caller tries the same write again, and no
    /// other one.
    ///
    /// # Panics
    /// If the write breaks the order that recovery relies on: the term goes back, the vote in a
    /// term changes, an entry is of a later term than the node's, the entries do not continue the
    /// log, or the log would start anew after an entry that no snapshot covers.
    pub fn write(&mut self, write: &Write) -> Result<(), StorageError> {
        self.write_and_tell(write, || ())
    }

    /// Like [`write`](Self::write), but calls `written` after the record is written and before it
    /// is synced. `written` is not called if the write has only term and vote, and so no record.
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

    /// Removes those segments from the start of the log that hold no entry above `up_to`, and
    /// returns how many bytes their files have. An entry up to `up_to` stays if its segment also
    /// holds a later entry. [`Snapshots::log_needed_behind`] says which index is safe.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Panics
    /// If no snapshot covers the entries up to `up_to`.
    pub fn cut(&mut self, up_to: Index) -> Result<u64, StorageError> {
        self.unless_stopped(|storage| storage.let_go(up_to).remove())
    }

    /// Like [`cut`](Self::cut), but removes the segments only from the list in memory. Their files
    /// stay until [`Unneeded::remove`] is called, which may happen on any thread.
    ///
    /// # Panics
    /// If no snapshot covers the entries up to `up_to`.
    pub fn let_go(&mut self, up_to: Index) -> Unneeded {
        let newest = self.newest_snapshot();
        assert!(
            up_to <= newest.index,
            "the log would be cut up to {up_to}, and the newest snapshot is of entry {newest}"
        );
        self.log.let_go(up_to)
    }

    /// As [`let_go`](Self::let_go), but at most up to where
    /// [`log_needed_behind`](Snapshots::log_needed_behind) allows now. Since the courier or the
    /// taker of snapshots asked that, another thread may have found a snapshot damaged: then the
    /// next start needs the log that this snapshot covers.
    pub fn let_go_if_covered(&mut self, up_to: Index) -> Unneeded {
        let covered = self.snapshots.log_needed_behind();
        self.log.let_go(up_to.min(covered))
    }

    /// The number of this folder.
    pub fn own_folder(&self) -> FolderId {
        self.owner.folder
    }

    /// Reads the file `peers`: the folders of the nodes that this node has met, and whether this
    /// node's own folder is admitted, so that its votes count.
    ///
    /// # Errors
    /// [`StorageError::Damaged`], [`StorageError::Io`].
    pub fn peers(&self) -> Result<Peers, StorageError> {
        Peers::open(&self.folder, &self.owner)
    }

    /// The file `members`, in which the node writes down who the members are.
    pub fn address_book(&self) -> AddressBook {
        AddressBook::open(&self.folder, &self.owner)
    }

    /// A handle of the snapshots in this data folder. Any thread may use it, also while another
    /// thread writes the log.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// Returns the handle with which files for the log's next segments are prepared. Another thread
    /// than the one that writes the log should do this, because filling files with zeros is slow.
    pub fn spares(&self) -> Spares {
        self.log.spares()
    }

    /// A reader of this folder that verifies the log and the snapshots while they are written.
    pub fn scrub(&self) -> Scrub {
        let (log, snapshots) = (self.log.files(), self.snapshots());
        Scrub::new(&self.folder, &self.owner, log, snapshots)
    }

    fn newest_snapshot(&self) -> EntryId {
        let newest = self.snapshots.newest();
        newest.map_or(EntryId::ZERO, |info| info.meta.last)
    }

    /// Runs `act`, unless an earlier write has failed. Nobody knows which part of a failed write
    /// the disk holds. Recovery ends at the first invalid record, so a record that was written
    /// after the failed one might never be read.
    fn unless_stopped<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Some(reason) = self.stopped.clone() {
            return Err(StorageError::Stopped { reason });
        }
        let result = act(self);
        if let Err(error) = &result
            && !matches!(error, StorageError::NoSpace { .. })
        {
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

    /// How many bytes the log's records take on disk, including records whose entries later records
    /// have replaced.
    pub fn log_bytes(&self) -> u64 {
        self.log.record_bytes()
    }
}

/// Makes the files of a new data folder. [`identity`] explains the order of the steps.
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
