//! The nodes of a run, what can be made to go wrong with them, and who asks how they are.
//!
//! The nodes reach each other, and are reached by some clients, through proxies only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::Programs;
use super::clients;
use raftkv::client::Clerk;
use raftkv::raft::{NodeId, RoleName};
use raftkv::testkit::{Cable, ProcessCluster, Proxy, Quality};
use raftkv::wire::client::Status;

pub struct Testbed {
    pub nodes: ProcessCluster,
    frozen: BTreeSet<NodeId>,
    /// From one node to another.
    pub cables: BTreeMap<(NodeId, NodeId), Cable>,
    /// To a node from the clients that take this way.
    pub client_cables: BTreeMap<NodeId, Cable>,
    client_links: Vec<Proxy>,
    /// Asks nodes for their status, past all proxies.
    monitor: Clerk,
}

impl Testbed {
    /// Lays everything out. No node runs yet.
    pub fn new(
        programs: &Programs,
        folder: &Path,
        size: u64,
        snapshot_log_bytes: u64,
    ) -> io::Result<Self> {
        let mut nodes = ProcessCluster::new(&programs.kvnode, folder.to_path_buf(), size)?;
        let cables = nodes.link_all()?;
        let mut client_cables = BTreeMap::new();
        let mut client_links = Vec::new();
        for id in nodes.ids() {
            nodes.give(
                id,
                &["--snapshot-log-bytes", &snapshot_log_bytes.to_string()],
            );
            let cable = Cable::default();
            let link = nodes.proxy(id, &cable)?;
            // A client behind a proxy that is told who leads stays behind one.
            nodes.announce(id, link.address());
            client_links.push(link);
            client_cables.insert(id, cable);
        }
        let monitor = Clerk::with_options(nodes.addresses(), clients::options(0));
        Ok(Self {
            monitor: monitor.map_err(io::Error::other)?,
            nodes,
            frozen: BTreeSet::new(),
            cables,
            client_cables,
            client_links,
        })
    }

    /// Where clients find the nodes behind a proxy.
    pub fn proxied(&self) -> Vec<String> {
        let links = self.client_links.iter();
        links.map(|proxy| proxy.address().to_string()).collect()
    }

    /// What a node has written to standard error so far, over all its lives.
    pub fn log(&self, id: NodeId) -> String {
        let bytes = fs::read(self.nodes.log(id)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts all nodes that are down.
    pub fn launch_all(&mut self) -> io::Result<()> {
        let ids = self.nodes.ids().into_iter();
        let down: Vec<_> = ids.filter(|id| !self.nodes.is_up(*id)).collect();
        self.nodes.launch(down)
    }

    /// The first node that has ended though nobody told it to, other than the one that may.
    pub fn lost(&mut self, spared: Option<NodeId>) -> io::Result<Option<String>> {
        let ids = self.nodes.ids().into_iter();
        for id in ids.filter(|id| Some(*id) != spared) {
            if let Some(end) = self.nodes.ended(id)? {
                let last = end.lines.last().map_or("", String::as_str);
                let status = end.status;
                return Ok(Some(format!("node {id} ended by itself, {status}: {last}")));
            }
        }
        Ok(None)
    }

    /// Stops a node in the middle of what it does, until [`heal`](Self::heal).
    pub fn freeze(&mut self, id: NodeId) -> io::Result<()> {
        self.frozen.insert(id);
        self.nodes.node(id).signal("STOP")
    }

    /// Ends all faults that this testbed knows of: nodes thaw, cables pass. Nodes that are down
    /// stay down.
    pub fn heal(&mut self) -> io::Result<()> {
        for cable in self.cables.values().chain(self.client_cables.values()) {
            cable.set(Quality::default());
        }
        let frozen = std::mem::take(&mut self.frozen).into_iter();
        let mut up = frozen.filter(|id| self.nodes.is_up(*id));
        up.try_for_each(|id| self.nodes.node(id).signal("CONT"))
    }

    /// What a node says of itself, if it answers.
    pub fn status(&self, id: NodeId) -> Option<Status> {
        let address = self.nodes.address(id).to_string();
        match self.frozen.contains(&id) {
            true => None,
            false => self.monitor.status_of(&address).ok(),
        }
    }

    /// Who leads in the highest term, as far as nodes say so.
    pub fn leader(&self) -> Option<NodeId> {
        let ids = self.nodes.ids().into_iter();
        let statuses = ids.filter_map(|id| self.status(id));
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
        let address = self.nodes.address(id).to_string();
        // It only speeds things up.
        let _ = self.monitor.take_snapshot(&address);
    }

    /// Moves a node's data folder away, or back.
    pub fn move_data(&self, id: NodeId, away: bool) -> io::Result<()> {
        let data = self.nodes.data(id);
        let aside = data.with_extension("aside");
        if away {
            fs::rename(&data, aside)?;
            fs::create_dir(data)
        } else {
            fs::remove_dir_all(&data)?;
            fs::rename(aside, data)
        }
    }

    /// A file to fill a node's disk with.
    pub fn filler(&self, id: NodeId) -> io::Result<File> {
        File::create(self.filler_path(id))
    }

    /// Makes room on a node's disk again.
    pub fn remove_filler(&self, id: NodeId) -> io::Result<()> {
        fs::remove_file(self.filler_path(id))
    }

    fn filler_path(&self, id: NodeId) -> PathBuf {
        self.nodes.data(id).with_extension("filler")
    }
}
