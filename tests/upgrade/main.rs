//! What an earlier version has written, this one reads: data folders, their snapshots, a backup.
//!
//! `tests/upgrade/0.1.0` has the folders of a cluster of three that was stopped, and a backup of
//! node 1, as `scripts/make_fixtures.sh` made them with that version. `contents.rs` says what was
//! written. Those files stay as they are: a version with another format adds a folder beside them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raftkv::client::Clerk;
use raftkv::kv::{Kv, Limits};
use raftkv::node::{Config, Handle, Node, Transport};
use raftkv::raft::{Configuration, Envelope, Member, MemberRole, NodeId};
use raftkv::storage::{Inspection, ReadOnlyDisk, RealDisk, inspect, restore};
use raftkv::testkit::free_addresses;
use tempfile::TempDir;

mod contents;

use contents::{BACKUP, CLUSTER};

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/0.1.0")
}

fn unpack(from: &Path, to: &Path) {
    let packed = fs::read(from).expect("the kept file can be read");
    let bytes = lz4_flex::block::decompress_size_prepended(&packed);
    fs::write(to, bytes.expect("the kept file can be unpacked")).expect("there is room for it");
}

/// Unpacks the data folder of one node.
fn unpack_folder(id: NodeId, to: &Path) {
    fs::create_dir(to).expect("there is room for a folder");
    let entries = fs::read_dir(kept().join(format!("node-{id}"))).expect("the folder is kept");
    for entry in entries {
        let path = entry.expect("the folder can be listed").path();
        // Without `.lz4`.
        unpack(
            &path,
            &to.join(path.file_stem().expect("a file has a name")),
        );
    }
}

fn look(folder: &Path) -> Inspection {
    inspect(Arc::new(ReadOnlyDisk::new(folder))).expect("the folder can be read")
}

/// Nodes on the folders `1`, `2`, ... and a client of all of them.
fn start(folder: &Path, size: u64) -> (Vec<Handle<Kv>>, Clerk) {
    let addresses = free_addresses(size as usize).expect("ports are free");
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    let members: Vec<(NodeId, String)> = (1..).zip(addresses.clone()).collect();
    let start = |id: NodeId| {
        let mut config = Config::new(id, members.clone(), folder.join(id.to_string()));
        config.cluster = CLUSTER.into();
        let node = Node::start(config, Kv::new(Limits::default()));
        node.unwrap_or_else(|error| panic!("node {id} does not start: {error}"))
    };
    let nodes = (1..=size).map(start).collect();
    (nodes, Clerk::connect(addresses).expect("a client"))
}

#[test]
fn a_cluster_goes_on_with_the_folders_of_0_1_0() {
    let folder = TempDir::new().expect("a folder");
    (1..=3).for_each(|id| unpack_folder(id, &folder.path().join(id.to_string())));
    let (nodes, clerk) = start(folder.path(), 3);
    assert_eq!(
        contents::read_all(&clerk).expect("the cluster answers"),
        contents::in_the_end()
    );
    clerk.put("since", "then").expect("a write");
    assert_eq!(
        clerk.get("since").expect("a read").as_deref(),
        Some(&b"then"[..])
    );
    nodes.iter().for_each(Handle::shutdown);
}

/// Longer than anything in these tests takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until each node knows that the log has members for which this holds.
fn wait_for_members(nodes: &BTreeMap<NodeId, Handle<Kv>>, holds: impl Fn(&[Member]) -> bool) {
    for (id, node) in nodes {
        let is_there = node.wait_until(PATIENCE, |raft| {
            let committed = raft.committed_configuration();
            let configuration = &committed.configuration;
            !configuration.is_founding() && holds(configuration.members())
        });
        assert!(is_there, "node {id}: {:?}", node.members());
    }
}

