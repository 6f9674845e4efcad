//! The work that a replica hands to the state machine, and how much of it a thread takes at a time.

use std::collections::VecDeque;

use super::waiters::Read;
use crate::machine::StateMachine;
use crate::raft::{Entry, SnapshotMeta};

/// A read whose answer weighs more than this, in bytes, is left to the apply thread. A thread finds
/// that out by gathering that many bytes and giving up, which costs about as much as to answer ten
/// small reads.
const LARGE_FROM: usize = 16 << 10;

/// How much work a thread takes on at a time.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// How many bytes of log entries, about.
    pub log_bytes: usize,
    /// How many bytes of answers to reads, about, as the state machine weighs them. The number of
    /// reads is no bound: half a page of a scan costs more than a thousand small reads.
    pub reply_bytes: usize,
    /// An answer that weighs more than this is large.
    pub large_from: usize,
    /// Which kinds of work the thread takes on.
    pub takes: Takes,
}

impl Share {
    /// A share without bounds.
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
    /// The share of the apply thread. Large enough that the cost of the locks is spread over many
    /// entries; small enough that the first client of a batch does not wait long, for replies leave
    /// when the batch is done.
    pub own: Share,
    /// The share of a thread that has other tasks: `rpc` and `replicator`.
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
    /// No snapshot to install and no read with a large answer. For a thread that has other tasks:
    /// while it restored a state or gathered a page of ten thousand keys, it would answer no
    /// heartbeat.
    Short,
    /// Everything. For the apply thread: only clients wait for it, and no other task of the node.
    All,
}

/// What the state machine does next: installs, executes and answers, in this order.
#[derive(Debug)]
pub struct Work<W> {
    /// A snapshot, already on disk, whose state takes the place of the present one.
    pub install: Option<SnapshotMeta>,
    /// Committed entries in log order, each with the waiter for its reply, if there is one.
    pub entries: Vec<(Entry, Option<W>)>,
    /// Reads to answer after these entries.
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

/// Reads that may be answered now. Those that a thread does not answer go back to the replica.
#[derive(Debug)]
pub struct ReadyReads<W> {
    /// Reads that no thread has tried to answer yet, so it is not known how large the answers are.
    pub(super) untried: VecDeque<Read<W>>,
    /// Reads whose answers proved to be large in an earlier batch.
    pub(super) large: VecDeque<Read<W>>,
    /// Reads whose answers proved to be large in this batch. They go to the end of the queue of
    /// large ones.
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
    /// Whether there is no read.
    pub fn is_empty(&self) -> bool {
        self.untried.is_empty() && self.large.is_empty() && self.found_large.is_empty()
    }

    /// Answers as many of the reads as the share allows, each by `reply`.
    ///
    /// A read with a large answer does not delay reads with small ones: the machine gives it up as
    /// soon as the answer proves to be large, and it is set aside for the apply thread. In a batch
    /// of the apply thread, small and large reads have a bound each, so that neither kind can keep
    /// the other waiting for ever.
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
                // The machine has gathered about this many bytes before it gave up.
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

    /// The waiters of all reads.
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
