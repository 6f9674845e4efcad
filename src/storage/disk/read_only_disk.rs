//! A data folder in the machine's file system that can be read but not changed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::storage::error::StorageError;

use super::real_disk::{self, names_in};
use super::real_file::RealFile;
use super::{Disk, DiskFile};

/// A data folder that can only be read: every operation that would change it fails.
///
/// Reading needs no lock and no right to write, so a node may run on the folder meanwhile. A file
/// that is read while the node writes it may look damaged.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    folder: PathBuf,
    _lock: Option<File>,
}

impl ReadOnlyDisk {
    /// Wraps the folder at this path, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            _lock: None,
        }
    }

    /// Like [`new`](Self::new), but no other process opens the folder meanwhile. If the folder has
    /// no file to lock, no process has it open.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process has it open; [`StorageError::Io`].
    pub(in crate::storage) fn locked(folder: PathBuf) -> Result<Self, StorageError> {
        let _lock = real_disk::lock_as_it_is(&folder)?;
        Ok(Self { folder, _lock })
    }
}

fn refused<T>() -> io::Result<T> {
    let message = "the folder is open for reading only";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

impl Disk for ReadOnlyDisk {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.folder)
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = File::open(self.folder.join(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }

    fn unique_id(&self) -> u64 {
        0
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }
}
