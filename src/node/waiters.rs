//! The requests that wait: writes for their entry to be executed, reads for their index. Each has a
//! deadline.
//!
//! A write waits for an index *and* a term. If another leader's entry takes the index, the write
//! was not executed there, and must not get the reply of the other entry.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::work::{ReadyReads, Share, Takes};
use crate::raft::{EntryId, Index, ReadId, Term};

/// How many reads are handed out at a time. The weight of their answers has a bound of its own;
/// this one bounds the cost that a read has whatever its answer.
const READS_AT_ONCE: usize = 1024;

/// Writes that wait for their entry to be applied.
#[derive(Debug)]
pub(super) struct Writes<W> {
    waiting: BTreeMap<Index, Write<W>>,
    /// The earliest tick at which a write may expire: no deadline is earlier.
    earliest: u64,
}

#[derive(Debug)]
struct Write<W> {
    term: Term,
    deadline: u64,
    waiter: W,
}

impl<W> Writes<W> {
    pub fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            earliest: u64::MAX,
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a write. Returns the waiter of an earlier write at the same index, whose entry was
    /// replaced.
    pub fn add(&mut self, id: EntryId, deadline: u64, waiter: W) -> Option<W> {
        self.earliest = self.earliest.min(deadline);
        let write = Write {
            term: id.term,
            deadline,
            waiter,
        };
        self.waiting.insert(id.index, write).map(|old| old.waiter)
    }

    /// The entry is being applied. Returns the waiter at its index: `Ok` if it waits for this
    /// entry, `Err` if it waits for an entry of another term, which will never be applied.
    pub fn take(&mut self, id: EntryId) -> Option<Result<W, W>> {
        let write = self.waiting.remove(&id.index)?;
        Some(if write.term == id.term {
            Ok(write.waiter)
        } else {
            Err(write.waiter)
        })
    }

    /// A snapshot takes the place of the entries up to `index`: they will not be executed here, and
    /// their replies will not be known.
    pub fn take_up_to(&mut self, index: Index) -> impl Iterator<Item = W> + use<W> {
        let later = self.waiting.split_off(&(index + 1));
        let covered = std::mem::replace(&mut self.waiting, later);
        covered.into_values().map(|write| write.waiter)
    }

    /// Leadership is lost. Returns the waiters of all entries beyond `commit`: another leader may
    /// replace these. Those up to `commit` wait on, for these will be applied.
    pub fn take_uncommitted(&mut self, commit: Index) -> impl Iterator<Item = W> + use<W> {
        let uncommitted = self.waiting.split_off(&(commit + 1));
        uncommitted.into_values().map(|write| write.waiter)
    }

    /// Removes and returns the waiters whose deadline has passed at tick `now`.
    pub fn expired(&mut self, now: u64) -> Vec<W> {
        if now < self.earliest {
            return Vec::new();
        }
        let late = self
            .waiting
            .extract_if(.., |_, write| write.deadline <= now);
        let expired = late.map(|(_, write)| write.waiter).collect();
        let deadlines = self.waiting.values().map(|write| write.deadline);
        self.earliest = deadlines.min().unwrap_or(u64::MAX);
        expired
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = W> + use<W> {
        let all = std::mem::take(&mut self.waiting);
        all.into_values().map(|write| write.waiter)
    }
}

/// Reads that wait for their confirmation, and then for their index to be applied.
#[derive(Debug)]
pub(super) struct Reads<W> {
    next_id: ReadId,
    unconfirmed: BTreeMap<ReadId, Read<W>>,
    /// Reads that are confirmed, ordered by the index that must be applied first, then by arrival.
    confirmed: BTreeMap<(Index, ReadId), Read<W>>,
    /// Reads that could be answered and whose answers proved to be large, the oldest first.
    large: VecDeque<Read<W>>,
    earliest: u64,
}

/// A read that waits.
#[derive(Debug)]
pub struct Read<W> {
    id: ReadId,
    /// All entries up to this index must be applied before the read is answered; 0 until the index
    /// is known.
    index: Index,
    deadline: u64,
    /// The question that the client asks.
    pub query: Bytes,
    /// The waiter for the answer.
    pub waiter: W,
}

impl<W> Reads<W> {
    pub fn new() -> Self {
        Self {
            next_id: 1,
            unconfirmed: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            large: VecDeque::new(),
            earliest: u64::MAX,
        }
    }

    pub fn len(&self) -> usize {
        self.unconfirmed.len() + self.confirmed.len() + self.large.len()
    }

    /// An id that was never used before: a confirmation of an earlier attempt cannot count for a
    /// later one.
    pub fn fresh_id(&mut self) -> ReadId {
        self.next_id += 1;
        self.next_id - 1
    }

    pub fn add(&mut self, id: ReadId, query: Bytes, deadline: u64, waiter: W) {
        self.earliest = self.earliest.min(deadline);
        let read = Read {
            id,
            index: 0,
            deadline,
            query,
            waiter,
        };
        self.unconfirmed.insert(id, read);
    }

    /// The read may be answered once `index` is applied.
    pub fn confirm(&mut self, id: ReadId, index: Index) {
        // A read that is not there has ended meanwhile, because its time was up.
        if let Some(read) = self.unconfirmed.remove(&id) {
            let read = Read { index, ..read };
            self.confirmed.insert((index, id), read);
        }
    }

    pub fn fail(&mut self, id: ReadId) -> Option<W> {
        self.unconfirmed.remove(&id).map(|read| read.waiter)
    }

