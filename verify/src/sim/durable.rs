//! A record of what a node's disk must contain. When the node starts, the simulator compares what
//! the node recovered with this record.

use std::collections::BTreeSet;

use super::Failure;
use super::check::Promised;
use raftkv::raft::{Entry, EntryId, HardState, Index, Write};
use raftkv::storage::Recovered;

/// What was reported durable, and at most what was begun behind it.
#[derive(Clone)]
pub(super) struct Durable {
    hard_state: HardState,
    /// The entry behind which the log began anew last. What was cut since is still kept here.
    base: EntryId,
    entries: Vec<Entry>,
    /// Whether the log may as well reach back further than `base`: what was found at the last start
    /// would have been the same.
    perhaps_longer: bool,
    /// The write that was not reported: it may be there, or only its term and vote, or nothing.
    pub unfinished: Option<Write>,
    /// The snapshots that are in their place, the newest last, as many as are kept.
    snapshots: Vec<EntryId>,
    /// All that were given their name, whether that was durable or not.
    ever: BTreeSet<Index>,
    /// Those among the snapshots in which bits have flipped.
    damaged: BTreeSet<Index>,
    /// Those that could not be read. They stay until another one is in its place.
    out_of_use: Vec<EntryId>,
    /// Up to here the files of the log may have been removed.
    pub cut: Index,
    went_back: bool,
}

/// What a node can do after bits of a snapshot have flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It starts, from another snapshot, and lacks nothing.
    Harmless,
    /// It has to refuse to start.
    Fatal,
    /// That depends on what else is on the disk.
    Unclear,
}

impl Durable {
    /// An empty disk.
    pub fn new() -> Self {
        Self {
            hard_state: HardState::default(),
            base: EntryId::ZERO,
            entries: Vec::new(),
            perhaps_longer: false,
            unfinished: None,
            snapshots: Vec::new(),
            ever: BTreeSet::new(),
            damaged: BTreeSet::new(),
            out_of_use: Vec::new(),
            cut: 0,
            went_back: false,
        }
    }

    /// The write is on disk.
    pub fn apply(&mut self, write: Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(base) = write.restart {
            self.begin_anew(base);
        }
        if let Some(first) = write.entries.first() {
            let kept = first.id.index - self.base.index - 1;
            self.entries.truncate(kept as usize);
        }
        self.entries.extend(write.entries);
    }

    fn begin_anew(&mut self, base: EntryId) {
        self.base = base;
        self.entries.clear();
        self.perhaps_longer = false;
    }

    /// The last entry before those that a write replaces, if it replaces any.
    pub fn kept_by(&self, write: &Write) -> Option<EntryId> {
        if let Some(base) = write.restart {
            return Some(base);
        }
        let first = write.entries.first()?.id.index;
        let replaces = first <= self.last().index;
        replaces.then(|| self.id_at(first - 1)).flatten()
    }

    fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, |entry| entry.id)
    }

    /// The term and vote.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Whether this entry is on the disk, or a snapshot of a state after it. The entry must be one
    /// that was committed.
    pub fn holds(&self, id: EntryId) -> bool {
        let covered = self.snapshots.iter().any(|last| last.index >= id.index);
        covered || self.base.index > id.index || self.id_at(id.index) == Some(id)
    }

    /// The entry at an index, if it is on the disk.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.checked_sub(self.base.index + 1)?;
        self.entries.get(place as usize)
    }

    fn id_at(&self, index: Index) -> Option<EntryId> {
        let offset = index.checked_sub(self.base.index)?;
        match offset.checked_sub(1) {
            None => Some(self.base),
            Some(at) => self.entries.get(at as usize).map(|entry| entry.id),
        }
    }

    /// A snapshot is about to get its name.
    pub fn perhaps(&mut self, last: EntryId) {
        self.ever.insert(last.index);
        // A damaged one of that name was set aside, when the node started or while it ran. It does
        // not come back, and the new one only if it gets its name.
        if self.damaged.remove(&last.index) {
            self.snapshots.retain(|other| *other != last);
        }
    }

    /// A snapshot is in its place. Those that are out of use may be removed then.
    pub fn placed(&mut self, last: EntryId) {
        let out_of_use = std::mem::take(&mut self.out_of_use);
        self.snapshots.retain(|other| !out_of_use.contains(other));
        self.hold(last);
    }

    fn hold(&mut self, last: EntryId) {
        if !self.snapshots.contains(&last) {
            self.snapshots.push(last);
        }
        let excess = self.snapshots.len().saturating_sub(2);
        self.snapshots.drain(..excess);
    }

    /// A snapshot that could not be read is out of use. Its file stays until there are newer ones.
    pub fn passed_over(&mut self, last: EntryId) {
        self.out_of_use.push(last);
    }

    /// Whether the last start was from an older snapshot than the newest.
    pub fn went_back(&self) -> bool {
        self.went_back
    }

    /// Whether bits of the snapshot up to this index have flipped.
    pub fn is_damaged(&self, index: Index) -> bool {
        self.damaged.contains(&index)
    }

    fn newest(&self, among: &[EntryId]) -> EntryId {
        let valid = among.iter().filter(|last| !self.is_damaged(last.index));
        let newest = valid.copied().max_by_key(|last| last.index);
        newest.unwrap_or(EntryId::ZERO)
    }

    /// What would come of a flipped bit in a snapshot, where these others are on the disk.
    pub fn if_damaged(&self, last: EntryId, others: &[EntryId]) -> Damage {
        let newest = self.newest(others);
        let restarts = |write: &Write| write.restart.is_some();
        if self.unfinished.as_ref().is_some_and(restarts) {
            return Damage::Unclear;
        }
        if self.base.index > newest.index {
            return match self.perhaps_longer {
                true => Damage::Unclear,
                false => Damage::Fatal,
            };
        }
        // What was acknowledged with the snapshot must be in the log as well.
        let lacks_nothing = self.id_at(last.index) == Some(last);
        match self.cut <= newest.index && lacks_nothing {
            true => Damage::Harmless,
            false => Damage::Unclear,
        }
    }

    /// What will come of a start from a disk with these snapshots, some of them damaged.
    pub fn outlook(&self, found: &[EntryId]) -> Damage {
        let newest = found.iter().max_by_key(|last| last.index);
        if let Some(newest) = newest
            && self.is_damaged(newest.index)
        {
            return self.if_damaged(*newest, found);
        }
        // A node may have set aside each snapshot up to which its log was cut, or behind which it
        // began anew, and may have gone down before the next one was in its place.
        match self.cut.max(self.base.index) <= newest.map_or(0, |newest| newest.index) {
            true => Damage::Harmless,
            false => Damage::Unclear,
        }
    }

    /// Whether bits of this snapshot, which is on the disk, have flipped. One that is not there was
    /// set aside if it was damaged, and stays so.
    pub fn know_damaged(&mut self, last: EntryId, is_damaged: bool) {
        match is_damaged {
            true => self.damaged.insert(last.index),
            false => self.damaged.remove(&last.index),
        };
    }

    /// Bits of a snapshot have flipped.
    pub fn damage(&mut self, last: EntryId) {
        self.damaged.insert(last.index);
    }

    /// The log behind a snapshot: `None` if it does not reach back to it. If the snapshot and the
    /// log contradict each other, or the log ends before, it begins anew.
    fn behind(&self, snapshot: EntryId) -> Option<&[Entry]> {
        if self.base.index > snapshot.index {
            return None;
        }
        let from = (snapshot.index - self.base.index) as usize;
        match self.id_at(snapshot.index) == Some(snapshot) {
            true => Some(&self.entries[from..]),
            false => Some(&[]),
        }
    }

    fn is(&self, found: &Recovered) -> bool {
        self.hard_state == found.hard_state && self.behind(found.base) == Some(&found.entries)
    }

    /// Compares what a node found on its disk, which is durable from now on. A read of the
    /// snapshots `unread` failed meanwhile.
    pub fn recovered(
        &mut self,
        found: &Recovered,
        promised: &mut Promised,
        unread: &[EntryId],
    ) -> Result<(), Failure> {
        self.check_snapshot(found, unread)?;
        self.reach_back_to(found);
        let perhaps_longer = self.may_hold_more_than(found);
        if let Some(write) = self.unfinished.take()
            && !self.is(found)
        {
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            if !self.is(found) {
                promised.replaced(self.kept_by(&write));
                self.apply(write);
            }
        }
        if !self.is(found) {
            return Err(Failure::new(
                "what is durable comes back",
                format!(
                    "the disk was left with {:?} and a log from {} to {}, or before the last \
                     write; found were {:?} and a log from {} to {}",
                    self.hard_state,
                    self.base,
                    self.last(),
                    found.hard_state,
                    found.base,
                    found.entries.last().map_or(found.base, |entry| entry.id)
                ),
            ));
        }
        if self.id_at(found.base.index) != Some(found.base) {
            promised.replaced(Some(found.base));
            self.begin_anew(found.base);
            self.perhaps_longer = perhaps_longer;
        }
        Ok(())
    }

    /// If it was open how far the log reaches back, what was found has settled it.
    fn reach_back_to(&mut self, found: &Recovered) {
        let mut entries = found.entries.iter();
        let base = entries.position(|entry| entry.id == self.base);
        if let Some(base) = base
            && self.perhaps_longer
        {
            let before = found.entries[..=base].iter().cloned();
            self.entries.splice(..0, before);
            (self.base, self.perhaps_longer) = (found.base, false);
        }
    }

    /// Whether the write that was not reported, if it is there, brings the log up to the very entry
    /// of the snapshot from which the node started. Nothing follows that entry then, and the same
    /// is found as without the write: then the log starts anew behind the snapshot.
    fn may_hold_more_than(&self, found: &Recovered) -> bool {
        let with_write = self.unfinished.clone().map(|write| {
            let mut durable = self.clone();
            durable.apply(write);
            durable
        });
        with_write.is_some_and(|durable| {
            durable.is(found) && durable.id_at(found.base.index) == Some(found.base)
        })
    }

    /// The newest snapshot must be the one to start from, unless it is damaged or cannot be read.
    fn check_snapshot(&mut self, found: &Recovered, unread: &[EntryId]) -> Result<(), Failure> {
        let readable = self.snapshots.iter().filter(|last| !unread.contains(last));
        let readable: Vec<EntryId> = readable.copied().collect();
        let (last, newest) = (found.base, self.newest(&readable));
        // One that was removed may come back, unless the folder was synced since.
        let known = self.ever.contains(&last.index);
        if last.index < newest.index
            || self.is_damaged(last.index)
            || !(known || last == EntryId::ZERO)
        {
            let sentence = format!("there is the snapshot of {newest}; found was that of {last}");
            return Err(Failure::new("the newest snapshot comes back", sentence));
        }
        if known {
            self.hold(last);
        }
        // What is newer and can be read is damaged, and was set aside.
        let stays = |other: &EntryId| other.index <= last.index || unread.contains(other);
        self.went_back = !self.snapshots.iter().all(stays);
        self.snapshots.retain(stays);
        self.out_of_use = unread.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftkv::raft::Payload;
    use raftkv::raft::{Configuration, LoggedConfiguration, SnapshotMeta};
    use raftkv::storage::SnapshotInfo;

    fn id(index: Index) -> EntryId {
        EntryId { term: 1, index }
    }

    fn write(index: Index) -> Write {
        Write {
            id: index,
            hard_state: None,
            entries: vec![Entry {
                id: id(index),
                time_ms: 0,
                payload: Payload::Empty,
            }],
            restart: None,
        }
    }

    /// A start behind a snapshot of this entry, with nothing behind it.
    fn started_behind(last: EntryId) -> Recovered {
        Recovered {
            hard_state: HardState::default(),
            snapshot: Some(SnapshotInfo {
                meta: SnapshotMeta {
                    last,
                    time_ms: 0,
                    configuration: LoggedConfiguration::founding(Configuration::of_voters([1])),
                },
                bytes: 8192,
                created_ms: 0,
            }),
            base: last,
            entries: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A node with entry 1 on disk takes a snapshot of entry 2 while the disk writes entry 2, and
    /// is killed in the middle of that. It starts behind the snapshot in either case: if the entry
    /// is there, the log goes on and reaches back to its start; if not, it starts anew.
    fn node_whose_snapshot_overtook_its_log() -> Durable {
        let mut durable = Durable::new();
        durable.apply(write(1));
        durable.perhaps(id(2));
        durable.placed(id(2));
        durable.unfinished = Some(write(2));
        let found = started_behind(id(2));
        let recovered = durable.recovered(&found, &mut Promised::default(), &[]);
        recovered.expect("that may be found");
        durable
    }

    #[test]
    fn a_snapshot_that_overtook_the_log_leaves_open_how_far_the_log_reaches_back() {
        let durable = node_whose_snapshot_overtook_its_log();
        assert_eq!(durable.if_damaged(id(2), &[]), Damage::Unclear);
    }

    #[test]
    fn a_log_that_certainly_started_anew_makes_its_snapshot_irreplaceable_again() {
        let mut durable = node_whose_snapshot_overtook_its_log();
        durable.perhaps(id(9));
        durable.placed(id(9));
        durable.apply(Write {
            restart: Some(id(9)),
            ..write(10)
        });
        assert_eq!(durable.if_damaged(id(9), &[id(2)]), Damage::Fatal);
    }

    #[test]
    fn a_log_that_ended_before_the_snapshot_with_no_write_under_way_started_anew() {
        let mut durable = Durable::new();
        durable.apply(write(1));
        durable.perhaps(id(2));
        durable.placed(id(2));
        let found = started_behind(id(2));
        let recovered = durable.recovered(&found, &mut Promised::default(), &[]);
        recovered.expect("that may be found");
        assert_eq!(durable.if_damaged(id(2), &[]), Damage::Fatal);
    }
}
