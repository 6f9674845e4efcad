//! The one door to files: [`Disk`] for a folder, [`DiskFile`] for a file in it.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | what is assumed of a disk, and the traits |
//! | [`real_disk`], [`real_file`] | the machine's file system, with the folder's file `lock` |
//! | [`read_only_disk`] | a folder to be looked at, which nothing can change |
//! | [`sim_disk`] | a disk in memory, for tests |
//! | [`folder`] | a disk whose errors name the file; how a file comes into being as a whole |
//!
//! # Assumptions
//!
//! The log is only as good as what it assumes of the disk. These are the assumptions, and
//! [`SimDisk`] breaks everything that is not among them:
//!
//! 1. What was written to a file survives a crash once `sync_data` has returned without an error.
//! 2. What was not synced may survive in any part and in any order, in units of 512 bytes that are
//!    aligned to 512 bytes. Bytes that no write touched do not change.
//! 3. A file that was created, renamed or removed may appear so or not after a crash, until
//!    `sync_dir` has returned; syncing the file itself does not help. A rename is atomic.
//! 4. After a write or a sync that failed, nothing is known about what was written since the last
//!    good sync, and a later sync that succeeds proves nothing about it.

mod folder;
pub(super) mod read_only_disk;
pub(super) mod real_disk;
mod real_file;
mod sim_disk;

use std::io;
use std::path::Path;

pub use read_only_disk::ReadOnlyDisk;
pub use real_disk::RealDisk;
pub use sim_disk::{Outcome, SimDisk};

pub(super) use folder::{Folder, NamedFile, is_unfinished, unfinished};

/// What a disk writes as a whole, in bytes. The log's memory and files are aligned to it.
pub(super) const SECTOR: usize = 512;

/// The folder of one node. Names are plain file names; there are no folders inside it.
pub trait Disk: Send + Sync {
    /// The folder's path, for messages to people.
    fn folder(&self) -> &Path;

    /// The names of the files in the folder, in no particular order.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file, in place of any that had the name.
    ///
    /// # Errors
    /// What the operating system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if it is not there, else what the operating system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, in place of any that had it, in one step.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all that was created, renamed and removed durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// A number that no other call on any disk returns. It is part of the disk because it is the
    /// one thing that the log takes from chance: a simulated disk draws it from its seed.
    fn unique_id(&self) -> u64;

    /// The time of day in milliseconds since 1970, for people to read: nothing depends on it.
    fn now_ms(&self) -> u64;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills the buffer with the bytes from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before, else what the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all the bytes at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// What the operating system says. Then any part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable, and the length with it.
    ///
    /// # Errors
    /// What the operating system says. The file is not to be written to any more after it.
    fn sync_data(&self) -> io::Result<()>;

    /// From now on mostly whole sectors of 512 bytes will be written, from memory that is aligned
    /// like them, and nothing be read: such writes need not go through the system's cache. Changes
    /// nothing in what is promised.
    fn expect_whole_sectors(&mut self) {}

    /// Fills the bytes from `from` up to `to`, exclusive, with zeros that are really written: a
    /// later sync of data in their place then has no metadata to write.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = self.zeros();
        let unit = zeros.len() as u64;
        let mut at = from;
        while at < to {
            let len = (to - at).min(unit - at % unit);
            self.write_at(&zeros[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    /// So many zeros as it is best to write at once.
    fn zeros(&self) -> &'static [u8] {
        static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
        &ZEROS
    }
}
