//! A cluster of `kvnode` processes on ports and in folders of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use raftkv::client::{Clerk, Options};
use raftkv::raft::NodeId;
use raftkv::testkit::{Cable, Proxy};
use tempfile::TempDir;

use super::process::{End, PATIENCE, Process};
use super::strace;

/// Where nodes listen. On Linux the whole of 127/8 is this machine, and a connection that goes out
/// comes from 127.0.0.1: so none takes the port of a node that is down for a moment.
const HOST: &str = match cfg!(target_os = "linux") {
    true => "127.0.0.2",
    false => "127.0.0.1",
};

/// The exit code of a node that cannot have its port.
const LISTEN: i32 = 5;

/// Ports that were given out are not given out again.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

pub struct Cluster {
    folder: TempDir,
    addresses: BTreeMap<NodeId, String>,
    /// What each node gets besides the usual.
    options: BTreeMap<NodeId, Vec<String>>,
    /// Where a node finds another one, if not at its address.
    links: BTreeMap<(NodeId, NodeId), Proxy>,
    nodes: BTreeMap<NodeId, Process>,
    /// The system calls of the nodes are written down.
    watched: bool,
}

/// A port that no other test has had.
pub fn free_listener() -> TcpListener {
    loop {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        if TAKEN.lock().insert(listener.local_addr().unwrap().port()) {
            return listener;
        }
    }
}

/// Addresses that were free a moment ago.
pub fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| free_listener()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr());
    addresses
        .map(|address| address.unwrap().to_string())
        .collect()
}

/// The program under test, and nothing of the environment that would set its options.
pub fn kvnode() -> Command {
    program(env!("CARGO_BIN_EXE_kvnode"))
}

pub fn kvcli() -> Command {
    program(env!("CARGO_BIN_EXE_kvcli"))
}

fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RAFTKV_") {
            command.env_remove(name);
        }
    }
    command.env("RUST_LOG", "info").env_remove("RUST_BACKTRACE");
    command
}

impl Cluster {
    /// Starts a cluster of so many nodes.
    pub fn start(size: u64) -> Self {
        Self::start_with(size, &[])
    }

    /// Starts a cluster whose nodes get these options as well.
    pub fn start_with(size: u64, options: &[&str]) -> Self {
        Self::start_as(size, |cluster| {
            (1..=size).for_each(|id| cluster.give(id, options));
        })
    }

    /// Starts a cluster that was prepared first.
    ///
    /// Between the look for free ports and their use another process may take one: then look again.
    pub fn start_as(size: u64, prepare: impl Fn(&mut Self)) -> Self {
        for _ in 0..5 {
            let mut cluster = Self {
                folder: TempDir::new().unwrap(),
                addresses: (1..=size).zip(free_addresses(size as usize)).collect(),
                options: BTreeMap::new(),
                links: BTreeMap::new(),
                nodes: BTreeMap::new(),
                watched: false,
            };
            prepare(&mut cluster);
            for id in 1..=size {
                cluster.launch(id);
            }
            if (1..=size).all(|id| cluster.is_up(id)) {
                return cluster;
            }
        }
        panic!("no free ports");
    }

    /// Gives a node more options.
    pub fn give(&mut self, id: NodeId, options: &[&str]) {
        let options = options.iter().map(|option| option.to_string());
        self.options.entry(id).or_default().extend(options);
    }

    /// Has the system calls of the nodes written down, for [`calls`](Self::calls).
    pub fn watch(&mut self) {
        self.watched = true;
    }

    /// The system calls of a node that has ended, as text for [`strace::calls`].
    pub fn calls(&self, id: NodeId) -> String {
        std::fs::read_to_string(self.calls_of(id)).unwrap()
    }

    fn calls_of(&self, id: NodeId) -> PathBuf {
        self.folder.path().join(format!("calls-{id}"))
    }

    /// Lets one node find another one at the other end of a cable only.
    pub fn link(&mut self, from: NodeId, to: NodeId, cable: &Cable) {
        let proxy = self.proxy(to, cable);
        self.links.insert((from, to), proxy);
    }

    /// Lets all nodes find each other through cables of their own: from one node to another.
    pub fn link_all(&mut self) -> BTreeMap<(NodeId, NodeId), Cable> {
        let ids = self.ids();
        let pairs = ids
            .iter()
            .flat_map(|from| ids.iter().map(|to| (*from, *to)));
        let cables: BTreeMap<_, _> = pairs
            .filter(|(from, to)| from != to)
            .map(|pair| (pair, Cable::default()))
            .collect();
        for ((from, to), cable) in &cables {
            self.link(*from, *to, cable);
        }
        cables
    }

