//! A small disk for one node, where the system lets this program mount one: a file system in
//! memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted disk. Dropped, it is unmounted, and what it holds is gone.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many megabytes at a folder that exists; `None` if that is not permitted.
    pub fn mount(folder: &Path, megabytes: u64) -> Option<Self> {
        let size = format!("size={megabytes}m");
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &size, "raftkv-soak"])
            .arg(folder);
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = streams.stderr(Stdio::null()).status().ok()?;
        status.success().then(|| Self {
            folder: folder.to_path_buf(),
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open on it keeps it; it is unmounted when they are gone.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
