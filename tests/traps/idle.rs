//! An idle cluster that burns processor.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use raftkv::client::Clerk;
use raftkv::kv::{Kv, Limits};
use raftkv::node::{Config, Handle, Node};
use raftkv::raft::NodeId;
use raftkv::testkit::free_addresses;

/// Set in the process that holds the nodes and nothing else.
const ALONE: &str = "RAFTKV_TEST_IDLE_ALONE";

/// What the kernel counts processor time in.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

const WATCHED: Duration = Duration::from_secs(3);

/// The limit is for the program that is shipped; one that is not optimised gets three times that.
const LIMIT: f64 = if cfg!(debug_assertions) { 0.09 } else { 0.03 };

/// In a process of its own, whose processor time is the nodes' alone.
#[test]
fn three_idle_nodes_together_use_less_than_three_percent_of_a_core() {
    if std::env::var_os(ALONE).is_some() {
        return measure();
    }
    let this = "idle::three_idle_nodes_together_use_less_than_three_percent_of_a_core";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{output}{errors}");
    assert!(output.contains("1 passed"), "{output}{errors}");
}

fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = three_nodes(folder.path());
    let addresses = nodes.iter().filter_map(|node| node.address());
    let clerk = Clerk::connect(addresses.map(|address| address.to_string())).unwrap();
    // A leader has been elected, and there is a connection that is idle as well.
    clerk.put("key", "value").unwrap();

    let before = processor_seconds();
    let leader_changes = |raft: &raftkv::raft::Raft| raft.leader().is_none();
    let changed = nodes[0].wait_until(WATCHED, leader_changes);
    assert!(!changed, "the leader was lost, so they were not idle");
    let share = (processor_seconds() - before) / WATCHED.as_secs_f64();
    assert!(share < LIMIT, "{:.1} % of a core", share * 100.0);
}

fn three_nodes(folder: &Path) -> Vec<Handle<Kv>> {
    let addresses = free_addresses(3).unwrap();
    let addresses = addresses.iter().map(SocketAddr::to_string);
    let members: BTreeMap<NodeId, String> = (1..).zip(addresses).collect();
    let start = |id: &NodeId| {
        let config = Config::new(*id, members.clone(), folder.join(id.to_string()));
        Node::start(config, Kv::new(Limits::default())).unwrap()
    };
    members.keys().map(start).collect()
}

/// The processor time that this process has used, of the user and of the system.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name, in brackets, is the second field and may hold anything.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / CLOCK_TICKS_PER_SECOND
}
