//! A disk in memory that calls a test before each access to a file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::storage::{Disk, DiskFile, SimDisk};

/// What is about to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is opened. To create it is no access.
    Open,
    /// So many of its bytes are read.
    Read(usize),
    /// Bytes are written to it.
    Write,
    /// Its bytes are made durable.
    Sync,
}

type Hook = Arc<dyn Fn(&str, Access) + Send + Sync>;

/// A [`SimDisk`] that calls a function before each access to a file, with the name that the file
/// had when it was opened. The thread that wants the access calls it, without a lock of the disk:
/// so the function may count, wait, or use the disk.
pub struct HookedDisk {
    disk: SimDisk,
    hook: Hook,
    lean: bool,
}

struct HookedFile {
    file: Box<dyn DiskFile>,
    name: String,
    hook: Hook,
    lean: bool,
}

impl HookedDisk {
    /// Calls `hook` before each access to a file of `disk`.
    pub fn new(disk: SimDisk, hook: impl Fn(&str, Access) + Send + Sync + 'static) -> Self {
        let (hook, lean) = (Arc::new(hook), false);
        Self { disk, hook, lean }
    }

    /// Has the disk ignore requests to allocate space ahead of the writes. In a test that starts a
    /// node some thousand times, filling that space would take most of the time.
    pub fn lean(self) -> Self {
        Self { lean: true, ..self }
    }

    /// The disk underneath.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn file(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(HookedFile {
            file,
            name: name.to_string(),
            hook: self.hook.clone(),
            lean: self.lean,
        })
    }
}

impl Disk for HookedDisk {
    fn folder(&self) -> &Path {
        self.disk.folder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        (self.hook)(name, Access::Open);
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn unique_id(&self) -> u64 {
        self.disk.unique_id()
    }

    fn now_ms(&self) -> u64 {
        self.disk.now_ms()
    }
}

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (self.hook)(&self.name, Access::Read(buffer.len()));
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)(&self.name, Access::Write);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.hook)(&self.name, Access::Sync);
        self.file.sync_data()
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        match self.lean {
            true => Ok(()),
            false => self.file.allocate(from, to),
        }
    }
}
