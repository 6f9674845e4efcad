//! What a replica hands to the state machine, and how much of it a thread takes on at a time.

use bytes::Bytes;

use crate::raft::{Entry, SnapshotMeta};

/// How much work a thread takes on at a time.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// About how many bytes of the log.
    pub log_bytes: usize,
    /// Which kinds of work.
    pub takes: Takes,
}

impl Share {
    /// All that there is.
    pub const EVERYTHING: Self = Self {
        log_bytes: usize::MAX,
        takes: Takes::All,
    };
}

/// Which kinds of work a thread takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No snapshot to install. For a thread that others wait for: a state of any size takes its
    /// time to be read, and meanwhile the thread would answer no heartbeat.
    Short,
    /// Everything. For the apply thread, for which nobody but the clients waits.
    All,
}

/// What the state machine has to do next, in this order.
#[derive(Debug)]
pub struct Work<W> {
    /// A snapshot, already on disk, whose state takes the place of the present one.
    pub install: Option<SnapshotMeta>,
    /// Committed entries, each with who waits for its reply.
    pub entries: Vec<(Entry, Option<W>)>,
    /// Queries to answer after that.
    pub reads: Vec<(Bytes, W)>,
}

impl<W> Work<W> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.install.is_none() && self.entries.is_empty() && self.reads.is_empty()
    }
}

impl<W> Default for Work<W> {
    fn default() -> Self {
        Self {
            install: None,
            entries: Vec::new(),
            reads: Vec::new(),
        }
    }
}
