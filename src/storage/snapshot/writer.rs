//! Writing a snapshot that this node takes, under an unfinished name until it is complete and
//! durable.

use std::io;
use std::sync::atomic::Ordering;

use crate::raft::SnapshotMeta;
use crate::storage::block::BLOCK;
use crate::storage::disk::{Folder, NamedFile};
use crate::storage::error::StorageError;

use super::format::{Compression, Footer, PIECE_HEADER, SnapshotHeader, compress};
use super::sealed::Sealed;
use super::{SnapshotInfo, Snapshots};

/// Takes the state of a new snapshot through [`io::Write`]. The snapshot is there once
/// [`finish`](Self::finish) has returned. If the writer is dropped before, its file is removed.
pub struct SnapshotWriter {
    snapshots: Snapshots,
    temp: UnfinishedFile,
    header: SnapshotHeader,
    footer: Footer,
    /// The part of the state that the next piece will hold.
    piece: Vec<u8>,
    /// Memory for the compressed piece, and for the piece with its header.
    compressed: Vec<u8>,
    record: Vec<u8>,
    /// How many bytes of the file are written.
    at: u64,
    /// An earlier write failed, so a piece may be missing in the file: it cannot be completed.
    failed: bool,
}

/// A file under an unfinished name. It is removed when this is dropped, unless [`keep`](Self::keep)
/// has renamed it.
pub(super) struct UnfinishedFile {
    folder: Folder,
    name: String,
    pub(super) file: NamedFile,
    /// How many bytes are synced, and after how many further bytes the next sync comes.
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

    /// Makes the snapshot durable and puts it in its place; then the ones beyond the newest two are
    /// removed.
    ///
    /// # Errors
    /// [`StorageError::Io`]; [`StorageError::Superseded`] if there is a newer one by now. Then the
    /// snapshot is not there, unless it was the sync of the folder that failed: then it may be
    /// there after a restart.
    pub fn finish(self) -> Result<SnapshotInfo, StorageError> {
        self.seal()?.place()
    }

    /// Completes the file and makes it durable under its unfinished name. A crash after this leaves
    /// a file that the next start removes.
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

    /// Writes the piece that is being filled, if there is anything in it.
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

    /// Does nothing: only [`finish`](SnapshotWriter::finish) makes anything durable.
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

    /// Writes the next bytes.
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

    /// Gives the file its name. The caller syncs the folder: before that, a crash may take the name
    /// back.
    pub(super) fn keep(mut self, name: &str) -> Result<(), StorageError> {
        self.folder.rename(&self.name, name)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if !self.kept {
            // If it cannot be removed now, the next start removes it.
            let _ = self.folder.remove(&self.name);
        }
    }
}
