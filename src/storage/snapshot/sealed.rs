//! The last step of a snapshot, taken or received: its file gets its name, durably.

use crate::storage::error::StorageError;

use super::writer::UnfinishedFile;
use super::{KEPT, SnapshotInfo, Snapshots, name};

/// A snapshot whose file is complete and durable, but still has a name that ends in `.new`. If this
/// is dropped, or a crash comes, the snapshot is not there.
pub struct Sealed {
    pub(super) snapshots: Snapshots,
    pub(super) temp: UnfinishedFile,
    pub(super) info: SnapshotInfo,
}

impl Sealed {
    /// Renames the file and syncs the folder; then removes all snapshots but the newest two. One
    /// thread at a time does this.
    ///
    /// The log is cut, or starts anew behind the snapshot, only when this has returned. So a crash
    /// before the sync of the folder, which may take the name back, leaves the log that the
    /// snapshot would have replaced.
    ///
    /// # Errors
    /// [`StorageError::Superseded`] if there is a newer snapshot by now, [`StorageError::Io`]. The
    /// snapshot is not there then, unless it was the sync of the folder that failed: then it may be
    /// there after a restart.
    pub fn place(self) -> Result<SnapshotInfo, StorageError> {
        let Self {
            snapshots,
            temp,
            info,
        } = self;
        let shared = snapshots.shared.clone();
        let _placing = shared.placing.lock();
        snapshots.check_new(info.meta.last)?;
        temp.keep(&name(info.meta.last))?;
        shared.folder.sync()?;
        // From here on no crash takes the snapshot away, and the log may be cut behind it.
        let oldest_kept = {
            let mut kept = shared.kept.lock();
            kept.push(info.clone());
            let excess = kept.len().saturating_sub(KEPT);
            kept.drain(..excess);
            kept[0].meta.last
        };
        if let Err(error) = snapshots.remove_before(oldest_kept) {
            // An old snapshot that stays costs only space, and the next snapshot tries again.
            log::warn!("an old snapshot remains: {error}");
        }
        Ok(info)
    }
}
