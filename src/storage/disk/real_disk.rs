//! A data folder in the machine's file system, locked against other processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::storage::error::StorageError;
use crate::storage::{archive, repair};

use super::real_file::RealFile;
use super::{Disk, DiskFile};

/// The name of the file that is locked while a node runs. It holds the node's process id, which is
/// shown to a person who starts a second node on the folder.
const LOCK: &str = "lock";
/// How long to wait for a lock that another process has, and how long to pause between two attempts
/// to get it.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// A folder in the machine's file system, locked against other processes.
///
/// The operating system releases the lock when the process ends, however that happens.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    /// A handle of the folder, for syncing it. `None` after a sync has failed: the kernel reports a
    /// failure only once, but every thread that syncs the folder later must get an error, too.
    handle: Mutex<Option<File>>,
    _lock: Option<File>,
}

impl RealDisk {
    /// Opens a folder without a lock, to write a single file into it; it is not a data folder.
    pub(in crate::storage) fn unlocked(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            handle: Mutex::new(Some(File::open(folder)?)),
            folder: folder.to_path_buf(),
            _lock: None,
        })
    }

    /// Opens and locks a data folder, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process has it open; [`StorageError::Unusable`] if
    /// restoring or recovering it was interrupted; [`StorageError::Io`] if it cannot be created,
    /// read or written.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let folder = folder.into();
        let failed = |operation| failed_in(&folder, operation);
        repair::finish_interrupted(&folder)?;
        archive::check_not_half_restored(&folder)?;
        create_durably(&folder).map_err(failed("create the data folder"))?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join(LOCK))
            .map_err(failed("open the lock file in the data folder"))?;
        lock_for_us(&folder, &mut lock)?;
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(failed("write the lock file in the data folder"))?;
        let handle = File::open(&folder).map_err(failed("open the data folder"))?;
        Ok(Self {
            folder,
            handle: Mutex::new(Some(handle)),
            _lock: Some(lock),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn failed_in(
    folder: &Path,
    operation: &'static str,
) -> impl FnOnce(io::Error) -> StorageError + use<> {
    let path = folder.to_path_buf();
    move |source| StorageError::Io {
        path,
        operation,
        source,
    }
}

/// Locks a data folder without changing it. `None` if nobody ever had it open where it lies.
pub(super) fn lock_as_it_is(folder: &Path) -> Result<Option<File>, StorageError> {
    let failed = |operation| failed_in(folder, operation);
    File::open(folder).map_err(failed("open the data folder"))?;
    let mut lock = match File::open(folder.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open the lock file in the data folder")(error)),
    };
    lock_for_us(folder, &mut lock)?;
    Ok(Some(lock))
}

/// Locks the lock file of a data folder, or says who has locked it.
fn lock_for_us(folder: &Path, lock: &mut File) -> Result<(), StorageError> {
    match lock_soon(lock) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
            folder: folder.to_path_buf(),
            owner: process_id(lock),
        }),
        Err(TryLockError::Error(error)) => Err(failed_in(folder, "lock the data folder")(error)),
    }
}

/// Takes the lock, and waits up to a second if another process has it. After `kill -9`, a process
/// keeps its lock until the kernel has ended the last of its threads, and the node may be started
/// again before that.
fn lock_soon(lock: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

/// Creates the folder and its missing parents. The parent of each new folder is synced, so that no
/// crash removes the new folder.
fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        result => result?,
    }
    File::open(parent)?.sync_all()
}

/// The names of the files in a data folder, without the lock file.
pub(in crate::storage) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        // Leave out names that are not UTF-8, because the node gives no file such a name.
        if let Ok(name) = entry?.file_name().into_string()
            && name != LOCK
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// The process id in the lock file; `None` if the file holds something else.
fn process_id(lock: &mut File) -> Option<String> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

impl Disk for RealDisk {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.folder)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.path(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(self.path(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut handle = self.handle.lock();
        let Some(open) = handle.as_ref() else {
            return Err(io::Error::other("an earlier sync of the folder failed"));
        };
        let synced = open.sync_all();
        if synced.is_err() {
            *handle = None;
        }
        synced
    }

    fn unique_id(&self) -> u64 {
        // Each `RandomState` has other keys, drawn from the operating system's random generator, so
        // its hashes serve as random numbers.
        RandomState::new().hash_one((std::process::id(), SystemTime::now()))
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_only_after_its_owner_had_a_moment_to_go() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let _owner = RealDisk::open(folder.path()).expect("it is nobody's");
        let asked = Instant::now();
        let refused = RealDisk::open(folder.path());
        assert!(matches!(refused, Err(StorageError::Locked { .. })));
        assert!(asked.elapsed() >= PATIENCE, "{:?}", asked.elapsed());
    }
}
