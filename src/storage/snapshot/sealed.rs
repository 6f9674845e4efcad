//! The last step for a snapshot that this node took or received: its file gets the final name,
//! durably.

use crate::storage::error::StorageError;

use super::writer::UnfinishedFile;
use super::{KEPT, SnapshotInfo, Snapshots, name};

/// A snapshot whose file is complete and durable, but has a name that ends in `.new`. If this value
/// is dropped, or the node crashes, the snapshot does not take effect.
pub struct Sealed {
    pub(super) snapshots: Snapshots,
    pub(super) temp: UnfinishedFile,
    pub(super) info: SnapshotInfo,
}

impl Sealed {
    /// Renames the file to its final name and syncs the folder. Then removes all snapshots but the
    /// newest two. Only one thread at a time does this.
    ///
    /// The log is cut, or starts anew after the snapshot's last entry, only after this has
    /// returned. A crash before the sync of the folder may undo the rename; then the log is still
    /// complete without this snapshot.
    ///
    /// # Errors
    /// [`StorageError::Superseded`] if there is a newer snapshot by now; [`StorageError::Io`].
    /// After an error this snapshot does not exist. Only if the sync of the folder failed, it may
    /// exist after a restart.
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
        // The folder is synced, so no crash can undo the rename, and the log may be cut up to this
        // snapshot.
        let oldest_kept = {
            let mut kept = shared.kept.lock();
            kept.push(info.clone());
            let excess = kept.len().saturating_sub(KEPT);
            kept.drain(..excess);
            // As long as there are fewer, a snapshot that was passed over because it could not be
            // read may be the only one to start from if the new one is damaged.
            (kept.len() == KEPT).then(|| kept[0].meta.last)
        };
        if let Some(oldest_kept) = oldest_kept
            && let Err(error) = snapshots.remove_before(oldest_kept)
        {
            // An old snapshot that stays takes only space, and the next snapshot tries again to
            // remove it.
            log::warn!(
                "an old snapshot is left and takes up space until the next one is taken: {error}"
            );
        }
        Ok(info)
    }
}
