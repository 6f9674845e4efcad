//! The last step of a snapshot: under its name, for good.

use crate::storage::error::StorageError;

use super::writer::UnfinishedFile;
use super::{KEPT, SnapshotInfo, Snapshots, name};

/// A snapshot whose file is complete and durable, under a name that the next start removes.
pub struct Sealed {
    pub(super) snapshots: Snapshots,
    pub(super) temp: UnfinishedFile,
    pub(super) info: SnapshotInfo,
}

impl Sealed {
    /// Puts the file in its place, durably, and removes those that are not needed any more: all but
    /// the newest two. One thread at a time.
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
        // From here on the snapshot is one to start from.
        let oldest_kept = {
            let mut kept = shared.kept.lock();
            kept.push(info.clone());
            let excess = kept.len().saturating_sub(KEPT);
            kept.drain(..excess);
            kept[0].meta.last
        };
        if let Err(error) = snapshots.remove_before(oldest_kept) {
            // It costs space, nothing else; the next snapshot tries again.
            log::warn!("an old snapshot remains: {error}");
        }
        Ok(info)
    }
}
