//! A disk that says it has synced and has not: a fault layer for canaries.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::canary::Canary;
use crate::storage::{Disk, DiskFile, SimDisk};

/// The disk, with the syncs left out that the canary leaves out.
pub(super) fn of(disk: &SimDisk, canary: Option<Canary>) -> Arc<dyn Disk> {
    let file = match canary {
        Some(Canary::LogUnsynced) => "log-",
        Some(Canary::VoteUnsynced) => "vote",
        Some(Canary::RenameUnsynced) => "snapshot-",
        _ => return Arc::new(disk.clone()),
    };
    Arc::new(WrongDisk {
        disk: disk.clone(),
        file,
        names: canary == Some(Canary::RenameUnsynced),
        renamed: AtomicBool::new(false),
    })
}

struct WrongDisk {
    disk: SimDisk,
    /// How the names of the files begin that are concerned.
    file: &'static str,
    /// Whether it is their names that are not synced, or what they hold.
    names: bool,
    /// The next sync of the folder is for one of them.
    renamed: AtomicBool,
}

struct Unsynced(Box<dyn DiskFile>);

impl WrongDisk {
    fn file(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        match name.starts_with(self.file) && !self.names {
            true => Box::new(Unsynced(file)),
            false => file,
        }
    }
}

impl Disk for WrongDisk {
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
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let concerned = self.names && to.starts_with(self.file);
        self.renamed.store(concerned, Ordering::Relaxed);
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.renamed.swap(false, Ordering::Relaxed) {
            true => Ok(()),
            false => self.disk.sync_dir(),
        }
    }

    fn unique_id(&self) -> u64 {
        self.disk.unique_id()
    }

    fn now_ms(&self) -> u64 {
        self.disk.now_ms()
    }
}

impl DiskFile for Unsynced {
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
        Ok(())
    }
}
