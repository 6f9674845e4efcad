//! The files of the log, on a real disk: what snapshots cover goes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use raftkv::node::Handle;
use raftkv::raft::{EntryId, Index, Message};
use raftkv::storage::RealDisk;
use tempfile::TempDir;

use super::probe::{Probe, config, entry, execute, follower, from_leader, leader, wait_for};
use super::snapshots::{deliver, snapshot_of};

const MIB: usize = 1 << 20;

/// So many commands of a MiB fill more than one segment of the log.
const MANY: Index = 20;

/// After the second snapshot the log needs no more than what lies behind the first one, in bytes.
/// A segment goes as a whole, so a part of one may stay.
const MOST: u64 = (MANY as usize * 2 * MIB - 12 * MIB) as u64;

fn disk(folder: &TempDir) -> Arc<RealDisk> {
    let disk = RealDisk::open(folder.path());
    Arc::new(disk.expect("the folder can be used"))
}

/// The file of the log's oldest segment.
fn oldest_segment(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let segments = names.filter(|name| name.starts_with("log-") && !name.contains('.'));
    segments.min()
}

fn wait_for_short_log(node: &Handle<Probe>) {
    let log_bytes = || node.status().log_bytes;
    wait_for(
        || {
            let bytes = log_bytes();
            format!("the log is not cut behind snapshots: it still has {bytes} bytes")
        },
        || log_bytes() < MOST,
    );
}

/// A node with twice as many commands as fill a segment, and a snapshot after each half of them.
fn node_with_two_snapshots_of_its_own(folder: &TempDir) -> Handle<Probe> {
    let node = leader(config(1), Probe::new(|_| ()), disk(folder));
    for _ in 0..2 {
        for _ in 0..MANY {
            execute(&node, vec![7; MIB]);
        }
        assert!(node.take_snapshot(), "there is something new");
        let taken = || {
            let status = node.status();
            status.snapshot_index >= status.commit && !status.snapshot_pending
        };
        wait_for(|| "no snapshot is taken".to_string(), taken);
    }
    node
}

#[test]
fn the_log_that_the_nodes_own_snapshots_cover_goes() {
    let folder = TempDir::new().expect("a folder");
    wait_for_short_log(&node_with_two_snapshots_of_its_own(&folder));
}

#[test]
fn the_log_that_received_snapshots_cover_goes() {
    let folder = TempDir::new().expect("a folder");
    let (node, sent) = follower(Probe::new(|_| ()), disk(&folder));
    for index in 1..=2 * MANY {
        let prev = EntryId {
            term: u64::from(index > 1),
            index: index - 1,
        };
        node.deliver([from_leader(Message::Append {
            prev,
            entries: vec![entry(index, MIB)],
            // Else the snapshots would tell the node nothing new.
            commit: 0,
        })]);
        sent.wait_for_accepted(index);
    }
    for index in [MANY + 1, 2 * MANY] {
        deliver(&node, &snapshot_of(index));
        let installed =
            node.wait_until(super::probe::PATIENCE, |raft| raft.applied_index() == index);
        assert!(installed, "the snapshot up to {index} is not installed");
    }
    wait_for_short_log(&node);
}

#[test]
fn the_files_of_a_log_that_was_cut_leave_their_places() {
    let folder = TempDir::new().expect("a folder");
    let first = "log-00000000000000000001";
    let node = node_with_two_snapshots_of_its_own(&folder);
    wait_for_short_log(&node);
    wait_for(
        || format!("the log was cut, but the file {first} stays"),
        || oldest_segment(folder.path()).is_some_and(|oldest| oldest.as_str() > first),
    );
}
