//! Snapshots: files that hold the state as of one log entry, and take the place of the log up to
//! that entry.
//!
//! A snapshot's file is named `snapshot-`, the index and the term of its last entry. The newest two
//! snapshots are kept.
//!
//! # Invariants
//!
//! 1. **A file with a snapshot's name is complete and durable.** The file is written under a name
//!    that ends in `.new`, synced, verified if another node sent it, and renamed. Then the folder
//!    is synced. After a crash before the rename, the next start removes the file. After a crash
//!    before the sync of the folder, the file may have either name. So the log is cut, or starts
//!    anew, only after that sync.
//! 2. **The older snapshot can replace the newest one**, should the newest one be found damaged,
//!    because the log keeps all entries after the older one: see [`Snapshots::log_needed_behind`].
//!    The older snapshot is no replacement once the log has started anew after the newest snapshot,
//!    as it does when that snapshot came from the leader: see `recovery.rs`.
//! 3. **Every byte is verified before it is used.** Damaged bytes are never taken for a state.
//!
//! # Files
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | which snapshots there are, and which may be removed |
//! | [`format`] | the format of the file, to the byte |
//! | [`writer`] | writes a snapshot of this node's own state |
//! | [`incoming`] | receives a snapshot from another node |
//! | [`sealed`] | the last step of both: gives the complete file its name |
//! | [`reader`] | reads the state back |

mod format;
mod incoming;
mod reader;
mod sealed;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::raft::{EntryId, Index, SnapshotMeta, StoredSnapshot};

use crate::storage::Options;
use crate::storage::block::BLOCK;
use crate::storage::disk::{Folder, NamedFile, unfinished};
use crate::storage::error::StorageError;

pub use incoming::Incoming;
pub use reader::SnapshotReader;
pub use sealed::Sealed;
pub use writer::SnapshotWriter;

pub(super) use format::{PIECE, SnapshotOwner, last_of, name};

/// How many snapshots a data folder keeps: the newest one, and one to replace it if it is damaged.
const KEPT: usize = 2;

/// A snapshot that is complete and durable, so that the node may rely on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Which log entries the snapshot covers, and the members of the cluster at its last entry.
    pub meta: SnapshotMeta,
    /// The length of the snapshot's file in bytes.
    pub bytes: u64,
    /// When the snapshot was written, by the clock of the node that wrote it, in milliseconds since
    /// 1970.
    pub created_ms: u64,
}

/// How many bytes of a snapshot are compressed at a time, and how many are synced at a time.
#[derive(Clone, Copy)]
pub(super) struct SnapshotOptions {
    /// How many bytes of the state each piece of a new snapshot holds, at most [`PIECE`].
    piece: usize,
    /// A snapshot's file that is being written or received is synced each time it has grown by this
    /// many bytes.
    sync: u64,
}

impl From<&Options> for SnapshotOptions {
    fn from(options: &Options) -> Self {
        Self {
            piece: options.snapshot_piece_bytes,
            sync: options.snapshot_sync_bytes,
        }
    }
}

/// The snapshots of a data folder. Clones refer to the same snapshots. Any thread may use a clone,
/// also while another thread writes the log. An error in writing or reading a snapshot does not
/// stop the log, because no log record depends on it.
#[derive(Clone)]
pub struct Snapshots {
    shared: Arc<SnapshotFolder>,
}

struct SnapshotFolder {
    folder: Folder,
    owner: SnapshotOwner,
    writing: SnapshotOptions,
    /// The valid snapshots, oldest first. No thread keeps this lock while it waits for the disk.
    kept: Mutex<Vec<SnapshotInfo>>,
    /// The snapshot from which the state machine is being restored, if there is one. Its file is
    /// kept even if there are two newer snapshots.
    pinned: Mutex<Option<EntryId>>,
    /// Locked while a thread gives a snapshot its final name, so that only one thread does this at
    /// a time.
    placing: Mutex<()>,
    /// The snapshot that another node is sending to this node: the number of the transfer, and the
    /// name of the unfinished file. `None` before the first transfer.
    receiving: Mutex<Option<(u64, String)>>,
    /// How many bytes of its file the most recent [`SnapshotWriter`] has written.
    written: AtomicU64,
    /// A counter from which each transfer and each unfinished file gets its number, so that no two
    /// have the same.
    counter: AtomicU64,
}

impl Snapshots {
    /// Makes the handle of a folder's snapshots after recovery has read them. `kept` are the valid
    /// snapshots, oldest first.
    pub(super) fn new(
        folder: &Folder,
        owner: SnapshotOwner,
        kept: Vec<SnapshotInfo>,
        writing: SnapshotOptions,
    ) -> Self {
        let piece = writing.piece;
        assert!((1..=PIECE).contains(&piece), "nobody reads such pieces");
        Self {
            shared: Arc::new(SnapshotFolder {
                folder: folder.clone(),
                owner,
                writing,
                kept: Mutex::new(kept),
                pinned: Mutex::new(None),
                placing: Mutex::new(()),
                receiving: Mutex::new(None),
                written: AtomicU64::new(0),
                counter: AtomicU64::new(0),
            }),
        }
    }

