//! The nodes of a run: `kvnode` processes that reach each other, and are reached by some clients,
//! through proxies only.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::Programs;
use super::clients;
use raftkv::client::Clerk;
use raftkv::raft::{NodeId, RoleName};
use raftkv::testkit::{Cable, Proxy, Quality};
use raftkv::wire::client::Status;

/// Where nodes listen. On Linux all of 127/8 is this machine, and connections that go out come from
/// 127.0.0.1: so none takes the port of a node that is down for a moment.
const HOST: &str = match cfg!(target_os = "linux") {
    true => "127.0.0.3",
    false => "127.0.0.1",
};

/// How long a node may take to end after SIGTERM.
const END: Duration = Duration::from_secs(30);

pub struct Cluster {
    programs: Programs,
    snapshot_log_bytes: u64,
    nodes: BTreeMap<NodeId, Member>,
    /// From one node to another.
    pub cables: BTreeMap<(NodeId, NodeId), Cable>,
    /// To a node from the clients that take this way.
    pub client_cables: BTreeMap<NodeId, Cable>,
    links: BTreeMap<(NodeId, NodeId), Proxy>,
    client_links: BTreeMap<NodeId, Proxy>,
    /// Asks nodes for their status, past all proxies.
    monitor: Clerk,
}

struct Member {
    address: SocketAddr,
    data: PathBuf,
    log: PathBuf,
    process: Option<Child>,
    frozen: bool,
}

impl Cluster {
    /// Lays everything out and starts the nodes.
    pub fn start(
        programs: &Programs,
        folder: &Path,
        size: u64,
        snapshot_log_bytes: u64,
    ) -> io::Result<Self> {
        let mut nodes = BTreeMap::new();
        for id in 1..=size {
            let data = folder.join(format!("disk-{id}/data"));
            fs::create_dir_all(&data)?;
            // It is free a moment later; a node that cannot have it says so and ends.
            let member = Member {
                address: TcpListener::bind((HOST, 0))?.local_addr()?,
                data,
                log: folder.join(format!("node-{id}.log")),
                process: None,
                frozen: false,
            };
            nodes.insert(id, member);
        }
        let addresses = nodes.values().map(|node| node.address.to_string());
        let monitor = Clerk::with_options(addresses, clients::options(0)).map_err(other)?;
        let mut cluster = Self {
            programs: programs.clone(),
            snapshot_log_bytes,
            nodes,
            cables: BTreeMap::new(),
            client_cables: BTreeMap::new(),
            links: BTreeMap::new(),
            client_links: BTreeMap::new(),
            monitor,
        };
        cluster.lay_cables()?;
        Ok(cluster)
    }

    fn lay_cables(&mut self) -> io::Result<()> {
        let ids = self.ids();
        for to in &ids {
            let target = self.nodes[to].address;
            for from in ids.iter().filter(|from| *from != to) {
                let cable = Cable::default();
                let seed = from * 100 + to;
                let proxy = Proxy::start(TcpListener::bind((HOST, 0))?, target, &cable, seed)?;
                self.links.insert((*from, *to), proxy);
                self.cables.insert((*from, *to), cable);
            }
            let cable = Cable::default();
            let proxy = Proxy::start(TcpListener::bind((HOST, 0))?, target, &cable, *to)?;
            self.client_links.insert(*to, proxy);
            self.client_cables.insert(*to, cable);
        }
        Ok(())
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Where clients find the nodes without a proxy in between.
    pub fn addresses(&self) -> Vec<String> {
        let nodes = self.nodes.values();
        nodes.map(|node| node.address.to_string()).collect()
    }

    /// Where clients find the nodes behind a proxy.
    pub fn proxied(&self) -> Vec<String> {
        let links = self.client_links.values();
        links.map(|proxy| proxy.address().to_string()).collect()
    }

    pub fn data(&self, id: NodeId) -> &Path {
        &self.nodes[&id].data
    }

    /// What a node has written to standard error so far, over all its lives.
    pub fn log(&self, id: NodeId) -> String {
        let bytes = fs::read(&self.nodes[&id].log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn member(&mut self, id: NodeId) -> &mut Member {
        let member = self.nodes.get_mut(&id);
        member.unwrap_or_else(|| panic!("there is no node {id}: the ids of a run are fixed"))
    }

    /// Starts a node that is down.
    pub fn launch(&mut self, id: NodeId) -> io::Result<()> {
        let members = self.nodes.iter().map(|(to, node)| {
            let link = self.links.get(&(id, *to));
            let address = link.map_or(node.address, Proxy::address);
            format!("{to}={address}")
        });
        let members: Vec<String> = members.collect();
        let node = &self.nodes[&id];
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&node.log)?;
        let mut command = Command::new(&self.programs.kvnode);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RAFTKV_") {
                command.env_remove(name);
            }
        }
        command.env("RUST_LOG", "info").env("RUST_BACKTRACE", "1");
        command.args(["--id", &id.to_string(), "--cluster", &members.join(",")]);
        command.args(["--snapshot-log-bytes", &self.snapshot_log_bytes.to_string()]);
        command.arg("--data").arg(&node.data);
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = streams.stderr(log).spawn()?;
        self.member(id).process = Some(child);
        Ok(())
    }

