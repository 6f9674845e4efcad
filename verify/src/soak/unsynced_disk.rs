//! A disk that keeps what was not synced in the memory of the process, so that `kill -9` does what
//! a power failure does.
//!
//! The kernel keeps what a killed process has written: on a real disk, `kill -9` loses nothing, and
//! a node that forgets to sync looks well. On this disk it loses what the head of
//! `storage/disk/mod.rs` permits, and no more:
//!
//! - What was written to a file stays in memory until `sync_data`. Any of it may reach the real
//!   file before, in units of 512 bytes: after each write, chance picks some. A sync writes in
//!   pieces of chance size and in an order of chance, so a kill in the middle of it leaves a torn
//!   write.
//! - What was created, renamed or removed is so for this process only, until `sync_dir`. Some of it
//!   may be carried out before, in any order that the names permit. A new file lives in a folder
//!   beside the data folder until its name is carried out; what a killed process leaves there is
//!   removed by the next one.
//!
//! The real syncs are called as well, so that a sync takes as long as it does on the real disk.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use raftkv::storage::{Disk, DiskFile, RealDisk, StorageError};

use file::{Chance, EARLY, Kept, UnsyncedFile};

/// A data folder whose changes are real once they are synced.
pub struct UnsyncedDisk {
    real: RealDisk,
    /// The folder of the files whose names are not carried out yet.
    nameless: RealDisk,
    names: Mutex<Names>,
}

struct Names {
    /// The folder as this process sees it.
    files: BTreeMap<String, Arc<Kept>>,
    /// What the real folder lacks of that, oldest first.
    pending: VecDeque<Change>,
    /// How many files were created: each has a number for a name until it has its own.
    created: u64,
    /// A change could not be carried out, so nothing is known about the folder any more.
    failed: bool,
    chance: Chance,
}

/// A change of the folder that was not carried out yet.
enum Change {
    /// The file of this number, from the other folder, gets its name.
    Create(u64, String),
    Rename(String, String),
    Remove(String),
}

impl UnsyncedDisk {
    /// Opens a data folder, and creates it if it is missing. The folder beside it has the same name
    /// with `.unsynced` behind it.
    ///
    /// # Errors
    /// As [`RealDisk::open`].
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        let real = RealDisk::open(folder)?;
        let mut beside = OsString::from(folder.file_name().unwrap_or_default());
        beside.push(".unsynced");
        let beside = folder.with_file_name(beside);
        let nameless = RealDisk::open(&beside)?;
        let at = |path: &Path, operation| {
            let path = path.to_path_buf();
            move |source| StorageError::Io {
                path,
                operation,
                source,
            }
        };
        let left = nameless.list().map_err(at(&beside, "list the folder"))?;
        for name in left {
            let removed = nameless.remove(&name);
            removed.map_err(at(&beside.join(name), "remove"))?;
        }
        let mut chance = Chance(real.unique_id());
        let mut files = BTreeMap::new();
        for name in real.list().map_err(at(folder, "list the folder"))? {
            let kept = real
                .open(&name)
                .and_then(|file| Kept::new(file, &mut chance));
            let kept = kept.map_err(at(&folder.join(&name), "open"))?;
            files.insert(name, kept);
        }
        let names = Mutex::new(Names {
            files,
            pending: VecDeque::new(),
            created: 0,
            failed: false,
            chance,
        });
        Ok(Self {
            real,
            nameless,
            names,
        })
    }

    /// Enters a change that the process has seen; with some chance, one or more are carried out.
    fn note(&self, names: &mut Names, change: Change) -> io::Result<()> {
        names.pending.push_back(change);
        while !names.pending.is_empty() && names.chance.below(EARLY) == 0 {
            let wanted = names.chance.below(names.pending.len() as u64) as usize;
            let pending = &names.pending;
            let waits = pending.iter().take(wanted).any(|earlier| {
                let mut earlier = earlier.names();
                earlier.any(|name| pending[wanted].names().any(|own| own == name))
            });
            self.carry_out(names, if waits { 0 } else { wanted })?;
        }
        Ok(())
    }

    /// Carries out the pending change of this number.
    fn carry_out(&self, names: &mut Names, number: usize) -> io::Result<()> {
        let Some(change) = names.pending.remove(number) else {
            return Ok(());
        };
        let done = match &change {
            Change::Create(number, name) => {
                let from = self.nameless.folder().join(number.to_string());
                fs::rename(from, self.real.folder().join(name))
            }
            Change::Rename(from, to) => self.real.rename(from, to),
            Change::Remove(name) => self.real.remove(name),
        };
        names.failed |= done.is_err();
        done
    }
}

impl Change {
    /// The names in the folder that it changes.
    fn names(&self) -> impl Iterator<Item = &String> {
        let (first, second) = match self {
            Change::Create(_, name) | Change::Remove(name) => (name, None),
            Change::Rename(from, to) => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}

impl Disk for UnsyncedDisk {
    fn folder(&self) -> &Path {
        self.real.folder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.lock().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut names = self.names.lock();
        names.created += 1;
        let number = names.created;
        let real = self.nameless.create(&number.to_string())?;
        let kept = Kept::new(real, &mut names.chance)?;
        names.files.insert(name.to_string(), kept.clone());
        self.note(&mut names, Change::Create(number, name.to_string()))?;
        Ok(Box::new(UnsyncedFile(kept)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let names = self.names.lock();
        let kept = names.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(UnsyncedFile(kept.clone())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.names.lock();
        let kept = names.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.files.insert(to.to_string(), kept);
        let change = Change::Rename(from.to_string(), to.to_string());
        self.note(&mut names, change)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut names = self.names.lock();
        names.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.note(&mut names, Change::Remove(name.to_string()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut names = self.names.lock();
        if names.failed {
            return Err(io::Error::other("an earlier change of the folder failed"));
        }
        while !names.pending.is_empty() {
            self.carry_out(&mut names, 0)?;
        }
        self.real.sync_dir()
    }

    fn unique_id(&self) -> u64 {
        self.real.unique_id()
    }

    fn now_ms(&self) -> u64 {
        self.real.now_ms()
    }
}