    /// Whether a read may be answered once `index` is applied.
    pub fn has_ready(&self, index: Index) -> bool {
        let first = self.confirmed.first_key_value();
        !self.large.is_empty() || first.is_some_and(|((needed, _), _)| *needed <= index)
    }

    /// Reads that may be answered once `index` is applied, at most as many as the share allows.
    /// Those that are left unanswered must be [given back](Self::give_back).
    pub fn take_ready(&mut self, index: Index, share: Share) -> ReadyReads<W> {
        let mut ready = ReadyReads::default();
        while ready.untried.len() < READS_AT_ONCE
            && let Some(first) = self.confirmed.first_entry()
            && first.key().0 <= index
        {
            ready.untried.push_back(first.remove());
        }
        if share.takes == Takes::All {
            // More of the large reads could not be answered: together they weigh more than the
            // share.
            let most = share.reply_bytes / share.large_from.max(1);
            let most = most.saturating_add(1).min(self.large.len());
            ready.large = self.large.drain(..most).collect();
        }
        ready
    }

    /// Takes back reads that were handed out and not answered. They wait on, each until its
    /// deadline, in front of those that came after them.
    pub fn give_back(&mut self, left: ReadyReads<W>) {
        for read in left.untried {
            self.earliest = self.earliest.min(read.deadline);
            self.confirmed.insert((read.index, read.id), read);
        }
        for read in left.large.into_iter().rev() {
            self.earliest = self.earliest.min(read.deadline);
            self.large.push_front(read);
        }
        for read in left.found_large {
            self.earliest = self.earliest.min(read.deadline);
            self.large.push_back(read);
        }
    }

    /// Removes and returns the waiters whose deadline has passed at tick `now`.
    pub fn expired(&mut self, now: u64) -> Vec<W> {
        if now < self.earliest {
            return Vec::new();
        }
        let late = self
            .unconfirmed
            .extract_if(.., |_, read| read.deadline <= now);
        let mut expired: Vec<W> = late.map(|(_, read)| read.waiter).collect();
        let late = self
            .confirmed
            .extract_if(.., |_, read| read.deadline <= now);
        expired.extend(late.map(|(_, read)| read.waiter));
        let large = std::mem::take(&mut self.large).into_iter();
        let (late, left) = large.partition(|read| read.deadline <= now);
        self.large = left;
        let late: VecDeque<Read<W>> = late;
        expired.extend(late.into_iter().map(|read| read.waiter));
        let left = self.unconfirmed.values().chain(self.confirmed.values());
        let left = left.chain(&self.large);
        self.earliest = left.map(|read| read.deadline).min().unwrap_or(u64::MAX);
        expired
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = W> + use<W> {
        let unconfirmed = std::mem::take(&mut self.unconfirmed).into_values();
        let confirmed = std::mem::take(&mut self.confirmed).into_values();
        let large = std::mem::take(&mut self.large).into_iter();
        let all = unconfirmed.chain(confirmed).chain(large);
        all.map(|read| read.waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: Index, term: Term) -> EntryId {
        EntryId { term, index }
    }

    #[test]
    fn a_reply_never_goes_to_another_request_at_the_same_index() {
        let mut writes = Writes::new();
        writes.add(id(5, 2), 100, "waits for 5 of term 2");
        assert_eq!(writes.take(id(5, 3)), Some(Err("waits for 5 of term 2")));
        assert_eq!(writes.take(id(5, 2)), None);
    }

    #[test]
    fn a_reused_index_ends_the_earlier_wait() {
        let mut writes = Writes::new();
        assert_eq!(writes.add(id(5, 2), 100, "old"), None);
        assert_eq!(writes.add(id(5, 4), 100, "new"), Some("old"));
        assert_eq!(writes.take(id(5, 4)), Some(Ok("new")));
    }

    #[test]
    fn every_wait_ends_at_its_deadline() {
        let mut writes = Writes::new();
        writes.add(id(1, 1), 10, "early");
        writes.add(id(2, 1), 20, "late");
        assert!(writes.expired(9).is_empty());
        assert_eq!(writes.expired(10), ["early"]);
        assert_eq!(writes.expired(25), ["late"]);
        assert_eq!(writes.len(), 0);
    }

    #[test]
    fn a_confirmed_read_waits_for_its_index() {
        let mut reads = Reads::new();
        let (a, b) = (reads.fresh_id(), reads.fresh_id());
        reads.add(a, Bytes::from("a"), 100, "a");
        reads.add(b, Bytes::from("b"), 100, "b");
        reads.confirm(a, 7);
        assert!(!reads.has_ready(6) && reads.has_ready(7));
        assert!(reads.take_ready(6, Share::EVERYTHING).is_empty());
        let ready = reads.take_ready(7, Share::EVERYTHING).untried;
        let ready: Vec<_> = ready
            .iter()
            .map(|read| (&read.query[..], read.waiter))
            .collect();
        assert_eq!(ready, [(&b"a"[..], "a")]);
        assert_eq!(reads.fail(b), Some("b"));
    }

    #[test]
    fn a_read_that_timed_out_is_not_answered_later() {
        let mut reads = Reads::new();
        let a = reads.fresh_id();
        reads.add(a, Bytes::new(), 10, "a");
        assert_eq!(reads.expired(10), ["a"]);
        reads.confirm(a, 1);
        assert!(!reads.has_ready(1));
    }
}
