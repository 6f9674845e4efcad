//! A disk that takes no more: the node says so and goes on, and so do writes when there is space.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use raftkv::client::{Clerk, Error};
use raftkv::raft::NodeId;

use super::cluster::{Cluster, PATIENCE, text};

/// In blocks of 1024 bytes: more than the first megabyte that a log is given, less than two.
const LIMIT: &str = "1500";

/// A limit on the size of files plays the full disk. It comes in the middle of a write of the log,
/// for a log that has only begun has nothing made ready.
#[test]
fn a_node_without_space_serves_reads_refuses_writes_with_the_reason_and_goes_on_with_space() {
    let mut cluster = Cluster::start(1);
    assert!(cluster.stop(1).unwrap().status.success());
    let limited = format!("ulimit -S -f {LIMIT}; exec \"$0\" \"$@\"");
    cluster.run_under(1, &["bash", "-c", &limited]);
    cluster.restart([1]).unwrap();
    let clerk = cluster.clerk_for(Duration::from_secs(3));
    let value = vec![b'x'; 200_000];
    let acknowledged = (0..100)
        .take_while(|number| clerk.put(format!("key-{number}"), &value).is_ok())
        .count();
    assert!((1..10).contains(&acknowledged), "{acknowledged}");
    let refused = clerk.put("key", "value").unwrap_err();
    assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
    let said = refused.to_string();
    let words = [
        "on node 1 there is no space for the log",
        "log-0",
        "prlimit",
    ];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    let status = cluster.run(&["status"]);
    assert!(
        text(&status.stdout).contains("no space for the log"),
        "{status:?}"
    );
    for number in 0..acknowledged {
        let kept = clerk.get(format!("key-{number}")).unwrap();
        assert_eq!(kept.as_deref(), Some(&value[..]), "{number}");
    }

    let pid = cluster.node(1).pid().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:unlimited"])
        .status();
    assert!(raised.unwrap().success());
    let clerk = cluster.clerk();
    clerk.put("key", "value").unwrap();
    // The write that waited was never refused, and its outcome was not known.
    let waited = clerk.get(format!("key-{acknowledged}")).unwrap();
    assert_eq!(waited.as_deref(), Some(&value[..]));
}

/// A file system in memory, where the system lets this program mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, megabytes: u64) -> Option<Self> {
        let size = format!("size={megabytes}m");
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &size, "raftkv-test"])
            .arg(folder);
        let status = command.stderr(Stdio::null()).status().ok()?;
        status.success().then(|| Self(folder.to_path_buf()))
    }

    /// Fills it but for a little.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        let zeros = vec![0; 64 << 10];
        while file.write_all(&zeros).is_ok() {}
        let len = file.metadata().unwrap().len();
        file.set_len(len - (300 << 10)).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open on it keeps it; it is unmounted when they are gone.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn no_space(cluster: &Cluster, clerk: &Clerk, id: NodeId) -> Option<String> {
    let address = cluster.address(id).to_string();
    clerk.status_of(&address).ok()?.disk.no_space
}

#[test]
fn where_the_leaders_file_system_is_full_another_node_leads_and_no_client_notices() {
    let mut disks = Vec::new();
    let cluster = Cluster::start_as(3, |cluster| {
        for id in 1..=3 {
            std::fs::create_dir_all(cluster.data(id)).unwrap();
            disks.extend(SmallDisk::mount(&cluster.data(id), 100));
        }
    });
    if disks.len() < 3 {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let clerk = cluster.clerk();
    let value = vec![b'v'; 200_000];
    for number in 0..30 {
        clerk.put(format!("first-{number}"), &value).unwrap();
    }
    let full = cluster.leader();
    let filler = disks[full as usize - 1].fill();
    let filled = Instant::now();
    let mut number = 0;
    let mut longest = Duration::ZERO;
    while no_space(&cluster, &clerk, full).is_none() {
        let asked = Instant::now();
        clerk.put(format!("more-{number}"), &value).unwrap();
        longest = longest.max(asked.elapsed());
        number += 1;
        assert!(filled.elapsed() < PATIENCE, "it had space enough");
    }
    for _ in 0..20 {
        let asked = Instant::now();
        clerk.put(format!("more-{number}"), &value).unwrap();
        longest = longest.max(asked.elapsed());
        number += 1;
    }
    assert_ne!(cluster.leader(), full, "it leads on without space");
    println!("node {full} was full after {number} puts; the slowest put took {longest:?}");
    let reason = no_space(&cluster, &clerk, full).unwrap();
    assert!(reason.contains("log-0"), "{reason}");

    std::fs::remove_file(filler).unwrap();
    let began = Instant::now();
    while no_space(&cluster, &clerk, full).is_some() {
        assert!(
            began.elapsed() < PATIENCE,
            "it does not see that there is space"
        );
    }
    println!("it had space again after {:?}", began.elapsed());
    for number in 0..30 {
        let kept = clerk.get(format!("first-{number}")).unwrap();
        assert_eq!(kept.as_deref(), Some(&value[..]), "{number}");
    }
}
