//! Where a node starts: from which snapshot, and with what part of the log.
//!
//! The node starts from the newest valid snapshot. A damaged one is passed over and noted; its file
//! is renamed to its name and `.damaged`, and is never removed. The snapshot is chosen before the
//! log is read, so that the entries which it covers need not be kept in memory. Then one of three
//! cases holds:
//!
//! 1. **The log goes on behind the snapshot.** It holds the snapshot's last entry, or starts right
//!    behind it. The entries before stay in the log for the older snapshot.
//! 2. **The log has to start anew.** It ends before the snapshot's last entry, or has an entry of
//!    another term at that index. A crash leaves this behind in two ways. A snapshot from the
//!    leader was in its place, and the record with which the log starts anew behind it was not
//!    durable yet. Or the node executed committed entries before its own disk had them, took a
//!    snapshot, and the crash came before the sync of their record. In both ways nothing is lost
//!    when the log starts anew now: the snapshot holds all committed entries up to its last one,
//!    and entries of the log that conflict with it were never committed.
//! 3. **The log starts too late.** A part of the log, or the snapshot that took its place, is
//!    missing or damaged. The node does not start.
//!
//! # When an older snapshot can stand in for a damaged one
//!
//! It can if the log reaches back to it. The log is cut only up to the older of the newest two
//! snapshots. So the older one can stand in, unless the log started anew behind the newer one.
//!
//! If the log started anew, nothing on this disk continues the older snapshot. For a snapshot from
//! the leader, what lies between was never in this log. The node must not start from the older one
//! all the same: it would lack entries that it has acknowledged, and some of them may be committed
//! only because it did. So until the node has taken the next snapshot itself, damage to the newer
//! one is case 3, and the node has to be replaced.
//!
//! There is one moment in which the older snapshot and the old log do stand in for a received one:
//! before the record with which the log starts anew is durable. That is safe. The node has
//! acknowledged nothing of the received snapshot yet, since its acknowledgement waits for that
//! record. And what the snapshot holds beyond this node's log was committed by a majority that did
//! not need this node's copy.

use crate::raft::EntryId;

use super::disk::Folder;
use super::error::{NO_START_ADVICE, StorageError};
use super::log::replay::{self, Replay};
use super::snapshot::{self, SnapshotInfo, SnapshotOwner};

/// The snapshots of a folder, as they were found at a start.
pub(super) struct FoundSnapshots {
    /// The newest valid one. All of its file has been read and verified.
    pub(super) newest: Option<SnapshotInfo>,
    /// The one before it. Only its header and footer have been read: it is not needed now, and to
    /// read all of it would make the start longer.
    older: Option<SnapshotInfo>,
    /// Those that are newer than the newest valid one, the newest first.
    bad: Vec<BadSnapshot>,
}

struct BadSnapshot {
    last: EntryId,
    problem: String,
}

/// How the log follows the snapshot: the first two cases at the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It goes on behind the snapshot.
    GoesOn,
    /// It has to start anew behind the snapshot; nothing of it is used.
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

    /// One sentence for each snapshot that is passed over.
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

    /// Decides which of the three cases holds, and leaves in `replay` what follows the snapshot.
    /// Changes nothing on disk.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] in the third case.
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
        // The outline still describes the records on disk. It changes when the caller has appended
        // the record with which the log starts anew.
        replay.entries.clear();
        Ok(Fit::StartsAnew)
    }

    /// The error of the third case: the log starts behind the last entry of the newest valid
    /// snapshot.
    fn out_of_reach(&self, folder: &Folder, replay: &Replay) -> StorageError {
        let base = replay.outline.base().index;
        let first = replay.extents.front().map_or(1, |extent| extent.number);
        let Some(bad) = self.bad.first() else {
            // No snapshot is damaged, so one is missing, or a segment. If the first segment ever is
            // there, no segment is missing: the log started anew behind a snapshot that is gone.
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

    /// Renames the damaged snapshots. The caller syncs the folder. After a crash before that sync
    /// they have their old names and are found damaged again. Returns the valid ones, oldest first.
    pub(super) fn settle(self, folder: &Folder) -> Result<Vec<SnapshotInfo>, StorageError> {
        for BadSnapshot { last, .. } in &self.bad {
            snapshot::set_aside(folder, *last)?;
        }
        Ok(self.older.into_iter().chain(self.newest).collect())
    }
}
