//! The last steps of a snapshot: complete, then under its name, then there for good.
//!
//! [`Sealed::place`] takes them all. They are apart so that a simulator can let other things happen
//! between any two of them.

use super::super::error::StorageError;
use super::writer::Temp;
use super::{KEPT, SnapshotInfo, Snapshots, name};

/// A snapshot whose file is complete and durable, under a name that the next start removes.
pub struct Sealed {
    pub(super) snapshots: Snapshots,
    pub(super) temp: Temp,
    pub(super) info: SnapshotInfo,
}

/// A snapshot whose file has its name, which a crash may still take back.
pub struct Renamed {
    snapshots: Snapshots,
    info: SnapshotInfo,
}

impl Sealed {
    /// Puts the file in its place, and removes those that are not needed any more.
    pub(super) fn place(self) -> Result<SnapshotInfo, StorageError> {
        let shared = self.snapshots.shared.clone();
        let _placing = shared.placing.lock();
        self.rename()?.settle()
    }

    /// Gives the file its name. Nobody else may be between this and [`Renamed::settle`].
    pub fn rename(self) -> Result<Renamed, StorageError> {
        let Self {
            snapshots,
            temp,
            info,
        } = self;
        snapshots.check_new(info.meta.last)?;
        temp.keep(&name(info.meta.last))?;
        Ok(Renamed { snapshots, info })
    }
}

impl Renamed {
    /// Makes the name durable. From here on the snapshot is one to start from, and those beyond the
    /// newest two go.
    pub fn settle(self) -> Result<SnapshotInfo, StorageError> {
        let Self { snapshots, info } = self;
        snapshots.shared.folder.sync()?;
        let oldest_kept = {
            let mut kept = snapshots.shared.kept.lock();
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
