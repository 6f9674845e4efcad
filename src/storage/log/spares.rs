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
//! Here a full disk is noticed first, while the present segment still has room: see
//! [`Spares::shortage`]. The node takes no new commands then, and what is on its way still fits.
//!
//! All spares have names that end in `.new`, so the next start removes them. They hold no part of
//! the log: the file of an old segment is renamed, and the folder is synced, before the file
//! becomes a spare.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::storage::block::BLOCK;
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
    /// Set after a lack of space, until somebody says to [try again](Spares::try_again).
    rests: AtomicBool,
    /// Set while the log itself waits for space: then no spare takes any of it.
    log_waits: AtomicBool,
    /// The error that showed the lack of space; `None` as long as there was none. It ends when a
    /// whole segment is ready: so the node does not go back and forth with every 64 KiB.
    shortage: Mutex<Option<String>>,
    /// The new file that is being filled with zeros, if there is one.
    spare: Mutex<Option<NewFile>>,
    /// The files of old segments, which can become segments again without being filled with zeros.
    used: Mutex<Vec<ReadyFile>>,
}

/// A disk is full: there is no space for the log's next segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Which file cannot grow, why, and what the operator can do.
    pub reason: String,
    /// Whether the log already waits for space to write its next record. If not, the present
    /// segment still has room for the entries that are on their way.
    pub log_waits: bool,
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
        let files = &*self.files;
        let missing = files.wanted.load(Ordering::SeqCst) > files.done.load(Ordering::SeqCst);
        missing && !files.rests.load(Ordering::SeqCst)
    }

    /// The lack of space for the next segment, if there is one. It is noticed when the next segment
    /// is made ready, before the present one is full.
    pub fn shortage(&self) -> Option<Shortage> {
        let reason = self.files.shortage.lock().clone()?;
        let log_waits = self.files.log_waits.load(Ordering::SeqCst);
        Some(Shortage { reason, log_waits })
    }

    /// After a lack of space: lets [`make`](Self::make) look whether there is space now. Called now
    /// and then, for nobody tells when a disk has space again. While the log itself waits, it looks
    /// first.
    pub fn try_again(&self) {
        if !self.files.log_waits.load(Ordering::SeqCst) {
            self.files.rests.store(false, Ordering::SeqCst);
        }
    }

    /// Fills the next 64 KiB of the next segment's file with zeros, if the log has grown enough.
    /// After a lack of space, fills the whole file, in as many calls.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] if the disk is full: there is a [`shortage`](Self::shortage) from
    /// now on. [`StorageError::Io`]: the file is removed, and is not filled again. The log will
    /// create the segment's file itself, and reports the error if that fails too.
    pub fn make(&self) -> Result<(), StorageError> {
        let mut spare = self.files.spare.lock();
        if !self.are_wanted() {
            return Ok(());
        }
        let number = (self.files.wanted.load(Ordering::SeqCst) - 1) / self.bytes;
        let name = unfinished(&segment::name(number));
        if spare.as_ref().is_some_and(|spare| spare.number != number) {
            *spare = None;
        }
        match self.fill(number, &name, &mut spare) {
            Ok(filled) => {
                let done = number * self.bytes + filled;
                self.files.done.store(done, Ordering::SeqCst);
                if filled == self.bytes {
                    self.files.shortage.lock().take();
                }
                Ok(())
            }
            Err(error @ StorageError::NoSpace { .. }) => {
                self.note_shortage(number, &error);
                Err(error)
            }
            Err(error) => {
                // The file counts as filled, so that filling it is not tried again.
                let done = (number + 1) * self.bytes;
                self.files.done.store(done, Ordering::SeqCst);
                // If removing fails as well, the next start removes the file.
                *spare = None;
                let _ = self.folder.remove(&name);
                Err(error)
            }
        }
    }

    /// Fills the next piece of the file with zeros, and creates the file first if there is none
    /// yet. Returns up to where the file is filled.
    fn fill(
        &self,
        number: u64,
        name: &str,
        spare: &mut Option<NewFile>,
    ) -> Result<u64, StorageError> {
        let spare = match spare {
            Some(spare) => spare,
            None => {
                let created = self.folder.create_unfinished(name);
                let mut file = created.map_err(StorageError::or_no_space)?;
                file.expect_whole_sectors();
                spare.insert(NewFile {
                    number,
                    file,
                    filled: 0,
                })
            }
        };
        let to = self.bytes.min(spare.filled + STEP);
        let allocated = spare.file.allocate(spare.filled, to);
        allocated.map_err(StorageError::or_no_space)?;
        spare.file.sync()?;
        spare.filled = to;
        Ok(to)
    }

    /// There is no space for the file of segment `number`. From now on all of that file is wanted,
    /// and the shortage ends when all of it is there.
    fn note_shortage(&self, number: u64, error: &StorageError) {
        let files = &*self.files;
        let all = (number + 1) * self.bytes;
        files.wanted.fetch_max(all, Ordering::SeqCst);
        files.rests.store(true, Ordering::SeqCst);
        *files.shortage.lock() = Some(error.to_string());
    }

    /// The log has no space for its next record; `next` is the number of the segment after the
    /// present one.
    pub(super) fn log_waits(&self, next: u64, error: &StorageError) {
        self.files.log_waits.store(true, Ordering::SeqCst);
        self.note_shortage(next, error);
    }

    /// The log has space for its next record. If it waited for that, the shortage goes on until a
    /// whole segment is ready.
    pub(super) fn log_goes_on(&self) {
        if self.files.log_waits.swap(false, Ordering::SeqCst) {
            self.end_shortage_if_files_are_kept();
        }
    }

    /// Files of old segments need no more space.
    fn end_shortage_if_files_are_kept(&self) {
        let log_waits = self.files.log_waits.load(Ordering::SeqCst);
        if !log_waits && !self.files.used.lock().is_empty() {
            self.files.shortage.lock().take();
        }
    }

    /// Removes the new file, or the file of an old segment, if there is one: the log needs its
    /// space more. Returns whether there was one. If another thread is in [`make`](Self::make),
    /// this waits until that is over.
    pub(super) fn release(&self) -> bool {
        let Some(spare) = self.files.spare.lock().take() else {
            let used = self.files.used.lock().pop();
            let path = used.as_ref().map(|ready| ready.file.path());
            let name = path.and_then(|path| path.file_name());
            return name.is_some_and(|name| self.folder.remove(&name.to_string_lossy()).is_ok());
        };
        let begin = spare.number * self.bytes;
        self.files.done.fetch_min(begin, Ordering::SeqCst);
        let name = unfinished(&segment::name(spare.number));
        self.folder.remove(&name).is_ok()
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
            self.files.wanted.fetch_max(place, Ordering::SeqCst);
        }
    }

    /// Takes a file for segment `number`: the new file if there is one, else the file of an old
    /// segment, else `None`. From then on no zeros are written for this segment. If another thread
    /// is in [`make`](Self::make), this waits until that thread has written its 64 KiB.
    pub(super) fn take(&self, number: u64) -> Option<ReadyFile> {
        let mut spare = self.files.spare.lock();
        let done = (number + 1) * self.bytes;
        self.files.done.store(done, Ordering::SeqCst);
        if self.files.shortage.lock().is_some() {
            // It goes on until the segment after this one is ready as a whole.
            let all = (number + 2) * self.bytes;
            self.files.wanted.fetch_max(all, Ordering::SeqCst);
        }
        // A file in which not even the header has durable space is of no use: the log makes one of
        // the same name anew.
        let is_ready = |spare: &NewFile| spare.number == number && spare.filled >= BLOCK as u64;
        let spare = spare.take().filter(is_ready);
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
        self.end_shortage_if_files_are_kept();
        Ok(true)
    }
}
