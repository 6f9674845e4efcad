//! Chooses the snapshot from which a node starts, and fits the log to the snapshot.
//!
//! The node starts from the newest valid snapshot. A damaged snapshot is passed over and reported;
//! its file is renamed, so that its name ends in `.damaged`, and is never removed. A snapshot that
//! the disk refuses to read is passed over and reported, too, but keeps its name: it may be whole,
//! and the next start may be able to read it. The snapshot is chosen before the log is read, so
//! that the entries which the snapshot covers need not be kept in memory. Then one of three cases
//! holds:
//!
//! 1. **The log continues the snapshot.** The log holds the snapshot's last entry, or its first
//!    entry is the next one. Entries that the snapshot covers stay in the log on disk, for the
//!    older snapshot.
//! 2. **The log has to start anew.** The log ends before the snapshot's last entry, or has an entry
//!    of another term at that index. A crash can be the cause in two ways. In the first, a snapshot
//!    from the leader was durable, but the record with which the log starts anew after it was not.
//!    In the second, the node executed committed entries before its own disk had them and took a
//!    snapshot, and the crash came before the sync of these entries. Nothing is lost in either case
//!    when recovery starts the log anew: the snapshot holds all committed entries up to its last
//!    one, and a log entry that conflicts with the snapshot was never committed.
//! 3. **The log starts too late.** A part of the log, or the snapshot that took its place, is
//!    missing, damaged or cannot be read. The node does not start. If a snapshot could not be read,
//!    the error is that of the disk, and not one that says that the node has to be replaced.
//!
//! # When an older snapshot can replace a damaged one
//!
//! An older snapshot can replace a damaged one if the log has all entries after the older one. The
//! log is cut only up to the older of the newest two snapshots. So it has these entries, unless the
//! log started anew after the newer snapshot.
//!
//! If the log started anew, this disk has no entries that continue the older snapshot. (A snapshot
//! from the leader covers entries that were never in this log.) The node must not start from the
//! older snapshot without these entries: it has acknowledged them, and some of them may be
//! committed only because of this acknowledgement. So until the node has taken the next snapshot
//! itself, damage to the newer snapshot is case 3, and the node has to be replaced.
//!
//! There is one exception: before the record with which the log starts anew is durable, the older
//! snapshot and the old log can still replace a snapshot from the leader. That is safe, because the
//! acknowledgement of the leader's snapshot waits for that record, so the node has acknowledged
//! nothing of it. The entries that the snapshot covers beyond this node's log were committed by a
//! majority that did not need this node.

use crate::raft::{EntryId, HardState};

use super::Options;
use super::disk::Folder;
use super::error::{NO_START_ADVICE, StorageError, VOTE_ADVICE};
use super::log::replay::{self, LastSegment, Replay};
use super::snapshot::{self, SnapshotInfo, SnapshotOwner};
use super::voter::identity::FolderOwner;
use super::voter::peers::Peers;
use super::voter::vote::{self, FoundVote};

/// What a data folder holds, as a start reads it.
pub(super) struct Contents {
    pub(super) vote: FoundVote,
    pub(super) snapshots: FoundSnapshots,
    pub(super) replay: Replay,
    pub(super) last: LastSegment,
    pub(super) fit: Fit,
}

/// Reads and verifies all that a start needs. Changes nothing.
pub(super) fn read(
    folder: &Folder,
    owner: &FolderOwner,
    snapshot_owner: &SnapshotOwner,
    options: &Options,
) -> Result<Contents, StorageError> {
    let vote = vote::read(folder, owner)?;
    let mut snapshots = find(folder, snapshot_owner)?;
    let base = snapshots.last();
    let (mut replay, last) = replay::read(folder, owner, options, base.index)?;
    check_term(folder, vote.state(), "the log", replay.outline.last())?;
    check_term(folder, vote.state(), "a snapshot", base)?;
    let fit = snapshots.fit(folder, &mut replay)?;
    // Nothing of it is used here, but a damaged one must be noticed before anything is changed.
    Peers::open(folder, owner)?;
    Ok(Contents {
        vote,
        snapshots,
        replay,
        last,
        fit,
    })
}

/// Checks that the node's term is at least that of the last entry in the log or in a snapshot
/// (`what`). A term is durable before any entry of that term is written. So a lower term means that
/// an older vote file has taken the place of the right one, and the node could vote twice in a
/// term.
pub(super) fn check_term(
    folder: &Folder,
    state: HardState,
    what: &str,
    last: EntryId,
) -> Result<(), StorageError> {
    if last.term <= state.term {
        return Ok(());
    }
    Err(StorageError::Damaged {
        path: folder.path().join(vote::NAME),
        offset: 0,
        problem: format!(
            "it holds term {}, but {what} ends with entry {last}: a vote has been lost",
            state.term
        ),
        advice: VOTE_ADVICE,
    })
}

/// The snapshots that recovery finds in a data folder.
pub(super) struct FoundSnapshots {
    /// The newest valid snapshot, from which the node starts. Its whole file has been read and
    /// verified.
    pub(super) newest: Option<SnapshotInfo>,
    /// The snapshot before the newest valid one. Only its header and footer have been read: the
    /// node does not need this snapshot now, and reading the whole file would make the start
    /// longer.
    older: Option<SnapshotInfo>,
    /// The snapshots that are damaged or cannot be read, and cover later entries than the newest
    /// valid one; newest first.
    bad: Vec<BadSnapshot>,
    /// The error of the newest snapshot in `bad` that could not be read.
    unreadable: Option<StorageError>,
}

