//! A cluster of `kvnode` processes, each with a port and a folder of its own.

mod process;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::Mutex;

use super::proxy::{Cable, Proxy};
use crate::raft::NodeId;

pub use process::{End, Process, signal};

/// What a node writes to its log as soon as it listens.
const READY: &str = "starts in term";

/// Nodes, each in a process of its own: 1 to N found the cluster, others join it later. Dropping
/// the cluster kills them.
///
/// All functions panic for a node that the cluster does not have.
pub struct ProcessCluster {
    program: PathBuf,
    nodes: BTreeMap<NodeId, Member>,
    /// The founders' addresses. The list stays the same when they move or leave.
    founders: BTreeMap<NodeId, SocketAddr>,
    /// From one node to another. Where none is, a node connects directly.
    links: BTreeMap<(NodeId, NodeId), Proxy>,
    /// The last field: if this removes the folder when it is dropped, the nodes have ended by then.
    folder: Box<dyn AsRef<Path> + Send + Sync>,
}

struct Member {
    /// The nodes by way of which it joins. Empty: it is one of the founders.
    joins: Vec<NodeId>,
    /// Where it listens.
    address: SocketAddr,
    /// Its address in the list of the members.
    announced: SocketAddr,
    options: Vec<String>,
    /// The words of the command under which the node runs.
    under: Vec<String>,
    /// `None` if the node is down.
    process: Option<Process>,
}

impl Member {
    /// A founder that is down.
    fn at(address: SocketAddr) -> Self {
        Self {
            joins: Vec::new(),
            address,
            announced: address,
            options: Vec::new(),
            under: Vec::new(),
            process: None,
        }
    }
}

impl ProcessCluster {
    /// Lays out nodes that are down. They will run `program`, which is `kvnode` or has its options,
    /// and keep everything in `folder`. The cluster owns the folder's name, so that it can be one
    /// that is removed when it is dropped.
    ///
    /// # Errors
    /// If the folder cannot be written to, or no port is free.
    pub fn new(
        program: impl Into<PathBuf>,
        folder: impl AsRef<Path> + Send + Sync + 'static,
        size: u64,
    ) -> io::Result<Self> {
        let (mut nodes, mut founders) = (BTreeMap::new(), BTreeMap::new());
        for (id, address) in (1..=size).zip(free_addresses(size as usize)?) {
            nodes.insert(id, Member::at(address));
            founders.insert(id, address);
        }
        let cluster = Self {
            program: program.into(),
            nodes,
            founders,
            links: BTreeMap::new(),
            folder: Box::new(folder),
        };
        for id in cluster.ids() {
            fs::create_dir_all(cluster.path(&format!("node-{id}")))?;
        }
        Ok(cluster)
    }

    /// Lays out a node that is down, has an address and an empty folder of its own, and will join
    /// by way of other nodes: a new node, or another machine for a node that is down.
    ///
    /// # Errors
    /// If the node is up, the folder of the former machine cannot be removed, or no port is free.
    pub fn lay_out_joiner(&mut self, id: NodeId, by: &[NodeId]) -> io::Result<()> {
        if self.nodes.contains_key(&id) {
            self.lose_data(id)?;
        }
        let mut member = Member::at(free_listener()?.local_addr()?);
        member.joins = by.to_vec();
        self.nodes.insert(id, member);
        fs::create_dir_all(self.path(&format!("node-{id}")))
    }

    /// Removes the data folder of a node that is down, as if its disk were lost.
    ///
    /// # Errors
    /// If the node is up, or the folder is not there.
    pub fn lose_data(&mut self, id: NodeId) -> io::Result<()> {
        if self.is_up(id) {
            return Err(io::Error::other(format!("node {id} is up")));
        }
        fs::remove_dir_all(self.data(id))
    }

    /// Gives a node more options, from its next start on.
    pub fn give(&mut self, id: NodeId, options: &[&str]) {
        let options = options.iter().map(|option| option.to_string());
        self.member_mut(id).options.extend(options);
    }

    /// Runs a node under another program from its next start on, for instance `nice` or `strace`.
    /// The words of the node's own command follow these. The other program must replace itself by
    /// the node, because it is the one that gets the signals.
    pub fn run_under(&mut self, id: NodeId, words: &[&str]) {
        self.member_mut(id).under = words.iter().map(|word| word.to_string()).collect();
    }

