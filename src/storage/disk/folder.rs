//! A data folder and its files. Errors name the file and the operation, and a file is created as a
//! whole or not at all.
//!
//! A file is created under a name that ends in `.new`, written, synced, and renamed; then the
//! folder is synced. After a crash before the rename, the next start removes the file. After a
//! crash before the sync of the folder, the file may have either name. So a file without `.new` is
//! always complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::error::{ALLOCATE, CREATE, StorageError, WRITE};

use super::{Disk, DiskFile};

/// The ending of an incomplete file's name.
const UNFINISHED: &str = ".new";

/// The data folder of a node: creates, reads, replaces and removes files in it by name.
#[derive(Clone)]
pub(in crate::storage) struct Folder {
    disk: Arc<dyn Disk>,
}

/// An open file that knows its path, for error messages.
pub(in crate::storage) struct NamedFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl Folder {
    pub(in crate::storage) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    fn file(&self, path: PathBuf, file: Box<dyn DiskFile>) -> NamedFile {
        NamedFile { path, file }
    }

    pub(in crate::storage) fn path(&self) -> &Path {
        self.disk.folder()
    }

    pub(in crate::storage) fn list(&self) -> Result<Vec<String>, StorageError> {
        self.disk.list().map_err(at(self.path(), "list the folder"))
    }

    pub(in crate::storage) fn open(&self, name: &str) -> Result<NamedFile, StorageError> {
        let path = self.path().join(name);
        match self.disk.open(name) {
            Ok(file) => Ok(self.file(path, file)),
            Err(source) => Err(at(&path, "open")(source)),
        }
    }

    pub(in crate::storage) fn sync(&self) -> Result<(), StorageError> {
        self.disk
            .sync_dir()
            .map_err(at(self.path(), "sync the folder"))
    }

    pub(in crate::storage) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path().join(name);
        self.disk.remove(name).map_err(at(&path, "remove"))
    }

    pub(in crate::storage) fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let path = self.path().join(to);
        let renamed = self.disk.rename(from, to);
        renamed.map_err(at(&path, "rename a file to"))
    }

    /// Creates an empty file under a name that [`unfinished`] returned, which ends in `.new`.
    pub(in crate::storage) fn create_unfinished(
        &self,
        unfinished: &str,
    ) -> Result<NamedFile, StorageError> {
        let path = self.path().join(unfinished);
        let file = self.disk.create(unfinished).map_err(at(&path, CREATE))?;
        Ok(self.file(path, file))
    }

    /// Writes and syncs a file whose name still ends in `.new`. [`finish`](Self::finish) renames
    /// it.
    pub(in crate::storage) fn begin(
        &self,
        name: &str,
        fill: impl FnOnce(&NamedFile) -> Result<(), StorageError>,
    ) -> Result<NamedFile, StorageError> {
        let file = self.create_unfinished(&unfinished(name))?;
        fill(&file)?;
        file.sync()?;
        Ok(file)
    }

    /// Renames a complete file from its name that ends in `.new` to `name`. When this returns, no
    /// crash can undo the rename.
    pub(in crate::storage) fn finish(&self, name: &str) -> Result<(), StorageError> {
        self.rename(&unfinished(name), name)?;
        self.sync()
    }

    /// Like [`finish`](Self::finish), for an open file, whose present name need not be `name` and
    /// `.new`.
    pub(in crate::storage) fn finish_file(
        &self,
        mut file: NamedFile,
        name: &str,
    ) -> Result<NamedFile, StorageError> {
        let unfinished = file.path.file_name().unwrap_or_default();
        self.rename(&unfinished.to_string_lossy(), name)?;
        self.sync()?;
        file.path = self.path().join(name);
        Ok(file)
    }

    /// Creates or replaces a file as a whole: a crash leaves the new contents, or what was there
    /// before.
    pub(in crate::storage) fn create(
        &self,
        name: &str,
        fill: impl FnOnce(&NamedFile) -> Result<(), StorageError>,
    ) -> Result<NamedFile, StorageError> {
        let file = self.begin(name, fill)?;
        self.finish_file(file, name)
    }

    /// Removes all files whose names end in `.new`. The folder has to be synced afterwards. After a
    /// crash before that, some of the files may be back, and the next start removes them.
    pub(in crate::storage) fn remove_unfinished(&self) -> Result<(), StorageError> {
        for name in self.list()? {
            if is_unfinished(&name) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    pub(in crate::storage) fn unique_id(&self) -> u64 {
        self.disk.unique_id()
    }

    pub(in crate::storage) fn now_ms(&self) -> u64 {
        self.disk.now_ms()
    }
}

/// The name that a file has while it is incomplete.
pub(in crate::storage) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}

/// Whether a name is that of an incomplete file, which may be removed because nothing depends on
/// it.
pub(in crate::storage) fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

impl NamedFile {
    pub(in crate::storage) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the whole file into `buffer`, in place of what `buffer` contained.
    pub(in crate::storage) fn read_all(&self, buffer: &mut Vec<u8>) -> Result<(), StorageError> {
        let len = self.len()?;
        buffer.clear();
        buffer.resize(len as usize, 0);
        self.read(buffer, 0)
    }

    pub(in crate::storage) fn len(&self) -> Result<u64, StorageError> {
        self.file.len().map_err(at(&self.path, "read"))
    }

    /// Fills the buffer with the file's bytes from `offset` on.
    pub(in crate::storage) fn read(
        &self,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<(), StorageError> {
        let read = self.file.read_at(buffer, offset);
        read.map_err(at(&self.path, "read"))
    }

    pub(in crate::storage) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let written = self.file.write_at(bytes, offset);
        written.map_err(at(&self.path, WRITE))
    }

    /// Announces writes of whole sectors: see [`DiskFile::expect_whole_sectors`].
    pub(in crate::storage) fn expect_whole_sectors(&mut self) {
        self.file.expect_whole_sectors();
    }

    /// Lets the kernel forget what it remembers of a range: see [`DiskFile::forget`].
    pub(in crate::storage) fn forget(&self, from: u64, len: u64) {
        self.file.forget(from, len);
    }

    pub(in crate::storage) fn allocate(&self, from: u64, to: u64) -> Result<(), StorageError> {
        let allocated = self.file.allocate(from, to);
        allocated.map_err(at(&self.path, ALLOCATE))
    }

    pub(in crate::storage) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(at(&self.path, "sync"))
    }
}

fn at(path: &Path, operation: &'static str) -> impl FnOnce(std::io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |source| StorageError::Io {
        path,
        operation,
        source,
    }
}
