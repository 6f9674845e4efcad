//! Writing a snapshot, under a name of its own until it is complete and durable.

use std::io;

use crate::raft::SnapshotMeta;

use super::super::block::BLOCK;
use super::super::error::StorageError;
use super::super::folder::{File, Folder};
use super::format::{Compression, Footer, Header, PIECE, PIECE_HEADER};
use super::{SnapshotInfo, Snapshots};

/// The file is synced each time so many bytes more have been written. Were all of it left to one
/// sync at the end, the log's syncs would have to wait behind it.
const SYNC_BYTES: u64 = 4 << 20;

/// Takes the state of a new snapshot through [`io::Write`]. The snapshot is there once
/// [`finish`](Self::finish) has returned; dropped before, nothing of it remains.
pub struct SnapshotWriter {
    snapshots: Snapshots,
    temp: Temp,
    header: Header,
    footer: Footer,
    /// The piece that is being filled, with room for its header.
    piece: Vec<u8>,
    /// How many bytes of the file are written, and how many are synced.
    at: u64,
    synced: u64,
    /// An earlier write failed, so the file has a gap.
    failed: bool,
}

/// A file that goes when it is dropped, unless it was kept under another name.
pub(super) struct Temp {
    folder: Folder,
    name: String,
    pub(super) file: File,
    kept: bool,
}

impl SnapshotWriter {
    pub(super) fn new(snapshots: &Snapshots, meta: SnapshotMeta) -> Result<Self, StorageError> {
        let shared = &snapshots.shared;
        let header = Header {
            owner: shared.owner.clone(),
            meta,
            created_ms: shared.folder.now_ms(),
            salt: shared.folder.unique_id(),
            compression: Compression::None,
        };
        let temp = Temp::create(&shared.folder, snapshots.temp_name("snapshot"))?;
        temp.file.write(&header.seal(), 0)?;
        Ok(Self {
            snapshots: snapshots.clone(),
            footer: Footer::of(&header),
            temp,
            header,
            piece: vec![0; PIECE_HEADER],
            at: BLOCK as u64,
            synced: 0,
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
    pub fn finish(mut self) -> Result<SnapshotInfo, StorageError> {
        self.end_piece()?;
        self.temp.file.write(&self.footer.seal(), self.at)?;
        self.temp.file.sync()?;
        let info = self.header.info(self.at + BLOCK as u64);
        self.snapshots.place(self.temp, info)
    }

    /// Writes the piece, if there is anything in it.
    fn end_piece(&mut self) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::SnapshotBroken {
                path: self.temp.file.path().to_path_buf(),
            });
        }
        let len = self.piece.len() - PIECE_HEADER;
        if len == 0 {
            return Ok(());
        }
        self.failed = true;
        let (header, bytes) = self.piece.split_at_mut(PIECE_HEADER);
        header[..4].copy_from_slice(&(len as u32).to_le_bytes());
        header[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        let checksum = self.footer.add(&header[..8], len, bytes);
        header[8..].copy_from_slice(&checksum.to_le_bytes());
        self.temp.file.write(&self.piece, self.at)?;
        self.at += self.piece.len() as u64;
        if self.at - self.synced >= SYNC_BYTES {
            self.temp.file.sync()?;
            self.synced = self.at;
        }
        self.piece.truncate(PIECE_HEADER);
        self.failed = false;
        Ok(())
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_HEADER + PIECE {
            self.end_piece().map_err(io::Error::other)?;
        }
        let len = bytes.len().min(PIECE_HEADER + PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    /// Does nothing: only [`finish`](SnapshotWriter::finish) makes anything durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Temp {
    pub(super) fn create(folder: &Folder, name: String) -> Result<Self, StorageError> {
        Ok(Self {
            file: folder.create_unfinished(&name)?,
            folder: folder.clone(),
            name,
            kept: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the file its name. What remains to do is to sync the folder.
    pub(super) fn keep(mut self, name: &str) -> Result<(), StorageError> {
        self.folder.rename(&self.name, name)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.kept {
            // If it cannot be removed now, the next start does.
            let _ = self.folder.remove(&self.name);
        }
    }
}
