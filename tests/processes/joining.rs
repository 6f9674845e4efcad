//! Nodes that come into a cluster which exists.

use std::fs;
use std::net::SocketAddr;

use raftkv::raft::NodeId;
use raftkv::testkit::{Process, free_addresses};
use tempfile::TempDir;

use super::cluster::{Cluster, kvnode, text};

/// Starts a node that is told neither who founds the cluster nor whom to join.
fn start_alone(id: NodeId, data: &std::path::Path, options: &[&str]) -> Process {
    let mut command = kvnode();
    command.args(["--id", &id.to_string(), "--data"]).arg(data);
    Process::spawn(command.args(options)).unwrap()
}

/// Runs `kvcli member` with these words until the change is done.
fn change(cluster: &Cluster, words: &[&str]) {
    let output = cluster.cli().arg("member").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// A new node knows the others by what they say of themselves only. If they were started with
/// nothing but their folders, what they say of themselves comes from there.
#[test]
fn nodes_that_have_only_their_folders_let_one_in_that_waits_for_an_operator() {
    let mut cluster = Cluster::start(3);
    cluster.clerk().put("k", "v").unwrap();
    for id in [1, 2, 3] {
        cluster.node(id).line("are committed");
    }
    cluster.kill([1, 2, 3]).unwrap();
    let start = |id| start_alone(id, &cluster.data(id), &[]);
    let nodes = [1, 2, 3].map(start);

    let folder = TempDir::new().unwrap();
    let address: SocketAddr = free_addresses(1).unwrap()[0];
    let listen = ["--no-rejoin", "--listen", &address.to_string()];
    let new = start_alone(4, &folder.path().join("4"), &listen);
    new.line("asks for nothing");
    change(&cluster, &["add", &format!("4={address}")]);
    drop(nodes);
}

/// It is told to found a cluster, as at its first start. The others tell it that the cluster exists
/// and that its place is another folder's, so it asks for the place.
#[test]
fn a_founder_that_lost_its_folder_is_back_with_nothing_but_a_restart_and_its_old_folder_stops() {
    let mut cluster = Cluster::start(3);
    cluster.clerk().put("k", "v").unwrap();
    for id in [1, 2, 3] {
        cluster.node(id).line("are committed");
    }
    cluster.kill([2]).unwrap();
    let (data, old) = (cluster.data(2), cluster.data(2).with_extension("old"));
    fs::rename(&data, &old).unwrap();
    cluster.restart([2]).unwrap();
    cluster.node(2).line("since entry");
    change(&cluster, &["promote", "2"]);
    let lost = cluster.node(2).lines().concat();
    assert!(lost.contains("asks to take its place"), "{lost}");
    assert!(!lost.contains("not let in yet"), "{lost}");
    // It counts: without node 3 it is one of the two that are needed.
    cluster.kill([3]).unwrap();
    assert_eq!(
        cluster.clerk().get("k").unwrap().as_deref(),
        Some(&b"v"[..])
    );

    cluster.kill([2]).unwrap();
    cluster.restart([3]).unwrap();
    fs::rename(&data, data.with_extension("new")).unwrap();
    fs::rename(&old, &data).unwrap();
    let end = start_alone(2, &data, &[]).end().unwrap();
    assert_eq!(end.status.code(), Some(4), "{end:#?}");
    let last = end.lines.last().unwrap();
    assert!(last.contains("has taken the place of this one"), "{last}");
    let output = cluster.run(&["get", "k"]);
    assert_eq!(text(&output.stdout).trim_end(), "v");
}
