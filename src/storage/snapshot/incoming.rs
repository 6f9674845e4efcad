//! Receives a snapshot from another node, chunk by chunk.

use crate::raft::SnapshotMeta;
use crate::storage::block::BLOCK;
use crate::storage::error::StorageError;

use super::format::SnapshotHeader;
use super::reader::SnapshotReader;
use super::sealed::Sealed;
use super::writer::UnfinishedFile;
use super::{SnapshotInfo, Snapshots};

/// A snapshot that this node is receiving from another node. The chunks of the sender's file are
/// written to an incomplete file, in order.
///
/// The snapshot takes effect only when [`finish`](Self::finish) has verified all of it. If this
/// value is dropped before, or another transfer begins, the incomplete file is removed.
pub struct Incoming {
    snapshots: Snapshots,
    /// The number of this transfer. Once another transfer has begun, this number is no longer the
    /// current one, and this transfer ends with an error.
    number: u64,
    temp: UnfinishedFile,
    meta: SnapshotMeta,
    /// How many bytes the whole file has, and how many of them have arrived: `next <= bytes`.
    bytes: u64,
    next: u64,
}

impl Incoming {
    pub(super) fn new(
        snapshots: &Snapshots,
        meta: SnapshotMeta,
        bytes: u64,
    ) -> Result<Self, StorageError> {
        let number = snapshots.next_number();
        let name = snapshots.temp_name("incoming");
        let temp = UnfinishedFile::create(snapshots, name.clone())?;
        let before = snapshots.shared.receiving.lock().replace((number, name));
        if let Some((_, before)) = before {
            // Failing to remove the file is harmless: the file may have been removed already, and
            // if it stays, the next start removes it.
            let _ = snapshots.shared.folder.remove(&before);
        }
        Ok(Self {
            snapshots: snapshots.clone(),
            number,
            temp,
            meta,
            bytes,
            next: 0,
        })
    }

    /// The last entry and members of the snapshot that is being received, as its sender announced
    /// them.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Where the next chunk must start, in bytes from the start of the snapshot's file.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Writes a chunk of the file, and returns where the next chunk must start. A chunk that starts
    /// anywhere else is dropped: it is a duplicate, or an earlier chunk was lost. Dropping it is
    /// safe, because the sender learns from the reply which chunk must come next.
    ///
    /// # Errors
    /// [`StorageError::Transfer`] if the bytes are not those of the announced snapshot, or another
    /// transfer has begun; [`StorageError::Io`]. After any error the transfer has to start over.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, StorageError> {
        self.check_current()?;
        if offset != self.next {
            return Ok(self.next);
        }
        if bytes.len() as u64 > self.bytes - self.next {
            let problem = format!("it goes on after the {} bytes announced", self.bytes);
            return Err(self.failed(problem));
        }
        self.temp.write(bytes, offset)?;
        self.next += bytes.len() as u64;
        if offset < BLOCK as u64 && self.next >= BLOCK as u64 {
            let header =
                SnapshotHeader::read(&self.temp.file).map_err(|error| self.refused(&error))?;
            self.check_header(&header)?;
        }
        Ok(self.next)
    }

    /// Verifies the whole snapshot, makes it durable and gives its file the final name. Then
    /// snapshots older than the newest two are removed.
    ///
    /// # Errors
    /// [`StorageError::Transfer`] if the snapshot is incomplete or damaged;
    /// [`StorageError::Superseded`] if there is a newer one by now; [`StorageError::Io`]. After an
    /// error this snapshot does not exist. Only if the sync of the folder failed, it may exist
    /// after a restart.
    pub fn finish(self) -> Result<SnapshotInfo, StorageError> {
        self.seal()?.place()
    }

    /// Verifies the whole snapshot, and makes its file durable, under a name that still ends in
    /// `.new`. After a crash the next start removes the file.
    pub fn seal(self) -> Result<Sealed, StorageError> {
        self.check_current()?;
        if self.next != self.bytes {
            let problem = format!("only {} of {} bytes arrived", self.next, self.bytes);
            return Err(self.failed(problem));
        }
        self.temp.file.sync()?;
        let folder = &self.snapshots.shared.folder;
        let file = folder.open(self.temp.name())?;
        let verified = SnapshotReader::new(file, &self.snapshots.shared.owner)
            .and_then(SnapshotReader::verify)
            .map_err(|error| self.refused(&error))?;
        if verified.meta != self.meta {
            return Err(self.failed("it is not the snapshot that was announced".into()));
        }
        Ok(Sealed {
            snapshots: self.snapshots,
            temp: self.temp,
            info: verified,
        })
    }

    fn check_header(&self, header: &SnapshotHeader) -> Result<(), StorageError> {
        if let Some(problem) = header.stranger(&self.snapshots.shared.owner) {
            return Err(self.failed(problem));
        }
        if header.meta != self.meta {
            return Err(self.failed("it is not the snapshot that was announced".into()));
        }
        Ok(())
    }

    fn check_current(&self) -> Result<(), StorageError> {
        let receiving = self.snapshots.shared.receiving.lock();
        let current = receiving.as_ref().map(|(number, _)| *number);
        match current == Some(self.number) {
            true => Ok(()),
            false => Err(self.failed("another transfer has begun".into())),
        }
    }

    /// Turns an error about the file's contents into an error about the transfer. The file came
    /// from another node, so the operator should not be told that this node's disk is damaged.
    fn refused(&self, error: &StorageError) -> StorageError {
        match error {
            StorageError::Damaged {
                problem, offset, ..
            } => self.failed(format!("{problem}, at offset {offset}")),
            StorageError::WrongFolder { problem, .. } => self.failed(problem.clone()),
            other => self.failed(other.to_string()),
        }
    }

    fn failed(&self, problem: String) -> StorageError {
        StorageError::Transfer {
            last: self.meta.last,
            problem,
        }
    }
}
