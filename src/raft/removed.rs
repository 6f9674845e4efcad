//! Entries that the log has dropped and the caller is to free.

use std::collections::VecDeque;

use super::types::Entry;

/// Entries that the log no longer holds.
///
/// The core hands them out instead of freeing them. There may be very many: the whole log, when a
/// snapshot takes its place. To free them takes long, and a caller that shares the core under a
/// lock frees them after it has released the lock.
#[derive(Debug, Default)]
#[must_use = "to be dropped after the lock is released"]
pub struct Removed(Vec<VecDeque<Entry>>);

impl Removed {
    /// Adds entries in one piece: to move them one by one would take nearly as long as to free
    /// them.
    pub(super) fn add(&mut self, entries: VecDeque<Entry>) {
        if !entries.is_empty() {
            self.0.push(entries);
        }
    }

    /// The entries, in the order in which they were removed.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().flatten()
    }
}