    /// Has the list of the members name this address for a founder that has never run yet. It must
    /// lead to the node, for instance by a [`proxy`](Self::proxy). A client that is told who leads
    /// then goes that way.
    pub fn announce(&mut self, id: NodeId, address: SocketAddr) {
        self.member_mut(id).announced = address;
        self.founders.insert(id, address);
    }

    /// Lets one node reach another one over a cable only, from its next start on.
    ///
    /// # Errors
    /// If the system refuses a port or a thread.
    pub fn link(&mut self, from: NodeId, to: NodeId, cable: &Cable) -> io::Result<()> {
        let proxy = self.proxy(to, cable)?;
        self.links.insert((from, to), proxy);
        Ok(())
    }

    /// Lets each node reach each other one over a cable of its own only, from their next start on.
    /// Returns the cables, by the nodes that they lead from and to.
    ///
    /// # Errors
    /// If the system refuses a port or a thread.
    pub fn link_all(&mut self) -> io::Result<BTreeMap<(NodeId, NodeId), Cable>> {
        let mut cables = BTreeMap::new();
        for from in self.ids() {
            for to in self.ids().into_iter().filter(|to| *to != from) {
                let cable = Cable::default();
                self.link(from, to, &cable)?;
                cables.insert((from, to), cable);
            }
        }
        Ok(cables)
    }

    /// A way to a node over a cable, for clients.
    ///
    /// # Errors
    /// If the system refuses a port or a thread.
    pub fn proxy(&self, to: NodeId, cable: &Cable) -> io::Result<Proxy> {
        let seed = 100 * self.links.len() as u64 + to;
        Proxy::start(free_listener()?, self.address(to), cable, seed)
    }

    /// The command that runs a node.
    pub fn command(&self, id: NodeId) -> Command {
        let member = self.member(id);
        let mut words: Vec<&OsStr> = member.under.iter().map(OsStr::new).collect();
        words.push(self.program.as_os_str());
        let mut command = program(words[0]);
        command.args(&words[1..]);
        command.args(["--id", &id.to_string()]);
        command.args(self.way_in(id));
        command.arg("--data").arg(self.data(id));
        command.args(&member.options);
        command
    }

    /// The options that say where a node listens and how it finds the others.
    fn way_in(&self, id: NodeId) -> Vec<String> {
        let member = self.member(id);
        let mut options = match &member.joins[..] {
            [] => {
                let founders = self.founders.iter();
                let founders: Vec<_> = founders.map(|(id, at)| format!("{id}={at}")).collect();
                vec!["--cluster".to_string(), founders.join(",")]
            }
            by => {
                let addresses = by.iter().map(|id| self.member(*id).announced.to_string());
                let addresses: Vec<_> = addresses.collect();
                vec!["--join".to_string(), addresses.join(",")]
            }
        };
        if member.announced != member.address || !member.joins.is_empty() {
            options.extend(["--listen".to_string(), member.address.to_string()]);
        }
        let links = self.links.range((id, 0)..=(id, NodeId::MAX));
        let links: Vec<_> = links
            .map(|((_, to), link)| format!("{to}={}", link.address()))
            .collect();
        if !links.is_empty() {
            options.extend(["--reach".to_string(), links.join(",")]);
        }
        options
    }

    /// Starts nodes that are down, and returns at once.
    ///
    /// # Errors
    /// If one is up, or the system refuses a process.
    pub fn launch(&mut self, ids: impl IntoIterator<Item = NodeId>) -> io::Result<()> {
        for id in ids {
            if self.is_up(id) {
                return Err(io::Error::other(format!("node {id} is up")));
            }
            let mut log = OpenOptions::new();
            let log = log.create(true).append(true).open(self.log(id))?;
            let process = Process::spawn_with_log(&mut self.command(id), Some(log))?;
            self.member_mut(id).process = Some(process);
        }
        Ok(())
    }

    /// Starts nodes that are down, all at once, and waits until each takes connections.
    ///
    /// # Errors
    /// If one is up, ends instead, or takes no connections for a long time.
    pub fn restart(&mut self, ids: impl IntoIterator<Item = NodeId>) -> io::Result<()> {
        let ids: Vec<_> = ids.into_iter().collect();
        self.launch(ids.iter().copied())?;
        for id in ids {
            if self.node(id).line_if_any(READY).is_none() {
                let sentence = format!("node {id} does not start: {:?}", self.node(id).lines());
                return Err(io::Error::other(sentence));
            }
        }
        Ok(())
    }

