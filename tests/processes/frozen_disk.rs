//! A file system that stops answering under the leader.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, PATIENCE};

/// A file system in a file, where the system lets this program mount one and freeze it.
struct Freezable(PathBuf);

fn succeeds(program: &str, words: &[&Path]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdout(Stdio::null());
    let status = command.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Freezable {
    /// Mounts it at the folder, with its contents in the file `image`.
    fn mount(image: &Path, folder: &Path) -> Option<Self> {
        File::create(image).unwrap().set_len(200 << 20).unwrap();
        let made = succeeds("mkfs.ext4", &[Path::new("-q"), image])
            && succeeds(
                "mount",
                &[Path::new("-o"), Path::new("loop"), image, folder],
            );
        let it = made.then(|| Self(folder.to_path_buf()))?;
        (it.freeze() && it.thaw()).then_some(it)
    }

    fn freeze(&self) -> bool {
        succeeds("fsfreeze", &[Path::new("-f"), &self.0])
    }

    fn thaw(&self) -> bool {
        succeeds("fsfreeze", &[Path::new("-u"), &self.0])
    }
}

impl Drop for Freezable {
    fn drop(&mut self) {
        // A process that waits for a frozen file system cannot be killed.
        self.thaw();
        succeeds("umount", &[Path::new("-l"), &self.0]);
    }
}

#[test]
fn when_the_leaders_file_system_is_frozen_another_node_leads_and_clients_go_on() {
    let mut disk = None;
    let cluster = Cluster::start_as(3, |cluster| {
        let folder = cluster.data(1);
        fs::create_dir_all(&folder).unwrap();
        disk = Freezable::mount(&folder.with_extension("image"), &folder);
    });
    let Some(disk) = disk else {
        println!("skipped: no file system can be mounted and frozen here");
        return;
    };
    while cluster.leader() != 1 {
        assert_eq!(cluster.run(&["transfer", "1"]).status.code(), Some(0));
    }
    let clerk = cluster.clerk();
    let mut number = 0;
    let mut put = || {
        let asked = Instant::now();
        clerk.put(format!("key-{number}"), "value").unwrap();
        number += 1;
        asked.elapsed()
    };
    for _ in 0..20 {
        put();
    }
    assert!(disk.freeze());
    let frozen = Instant::now();
    let mut longest = Duration::ZERO;
    while cluster.leader() == 1 {
        longest = longest.max(put());
        assert!(frozen.elapsed() < PATIENCE, "node 1 leads on");
    }
    println!(
        "another node led after {:?}; the slowest put took {longest:?}",
        frozen.elapsed()
    );
    for _ in 0..20 {
        put();
    }
    assert!(disk.thaw());
    for key in 0..number {
        let kept = clerk.get(format!("key-{key}")).unwrap();
        assert_eq!(kept, Some("value".into()), "{key}");
    }
}
