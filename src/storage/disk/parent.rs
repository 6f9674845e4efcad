//! The folder above a data folder, for the steps that put another folder in the data folder's
//! place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::error::StorageError;
use crate::storage::repair;

use super::sim_disk::failure;
use super::sim_names::Names;
use super::{Disk, ReadOnlyDisk, RealDisk, SimDisk};

/// A folder that data folders lie in, each under a name. A crash may undo what changes a name until
/// [`sync`](Self::sync) has returned, and a rename is atomic, as in a data folder.
pub trait Parent: Send + Sync {
    /// The folder's path, for error messages.
    fn path(&self) -> &Path;

    /// Whether there is a folder, or anything else, of this name.
    ///
    /// # Errors
    /// The error of the operating system.
    fn has(&self, name: &str) -> io::Result<bool>;

    /// Opens the data folder of this name, and makes it if it is missing; the name is durable then.
    ///
    /// # Errors
    /// As [`RealDisk::open`].
    fn open(&self, name: &str) -> Result<Arc<dyn Disk>, StorageError>;

    /// Opens the data folder of this name for reading only. No other process opens it meanwhile.
    /// Nothing is changed.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process has it open; [`StorageError::Io`].
    fn look(&self, name: &str) -> Result<Arc<dyn Disk>, StorageError>;

    /// Renames a folder. There must be nothing of the new name.
    ///
    /// # Errors
    /// `AlreadyExists` if there is, else the error of the operating system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a folder and all files in it. A crash may leave some of them.
    ///
    /// # Errors
    /// The error of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in this folder durable.
    ///
    /// # Errors
    /// The error of the operating system.
    fn sync(&self) -> io::Result<()>;
}

/// A folder in the machine's file system.
pub(in crate::storage) struct RealParent {
    folder: PathBuf,
}

impl RealParent {
    /// The folder at this path; an empty path is the working folder.
    pub(in crate::storage) fn new(folder: &Path) -> Self {
        let folder = match folder == Path::new("") {
            true => Path::new("."),
            false => folder,
        };
        let folder = folder.to_path_buf();
        Self { folder }
    }
}

impl Parent for RealParent {
    fn path(&self) -> &Path {
        &self.folder
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        // Not `exists`, which follows a link, and takes an error for "it is not there".
        match fs::symlink_metadata(self.folder.join(name)) {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn open(&self, name: &str) -> Result<Arc<dyn Disk>, StorageError> {
        Ok(Arc::new(RealDisk::open(self.folder.join(name))?))
    }

    fn look(&self, name: &str) -> Result<Arc<dyn Disk>, StorageError> {
        Ok(Arc::new(ReadOnlyDisk::locked(self.folder.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        // The operating system would put the folder in the place of one that is empty.
        if self.has(to)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.folder.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

impl Parent for SimDisk {
    fn path(&self) -> &Path {
        Disk::folder(self)
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.state().lock().folder_names.now.contains_key(name))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn Disk>, StorageError> {
        let failed = |source| StorageError::Io {
            path: self.path().join(name),
            operation: "create the data folder",
            source,
        };
        repair::finish_interrupted_in(Arc::new(self.clone()), name)?;
        let known = self.folder_named(name);
        let folder = match known {
            Some(folder) => folder,
            None => self.make_folder(name).map_err(failed)?,
        };
        Ok(Arc::new(folder))
    }

    fn look(&self, name: &str) -> Result<Arc<dyn Disk>, StorageError> {
        let found = self.folder_named(name);
        let folder = found.ok_or_else(|| StorageError::Io {
            path: self.path().join(name),
            operation: "open the data folder",
            source: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Arc::new(folder))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state().lock();
        if state.folder_names.now.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.folder_names.id(from)?;
        if state.operate()? {
            return Err(failure());
        }
        let renaming = vec![(from.into(), None), (to.into(), Some(id))];
        state.folder_names.change(renaming);
        Ok(())
    }

    /// Removes the files one by one, so that a crash may come between any two of them.
    fn remove(&self, name: &str) -> io::Result<()> {
        if let Some(folder) = self.folder_named(name) {
            for file in folder.list()? {
                Disk::remove(&folder, &file)?;
            }
        }
        let mut state = self.state().lock();
        state.folder_names.id(name)?;
        if state.operate()? {
            return Err(failure());
        }
        state.folder_names.change(vec![(name.into(), None)]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state().lock();
        if state.operate()? {
            return Err(failure());
        }
        state.folder_names.sync();
        Ok(())
    }
}

impl SimDisk {
    /// The data folder of this name that lies in this folder, if there is one.
    pub fn folder_named(&self, name: &str) -> Option<SimDisk> {
        let at = *self.state().lock().folder_names.now.get(name)?;
        Some(self.folder_at(at, name))
    }

    fn make_folder(&self, name: &str) -> io::Result<SimDisk> {
        let mut state = self.state().lock();
        if state.operate()? {
            return Err(failure());
        }
        let at = state.folders.len();
        state.folders.push(Names::default());
        state.folder_names.change(vec![(name.into(), Some(at))]);
        drop(state);
        self.sync()?;
        Ok(self.folder_at(at, name))
    }
}
