//! Files that are made ready to become the next segments.
//!
//! To fill a file of a segment's size with zeros takes the disk far longer than one write of the
//! log takes. If the log did it when a segment is full, the writes behind it would wait. There are
//! two ways around this:
//!
//! - **A file that has been a segment** becomes the next one without being overwritten. Its sectors
//!   have the marks of an earlier life, so recovery does not take them for new ones: see
//!   [marks](super::sectors). The log then writes each byte once only.
//! - **A new file** is filled with zeros by another thread, as long as there is no old one. This
//!   thread keeps step with the log: it fills a piece each time the log has grown by as much. So it
//!   never writes much at once, and writes nothing while the log does not grow. When the log comes
//!   to the end of its segment, it takes the file over, however much of it is filled.
//!
//! If there is no file at all, the log creates one itself.
//!
//! All these files have names that end in `.new`. Whenever a crash comes, the next start removes
//! them, and no part of the log is in them: a file leaves the log durably, by a rename and a sync
//! of the folder, before it is offered here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::storage::disk::{Folder, NamedFile, unfinished};
use crate::storage::error::StorageError;

use super::sectors::Marks;
use super::segment::{self, Extent};

/// How much of a file is filled at a time, in bytes. A write of the log may have to wait until the
/// disk has written so much.
const STEP: u64 = 64 << 10;

/// How many files of old segments are kept at most; the others are removed.
const KEPT: usize = 16;

/// Makes the files of the log's next segments ready. Clones work on the same files, on any thread.
#[derive(Clone)]
pub struct Spares {
    folder: Folder,
    bytes: u64,
    files: Arc<SpareFiles>,
}

/// The files that wait to become segments, and how far the next one is filled.
///
/// `wanted` and `done` count bytes over all segments: byte `b` of segment `n` has the number
/// `n * bytes + b`, where `bytes` is the size of a segment.
#[derive(Default)]
struct SpareFiles {
    /// Up to here, exclusive, the files should be filled.
    wanted: AtomicU64,
    /// Up to here, exclusive, they are filled, or need not be filled any more because the log has
    /// reached that segment or filling it has failed.
    done: AtomicU64,
    /// The new file that is being filled, if one was begun.
    spare: Mutex<Option<NewFile>>,
    /// The files of old segments.
    used: Mutex<Vec<ReadyFile>>,
}

struct NewFile {
    number: u64,
    file: NamedFile,
    /// How many bytes from the start are zeros, durably.
    filled: u64,
}

/// A file that can become a segment. Its name ends in `.new`.
pub(super) struct ReadyFile {
    pub(super) file: NamedFile,
    /// How long the file is, durably.
    pub(super) len: u64,
    /// The marks of the life that begins when the file becomes a segment.
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

    /// Whether [`make`](Self::make) would do something. Never waits.
    pub fn are_wanted(&self) -> bool {
        let SpareFiles { wanted, done, .. } = &*self.files;
        wanted.load(Ordering::SeqCst) > done.load(Ordering::SeqCst)
    }

    /// Fills one more step of the next segment's file, if the log has grown enough to want it.
    ///
    /// # Errors
    /// [`StorageError::Io`]. The file is removed and not begun again: the log will create its own,
    /// and report the error if that fails too.
    pub fn make(&self) -> Result<(), StorageError> {
        let mut spare = self.files.spare.lock();
        if !self.are_wanted() {
            return Ok(());
        }
        let number = (self.files.wanted.load(Ordering::SeqCst) - 1) / self.bytes;
        let name = unfinished(&segment::name(number));
        let begun = spare.take().filter(|spare| spare.number == number);
        let filled = self.fill(number, &name, begun);
        // After a failure the segment counts as done, so that nobody tries again.
        let up_to = filled.as_ref().map_or(self.bytes, |spare| spare.filled);
        let done = number * self.bytes + up_to;
        self.files.done.store(done, Ordering::SeqCst);
        if filled.is_err() {
            // The disk may be full: the log needs the space more. If removing fails as well, the
            // next start removes the file.
            let _ = self.folder.remove(&name);
        }
        *spare = Some(filled?);
        Ok(())
    }

    /// Fills one more step of the file; creates it first if it was not begun.
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

    /// Tells how far the log has come: the segment before `number` is written up to byte `written`.
    /// Sets how far segment `number` should be filled by now. Nothing is wanted before an eighth of
    /// the present segment is written, so that a log that has only begun takes no space for a
    /// second segment; from there on, filling ends when the present segment does.
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

    /// Takes a file for segment `number`: the new one if it was begun, else one of an old segment,
    /// else `None`. From now on nothing is filled for this segment. Waits for at most one step of
    /// [`make`](Self::make).
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

    /// Keeps the file of a segment that is no longer needed: renames it and syncs the folder, so
    /// that it is no part of the log any more when it is overwritten. Returns false, and does
    /// nothing, if the file has had its last life, is larger than a segment, or enough are kept.
    pub(super) fn keep(&self, segment: &Extent) -> Result<bool, StorageError> {
        let Some(marks) = segment.marks.of_next_life() else {
            return Ok(false);
        };
        // A file that grew beyond a segment's size for one large record would keep that size.
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
