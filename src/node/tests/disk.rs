//! A disk in memory that counts what is read, and whose changes to one file can be made to hang.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::storage::{Disk, DiskFile, SimDisk};

#[derive(Clone)]
pub(in crate::node) struct WatchedDisk {
    disk: SimDisk,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    read: AtomicU64,
    hanging: Mutex<Hanging>,
    changed: Condvar,
}

#[derive(Default)]
struct Hanging {
    /// What the names of the files begin with whose writes hang.
    prefix: Option<String>,
    /// How many writes hang now.
    writes: usize,
}

struct WatchedFile {
    file: Box<dyn DiskFile>,
    name: String,
    watch: Arc<Watch>,
}

impl WatchedDisk {
    pub fn new() -> Self {
        Self {
            disk: SimDisk::new(1),
            watch: Arc::default(),
        }
    }

    /// How many bytes have been read from files.
    pub fn bytes_read(&self) -> u64 {
        self.watch.read.load(Ordering::SeqCst)
    }

    /// Writes to files whose names begin like this hang, until what is returned is dropped.
    pub fn hang(&self, prefix: &str) -> Hang {
        self.watch.hanging.lock().prefix = Some(prefix.to_string());
        Hang(self.watch.clone())
    }

    /// Waits until a write hangs.
    pub fn wait_for_hanging_write(&self) {
        let mut hanging = self.watch.hanging.lock();
        while hanging.writes == 0 {
            self.watch.changed.wait(&mut hanging);
        }
    }

    fn watched(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(WatchedFile {
            file,
            name: name.to_string(),
            watch: self.watch.clone(),
        })
    }
}

/// While it is there, writes hang.
#[must_use]
pub(in crate::node) struct Hang(Arc<Watch>);

impl Drop for Hang {
    fn drop(&mut self) {
        self.0.hanging.lock().prefix = None;
        self.0.changed.notify_all();
    }
}

impl Watch {
    fn wait(&self, name: &str) {
        let hangs = |hanging: &Hanging| {
            let prefix = hanging.prefix.as_deref();
            prefix.is_some_and(|prefix| name.starts_with(prefix))
        };
        let mut hanging = self.hanging.lock();
        if hangs(&hanging) {
            hanging.writes += 1;
            self.changed.notify_all();
            while hangs(&hanging) {
                self.changed.wait(&mut hanging);
            }
            hanging.writes -= 1;
        }
    }
}

impl Disk for WatchedDisk {
    fn folder(&self) -> &Path {
        self.disk.folder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watched(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.watched(name, self.disk.open(name)?))
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

impl DiskFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let len = buffer.len() as u64;
        self.watch.read.fetch_add(len, Ordering::SeqCst);
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.watch.wait(&self.name);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
