//! Spares: files that are prepared to become the log's next segments.
//!
//! Filling a file of a segment's size with zeros takes the disk far longer than one write of the
//! log. If the log did that whenever a segment is full, the next writes would wait. There are two
//! ways to avoid the wait:
//!
//! - **A file that has been a segment** becomes the next one without being overwritten. Its sectors
//!   have the marks of an earlier life, so recovery does not take them for new ones: see
//!   [marks](super::sectors). So the log writes each byte only once.
//! - **A new file** is filled with zeros by another thread, as long as there is no old file. The
//!   thread fills a piece each time the log has grown by as much. So it never writes much at once,
//!   and writes nothing while the log does not grow. When the log comes to the end of its segment,
//!   it takes the new file, however much of the file is filled.
//!
//! If there is neither an old nor a new file, the log creates a file itself.
//!
//! All spares have names that end in `.new`, so the next start removes them. They hold no part of
//! the log: the file of an old segment is renamed, and the folder is synced, before the file
//! becomes a spare.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::storage::disk::{Folder, NamedFile, unfinished};
use crate::storage::error::StorageError;

use super::sectors::Marks;
use super::segment::{self, Extent};

/// How many bytes of a prepared file are filled with zeros at a time. A write of the log may have
/// to wait until the disk has written these bytes.
const STEP: u64 = 64 << 10;

/// How many files of old segments are kept at most as spares; further ones are removed.
const KEPT: usize = 16;

/// Prepares the files of the log's next segments, on any thread. Clones prepare the same files.
#[derive(Clone)]
pub struct Spares {
    folder: Folder,
    bytes: u64,
    files: Arc<SpareFiles>,
}

/// The files that wait to become segments, and how far the next one is filled with zeros.
///
/// `wanted` and `done` count bytes over all segments: byte `b` of segment `n` has the number `n *
/// bytes + b`, where `bytes` is the size of a segment.
#[derive(Default)]
struct SpareFiles {
    /// Up to which byte, exclusive, the next segment's file should be filled with zeros by now.
    wanted: AtomicU64,
    /// Up to which byte, exclusive, no more zeros are written: the file is filled up to there, or
    /// the log has begun the segment, or filling the file has failed.
    done: AtomicU64,
    /// The new file that is being filled with zeros, if there is one.
    spare: Mutex<Option<NewFile>>,
    /// The files of old segments, which can become segments again without being filled with zeros.
    used: Mutex<Vec<ReadyFile>>,
}

struct NewFile {
    number: u64,
    file: NamedFile,
    /// How many bytes at the start of the file are durable zeros.
    filled: u64,
}

/// A file that is prepared to become a segment. Its name ends in `.new`.
pub(super) struct ReadyFile {
    pub(super) file: NamedFile,
    /// The length of the file in bytes, which no crash can make shorter.
    pub(super) len: u64,
    /// The marks of the sectors that will be written when the file is a segment.
    pub(super) marks: Marks,
}

impl Spares {
    pub(super) fn new(folder: &Folder, bytes: u64) -> Self {
        Self {
            folder: folder.clone(),
            bytes,
            files: Arc::default(),
        }
    }

    /// Whether zeros have to be written to the next segment's file, so that [`make`](Self::make)
    /// should be called. Never waits.
    pub fn are_wanted(&self) -> bool {
        let SpareFiles { wanted, done, .. } = &*self.files;
        wanted.load(Ordering::SeqCst) > done.load(Ordering::SeqCst)
    }

