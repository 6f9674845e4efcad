//! When a node takes a snapshot of its state.

/// A snapshot that is being written is late when this fraction (one part in so many) of the log
/// that makes the next one due has been applied. A late snapshot should be written without rests:
/// until it is done, each part of the state that changes is in memory twice.
const LATE: u64 = 16;

/// Counts the bytes of entries that were applied since the last snapshot.
#[derive(Debug)]
pub(super) struct SnapshotDue {
    /// At least so many bytes of entries make a snapshot due; `None`: it is due only when asked
    /// for.
    log_bytes: Option<u64>,
    /// How large the last snapshot was, in bytes. The next one is not due before as much log has
    /// been applied: otherwise, as the store grows, snapshots would take a growing share of all
    /// writes.
    last_bytes: u64,
    applied: u64,
    under_way: bool,
    /// A client, or the core for a follower, has asked for a snapshot.
    wanted: bool,
}

impl SnapshotDue {
    pub fn new(log_bytes: Option<u64>) -> Self {
        Self {
            log_bytes,
            last_bytes: 0,
            applied: 0,
            under_way: false,
            wanted: false,
        }
    }

    /// Entries of this weight, in bytes, are being applied.
    pub fn applied(&mut self, bytes: usize) {
        self.applied += bytes as u64;
    }

    pub fn is_due(&self) -> bool {
        let enough = self.enough();
        !self.under_way && (self.wanted || enough.is_some_and(|bytes| self.applied >= bytes))
    }

    /// Whether the snapshot that is being written should soon be done.
    pub fn is_late(&self) -> bool {
        let enough = self.enough();
        self.under_way && enough.is_some_and(|bytes| self.applied >= bytes.div_ceil(LATE))
    }

    /// How many bytes of applied entries make a snapshot due; `None` if it is due only when asked
    /// for.
    fn enough(&self) -> Option<u64> {
        let bytes = self.log_bytes?;
        // At least one byte: with a threshold of 0 and nothing applied, there is nothing to save.
        Some(bytes.max(self.last_bytes).max(1))
    }

    /// Whether a snapshot is being taken, or asked for.
    pub fn is_pending(&self) -> bool {
        self.under_way || self.wanted
    }

    pub fn want(&mut self) {
        self.wanted = true;
    }

    pub fn begun(&mut self) {
        self.under_way = true;
        self.wanted = false;
        self.applied = 0;
    }

    /// A snapshot of this size, in bytes, is on disk.
    pub fn taken(&mut self, bytes: u64) {
        self.under_way = false;
        self.last_bytes = bytes;
    }

    /// A snapshot of this size, in bytes, has come from the leader.
    pub fn installed(&mut self, bytes: u64) {
        self.last_bytes = bytes;
        self.applied = 0;
    }

    pub fn failed(&mut self) {
        self.under_way = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_after_as_much_log_as_the_last_one_was_large() {
        let mut due = SnapshotDue::new(Some(100));
        due.applied(99);
        assert!(!due.is_due());
        due.applied(1);
        assert!(due.is_due());
        due.begun();
        due.applied(6);
        assert!(!due.is_late());
        due.applied(1);
        assert!(due.is_late());
        due.applied(993);
        assert!(!due.is_due(), "one is under way");
        due.taken(2000);
        assert!(!due.is_due());
        due.applied(1000);
        assert!(due.is_due());
    }

    #[test]
    fn without_anything_new_none_is_due() {
        let mut due = SnapshotDue::new(Some(0));
        assert!(!due.is_due());
        due.applied(1);
        assert!(due.is_due());
    }

    #[test]
    fn without_a_threshold_one_is_due_only_when_wanted() {
        let mut due = SnapshotDue::new(None);
        due.applied(usize::MAX / 2);
        assert!(!due.is_due());
        due.want();
        assert!(due.is_due());
        due.begun();
        due.failed();
        assert!(!due.is_due());
    }
}
