//! A simulated disk that takes no space ahead of the log: a test that starts a node some thousand
//! times would do little else. If it is to be slow, other threads may go on before it does what
//! it is asked for.

use std::io;
use std::path::Path;

use raftkv::storage::{Disk, DiskFile, SimDisk};
use shuttle::sync::atomic::{AtomicBool, Ordering};

/// The disk.
pub struct LeanDisk {
    disk: SimDisk,
    slow: bool,
}

struct LeanFile {
    file: Box<dyn DiskFile>,
    slow: bool,
}

impl LeanDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        Self { disk, slow: false }
    }

    /// A slow disk that holds what another one does.
    pub fn slow(disk: &SimDisk) -> Self {
        let disk = disk.fork();
        Self { disk, slow: true }
    }

    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let slow = self.slow;
        Box::new(LeanFile { file, slow })
    }

    /// What is on it, now and later.
    pub fn contents(&self) -> SimDisk {
        self.disk.clone()
    }

    /// From here on every change fails.
    pub fn fail(&self) {
        self.disk.stop_at(self.disk.operations());
    }
}

impl Disk for LeanDisk {
    fn folder(&self) -> &Path {
        self.disk.folder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
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

impl LeanFile {
    /// Lets the explorer choose who goes on. No lock of the node or of its files is held here.
    fn takes_a_while(&self) {
        if self.slow {
            AtomicBool::new(true).load(Ordering::SeqCst);
        }
    }
}

impl DiskFile for LeanFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.takes_a_while();
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.takes_a_while();
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.takes_a_while();
        self.file.sync_data()
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