    /// Ends nodes as a crash of their processes would, all at once, and waits until they have
    /// ended. Nodes that are down stay so.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn kill(&mut self, ids: impl IntoIterator<Item = NodeId>) -> io::Result<()> {
        let mut killed = Vec::new();
        for id in ids {
            if let Some(mut process) = self.member_mut(id).process.take() {
                process.kill()?;
                killed.push(process);
            }
        }
        killed
            .into_iter()
            .try_for_each(|process| process.end().map(drop))
    }

    /// Tells a node to stop, by SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// If it is down, or does not stop for a long time.
    pub fn stop(&mut self, id: NodeId) -> io::Result<End> {
        if let Some(process) = &self.member(id).process {
            process.signal("TERM")?;
        }
        self.end(id)
    }

    /// Waits until a node has ended by itself.
    ///
    /// # Errors
    /// If it is down, or does not end for a long time.
    pub fn end(&mut self, id: NodeId) -> io::Result<End> {
        let down = || io::Error::other(format!("node {id} is down"));
        let process = self.member_mut(id).process.take().ok_or_else(down)?;
        let end = process.end();
        end.map_err(|error| io::Error::new(error.kind(), format!("node {id}: {error}")))
    }

    /// How a node has ended, if it has done so by itself since the last look. From then on it is
    /// down.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn ended(&mut self, id: NodeId) -> io::Result<Option<End>> {
        let Some(process) = &mut self.member_mut(id).process else {
            return Ok(None);
        };
        match process.has_ended()? {
            true => self.end(id).map(Some),
            false => Ok(None),
        }
    }

    /// The process of a node that is up.
    ///
    /// # Panics
    /// If it is down.
    pub fn node(&self, id: NodeId) -> &Process {
        let process = self.member(id).process.as_ref();
        process.unwrap_or_else(|| panic!("node {id} is down"))
    }

    /// Whether a node was started, and neither ended nor seen to have ended.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.member(id).process.is_some()
    }

    /// All ids, in ascending order.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Where a node listens.
    pub fn address(&self, id: NodeId) -> SocketAddr {
        self.member(id).address
    }

    /// Where the nodes listen, as a Clerk takes it.
    pub fn addresses(&self) -> Vec<String> {
        let nodes = self.nodes.values();
        nodes.map(|node| node.address.to_string()).collect()
    }

    /// The folder of the cluster, where a test may put files of its own.
    pub fn folder(&self) -> &Path {
        (*self.folder).as_ref()
    }

    /// A node's data folder, which the node creates: `node-ID/data` in the folder of the cluster.
    pub fn data(&self, id: NodeId) -> PathBuf {
        self.path(&format!("node-{id}/data"))
    }

    /// The file with the log of a node over all its lives, once it was started.
    pub fn log(&self, id: NodeId) -> PathBuf {
        self.path(&format!("node-{id}.log"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn member(&self, id: NodeId) -> &Member {
        let member = self.nodes.get(&id);
        member.unwrap_or_else(|| panic!("there is no node {id}"))
    }

    fn member_mut(&mut self, id: NodeId) -> &mut Member {
        let member = self.nodes.get_mut(&id);
        member.unwrap_or_else(|| panic!("there is no node {id}"))
    }
}

/// A command for one of this project's programs. It has no standard input, and no variable of the
/// environment sets an option.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RAFTKV_") {
            command.env_remove(name);
        }
    }
    command.env("RUST_LOG", "info").env("RUST_BACKTRACE", "1");
    command.stdin(Stdio::null());
    command
}

/// Addresses that are free, and that this function gives out only once.
///
/// # Errors
/// If no port is free.
pub fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    (0..count).map(|_| free_listener()?.local_addr()).collect()
}

fn free_listener() -> io::Result<TcpListener> {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((host(), 0))?;
        if TAKEN.lock().insert(listener.local_addr()?.port()) {
            return Ok(listener);
        }
    }
}

/// The host whose ports this program gives to its nodes. On Linux it is another one for each
/// program, because all of 127/8 is this machine. Connections that go out come from 127.0.0.1. So
/// while a node is down, neither a connection nor the node of another program gets its port.
fn host() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    match cfg!(target_os = "linux") {
        // Linux has less than 2^22 process ids.
        true => Ipv4Addr::new(127, 64 | high, middle, low),
        false => Ipv4Addr::LOCALHOST,
    }
}
