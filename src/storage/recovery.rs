//! From which snapshot a node starts, and what of the log follows it.
//!
//! The newest snapshot that is valid is used; a damaged one is passed over, noted, and set aside
//! under the name *name*`.damaged`, never removed. It is looked for before the log is read, so that
//! what it covers of the log need not be held in memory. Then there are these cases:
//!
//! 1. The log holds the snapshot's last entry, or starts right behind it: it goes on from there.
//!    What precedes is left for the snapshot before this one.
//! 2. The log ends before that entry, or has one of another term in its place: a crash came between
//!    a snapshot from the leader and the record with which the log starts anew behind it. That is
//!    made up for here. Nothing is lost: the snapshot holds all that was committed up to it, and
//!    what follows an entry that another one replaced was never committed.
//! 3. The log starts only later: a part of it, or the snapshot that took its place, is missing or
//!    damaged. The node does not start.
//!
//! # When an older snapshot can stand in for a damaged one
//!
//! It can if the log reaches back to it. The log is cut only behind the newest snapshot but one, so
//! that holds for every snapshot that the node took itself while it had two.
//!
//! It does not hold for a snapshot that the leader sent. What lies between the end of this node's
//! log and that snapshot was never in this log, so the log starts anew behind the snapshot, and an
//! older one has nothing that continues it. The node may not start from the older one all the same:
//! it would lack entries behind the received snapshot that it has acknowledged, and that may be
//! committed because it did. So until the node has taken the next snapshot itself, damage to the
//! received one is case 3, and the node has to be replaced.
//!
//! Before the record is durable with which the log starts anew, the older snapshot and the old log
//! do stand in. That is safe: the node has acknowledged nothing of the received snapshot yet, as
//! the acknowledgement waits for that record, and what the snapshot holds beyond this node's log
//! was committed without this node's copy.

use crate::raft::EntryId;

use super::disk::Folder;
use super::error::{NO_START_ADVICE, StorageError};
use super::log::replay::{self, Replay};
use super::snapshot::{self, SnapshotInfo, SnapshotOwner};

/// The snapshots of a folder.
pub(super) struct FoundSnapshots {
    /// The newest valid one, which has been read to its end.
    pub(super) newest: Option<SnapshotInfo>,
    /// The one before it, of which only both ends have been read.
    older: Option<SnapshotInfo>,
    /// Those that are newer and not valid, the newest first.
    bad: Vec<BadSnapshot>,
}

struct BadSnapshot {
    last: EntryId,
    problem: String,
}

/// How the log follows the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It goes on behind it.
    GoesOn,
    /// It has to start anew behind it.
    StartsAnew,
}

/// Looks for a snapshot to start from. Changes nothing.
pub(super) fn find(folder: &Folder, owner: &SnapshotOwner) -> Result<FoundSnapshots, StorageError> {
    let names = folder.list()?;
    let mut ids: Vec<EntryId> = names.iter().filter_map(|n| snapshot::last_of(n)).collect();
    ids.sort_unstable_by_key(|id| std::cmp::Reverse((id.index, id.term)));
    let mut found = FoundSnapshots {
        newest: None,
        older: None,
        bad: Vec::new(),
    };
    for last in ids {
        if found.newest.is_some() {
            let older = snapshot::open(folder, owner, last).ok();
            found.older = older.map(|reader| reader.info().clone());
            break;
        }
        match snapshot::verify(folder, owner, last) {
            Ok(info) => found.newest = Some(info),
            Err(error @ StorageError::WrongFolder { .. }) => return Err(error),
            Err(StorageError::Damaged {
                offset, problem, ..
            }) => found.bad.push(BadSnapshot {
                last,
                problem: format!("{problem} (at offset {offset})"),
            }),
            Err(error) => found.bad.push(BadSnapshot {
                last,
                problem: error.to_string(),
            }),
        }
    }
    Ok(found)
}

impl FoundSnapshots {
    /// The last entry of the snapshot that is used.
    pub(super) fn last(&self) -> EntryId {
        let newest = self.newest.as_ref();
        newest.map_or(EntryId::ZERO, |info| info.meta.last)
    }

    /// What is passed over, one sentence each.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let instead = match &self.newest {
            Some(info) => format!("the one of entry {}", info.meta.last),
            None => "the log from its start".into(),
        };
        self.bad.iter().map(move |bad| {
            format!(
                "used {instead} in place of the snapshot of entry {}, which is set aside as {}{}: \
                 {}",
                bad.last,
                snapshot::name(bad.last),
                snapshot::SET_ASIDE,
                bad.problem
            )
        })
    }

    /// Leaves in the log what follows the snapshot. Changes nothing on disk.
    pub(super) fn fit(&self, folder: &Folder, replay: &mut Replay) -> Result<Fit, StorageError> {
        let last = self.last();
        let base = replay.outline.base();
        if base.index > last.index {
            return Err(self.out_of_reach(folder, replay));
        }
        if replay.outline.agrees(last) {
            replay.outline.start_behind(last);
            let first = replay.entries.first().map(|entry| entry.id.index);
            debug_assert!(first.is_none_or(|first| first == last.index + 1));
            return Ok(Fit::GoesOn);
        }
        // The outline stays what the records on disk amount to until there is one that says so.
        replay.entries.clear();
        Ok(Fit::StartsAnew)
    }

    /// Why there is nothing that the log could follow.
    fn out_of_reach(&self, folder: &Folder, replay: &Replay) -> StorageError {
        let base = replay.outline.base().index;
        let first = replay.extents.front().map_or(1, |extent| extent.number);
        let Some(bad) = self.bad.first() else {
            // The log was cut behind a snapshot; if there is none left at all, look for that.
            return match first {
                1 => self.no_snapshot(folder, base),
                _ => replay::missing(folder, first - 1),
            };
        };
        StorageError::Damaged {
            path: folder.path().join(snapshot::name(bad.last)),
            offset: 0,
            problem: format!(
                "{}. The log starts behind entry {base}, and {}",
                bad.problem,
                self.what_there_is()
            ),
            advice: NO_START_ADVICE,
        }
    }

    fn no_snapshot(&self, folder: &Folder, base: u64) -> StorageError {
        StorageError::Damaged {
            path: folder.path().to_path_buf(),
            offset: 0,
            problem: format!(
                "the log starts behind entry {base} with a snapshot that is missing, and {}",
                self.what_there_is()
            ),
            advice: NO_START_ADVICE,
        }
    }

    fn what_there_is(&self) -> String {
        match &self.newest {
            Some(info) => format!(
                "the newest valid snapshot ends with entry {}",
                info.meta.last
            ),
            None => "there is no valid snapshot".into(),
        }
    }

    /// Gives those that are not valid another name; the folder is not synced yet. Returns the valid
    /// ones, oldest first.
    pub(super) fn settle(self, folder: &Folder) -> Result<Vec<SnapshotInfo>, StorageError> {
        for BadSnapshot { last, .. } in &self.bad {
            snapshot::set_aside(folder, *last)?;
        }
        Ok(self.older.into_iter().chain(self.newest).collect())
    }
}