    /// Fills the next 64 KiB of the next segment's file with zeros, if the log has grown enough.
    ///
    /// # Errors
    /// [`StorageError::Io`]. The file is removed, and is not filled again. The log will create the
    /// segment's file itself, and reports the error if that fails too.
    pub fn make(&self) -> Result<(), StorageError> {
        let mut spare = self.files.spare.lock();
        if !self.are_wanted() {
            return Ok(());
        }
        let number = (self.files.wanted.load(Ordering::SeqCst) - 1) / self.bytes;
        let name = unfinished(&segment::name(number));
        let begun = spare.take().filter(|spare| spare.number == number);
        let filled = self.fill(number, &name, begun);
        // After a failure the file counts as filled, so that filling it is not tried again.
        let up_to = filled.as_ref().map_or(self.bytes, |spare| spare.filled);
        let done = number * self.bytes + up_to;
        self.files.done.store(done, Ordering::SeqCst);
        if filled.is_err() {
            // The disk may be full, and the log needs the space more. If removing fails as well,
            // the next start removes the file.
            let _ = self.folder.remove(&name);
        }
        *spare = Some(filled?);
        Ok(())
    }

    /// Fills the next piece of the file with zeros, and creates the file first if there is none
    /// yet.
    fn fill(
        &self,
        number: u64,
        name: &str,
        begun: Option<NewFile>,
    ) -> Result<NewFile, StorageError> {
        let mut spare = match begun {
            Some(spare) => spare,
            None => {
                let mut file = self.folder.create_unfinished(name)?;
                file.expect_whole_sectors();
                NewFile {
                    number,
                    file,
                    filled: 0,
                }
            }
        };
        let to = self.bytes.min(spare.filled + STEP);
        spare.file.allocate(spare.filled, to)?;
        spare.file.sync()?;
        spare.filled = to;
        Ok(spare)
    }

    /// Computes how far the file of the next segment, `number`, should be filled with zeros, now
    /// that the present segment has been written up to byte `written`. Filling begins when an
    /// eighth of the present segment is written, so that a log that has only begun takes no space
    /// for a second segment. Filling ends when the present segment is full.
    pub(super) fn keep_step(&self, number: u64, written: u64) {
        if !self.files.used.lock().is_empty() {
            return;
        }
        let begin = self.bytes / 8;
        let left = self.bytes - begin;
        let up_to = written.saturating_sub(begin).min(left) * self.bytes / left;
        if up_to > 0 {
            let place = number * self.bytes + up_to;
            self.files.wanted.store(place, Ordering::SeqCst);
        }
    }

    /// Takes a file for segment `number`: the new file if there is one, else the file of an old
    /// segment, else `None`. From then on no zeros are written for this segment. If another thread
    /// is in [`make`](Self::make), this waits until that thread has written its 64 KiB.
    pub(super) fn take(&self, number: u64) -> Option<ReadyFile> {
        let mut spare = self.files.spare.lock();
        let done = (number + 1) * self.bytes;
        self.files.done.store(done, Ordering::SeqCst);
        let spare = spare.take().filter(|spare| spare.number == number);
        let filled = spare.map(|spare| ReadyFile {
            file: spare.file,
            len: spare.filled,
            marks: Marks::of_new_file(self.folder.unique_id()),
        });
        filled.or_else(|| self.files.used.lock().pop())
    }

    /// Keeps the file of a segment that is no longer needed, as a spare. The file is renamed and
    /// the folder is synced, so that the file is durably out of the log before it is overwritten.
    /// Returns false and does nothing if the file has been used as a segment too many times, is
    /// larger than a segment, or if there are enough spares.
    pub(super) fn keep(&self, segment: &Extent) -> Result<bool, StorageError> {
        let Some(marks) = segment.marks.of_next_life() else {
            return Ok(false);
        };
        // Do not keep a file that has grown beyond a segment's size for one large record: it would
        // keep this size for ever.
        if segment.file_bytes > self.bytes || self.files.used.lock().len() >= KEPT {
            return Ok(false);
        }
        let name = segment::name(segment.number);
        self.folder.rename(&name, &unfinished(&name))?;
        self.folder.sync()?;
        let ready = ReadyFile {
            file: self.folder.open(&unfinished(&name))?,
            len: segment.file_bytes,
            marks,
        };
        self.files.used.lock().push(ready);
        Ok(true)
    }
}