struct BadSnapshot {
    last: EntryId,
    problem: String,
    /// Whether the file was read and is not valid; if not, it could not be read.
    is_damaged: bool,
}

/// How the log on disk fits the snapshot from which the node starts. A log that lacks entries right
/// after the snapshot's last one is an error, and has no value here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The log continues the snapshot, so the entries after the snapshot's last one are used.
    GoesOn,
    /// The log has to start anew after the snapshot's last entry, and none of its entries is used.
    StartsAnew,
}

/// Looks in the folder for the newest valid snapshot, from which the node will start. Changes
/// nothing.
pub(super) fn find(folder: &Folder, owner: &SnapshotOwner) -> Result<FoundSnapshots, StorageError> {
    let names = folder.list()?;
    let mut ids: Vec<EntryId> = names.iter().filter_map(|n| snapshot::last_of(n)).collect();
    ids.sort_unstable_by_key(|id| std::cmp::Reverse((id.index, id.term)));
    let mut found = FoundSnapshots {
        newest: None,
        older: None,
        bad: Vec::new(),
        unreadable: None,
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
                is_damaged: true,
            }),
            Err(error) => {
                found.bad.push(BadSnapshot {
                    last,
                    problem: error.to_string(),
                    is_damaged: false,
                });
                found.unreadable.get_or_insert(error);
            }
        }
    }
    Ok(found)
}

impl FoundSnapshots {
    /// The last entry of the snapshot from which the node starts; [`EntryId::ZERO`] without a
    /// snapshot.
    pub(super) fn last(&self) -> EntryId {
        let newest = self.newest.as_ref();
        newest.map_or(EntryId::ZERO, |info| info.meta.last)
    }

    /// One sentence for the operator about each damaged snapshot that is passed over.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let instead = match &self.newest {
            Some(info) => format!("the one of entry {}", info.meta.last),
            None => "the log from its start".into(),
        };
        self.bad.iter().map(move |bad| {
            let name = snapshot::name(bad.last);
            let fate = match bad.is_damaged {
                true => format!("is set aside as {name}{}", snapshot::SET_ASIDE),
                false => format!("stays as {name}"),
            };
            format!(
                "used {instead} in place of the snapshot of entry {}, which {fate}: {}",
                bad.last, bad.problem
            )
        })
    }

    /// Decides how the log fits the snapshot, and keeps only the entries after the snapshot's last
    /// one in `replay`. Changes nothing on disk.
    ///
    /// # Errors
    /// In the third case: [`StorageError::Io`] if a snapshot could not be read, because with that
    /// snapshot the node might start; otherwise [`StorageError::Damaged`].
    pub(super) fn fit(
        &mut self,
        folder: &Folder,
        replay: &mut Replay,
    ) -> Result<Fit, StorageError> {
        let last = self.last();
        let base = replay.outline.base();
        if base.index > last.index {
            // With a snapshot that ends before the log begins, the node could not start either.
            let mut unreadable = self.bad.iter().filter(|bad| !bad.is_damaged);
            let would_help = unreadable.any(|bad| bad.last.index >= base.index);
            let error = self.unreadable.take().filter(|_| would_help);
            return Err(error.unwrap_or_else(|| self.out_of_reach(folder, replay)));
        }
        if replay.outline.agrees(last) {
            replay.outline.start_behind(last);
            let first = replay.entries.first().map(|entry| entry.id.index);
            debug_assert!(first.is_none_or(|first| first == last.index + 1));
            return Ok(Fit::GoesOn);
        }
        // Leave the outline alone: it describes the records on disk until the record with which the
        // log starts anew is appended.
        replay.entries.clear();
        Ok(Fit::StartsAnew)
    }

    /// The error when the log starts too late: entries are missing between the last entry of the
    /// newest valid snapshot and the first entry of the log.
    fn out_of_reach(&self, folder: &Folder, replay: &Replay) -> StorageError {
        let base = replay.outline.base().index;
        let first = replay.extents.front().map_or(1, |extent| extent.number);
        let Some(bad) = self.bad.first() else {
            // No snapshot is damaged, so a snapshot or a segment is missing. If segment 1 is there,
            // no segment is missing: the log started anew after a snapshot that is gone.
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

    /// Renames the damaged snapshots, and returns the valid ones, oldest first. The folder has to
    /// be synced afterwards. After a crash before that, the next start may find the damaged
    /// snapshots under their old names, and renames them again.
    ///
    /// A snapshot that could not be read keeps its name. If the next start can read it, that start
    /// may use it, whatever happened in between: it covers committed entries only, and the log fits
    /// it or starts anew after it, as with any other snapshot.
    pub(super) fn settle(self, folder: &Folder) -> Result<Vec<SnapshotInfo>, StorageError> {
        for bad in self.bad.iter().filter(|bad| bad.is_damaged) {
            snapshot::set_aside(folder, bad.last)?;
        }
        Ok(self.older.into_iter().chain(self.newest).collect())
    }
}