    /// Starts all nodes that are down.
    pub fn launch_all(&mut self) -> io::Result<()> {
        let down: Vec<_> = self.ids();
        let down = down
            .into_iter()
            .filter(|id| self.nodes[id].process.is_none());
        down.collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|id| self.launch(id))
    }

    /// Ends nodes as a crash would, all at once.
    pub fn kill(&mut self, ids: &[NodeId]) -> io::Result<()> {
        for id in ids {
            if let Some(child) = &mut self.member(*id).process {
                child.kill()?;
            }
        }
        for id in ids {
            let member = self.member(*id);
            member.frozen = false;
            if let Some(mut child) = member.process.take() {
                child.wait()?;
            }
        }
        Ok(())
    }

    /// Tells a node to stop, and waits until it has: `None` if it does not.
    pub fn stop(&mut self, id: NodeId) -> io::Result<Option<ExitStatus>> {
        self.signal(id, "TERM")?;
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if let Some(status) = self.has_ended(id)? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(None)
    }

    /// How a node has ended, if it has; then it counts as down.
    pub fn has_ended(&mut self, id: NodeId) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.member(id).process else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.member(id).process = None;
        }
        Ok(status)
    }

    /// The first node that has ended though nobody told it to, other than the one that may.
    pub fn lost(&mut self, spared: Option<NodeId>) -> io::Result<Option<String>> {
        for id in self.ids().into_iter().filter(|id| Some(*id) != spared) {
            if let Some(status) = self.has_ended(id)? {
                let log = self.log(id);
                let last = log.lines().last().unwrap_or_default().to_string();
                return Ok(Some(format!("node {id} ended by itself, {status}: {last}")));
            }
        }
        Ok(None)
    }

    /// Sends a node a signal by its name: TERM, STOP, CONT.
    pub fn signal(&mut self, id: NodeId, name: &str) -> io::Result<()> {
        let member = self.member(id);
        let Some(child) = &member.process else {
            return Ok(());
        };
        member.frozen = name == "STOP";
        signal(child.id(), name)
    }

    /// Ends all faults that this cluster knows of: nodes thaw, cables pass. Nodes that are down
    /// stay down.
    pub fn heal(&mut self) -> io::Result<()> {
        for cable in self.cables.values().chain(self.client_cables.values()) {
            cable.set(Quality::default());
        }
        let frozen: Vec<_> = self
            .ids()
            .into_iter()
            .filter(|id| self.nodes[id].frozen)
            .collect();
        frozen
            .into_iter()
            .try_for_each(|id| self.signal(id, "CONT"))
    }

    /// What a node says of itself, if it answers.
    pub fn status(&self, id: NodeId) -> Option<Status> {
        let address = self.nodes[&id].address.to_string();
        match self.nodes[&id].frozen {
            true => None,
            false => self.monitor.status_of(&address).ok(),
        }
    }

    /// Who leads in the highest term, as far as nodes say so.
    pub fn leader(&self) -> Option<NodeId> {
        let statuses = self.nodes.keys().filter_map(|id| self.status(*id));
        let leaders = statuses.filter(|status| status.role == RoleName::Leader);
        let leader = leaders.max_by_key(|status| status.term);
        leader.map(|status| status.id)
    }

    /// Asks the leader to hand over to whoever is furthest along.
    pub fn transfer(&self) -> Result<(), String> {
        let result = self.monitor.transfer(None);
        result.map_err(|error| error.to_string())
    }

    /// Has a node take a snapshot.
    pub fn take_snapshot(&self, id: NodeId) {
        // It only speeds things up.
        let _ = self
            .monitor
            .take_snapshot(&self.nodes[&id].address.to_string());
    }

    /// Moves a node's data folder away, or back.
    pub fn move_data(&self, id: NodeId, away: bool) -> io::Result<()> {
        let (data, aside) = (self.data(id), self.data(id).with_extension("aside"));
        if away {
            fs::rename(data, aside)?;
            fs::create_dir(data)
        } else {
            fs::remove_dir_all(data)?;
            fs::rename(aside, data)
        }
    }

    /// A file to fill a node's disk with.
    pub fn filler(&self, id: NodeId) -> io::Result<File> {
        File::create(self.data(id).with_extension("filler"))
    }

    /// Makes room on a node's disk again.
    pub fn remove_filler(&self, id: NodeId) -> io::Result<()> {
        fs::remove_file(self.data(id).with_extension("filler"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self
            .nodes
            .values_mut()
            .filter_map(|node| node.process.as_mut())
        {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a process of ours a signal by its name.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    let kill = ["-c", "kill -\"$0\" \"$1\"", name, &pid.to_string()];
    match Command::new("sh").args(kill).status()?.success() {
        true => Ok(()),
        false => Err(other(format!("cannot send SIG{name} to process {pid}"))),
    }
}

fn other(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}
