//! The log in memory: what it holds, and how far it is on disk, committed and applied.
//!
//! Invariants, asserted by [`Log::check`] (all bounds inclusive):
//! - entries have consecutive indexes from `base.index + 1` on, and terms never go back;
//! - cluster time never goes back along the log;
//! - the configuration in force is that of the last entry that holds one (`configurations.rs`);
//! - `base <= applying <= committed <= last`, and `applied <= applying`;
//! - `durable <= handed <= last`.
//!
//! What is read from the log to be sent is in `log_reading.rs`.
//!
//! `committed` may run ahead of `durable`: a quorum of others suffices (thesis 10.2.1).

use std::collections::VecDeque;

use super::configuration::Configuration;
use super::configurations::Configurations;
use super::removed::Removed;
use super::types::{Entry, EntryId, Index, SnapshotMeta, Term, WriteId};

#[derive(Debug)]
pub(super) struct Log {
    /// The last entry that was dropped from the front of the log, because a snapshot covers it or
    /// because every member has it on disk. The log begins at the entry after it.
    pub(super) base: EntryId,
    /// The cluster time of the entry `base`, in milliseconds.
    base_time_ms: u64,
    /// Who belongs to the cluster from which entry on.
    configurations: Configurations,
    /// The entry after which the next write begins the log on disk anew; set by a snapshot.
    restart: Option<EntryId>,
    pub(super) entries: VecDeque<Entry>,
    /// Entries that were dropped from `entries`, for the caller to free.
    removed: Removed,
    /// Up to this index the entries, as they are now, have been handed to the disk.
    handed: Index,
    /// Up to this index the entries, as they are now, are known to be on disk.
    durable: Index,
    /// The writes under way, and up to where each covers the *present* log. Where an entry was
    /// replaced while its write was under way, the write no longer counts for that index, even if
    /// the same entry comes back before the write completes (A-B-A).
    in_flight: VecDeque<(WriteId, Index)>,
    /// Up to here a quorum has the log, so no entry up to here is ever replaced. Never goes back.
    committed: Index,
    /// Up to this index the entries have been handed to the state machine.
    applying: Index,
    /// Up to this index the state machine has executed the entries.
    applied: Index,
    /// Up to this index every member of the cluster is known to have the log on its disk.
    matched_by_all: Index,
}

/// The most entries that are dropped at once: the caller may hold a lock that others wait for.
const LET_GO: usize = 256;

impl Log {
    /// A log as found on disk, with the snapshot that was found with it. `founding` is in force up
    /// to the first configuration in either.
    pub fn recovered(
        founding: Configuration,
        snapshot: Option<&SnapshotMeta>,
        entries: Vec<Entry>,
    ) -> Self {
        let base = snapshot.map_or(EntryId::ZERO, |meta| meta.last);
        let mut log = Self {
            base,
            base_time_ms: snapshot.map_or(0, |meta| meta.time_ms),
            configurations: Configurations::found(founding, snapshot),
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

    /// Who belongs to the cluster from which entry on.
    pub fn configurations(&self) -> &Configurations {
        &self.configurations
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

    /// The term of the entry at `index`; `None` if the index is past the log's end, or the entry
    /// was dropped from its front. The term of the base, the last dropped entry, is still known.
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

    /// Adds an entry after the last one.
    pub fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.id.index, last.index + 1, "the log would get a hole");
        assert!(entry.id.term >= last.term, "the log's terms would go back");
        self.configurations.pushed(&entry);
        self.entries.push_back(entry);
    }

    /// Drops the entries from `from` on, because the leader's log has others there (paper 5.3).
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.committed, "a committed entry would be dropped");
        let keep = from - self.base.index - 1;
        self.removed.add(self.entries.split_off(keep as usize));
        self.configurations.truncated(from);
        let last = from - 1;
        self.handed = self.handed.min(last);
        self.durable = self.durable.min(last);
        for (_, covers) in &mut self.in_flight {
            *covers = (*covers).min(last);
        }
    }

    /// Hands out the entries that have not been handed to the disk yet, as part of the write `id`.
    pub fn hand_out(&mut self, id: WriteId) -> Vec<Entry> {
        let entries = self.slice(self.handed + 1, Index::MAX, usize::MAX);
        self.handed = self.last().index;
        self.in_flight.push_back((id, self.handed));
        entries
    }

    pub fn has_unwritten(&self) -> bool {
        self.restart.is_some() || self.handed < self.last().index
    }

    /// The entry after which the next write begins the log on disk anew, if it is to.
    pub fn take_restart(&mut self) -> Option<EntryId> {
        self.restart.take()
    }

    /// Drops the entries up to `up_to`, which a snapshot covers, except the last `trailing` bytes
    /// of them: they save a follower that lags a little from needing the snapshot.
    pub fn compact(&mut self, up_to: Index, trailing: usize) {
        // This node may have executed entries that it has not handed to its disk yet. They stay,
        // because each write has to continue the one before it.
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

    /// Removes the oldest `count` entries: the log then begins after them.
    fn remove_first(&mut self, count: usize) {
        // Moves the smaller of the two parts: the caller may hold a lock that others wait for.
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

    /// The entries that were removed since the last call, for the caller to free.
    pub fn take_removed(&mut self) -> Removed {
        std::mem::take(&mut self.removed)
    }

    /// Every member has the log up to `index` on its disk. So no member will ask for these entries
    /// again, and this node needs them only until it has executed them.
    pub fn set_matched_by_all(&mut self, index: Index) {
        self.matched_by_all = self.matched_by_all.max(index);
    }

    /// Drops the oldest entries that no member needs any more, at most [`LET_GO`] of them.
    pub fn let_go_of_matched(&mut self) {
        let up_to = self.matched_by_all.min(self.applied).min(self.durable);
        let count = up_to.saturating_sub(self.base.index) as usize;
        self.remove_first(count.min(self.entries.len()).min(LET_GO));
    }

    /// A snapshot from the leader takes the place of the log up to `last`, which is later than
    /// every entry committed here. The entries after `last` stay if the log `fits`, that is, holds
    /// the very entry `last` (paper figure 13, InstallSnapshot 6 and 7).
    pub fn install(&mut self, meta: &SnapshotMeta, fits: bool) {
        let last = meta.last;
        assert!(last.index > self.committed, "a snapshot of the past");
        if fits {
            let covered = (last.index - self.base.index) as usize;
            self.remove_first(covered);
            if self.handed < last.index {
                // The entries up to `last` will never reach the disk: its log has to begin anew.
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
        self.base_time_ms = meta.time_ms;
        self.configurations.installed(meta, fits);
        // The snapshot is durable, and with it the log up to `last`.
        self.durable = self.durable.max(last.index);
        self.handed = self.handed.max(last.index);
        self.committed = last.index;
        self.applying = last.index;
    }

    /// The write that makes the log durable up to `index`: `Ok(None)` if it is durable already,
    /// `Err` if the entry has not been handed to the disk yet.
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
        self.configurations.applied(index);
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
        self.configurations.check(self.applying, last);
    }
}

/// The entry is in memory only: the next write will contain it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotHandedOut;
