//! The next segment's file, filled with zeros while the present segment is being written.
//!
//! To fill a segment takes the disk far longer than a write of the log, and whoever waits for that
//! write would wait for both. So another thread makes the file ready, under the name that
//! [`Folder::create`](super::folder::Folder::create) gives to what is not finished: a crash at any
//! point leaves nothing that counts. It keeps step with the log, piece by piece: a log that grows
//! slowly is not disturbed by much at once, and one that stands still not at all. The log takes the
//! file over when it comes to its end, as far as it is filled; where there is none, it makes its
//! own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::StorageError;
use super::folder::{File, Folder, unfinished};
use super::segment;

/// How much is filled at a time, in bytes: a write of the log may have to wait for as much.
const STEP: u64 = 64 << 10;

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
}

struct Spare {
    number: u64,
    file: File,
    /// Up to here it is durably zero.
    filled: u64,
}

impl Spares {
    pub(super) fn new(folder: &Folder, bytes: u64) -> Self {
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
            None => Spare {
                number,
                file: self.folder.create_unfinished(name)?,
                filled: 0,
            },
        };
        let to = self.bytes.min(spare.filled + STEP);
        spare.file.allocate(spare.filled, to)?;
        spare.file.sync()?;
        spare.filled = to;
        Ok(spare)
    }

    /// The segment before `number` is written up to there: that one will be needed next. A log that
    /// has only begun needs none yet.
    pub(super) fn keep_step(&self, number: u64, written: u64) {
        let begin = self.bytes / 8;
        let left = self.bytes - begin;
        let up_to = written.saturating_sub(begin).min(left) * self.bytes / left;
        if up_to > 0 {
            let place = number * self.bytes + up_to;
            self.shared.wanted.store(place, Ordering::SeqCst);
        }
    }

    /// The file of this segment, all zeros, and how long it is by now. If it was not begun, it will
    /// not be. Waits for no more than one step.
    pub(super) fn take(&self, number: u64) -> Option<(File, u64)> {
        let mut spare = self.shared.spare.lock();
        let done = (number + 1) * self.bytes;
        self.shared.done.store(done, Ordering::SeqCst);
        let spare = spare.take()?;
        (spare.number == number).then_some((spare.file, spare.filled))
    }
}
