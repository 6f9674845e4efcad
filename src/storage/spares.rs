//! The next segment's file, filled with zeros while the present segment is being written.
//!
//! To fill a segment takes the disk far longer than a write of the log, and whoever waits for that
//! write would wait for both. So another thread makes the file ready, under the name that
//! [`Folder::create`](super::folder::Folder::create) gives to what is not finished: a crash at any
//! point leaves nothing that counts. The log takes it over when it comes to its end; where there is
//! none, it makes its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::StorageError;
use super::folder::{File, Folder, unfinished};
use super::segment;

/// How much is written between two syncs, in bytes: little enough that a write of the log, which
/// waits for the same disk, comes in between.
const STEP: u64 = 256 << 10;

/// Makes segments ready for the log of an open folder; for any thread.
#[derive(Clone)]
pub struct Spares {
    folder: Folder,
    bytes: u64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The number of the segment that will be needed next; 0 as long as there is time.
    wanted: AtomicU64,
    /// The number of the last segment that was begun to be made.
    begun: AtomicU64,
    /// Locked while a file is made, so that nobody takes one that is not ready.
    ready: Mutex<Option<(u64, File)>>,
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
        let Shared { wanted, begun, .. } = &*self.shared;
        wanted.load(Ordering::SeqCst) > begun.load(Ordering::SeqCst)
    }

    /// Makes the next segment's file ready, if it is wanted and was not begun before. Takes as long
    /// as the disk does.
    ///
    /// # Errors
    /// [`StorageError::Io`]. It is not tried again: the log will make its own file, or fail at it.
    pub fn make(&self) -> Result<(), StorageError> {
        let mut ready = self.shared.ready.lock();
        if !self.are_wanted() {
            return Ok(());
        }
        let number = self.shared.wanted.load(Ordering::SeqCst);
        self.shared.begun.store(number, Ordering::SeqCst);
        let name = unfinished(&segment::name(number));
        let made = self.fill(&name);
        if made.is_err() {
            // What it holds would take the space that there is too little of.
            let _ = self.folder.remove(&name);
        }
        *ready = Some((number, made?));
        Ok(())
    }

    fn fill(&self, name: &str) -> Result<File, StorageError> {
        let file = self.folder.create_unfinished(name)?;
        let mut filled = 0;
        while filled < self.bytes {
            let to = self.bytes.min(filled + STEP);
            file.allocate(filled, to)?;
            file.sync()?;
            filled = to;
        }
        Ok(file)
    }

    /// Segment `number` will be needed next.
    pub(super) fn want(&self, number: u64) {
        self.shared.wanted.store(number, Ordering::SeqCst);
    }

    /// The file of this segment, all zeros, and how long it is. Waits while it is being made; if
    /// that was not begun, it will not be.
    pub(super) fn take(&self, number: u64) -> Option<(File, u64)> {
        let mut ready = self.shared.ready.lock();
        self.shared.begun.store(number, Ordering::SeqCst);
        let (made, file) = ready.take()?;
        (made == number).then_some((file, self.bytes))
    }
}
