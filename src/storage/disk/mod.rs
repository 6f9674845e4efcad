//! All access to files: [`Disk`] is a folder, [`DiskFile`] is a file in it.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | what is assumed of a disk, and the traits |
//! | [`real_disk`], [`real_file`] | the machine's file system, with the file `lock` in the folder |
//! | [`read_only_disk`] | a folder that can be read but not changed |
//! | [`sim_disk`], [`sim_contents`], [`sim_names`] | a disk in memory, for tests: the contents of its files, and their names |
//! | [`folder`] | adds the file's name to errors, and creates files as a whole |
//! | [`parent`] | the folder above, in which a data folder is put in the place of another one |
//!
//! # Assumptions
//!
//! All arguments about crashes in the storage rest on these assumptions about a disk, and on no
//! others. [`SimDisk`] breaks everything else that a disk could be expected to do.
//!
//! 1. Bytes that were written to a file survive a crash once `sync_data` has returned without an
//!    error.
//! 2. Of bytes that were not synced, a crash may keep any part, in units of 512 bytes that are
//!    aligned to 512 bytes. Bytes that no write touched do not change.
//! 3. When a file is created, renamed or removed, a crash may undo that until `sync_dir` has
//!    returned. Syncing the file itself does not prevent it. A rename is atomic.
//! 4. After a write or a sync that failed, nothing is known about the bytes written since the last
//!    good sync. A later sync that succeeds proves nothing about them.
//!
//! `SimDisk` is for tests. It is here, and not in `testkit`, because it is this list as a program:
//! whoever changes the list has to change `SimDisk`. Tests of the storage alone need no other
//! module.

mod folder;
mod parent;
pub(super) mod read_only_disk;
pub(super) mod real_disk;
mod real_file;
mod sim_contents;
mod sim_disk;
mod sim_names;

use std::io;
use std::path::Path;

pub use parent::Parent;
pub use read_only_disk::ReadOnlyDisk;
pub use real_disk::RealDisk;
pub use sim_disk::{Outcome, SimDisk, Unreadable};

pub(super) use folder::{Folder, NamedFile, is_unfinished, unfinished};
pub(super) use parent::RealParent;

/// The unit in bytes that a disk writes as a whole. The log's memory and files are aligned to it.
pub(super) const SECTOR: usize = 512;

/// The folder of one node. File names contain no path: the node makes no folders inside it.
pub trait Disk: Send + Sync {
    /// The folder's path, for error messages.
    fn folder(&self) -> &Path;

    /// The names of the files in the folder, in no particular order.
    ///
    /// # Errors
    /// The error of the operating system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file, and replaces any file of that name.
    ///
    /// # Errors
    /// The error of the operating system.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, else the error of the operating system.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, and replaces any file of the new name in the same step.
    ///
    /// # Errors
    /// The error of the operating system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The error of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in the folder durable, so that no crash undoes earlier calls of `create`,
    /// `rename` and `remove`.
    ///
    /// # Errors
    /// The error of the operating system.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns a random number, different at each call on any disk. It comes from the disk, so that
    /// a simulated disk can draw it from its seed and tests with the same seed run alike.
    fn unique_id(&self) -> u64;

    /// The time of day in milliseconds since 1970. It is shown to people, and nothing depends on
    /// it.
    fn now_ms(&self) -> u64;
}

/// An open file in a data folder.
pub trait DiskFile: Send + Sync {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// The error of the operating system.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The error of the operating system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills the buffer with the file's bytes from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before that, else the error of the operating system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all the bytes at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// The error of the operating system. Any part of the bytes may have been written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all bytes written to this file durable, and the file's length.
    ///
    /// # Errors
    /// The error of the operating system. The file must not be written to after that: see the
    /// fourth assumption at the head of this file.
    fn sync_data(&self) -> io::Result<()>;

    /// Announces that most writes from now on are whole sectors of 512 bytes, from memory that is
    /// aligned to 512 bytes, and that nothing will be read. A disk may then write such sectors
    /// without the kernel's page cache, which changes only the speed.
    fn expect_whole_sectors(&mut self) {}

    /// Announces that `len` bytes from offset `from` on are not needed in memory, so that the next
    /// read of them asks the disk. This is a hint: nothing depends on it but what a scrub can find.
    fn forget(&self, from: u64, len: u64) {
        let _ = (from, len);
    }

    /// Writes zeros from offset `from` up to `to`, exclusive. Once the zeros are synced, a write to
    /// this range changes no metadata of the file, so its sync is faster.
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

    /// A buffer of zeros, as long as one write of zeros should be.
    fn zeros(&self) -> &'static [u8] {
        static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
        &ZEROS
    }
}
