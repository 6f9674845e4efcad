//! Reads a snapshot back. Each piece is verified before any byte of it is returned.

use std::io;

use crate::storage::block::BLOCK;
use crate::storage::disk::NamedFile;
use crate::storage::error::StorageError;

use super::SnapshotInfo;
use super::format::{
    Footer, PIECE, PIECE_HEADER, SnapshotHeader, SnapshotOwner, damaged, decompress,
};

/// Reads the state from a snapshot, through [`io::Read`].
///
/// All of the state can be read even if the snapshot's file is removed meanwhile. If the file is
/// damaged, reading ends with an error that wraps a [`StorageError`], before the first byte of an
/// invalid piece. If pieces are missing, reading ends with such an error instead of an end of file.
pub struct SnapshotReader {
    file: NamedFile,
    info: SnapshotInfo,
    /// The footer of the file, which is read before the first piece.
    footer: Footer,
    /// The footer computed from the pieces that have been read. After the last piece it must equal
    /// `footer`.
    so_far: Footer,
    /// Where in the file the next piece starts, and where the last piece ends: `at <= end`, in
    /// bytes.
    at: u64,
    end: u64,
    piece: Vec<u8>,
    /// How many bytes of the present piece have been returned to the caller of `read`.
    taken: usize,
}

impl SnapshotReader {
    pub(super) fn new(file: NamedFile, owner: &SnapshotOwner) -> Result<Self, StorageError> {
        let len = file.len()?;
        let block = BLOCK as u64;
        if len < 2 * block {
            return Err(damaged(&file, len, "its end is missing"));
        }
        let header = SnapshotHeader::read(&file)?;
        if let Some(problem) = header.stranger(owner) {
            return Err(damaged(&file, 0, problem));
        }
        Ok(Self {
            info: header.info(len),
            footer: Footer::read(&file, len)?,
            so_far: Footer::of(&header),
            at: block,
            end: len - block,
            piece: Vec::new(),
            taken: 0,
            file,
        })
    }

    /// The last entry, the length and the time of writing of the snapshot.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Reads and verifies the next piece, from the disk and not from what the kernel remembers of
    /// the file. Returns how many bytes the piece takes; `None` at the end of a whole snapshot.
    pub(in crate::storage) fn verify_next(&mut self) -> Result<Option<u64>, StorageError> {
        let (at, most) = (self.at, (PIECE_HEADER + PIECE) as u64);
        self.file.forget(at, most);
        let is_there = self.next_piece();
        self.file.forget(at, most);
        Ok(is_there?.then(|| self.at - at))
    }

    /// Reads the rest of the snapshot and verifies every piece of it.
    pub(in crate::storage) fn verify(mut self) -> Result<SnapshotInfo, StorageError> {
        while self.next_piece()? {}
        Ok(self.info)
    }

    /// Reads and verifies the next piece, which replaces the present one. Returns false at the end
    /// of the state; an error if the footer does not match the pieces.
    fn next_piece(&mut self) -> Result<bool, StorageError> {
        let bad = |problem: &str| damaged(&self.file, self.at, problem);
        if self.at == self.end {
            let whole = self.so_far == self.footer;
            return match whole {
                true => Ok(false),
                false => Err(bad("its end does not fit what precedes it")),
            };
        }
        let start = self.at + PIECE_HEADER as u64;
        if start > self.end {
            return Err(bad("a piece is cut off"));
        }
        let mut header = [0; PIECE_HEADER];
        self.file.read(&mut header, self.at)?;
        let [len, state_len, checksum] =
            [0, 4, 8].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i])));
        let end = start + u64::from(len);
        let state_len = state_len as usize;
        if len == 0 || len as usize > state_len || state_len > PIECE || end > self.end {
            return Err(bad("the length of a piece makes no sense"));
        }
        self.piece.clear();
        self.taken = 0;
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(len as usize, 0);
        self.file.read(&mut piece, start)?;
        let mut so_far = self.so_far;
        let fits = so_far.add(&header[..8], state_len, &piece) == checksum;
        if !fits {
            let problem = "the checksum of a piece does not match its contents";
            return Err(damaged(&self.file, self.at, problem));
        }
        if piece.len() < state_len {
            piece = decompress(&piece, state_len)
                .map_err(|problem| damaged(&self.file, self.at, problem))?;
        }
        (self.piece, self.so_far, self.at) = (piece, so_far, end);
        Ok(true)
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.taken == self.piece.len() && !self.next_piece().map_err(io::Error::other)? {
            return Ok(0);
        }
        let rest = &self.piece[self.taken..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.taken += len;
        Ok(len)
    }
}
