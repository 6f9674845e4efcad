//! The files of the segments that the log will need next: those of segments that nobody needs any
//! more, used once more, or else a new one, filled with zeros while the present segment is written.
//!
//! To fill a segment takes the disk far longer than a write of the log, and whoever waits for that
//! write would wait for both; and each byte of the log would be written twice. So a file that has
//! served goes on to the next segment as it is: by the [marks](super::sectors) of its sectors, what
//! it holds is not taken for something new.
//!
//! As long as there is none, another thread makes a new file ready. It keeps step with the log,
//! piece by piece: a log that grows slowly is not disturbed by much at once, and one that stands
//! still not at all. The log takes the file over when it comes to its end, as far as it is filled;
//! where there is none, it makes its own.
//!
//! All of them have names of unfinished files: a crash at any point
//! leaves nothing that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::storage::disk::{File, Folder, unfinished};
use crate::storage::error::StorageError;

use super::sectors::Marks;
use super::segment::{self, Extent};

/// How much is filled at a time, in bytes: a write of the log may have to wait for as much.
const STEP: u64 = 64 << 10;

/// So many files are kept to be used again; the others are removed.
const KEPT: usize = 16;

/// Makes segments ready for the log of an open folder; for any thread.
#[derive(Clone)]
pub struct Spares {
    folder: Folder,
    bytes: u64,
    shared: Arc<Shared>,
}

/// `wanted` and `done` are places in the files of all segments as if they were one file.
#[derive(Default)]
struct Shared {
    /// Up to here the files should be filled.
    wanted: AtomicU64,
    /// Up to here they are, or need not be any more.
    done: AtomicU64,
    /// The file that is being filled, or is ready.
    spare: Mutex<Option<Spare>>,
    /// Files that have served.
    used: Mutex<Vec<Ready>>,
}

struct Spare {
    number: u64,
    file: File,
    /// Up to here it is durably zero.
    filled: u64,
}

/// A file for a segment, under a name of an unfinished one.
pub(in crate::storage) struct Ready {
    pub(in crate::storage) file: File,
    /// Up to here it is there, durably.
    pub(in crate::storage) len: u64,
    /// With what the sectors will be marked that are written from now on.
    pub(in crate::storage) marks: Marks,
}

impl Spares {
    pub(in crate::storage) fn new(folder: &Folder, bytes: u64) -> Self {
        Self {
            folder: folder.clone(),
            bytes,
            shared: Arc::default(),
        }
    }

    /// Whether there is something to [`make`](Self::make). Never waits.
    pub fn are_wanted(&self) -> bool {
        let Shared { wanted, done, .. } = &*self.shared;
        wanted.load(Ordering::SeqCst) > done.load(Ordering::SeqCst)
    }

    /// Makes a little more of the next segment's file ready, if it is wanted.
    ///
    /// # Errors
    /// [`StorageError::Io`]. It is not tried again: the log will make its own file, or fail at it.
    pub fn make(&self) -> Result<(), StorageError> {
        let mut spare = self.shared.spare.lock();
        if !self.are_wanted() {
            return Ok(());
        }
        let number = (self.shared.wanted.load(Ordering::SeqCst) - 1) / self.bytes;
        let name = unfinished(&segment::name(number));
        let begun = spare.take().filter(|spare| spare.number == number);
        let filled = self.fill(number, &name, begun);
        // After a failure, none of it is made any more.
        let up_to = filled.as_ref().map_or(self.bytes, |spare| spare.filled);
        let done = number * self.bytes + up_to;
        self.shared.done.store(done, Ordering::SeqCst);
        if filled.is_err() {
            // What it holds would take the space that there is too little of.
            let _ = self.folder.remove(&name);
        }
        *spare = Some(filled?);
        Ok(())
    }

    /// Fills a little more of the file; begins it first if it was not begun.
    fn fill(&self, number: u64, name: &str, begun: Option<Spare>) -> Result<Spare, StorageError> {
        let mut spare = match begun {
            Some(spare) => spare,
            None => {
                let mut file = self.folder.create_unfinished(name)?;
                file.expect_whole_sectors();
                Spare {
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

    /// The segment before `number` is written up to there: that one will be needed next. A log that
    /// has only begun needs none yet.
    pub(in crate::storage) fn keep_step(&self, number: u64, written: u64) {
        if !self.shared.used.lock().is_empty() {
            return;
        }
        let begin = self.bytes / 8;
        let left = self.bytes - begin;
        let up_to = written.saturating_sub(begin).min(left) * self.bytes / left;
        if up_to > 0 {
            let place = number * self.bytes + up_to;
            self.shared.wanted.store(place, Ordering::SeqCst);
        }
    }

    /// A file for this segment. One that was not begun to be filled by now, will not be. Waits for
    /// no more than one step.
    pub(in crate::storage) fn take(&self, number: u64) -> Option<Ready> {
        let mut spare = self.shared.spare.lock();
        let done = (number + 1) * self.bytes;
        self.shared.done.store(done, Ordering::SeqCst);
        let spare = spare.take().filter(|spare| spare.number == number);
        let filled = spare.map(|spare| Ready {
            file: spare.file,
            len: spare.filled,
            marks: Marks::of_new_file(self.folder.unique_id()),
        });
        filled.or_else(|| self.shared.used.lock().pop())
    }

    /// Keeps the file of a segment that nobody needs any more, under another name, durably. False
    /// if it is not to be used again; then nothing has happened.
    pub(in crate::storage) fn keep(&self, segment: &Extent) -> Result<bool, StorageError> {
        let Some(marks) = segment.marks.of_next_life() else {
            return Ok(false);
        };
        // One that had to be larger than others would be larger for good.
        if segment.file_bytes > self.bytes || self.shared.used.lock().len() >= KEPT {
            return Ok(false);
        }
        let name = segment::name(segment.number);
        self.folder.rename(&name, &unfinished(&name))?;
        self.folder.sync()?;
        let ready = Ready {
            file: self.folder.open(&unfinished(&name))?,
            len: segment.file_bytes,
            marks,
        };
        self.shared.used.lock().push(ready);
        Ok(true)
    }
}