    /// The newest valid snapshot; `None` if there is none.
    pub fn newest(&self) -> Option<SnapshotInfo> {
        self.shared.kept.lock().last().cloned()
    }

    /// All valid snapshots, oldest first: at most two.
    pub fn list(&self) -> Vec<SnapshotInfo> {
        self.shared.kept.lock().clone()
    }

    /// How long ago a snapshot was taken, in milliseconds by the time of day, to show it to people;
    /// 0 if the clock has been set back since.
    pub fn age_ms(&self, info: &SnapshotInfo) -> u64 {
        self.shared.folder.now_ms().saturating_sub(info.created_ms)
    }

    /// How many bytes the most recent [`SnapshotWriter`] has written, to show progress to the
    /// operator.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Up to which index [`Storage::cut`](super::Storage::cut) may cut the log: the last index of
    /// the older of the newest two snapshots, or 0 if there are not two. The entries after this
    /// index stay, so that the older snapshot and these entries can replace the newest snapshot,
    /// unless the log has started anew between the two.
    pub fn log_needed_behind(&self) -> Index {
        let kept = self.shared.kept.lock();
        let second = kept.len().checked_sub(KEPT).and_then(|at| kept.get(at));
        second.map_or(0, |info| info.meta.last.index)
    }

    /// Keeps the file of this snapshot until [`unpin`](Self::unpin), even if newer snapshots come.
    /// Only one snapshot is pinned at a time: a previous pin ends.
    pub fn pin(&self, last: EntryId) {
        *self.shared.pinned.lock() = Some(last);
    }

    /// Ends the protection of the snapshot that was [pinned](Self::pin). Its file stays until the
    /// next snapshot is complete, and is removed then, unless it is one of the newest two.
    pub fn unpin(&self) {
        *self.shared.pinned.lock() = None;
    }

    /// Begins to write a snapshot of this node's state.
    ///
    /// # Errors
    /// [`StorageError::Superseded`] if there is a snapshot of this entry or of a later one already;
    /// [`StorageError::Io`].
    ///
    /// # Panics
    /// If there are so many members that they do not fit into a block: some two hundred.
    pub fn create(&self, meta: SnapshotMeta) -> Result<SnapshotWriter, StorageError> {
        self.check_new(meta.last)?;
        SnapshotWriter::new(self, meta)
    }

    /// Opens the snapshot that ends with the entry `last`, to read its state.
    ///
    /// # Errors
    /// [`StorageError::NoSnapshot`] if the snapshot does not exist or was removed;
    /// [`StorageError::Damaged`]; [`StorageError::Io`].
    pub fn open(&self, last: EntryId) -> Result<SnapshotReader, StorageError> {
        open(&self.shared.folder, &self.shared.owner, last)
    }

