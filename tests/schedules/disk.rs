//! A simulated disk that takes no space ahead of the log: a test that starts a node some thousand
//! times would do little else.

use std::io;
use std::path::Path;

use raftkv::storage::{Disk, DiskFile, SimDisk};

/// The disk.
pub struct LeanDisk(SimDisk);

struct LeanFile(Box<dyn DiskFile>);

impl LeanDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self(SimDisk::new(seed))
    }

    /// From here on every change fails.
    pub fn fail(&self) {
        self.0.stop_at(self.0.operations());
    }
}

impl Disk for LeanDisk {
    fn folder(&self) -> &Path {
        self.0.folder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LeanFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LeanFile(self.0.open(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn unique_id(&self) -> u64 {
        self.0.unique_id()
    }

    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }
}

impl DiskFile for LeanFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