    /// A way to a node over a cable, for whoever takes it.
    pub fn proxy(&self, to: NodeId, cable: &Cable) -> Proxy {
        let target = self.address(to).parse().unwrap();
        Proxy::start(free_listener(), target, cable, to).unwrap()
    }

    /// Begins to start a node.
    fn launch(&mut self, id: NodeId) {
        let process = Process::spawn(&mut self.command(id));
        assert!(self.nodes.insert(id, process).is_none(), "{id} runs");
    }

    /// Whether a launched node has come up; else it could not have its port.
    fn is_up(&mut self, id: NodeId) -> bool {
        if self.nodes[&id].line_or_end("starts in term").is_some() {
            return true;
        }
        let end = self.end(id);
        assert_eq!(end.code, Some(LISTEN), "{:#?}", end.lines);
        false
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, id: NodeId) {
        self.restart_all([id]);
    }

    /// Starts nodes that are down, all at once.
    pub fn restart_all(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        let ids: Vec<_> = ids.into_iter().collect();
        ids.iter().for_each(|id| self.launch(*id));
        for id in ids {
            assert!(self.is_up(id), "another process took the port of node {id}");
        }
    }

    /// The command that runs a node.
    pub fn command(&self, id: NodeId) -> Command {
        self.command_with(id, &[])
    }

    /// The command that runs a node, with `--id` and `--cluster` only if `options` lack them.
    pub fn command_with(&self, id: NodeId, options: &[&str]) -> Command {
        let members = self.addresses.iter();
        let members: Vec<_> = members
            .map(|(to, address)| match self.links.get(&(id, *to)) {
                Some(proxy) => format!("{to}={}", proxy.address()),
                None => format!("{to}={address}"),
            })
            .collect();
        let mut command = kvnode();
        for (name, value) in [("--id", id.to_string()), ("--cluster", members.join(","))] {
            if !options.contains(&name) {
                command.args([name, &value]);
            }
        }
        command.arg("--data").arg(self.data(id));
        command.args(self.options.get(&id).into_iter().flatten());
        command.args(options);
        match self.watched {
            true => strace::around(&command, &self.calls_of(id)),
            false => command,
        }
    }

    /// A node's data folder.
    pub fn data(&self, id: NodeId) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    /// A folder for what a test needs besides.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn node(&self, id: NodeId) -> &Process {
        &self.nodes[&id]
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.addresses.keys().copied().collect()
    }

    pub fn address(&self, id: NodeId) -> &str {
        &self.addresses[&id]
    }

    /// All addresses as `kvcli` takes them.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.addresses.values().cloned().collect();
        addresses.join(",")
    }

    /// A client that is as patient as the tests.
    pub fn clerk(&self) -> Clerk {
        self.clerk_for(PATIENCE)
    }

    /// A client whose calls end within `deadline`.
    pub fn clerk_for(&self, deadline: Duration) -> Clerk {
        let options = Options {
            deadline,
            ..Options::default()
        };
        Clerk::with_options(self.addresses.values().cloned(), options).unwrap()
    }

    /// The leader, once there is one that a quorum confirms.
    pub fn leader(&self) -> NodeId {
        let clerk = self.clerk();
        clerk.get("any").unwrap();
        let leader = clerk.leader().unwrap();
        let mut addresses = self.addresses.iter();
        let direct = addresses.find(|(_, address)| **address == leader);
        let is_leader = |proxy: &Proxy| proxy.address().to_string() == leader;
        let mut links = self.links.iter();
        let link = links.find(|(_, proxy)| is_leader(proxy));
        let id = direct.map(|(id, _)| *id);
        id.or(link.map(|((_, to), _)| *to)).unwrap()
    }

    /// Ends nodes as a crash would, all at once.
    pub fn kill_all(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        let ids: Vec<_> = ids.into_iter().collect();
        ids.iter().for_each(|id| self.node_mut(*id).kill());
        for id in ids {
            self.end(id);
        }
    }

    /// Ends a node as a crash would.
    pub fn kill(&mut self, id: NodeId) {
        self.kill_all([id]);
    }

    /// Tells a node to stop and waits until it has.
    pub fn stop(&mut self, id: NodeId) -> End {
        self.node(id).signal("TERM");
        self.end(id)
    }

    /// Waits until a node has ended by itself.
    pub fn end(&mut self, id: NodeId) -> End {
        self.nodes.remove(&id).unwrap().end()
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Process {
        self.nodes.get_mut(&id).unwrap()
    }

    /// `kvcli` for this cluster.
    pub fn cli(&self) -> Command {
        let mut command = kvcli();
        command.args(["--cluster", &self.addresses()]);
        command.env("RAFTKV_TIMEOUT", "60s");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `kvcli` with these words.
    pub fn run(&self, words: &[&str]) -> Output {
        self.cli().args(words).output().unwrap()
    }
}

/// Text of a program's output.
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