/// The folders of that version name members by id only. The first leader enters the numbers of the
/// folders into the log, and from then on members can change.
#[test]
fn a_cluster_with_the_folders_of_0_1_0_grows_and_gets_a_lost_folder_back() {
    let folder = TempDir::new().expect("a folder");
    (1..=3).for_each(|id| unpack_folder(id, &folder.path().join(id.to_string())));
    let addresses = free_addresses(4).expect("ports are free");
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    let founders: Vec<(NodeId, String)> = (1..).zip(addresses[..3].to_vec()).collect();
    let start = |id: NodeId| {
        let listed = if id <= 3 {
            founders.clone()
        } else {
            Vec::new()
        };
        let mut config = Config::new(id, listed, folder.path().join(id.to_string()));
        config.cluster = CLUSTER.into();
        if id > 3 {
            config.join = addresses[..3].to_vec();
            config.listen = Some(addresses[id as usize - 1].clone());
        }
        let node = Node::start(config, Kv::new(Limits::default()));
        (
            id,
            node.unwrap_or_else(|error| panic!("node {id} does not start: {error}")),
        )
    };
    let votes = |member: &Member| member.role == MemberRole::Voter && member.folder.is_some();
    let mut nodes: BTreeMap<_, _> = (1..=3).map(start).collect();
    wait_for_members(&nodes, |members| members.iter().all(votes));

    nodes.extend([start(4)]);
    wait_for_members(&nodes, |members| {
        members.len() == 4 && members.iter().all(votes)
    });

    nodes.remove(&2).expect("node 2 runs").shutdown();
    let lost = look(&folder.path().join("2")).folder;
    fs::remove_dir_all(folder.path().join("2")).expect("the folder can be removed");
    nodes.extend([start(2)]);
    let is_back = |members: &[Member]| {
        let others = members.iter().all(|member| member.folder != Some(lost));
        others && members.len() == 4 && members.iter().all(votes)
    };
    wait_for_members(&nodes, is_back);

    nodes.values().for_each(Handle::shutdown);
    drop(nodes);
    let nodes: BTreeMap<_, _> = (1..=4).map(start).collect();
    wait_for_members(&nodes, is_back);
    // Without one of the founders that are left.
    nodes[&1].shutdown();
    let clerk = Clerk::connect([addresses[1].clone()]).expect("a client");
    assert_eq!(
        contents::read_all(&clerk).expect("the cluster answers"),
        contents::in_the_end()
    );
    clerk.put("since", "then").expect("a write");
    nodes.values().for_each(Handle::shutdown);
}

/// The version of the format that wrote the first block of a file.
fn format(file: &Path) -> u32 {
    let bytes = fs::read(file).expect("the file can be read");
    u32::from_le_bytes([8, 9, 10, 11].map(|at: usize| bytes[at]))
}

#[test]
fn a_folder_that_a_node_has_opened_is_refused_by_0_1_0() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("1");
    unpack_folder(1, &path);
    assert_eq!(format(&path.join("identity")), 2);
    // To look changes nothing.
    let voted = look(&path).hard_state.expect("the vote can be read").vote;
    assert_eq!(voted.map(|vote| vote.folder), Some(0));
    assert_eq!(format(&path.join("identity")), 2);
    let config = Config::new(1, [(1, "127.0.0.1:0".into())], &path);
    let config = Config {
        cluster: CLUSTER.into(),
        ..config
    };
    let disk = Arc::new(RealDisk::open(&path).expect("the folder is there"));
    let store = Kv::new(Limits::default());
    let node = Node::start_on(config, store, disk, Arc::new(Nowhere)).expect("the node starts");
    node.shutdown();
    drop(node);
    // That version reads the identity first, and no other number than 2.
    assert_eq!(format(&path.join("identity")), 3);
    assert_eq!(format(&path.join("vote")), 3);
    let snapshot = found_snapshot(&path);
    assert_eq!(format(&path.join(snapshot)), 2, "it stays as it is");
    assert!(look(&path).damage.is_empty());
}

/// The name of the snapshot in a folder.
fn found_snapshot(folder: &Path) -> String {
    look(folder).snapshots[0].name.clone()
}

/// The way to no other node.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: Vec<Envelope>) {}
}

#[test]
fn log_vote_peers_and_snapshot_of_0_1_0_are_read_in_full() {
    let folder = TempDir::new().expect("a folder");
    for id in 1..=3 {
        let path = folder.path().join(id.to_string());
        unpack_folder(id, &path);
        let found = look(&path);
        assert_eq!(
            (found.identity.node, &*found.identity.cluster),
            (id, CLUSTER)
        );
        let vote = found.hard_state.expect("the vote can be read");
        assert!(vote.term > 0, "{vote:?}");
        // 200 puts, 29 deletes and 2 appends precede the snapshot; 24 commands follow it.
        let (snapshot, last) = found.start.expect("a node would start");
        assert!(
            snapshot.index > 231 && last.index > snapshot.index + 23,
            "{:?}",
            found.start
        );
        assert_eq!(found.snapshots.len(), 1, "{:?}", found.snapshots);
        assert!(found.snapshots[0].info.is_some(), "{:?}", found.snapshots);
        assert!(
            path.join("peers").is_file(),
            "the kept folder knows its peers"
        );
        let none: [String; 0] = [];
        assert_eq!(found.damage, none);
        assert_eq!(found.notes, none);
        assert_eq!(found.unused, none);
    }
}

#[test]
fn a_backup_of_0_1_0_becomes_a_cluster() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("backup");
    unpack(&kept().join(BACKUP), &file);
    let members = Configuration::founding([(1, "127.0.0.1:1".into())]);
    let restored = restore(&file, &folder.path().join("1"), CLUSTER, 1, members);
    restored.expect("the backup can be restored");
    let (nodes, clerk) = start(folder.path(), 1);
    assert_eq!(
        contents::read_all(&clerk).expect("the cluster answers"),
        contents::before_the_snapshot()
    );
    nodes.iter().for_each(Handle::shutdown);
}
