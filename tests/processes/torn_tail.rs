//! What a crash can leave at the end of a log: it is cut, and a warning says what was.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::cluster::Cluster;

const SEGMENT: &str = "log-00000000000000000001";
const FILES: [&str; 3] = ["identity", "vote", SEGMENT];
const FIRST_RECORD: usize = 4096;
const RECORD_HEADER: usize = 32;
const SECTOR: usize = 512;
/// What a sector holds besides its mark.
const SECTOR_DATA: usize = 504;

/// Where the last record of a segment lies.
fn last_record(segment: &[u8]) -> Range<usize> {
    let mut last = FIRST_RECORD..FIRST_RECORD;
    while segment[last.end..].starts_with(b"rkvR") {
        let [a, b, c, d] = [4, 5, 6, 7].map(|at| segment[last.end + at]);
        let payload = u32::from_le_bytes([a, b, c, d]) as usize;
        let len = (RECORD_HEADER + payload).div_ceil(SECTOR_DATA) * SECTOR;
        last = last.end..last.end + len;
    }
    last
}

/// A crash that left a part of a write out, and how much of it is cut.
struct Crash {
    what: &'static str,
    /// The part of the segment that was not written.
    lost: Range<usize>,
    /// Where the cut is, if there is anything to cut.
    cut_at: Option<usize>,
}

fn crashes(last: &Range<usize>) -> Vec<Crash> {
    let sector = |number: usize| (last.start / SECTOR + number) * SECTOR;
    let crash = |what, lost| Crash {
        what,
        lost,
        cut_at: Some(last.start),
    };
    vec![
        crash("all but the first sector", sector(1)..last.end),
        crash("the second half", sector(5)..last.end),
        crash("a sector in the middle", sector(4)..sector(5)),
        crash("the first sector", last.start..sector(1)),
        crash(
            "all sectors but the first and the last",
            sector(1)..sector(8),
        ),
        Crash {
            what: "everything",
            lost: last.clone(),
            cut_at: None,
        },
    ]
}

fn write_all(folder: &Path, files: &[Vec<u8>]) {
    for (name, bytes) in FILES.iter().zip(files) {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The cuts that node 1 has reported since it started.
fn cuts(cluster: &Cluster) -> Vec<String> {
    let lines = cluster.node(1).lines().into_iter();
    lines
        .filter(|line| line.contains("cut a torn tail"))
        .collect()
}

/// Starts on what the crash left, and checks that only the last write is gone.
fn recovers(cluster: &mut Cluster, what: &str, cut: Option<&str>, last: &[u8]) {
    cluster.restart([1]).unwrap();
    let clerk = cluster.clerk();
    let lines = cuts(cluster);
    assert_eq!(lines.len(), usize::from(cut.is_some()), "{what}: {lines:?}");
    for (line, cut) in lines.iter().zip(cut) {
        assert!(
            line.contains("WARN") && line.contains(cut),
            "{what}: {line}"
        );
    }
    assert_eq!(clerk.get("kept"), Ok(Some("kept".into())), "{what}");
    assert_eq!(clerk.get("last").unwrap().as_deref(), Some(last), "{what}");
    clerk.put("next", what).unwrap();
    cluster.kill([1]).unwrap();
    cluster.restart([1]).unwrap();
    assert!(cuts(cluster).is_empty(), "{what}");
    assert_eq!(clerk.get("next"), Ok(Some(what.to_string().into())));
    cluster.kill([1]).unwrap();
}

#[test]
fn a_write_that_a_crash_left_incomplete_is_cut_with_a_warning() {
    let mut cluster = Cluster::start(1);
    let new = vec![b'x'; 10 * SECTOR];
    let clerk = cluster.clerk();
    clerk.put("kept", "kept").unwrap();
    clerk.put("last", "old").unwrap();
    clerk.put("last", &new).unwrap();
    // The Clerk still lives: to close its session would be another write.
    cluster.kill([1]).unwrap();
    let folder = cluster.data(1);
    let files = FILES.map(|name| fs::read(folder.join(name)).unwrap());
    let last = last_record(&files[2]);
    assert!(last.len() > new.len());
    for Crash { what, lost, cut_at } in crashes(&last) {
        let mut files = files.clone();
        files[2][lost].fill(0);
        write_all(&folder, &files);
        let cut = cut_at.map(|at| format!("{SEGMENT}:{at}:"));
        recovers(&mut cluster, what, cut.as_deref(), b"old");
    }
    // The write after it had only begun: of its sectors, the second is there, with its mark.
    let mut files = files.clone();
    let sector = files[2][last.start + SECTOR..][..SECTOR].to_vec();
    files[2][last.end + SECTOR..][..SECTOR].copy_from_slice(&sector);
    write_all(&folder, &files);
    let cut = format!(
        "cut a torn tail of 1024 bytes at {}",
        folder.join(SEGMENT).display()
    );
    recovers(&mut cluster, "a beginning", Some(&cut), &new);
}
