//! The log in memory: what it holds, and how far it is on disk, committed and applied.
//!
//! Invariants, asserted by [`Log::check`] (all bounds inclusive):
//! - entries have consecutive indexes from `base.index + 1` on, and terms never go back;
//! - cluster time never goes back along the log;
//! - `base <= applying <= committed <= last`, and `applied <= applying`;
//! - `durable <= handed <= last`.
//!
//! `committed` may run ahead of `durable`: a quorum of others suffices (thesis 10.2.1).

use std::collections::VecDeque;

use super::message::Conflict;
use super::removed::Removed;
use super::types::{Entry, EntryId, Index, Term, WriteId};

#[derive(Debug)]
pub(super) struct Log {
    /// The last entry that was dropped from the front of the log, because a snapshot covers it or
    /// because every member has it on disk. The log begins at the entry after it.
    base: EntryId,
    /// That entry's cluster time.
    base_time_ms: u64,
    /// Set while the disk does not know yet that the log begins anew behind this entry.
    restart: Option<EntryId>,
    entries: VecDeque<Entry>,
    /// What was in `entries` and is to be freed by the caller.
    removed: Removed,
    /// Up to here the present entries have been handed to the disk.
    handed: Index,
    /// Up to here the present entries are known to be on disk.
    durable: Index,
    /// The writes under way, and up to where each covers the *present* log. Where an entry was
    /// replaced while its write was under way, the write no longer counts for that index, even if
    /// the same entry comes back before the write completes (A-B-A).
    in_flight: VecDeque<(WriteId, Index)>,
    /// Up to here a quorum has the log, so no entry up to here is ever replaced. Never goes back.
    committed: Index,
    /// Up to here the state machine has been given the entries.
    applying: Index,
    /// Up to here it has executed them.
    applied: Index,
    /// Up to here every member of the cluster has the log on its disk.
    matched_by_all: Index,
}

/// So many entries are dropped at a time: the caller may do it under a lock that others wait for.
const LET_GO: usize = 256;

impl Log {
    /// A log as it was found on disk, behind the snapshot that was found with it.
    pub fn recovered(base: EntryId, base_time_ms: u64, entries: Vec<Entry>) -> Self {
        let mut log = Self {
            base,
            base_time_ms,
            restart: None,
            entries: VecDeque::with_capacity(entries.len()),
            removed: Removed::default(),
            handed: base.index,
            durable: base.index,
            in_flight: VecDeque::new(),
            committed: base.index,
            applying: base.index,
            applied: base.index,
            matched_by_all: 0,
        };
        entries.into_iter().for_each(|entry| log.push(entry));
        log.handed = log.last().index;
        log.durable = log.handed;
        log
    }

    pub fn base(&self) -> EntryId {
        self.base
    }

    pub fn last(&self) -> EntryId {
        self.entries.back().map_or(self.base, |entry| entry.id)
    }

    pub fn last_time_ms(&self) -> u64 {
        let last = self.entries.back();
        last.map_or(self.base_time_ms, |entry| entry.time_ms)
    }

    pub fn committed(&self) -> Index {
        self.committed
    }

    pub fn applied(&self) -> Index {
        self.applied
    }

    pub fn durable(&self) -> Index {
        self.durable
    }

