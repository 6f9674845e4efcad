//! Writes a snapshot of this node's state. The file's name ends in `.new` until the file is
//! complete and durable.

use std::io;
use std::sync::atomic::Ordering;

use crate::raft::SnapshotMeta;
use crate::storage::block::BLOCK;
use crate::storage::disk::{Folder, NamedFile};
use crate::storage::error::StorageError;

use super::format::{Compression, Footer, PIECE_HEADER, SnapshotHeader, compress};
use super::sealed::Sealed;
use super::{SnapshotInfo, Snapshots};

/// Writes the state of a new snapshot, which it is given through [`io::Write`]. The snapshot takes
/// effect once [`finish`](Self::finish) has returned. If the writer is dropped before, the
/// incomplete file is removed.
pub struct SnapshotWriter {
    snapshots: Snapshots,
    temp: UnfinishedFile,
    header: SnapshotHeader,
    footer: Footer,
    /// The bytes of the state that the next piece of the file will hold.
    piece: Vec<u8>,
    /// Buffers for the compressed piece, and for the piece with its header.
    compressed: Vec<u8>,
    record: Vec<u8>,
    /// How many bytes of the snapshot's file have been written.
    at: u64,
    /// Whether an earlier write failed. A piece may be missing in the file then, so it cannot be
    /// completed.
    failed: bool,
}

/// An incomplete snapshot's file, whose name ends in `.new`. The file is removed when this value is
/// dropped, unless [`keep`](Self::keep) has renamed it.
pub(super) struct UnfinishedFile {
    folder: Folder,
    name: String,
    pub(super) file: NamedFile,
    /// How many bytes of the file are synced, and how many more may be written before the next
    /// sync.
    synced: u64,
    sync: u64,
    kept: bool,
}

impl SnapshotWriter {
    pub(super) fn new(snapshots: &Snapshots, meta: SnapshotMeta) -> Result<Self, StorageError> {
        let shared = &snapshots.shared;
        let header = SnapshotHeader {
            owner: shared.owner.clone(),
            meta,
            created_ms: shared.folder.now_ms(),
            salt: shared.folder.unique_id(),
            compression: Compression::Lz4,
        };
        let temp = UnfinishedFile::create(snapshots, snapshots.temp_name("snapshot"))?;
        temp.file.write(&header.seal(), 0)?;
        shared.written.store(BLOCK as u64, Ordering::Relaxed);
        Ok(Self {
            snapshots: snapshots.clone(),
            footer: Footer::of(&header),
            temp,
            header,
            piece: Vec::with_capacity(shared.writing.piece),
            compressed: Vec::new(),
            record: Vec::new(),
            at: BLOCK as u64,
            failed: false,
        })
    }

    /// Makes the snapshot durable and gives its file the final name. Then snapshots older than the
    /// newest two are removed.
    ///
    /// # Errors
    /// [`StorageError::Io`]; [`StorageError::Superseded`] if there is a newer snapshot by now.
    /// After an error this snapshot does not exist. Only if the sync of the folder failed, it may
    /// exist after a restart.
    pub fn finish(self) -> Result<SnapshotInfo, StorageError> {
        self.seal()?.place()
    }

    /// Completes the file, and makes it durable under a name that still ends in `.new`. After a
    /// crash the next start removes the file.
    pub fn seal(mut self) -> Result<Sealed, StorageError> {
        self.end_piece()?;
        self.temp.file.write(&self.footer.seal(), self.at)?;
        self.temp.file.sync()?;
        let info = self.header.info(self.at + BLOCK as u64);
        Ok(Sealed {
            snapshots: self.snapshots,
            temp: self.temp,
            info,
        })
    }

    /// Compresses and writes the piece that has been gathered, if it is not empty.
    fn end_piece(&mut self) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::SnapshotBroken {
                path: self.temp.file.path().to_path_buf(),
            });
        }
        if self.piece.is_empty() {
            return Ok(());
        }
        self.failed = true;
        let state_len = self.piece.len();
        let bytes = compress(&self.piece, &mut self.compressed).unwrap_or(&self.piece);
        let mut header = [0; PIECE_HEADER];
        header[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[4..8].copy_from_slice(&(state_len as u32).to_le_bytes());
        let checksum = self.footer.add(&header[..8], state_len, bytes);
        header[8..].copy_from_slice(&checksum.to_le_bytes());
        self.record.clear();
        self.record.extend_from_slice(&header);
        self.record.extend_from_slice(bytes);
        self.temp.write(&self.record, self.at)?;
        self.at += self.record.len() as u64;
        let written = &self.snapshots.shared.written;
        written.store(self.at, Ordering::Relaxed);
        self.piece.clear();
        self.failed = false;
        Ok(())
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let full = self.snapshots.shared.writing.piece;
        if self.piece.len() == full {
            self.end_piece().map_err(io::Error::other)?;
        }
        let len = bytes.len().min(full - self.piece.len());
        self.piece.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    /// Flushing does nothing, because only [`finish`](SnapshotWriter::finish) makes the snapshot
    /// durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl UnfinishedFile {
    pub(super) fn create(snapshots: &Snapshots, name: String) -> Result<Self, StorageError> {
        let folder = &snapshots.shared.folder;
        Ok(Self {
            file: folder.create_unfinished(&name)?,
            folder: folder.clone(),
            name,
            synced: 0,
            sync: snapshots.shared.writing.sync,
            kept: false,
        })
    }

    /// Writes bytes at offset `at`, and syncs the file if enough has been written since the last
    /// sync.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64) -> Result<(), StorageError> {
        self.file.write(bytes, at)?;
        let end = at + bytes.len() as u64;
        if end - self.synced >= self.sync {
            self.file.sync()?;
            self.synced = end;
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Renames the file to its final name. The folder has to be synced afterwards, because a crash
    /// before that may undo the rename.
    pub(super) fn keep(mut self, name: &str) -> Result<(), StorageError> {
        self.folder.rename(&self.name, name)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if !self.kept {
            // If the file cannot be removed now, the next start removes it.
            let _ = self.folder.remove(&self.name);
        }
    }
}
