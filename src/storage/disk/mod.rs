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
//! All arguments about crashes in this folder rest on these assumptions about a disk, and on no
//! others. [`SimDisk`] breaks everything else that a disk could be expected to do.
//!
//! 1. Bytes that were written to a file survive a crash once `sync_data` has returned without an
//!    error.
//! 2. Bytes that were not synced may survive in any part and in any order, in units of 512 bytes
//!    that are aligned to 512 bytes. Bytes that no write touched do not change.
//! 3. A file that was created, renamed or removed may appear so or not after a crash, until
//!    `sync_dir` has returned. To sync the file itself does not help. A rename is atomic.
//! 4. After a write or a sync that failed, nothing is known about the bytes written since the last
//!    good sync, and a later sync that succeeds proves nothing about them.
//!
//! `SimDisk` is a disk for tests. It is here, and not in `testkit`, because it is this list as a
//! program: a change of the list is a change of `SimDisk`. Besides, it is a public name of this
//! module, so that tests of the storage alone need nothing else.

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

    /// Makes the names in the folder durable: all files that were created, renamed and removed.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// A random number, different for each call on any disk. It comes from the disk so that a
    /// simulated disk can draw it from its seed, and a test with the same seed takes the same
    /// course.
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

    /// Makes everything that was written durable, and the file's length.
    ///
    /// # Errors
    /// What the operating system says. After that the file must not be written to any more: see the
    /// fourth assumption.
    fn sync_data(&self) -> io::Result<()>;

    /// Announces that from now on mostly whole sectors of 512 bytes will be written, from memory
    /// that is aligned to 512 bytes, and nothing will be read. A disk may write such sectors past
    /// the kernel's cache. What the other functions promise stays the same.
    fn expect_whole_sectors(&mut self) {}

    /// Writes zeros from offset `from` up to `to`, exclusive. Once they are synced, a write in
    /// their place changes no metadata of the file, and its sync is faster.
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

    /// As many zeros as are best written at once.
    fn zeros(&self) -> &'static [u8] {
        static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
        &ZEROS
    }
}