    /// The term of the entry at `index`; `None` if it lies behind the log's end, or was dropped
    /// from its front. Of the base, the last dropped entry, the term is still known.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|entry| entry.id.term)
    }

    pub fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Adds an entry behind the last one.
    pub fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.id.index, last.index + 1, "the log would get a hole");
        assert!(entry.id.term >= last.term, "the log's terms would go back");
        self.entries.push_back(entry);
    }

    /// Drops the entries from `from` on, because the leader's log has others there (paper 5.3).
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.committed, "a committed entry would be dropped");
        let keep = from - self.base.index - 1;
        self.removed.add(self.entries.split_off(keep as usize));
        let last = from - 1;
        self.handed = self.handed.min(last);
        self.durable = self.durable.min(last);
        for (_, covers) in &mut self.in_flight {
            *covers = (*covers).min(last);
        }
    }

    /// The entries from `from` on, as many as weigh no more than `max_bytes` together, but at
    /// least one if there is any. None beyond `to`, inclusive.
    pub fn slice(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        let start = (from.saturating_sub(self.base.index + 1) as usize).min(self.entries.len());
        let mut weight = 0;
        self.entries
            .range(start..)
            .take_while(|entry| {
                let first = weight == 0;
                weight += entry.weight();
                entry.id.index <= to && (first || weight <= max_bytes)
            })
            .cloned()
            .collect()
    }

    /// Whether the entries from `from` on weigh at least this much together.
    pub fn weighs(&self, from: Index, bytes: usize) -> bool {
        let start = (from.saturating_sub(self.base.index + 1) as usize).min(self.entries.len());
        let mut weights = self.entries.range(start..).map(Entry::weight);
        let mut sum = 0;
        weights.any(|weight| {
            sum += weight;
            sum >= bytes
        })
    }

    /// Where this log departs from a leader's whose entry `prev` it does not have.
    pub fn conflict_at(&self, prev: EntryId) -> Conflict {
        // The leader's log holds no higher term up to `prev`, so none of those here is its own.
        let possible = self.last_index_up_to_term(prev.term).min(prev.index);
        match self.get(prev.index).filter(|_| possible == prev.index) {
            None => Conflict {
                term: None,
                first_index: possible + 1,
            },
            Some(entry) => {
                let term = entry.id.term;
                let first = self.entries.partition_point(|entry| entry.id.term < term);
                Conflict {
                    term: Some(term),
                    first_index: self.base.index + 1 + first as Index,
                }
            }
        }
    }

    /// The last index of an entry with this term or a lower one; the base's if there is none.
    pub fn last_index_up_to_term(&self, term: Term) -> Index {
        let count = self.entries.partition_point(|entry| entry.id.term <= term);
        self.base.index + count as Index
    }

    /// The entries that have not been handed to the disk yet, which counts as handing them now.
    pub fn hand_out(&mut self, id: WriteId) -> Vec<Entry> {
        let entries = self.slice(self.handed + 1, Index::MAX, usize::MAX);
        self.handed = self.last().index;
        self.in_flight.push_back((id, self.handed));
        entries
    }

    pub fn has_unwritten(&self) -> bool {
        self.restart.is_some() || self.handed < self.last().index
    }

    /// Where the log on disk is to begin anew, before the entries that are handed out next.
    pub fn take_restart(&mut self) -> Option<EntryId> {
        self.restart.take()
    }

    /// A snapshot stands for the log up to `up_to`: lets go of it, but for `trailing` bytes of it,
    /// which save a follower that lags a little from needing the snapshot.
    pub fn compact(&mut self, up_to: Index, trailing: usize) {
        // What is executed may still be on no disk of this node, and the next write has to continue
        // the last one.
        let up_to = up_to.min(self.applied).min(self.handed);
        let covered = up_to.saturating_sub(self.base.index) as usize;
        let covered = covered.min(self.entries.len());
        let mut weight = 0;
        let kept = self.entries.range(..covered).rev().take_while(|entry| {
            weight += entry.weight();
            weight <= trailing
        });
        let dropped = covered - kept.count();
        self.remove_first(dropped);
    }

    /// Removes the oldest `count` entries: the log then begins behind them.
    fn remove_first(&mut self, count: usize) {
        // Moves the smaller part: the caller may hold a lock that others wait for.
        let removed: VecDeque<Entry> = match count <= self.entries.len() / 2 {
            true => self.entries.drain(..count).collect(),
            false => {
                let kept = self.entries.split_off(count);
                std::mem::replace(&mut self.entries, kept)
            }
        };
        if let Some(last) = removed.back() {
            self.base = last.id;
            self.base_time_ms = last.time_ms;
        }
        self.removed.add(removed);
    }

    /// What was removed since the last call, to be freed by the caller.
    pub fn take_removed(&mut self) -> Removed {
        std::mem::take(&mut self.removed)
    }

    /// Every member has the log up to `index` on its disk: none of them will ask for it again, nor
    /// will this node, once it has executed it.
    pub fn set_matched_by_all(&mut self, index: Index) {
        self.matched_by_all = self.matched_by_all.max(index);
    }

    /// Lets go of some of what nobody needs any more, the oldest first.
    pub fn let_go_of_matched(&mut self) {
        let up_to = self.matched_by_all.min(self.applied).min(self.durable);
        let count = up_to.saturating_sub(self.base.index) as usize;
        self.remove_first(count.min(self.entries.len()).min(LET_GO));
    }

    /// A snapshot from the leader takes the place of the log up to `last`, which lies beyond all
    /// that is committed here. What follows stays if it `fits`, that is, follows that very entry
    /// (paper figure 13, InstallSnapshot 6 and 7).
    pub fn install(&mut self, last: EntryId, time_ms: u64, fits: bool) {
        assert!(last.index > self.committed, "a snapshot of the past");
        if fits {
            let covered = (last.index - self.base.index) as usize;
            self.remove_first(covered);
            if self.handed < last.index {
                // The disk will never get what lies between.
                self.restart = Some(last);
            }
        } else {
            self.remove_first(self.entries.len());
            self.restart = Some(last);
            self.handed = last.index;
            for (_, covers) in &mut self.in_flight {
                *covers = 0;
            }
            self.durable = last.index;
        }
        self.base = last;
        self.base_time_ms = time_ms;
        // The snapshot is durable, and with it the log up to here.
        self.durable = self.durable.max(last.index);
        self.handed = self.handed.max(last.index);
        self.committed = last.index;
        self.applying = last.index;
    }

    /// The write that makes the log durable up to `index`: `Ok(None)` if it is already, `Err` if
    /// it has not been handed out yet.
    pub fn write_covering(&self, index: Index) -> Result<Option<WriteId>, NotHandedOut> {
        if index <= self.durable {
            return Ok(None);
        }
        let covering = self.in_flight.iter().find(|(_, covers)| *covers >= index);
        covering.map(|(id, _)| Some(*id)).ok_or(NotHandedOut)
    }

    /// The disk has done all writes up to `id`.
    pub fn written(&mut self, id: WriteId) {
        while let Some((first, covers)) = self.in_flight.front().copied() {
            if first > id {
                break;
            }
            self.durable = self.durable.max(covers);
            self.in_flight.pop_front();
        }
    }

    /// Raises the commit index; it never goes back.
    pub fn commit_to(&mut self, index: Index) -> bool {
        assert!(index <= self.last().index, "a commit beyond the log");
        let rises = index > self.committed;
        self.committed = self.committed.max(index);
        rises
    }

    /// Committed entries that have not been handed out for execution yet.
    pub fn take_committed(&mut self, max_bytes: usize) -> Vec<Entry> {
        let entries = self.slice(self.applying + 1, self.committed, max_bytes);
        self.applying += entries.len() as Index;
        entries
    }

    pub fn has_committed(&self) -> bool {
        self.applying < self.committed
    }

    pub fn applied_to(&mut self, index: Index) {
        assert!(index <= self.applying, "applied what was not handed out");
        assert!(index >= self.applied, "applied state went back");
        self.applied = index;
    }

    /// Asserts the invariants at the top of this file. Constant time: the order of the entries is
    /// asserted as each is pushed.
    pub fn check(&self) {
        let last = self.last().index;
        let length = self.entries.len() as Index;
        assert_eq!(last, self.base.index + length, "the log has a hole");
        let progress = [self.base.index, self.applying, self.committed, last];
        assert!(progress.is_sorted(), "progress out of order: {progress:?}");
        assert!(self.applied <= self.applying, "applied what was not given");
        let disk = [self.durable, self.handed, last];
        assert!(disk.is_sorted(), "durability out of order: {disk:?}");
    }
}

/// The entry is in memory only: the next write will hold it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotHandedOut;
