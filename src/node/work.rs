//! What a replica hands to the state machine, and how much of it a thread takes on at a time.

use std::collections::VecDeque;

use super::waiters::Read;
use crate::machine::StateMachine;
use crate::raft::{Entry, SnapshotMeta};

/// An answer that weighs more than this, in bytes, is left to the apply thread. To gather so much
/// in vain costs about as much as to answer ten small reads.
const LARGE_FROM: usize = 16 << 10;

/// How much work a thread takes on at a time.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// About how many bytes of the log.
    pub log_bytes: usize,
    /// About how many bytes of answers, as the state machine weighs them, reads may produce: half
    /// a page of a scan costs more than a thousand small reads, so their number says nothing.
    pub reply_bytes: usize,
    /// An answer that weighs more than this is large.
    pub large_from: usize,
    /// Which kinds of work.
    pub takes: Takes,
}

impl Share {
    /// All that there is.
    pub const EVERYTHING: Self = Self {
        log_bytes: usize::MAX,
        reply_bytes: usize::MAX,
        large_from: usize::MAX,
        takes: Takes::All,
    };
}

/// How much the threads of a node execute at a time.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// The apply thread: enough to spread the cost of a lock, little enough not to keep the first
    /// one waiting for the last one's reply.
    pub own: Share,
    /// A thread that has other things to do.
    pub here: Share,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            own: Share {
                log_bytes: 1 << 20,
                reply_bytes: 256 << 10,
                large_from: LARGE_FROM,
                takes: Takes::All,
            },
            here: Share {
                log_bytes: 128 << 10,
                reply_bytes: 128 << 10,
                large_from: LARGE_FROM,
                takes: Takes::Short,
            },
        }
    }
}

/// Which kinds of work a thread takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No snapshot to install and no read with a large answer. For a thread that others wait for:
    /// while it restores a state or gathers a page of ten thousand keys, it answers no heartbeat.
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
    /// Reads to answer after that.
    pub reads: ReadyReads<W>,
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
            reads: ReadyReads::default(),
        }
    }
}

/// Reads that may be answered. What a thread leaves of them goes back to the replica.
#[derive(Debug)]
pub struct ReadyReads<W> {
    /// Nobody has tried yet how large their answers are.
    pub(super) untried: VecDeque<Read<W>>,
    /// Their answers are known to be large.
    pub(super) large: VecDeque<Read<W>>,
    /// The same, as has just been found. They are answered after all others of their kind.
    pub(super) found_large: VecDeque<Read<W>>,
}

impl<W> Default for ReadyReads<W> {
    fn default() -> Self {
        Self {
            untried: VecDeque::new(),
            large: VecDeque::new(),
            found_large: VecDeque::new(),
        }
    }
}

impl<W> ReadyReads<W> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.untried.is_empty() && self.large.is_empty() && self.found_large.is_empty()
    }

    /// Answers one share of them, each by `reply`.
    ///
    /// A read with a large answer does not hold up those with small ones: it is given up as soon as
    /// its answer proves to be large, and set aside for the apply thread. There the large ones have
    /// a share of their own, so that neither kind keeps the other waiting for ever.
    pub(crate) fn answer<S: StateMachine>(
        &mut self,
        machine: &S,
        share: &Share,
        mut reply: impl FnMut(W, S::Reply),
    ) {
        let mut produced = 0;
        while produced < share.reply_bytes
            && let Some(read) = self.untried.pop_front()
        {
            if let Some(answer) = machine.query_within(&read.query, share.large_from) {
                produced += S::weight(&answer);
                reply(read.waiter, answer);
            } else {
                // So much was gathered in vain.
                produced += share.large_from;
                self.found_large.push_back(read);
            }
        }
        produced = 0;
        while produced < share.reply_bytes
            && let Some(read) = self.large.pop_front()
        {
            let answer = machine.query(&read.query);
            produced += S::weight(&answer);
            reply(read.waiter, answer);
        }
    }

    /// All of them.
    pub(super) fn into_waiters(self) -> impl Iterator<Item = W> {
        let large = self.large.into_iter().chain(self.found_large);
        self.untried
            .into_iter()
            .chain(large)
            .map(|read| read.waiter)
    }
}

#[cfg(test)]
mod tests;