    /// Reads a whole snapshot and verifies all of its checksums.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn verify(&self, last: EntryId) -> Result<SnapshotInfo, StorageError> {
        self.open(last)?.verify()
    }

    /// Makes sure that a damaged snapshot is not used again: its file is renamed, so that its name
    /// ends in `.damaged`, and is kept for the operator.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn set_aside(&self, last: EntryId) -> Result<(), StorageError> {
        // The lock is released before the disk is used, because other threads ask for the newest
        // snapshot and must not wait for the disk.
        (self.shared.kept.lock()).retain(|info| info.meta.last != last);
        set_aside(&self.shared.folder, last)?;
        self.shared.folder.sync()
    }

    /// Takes a snapshot whose file the disk refuses to read out of use, until the next start. The
    /// file stays as it is: it may be whole, and the disk may read it again later. From now on a
    /// new snapshot of the same entry can take its place.
    pub fn pass_over(&self, last: EntryId) {
        (self.shared.kept.lock()).retain(|info| info.meta.last != last);
    }

    /// Reads up to `max` bytes of a snapshot's file from `offset` on. Returns no bytes at the end
    /// of the file. The bytes are not verified.
    ///
    /// # Errors
    /// [`StorageError::NoSnapshot`] if the snapshot does not exist or was removed;
    /// [`StorageError::Io`].
    pub fn read_chunk(
        &self,
        last: EntryId,
        offset: u64,
        max: usize,
    ) -> Result<Bytes, StorageError> {
        let file = open_file(&self.shared.folder, last)?;
        let rest = file.len()?.saturating_sub(offset);
        let mut bytes = vec![0; rest.min(max as u64) as usize];
        file.read(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Reads `length` bytes of a snapshot's file from `offset` on, to send them to another node.
    /// The bytes are not verified here, because the receiving node verifies the whole file.
    ///
    /// # Errors
    /// [`StorageError::NoSnapshot`] if the snapshot does not exist or was removed;
    /// [`StorageError::Damaged`] if the file has another size than the snapshot has, or ends before
    /// these bytes do; [`StorageError::Io`].
    pub fn read_part(
        &self,
        of: &StoredSnapshot,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, StorageError> {
        let file = open_file(&self.shared.folder, of.meta.last)?;
        let end = file.len()?;
        if end != of.bytes || offset.checked_add(length).is_none_or(|wanted| wanted > end) {
            let wanted = format!("a part of {length} bytes at {offset} of {}", of.bytes);
            let problem = format!("it has {end} bytes, and {wanted} was to be read");
            return Err(format::damaged(&file, end, problem));
        }
        let mut bytes = vec![0; length as usize];
        file.read(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Begins to receive a snapshot whose file has `bytes` bytes. Only one transfer runs at a time,
    /// so a previous one is discarded.
    ///
    /// # Errors
    /// [`StorageError::Superseded`] if there is a snapshot of this entry or of a later one already;
    /// [`StorageError::Io`].
    pub fn receive(&self, meta: SnapshotMeta, bytes: u64) -> Result<Incoming, StorageError> {
        self.check_new(meta.last)?;
        Incoming::new(self, meta, bytes)
    }

    fn check_new(&self, last: EntryId) -> Result<(), StorageError> {
        match self.newest() {
            Some(newest) if newest.meta.last.index >= last.index => Err(StorageError::Superseded {
                last,
                newest: newest.meta.last,
            }),
            _ => Ok(()),
        }
    }

    fn remove_before(&self, oldest_kept: EntryId) -> Result<(), StorageError> {
        let pinned = self.shared.pinned.lock().unwrap_or(oldest_kept);
        let oldest_kept = oldest_kept.min(pinned);
        let folder = &self.shared.folder;
        let names = folder.list()?;
        let old = names
            .iter()
            .filter(|name| last_of(name).is_some_and(|last| last.index < oldest_kept.index));
        old.into_iter().try_for_each(|name| folder.remove(name))
    }

    fn next_number(&self) -> u64 {
        self.shared.counter.fetch_add(1, Ordering::Relaxed)
    }

    fn temp_name(&self, kind: &str) -> String {
        unfinished(&format!("{kind}-{}", self.next_number()))
    }
}

/// The ending of a damaged snapshot's name once it is set aside. A file with this ending is never
/// used and never removed.
pub(super) const SET_ASIDE: &str = ".damaged";

/// Renames a damaged snapshot, so that it is not used any more. The folder has to be synced
/// afterwards. After a crash before that, the next start finds the snapshot damaged again.
pub(super) fn set_aside(folder: &Folder, last: EntryId) -> Result<(), StorageError> {
    let name = name(last);
    folder.rename(&name, &format!("{name}{SET_ASIDE}"))
}

/// Opens the snapshot that ends with the entry `last`, and checks that its contents fit its name.
pub(super) fn open(
    folder: &Folder,
    owner: &SnapshotOwner,
    last: EntryId,
) -> Result<SnapshotReader, StorageError> {
    let file = open_file(folder, last)?;
    let path = file.path().to_path_buf();
    let reader = SnapshotReader::new(file, owner)?;
    let found = reader.info().meta.last;
    if found != last {
        return Err(StorageError::Damaged {
            path,
            offset: 0,
            problem: format!("it is the snapshot of entry {found} under another name"),
            advice: crate::storage::error::SNAPSHOT_ADVICE,
        });
    }
    Ok(reader)
}

/// Opens a snapshot's file, which may have any name and belong to any cluster. Also returns that
/// cluster and the state machine.
pub(super) fn open_any(file: NamedFile) -> Result<(SnapshotOwner, SnapshotReader), StorageError> {
    let owner = match file.len()? < BLOCK as u64 {
        true => return Err(format::damaged(&file, 0, "it is too short for a snapshot")),
        false => format::SnapshotHeader::read(&file)?.owner,
    };
    let reader = SnapshotReader::new(file, &owner)?;
    Ok((owner, reader))
}

/// Reads the whole snapshot that ends with the entry `last`, and verifies all of its checksums.
pub(super) fn verify(
    folder: &Folder,
    owner: &SnapshotOwner,
    last: EntryId,
) -> Result<SnapshotInfo, StorageError> {
    open(folder, owner, last)?.verify()
}

fn open_file(folder: &Folder, last: EntryId) -> Result<NamedFile, StorageError> {
    folder.open(&name(last)).map_err(|error| match error {
        StorageError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            StorageError::NoSnapshot { path, last }
        }
        other => other,
    })
}
