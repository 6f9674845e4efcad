//! A cluster in one process, whose nodes a test can crash, restart and isolate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::network::{Link, Network};
use super::transport::InProcess;
use super::way::Way;
use crate::client::{self, Clerk, Options};
use crate::kv::{Kv, Limits};
use crate::machine::StateMachine;
use crate::node::{Config, Handle, Node};
use crate::raft::{Index, MemberRole, NodeId, RoleName};
use crate::storage::{Disk, SimDisk};
use crate::wire::client::{Answer, Ask};
use crate::wire::members::ChangeRequest;

/// How long a test waits for the cluster at the most. It is far longer than the cluster ever needs,
/// so a wait that takes this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause before a condition is checked again.
const GLANCE: Duration = Duration::from_millis(5);

/// A timeout that is longer than any test takes.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) type NodeMap<S> = BTreeMap<NodeId, Arc<Handle<S>>>;
pub(super) type Nodes<S> = Arc<RwLock<NodeMap<S>>>;

type DiskFor = Box<dyn Fn(NodeId, SimDisk) -> Arc<dyn Disk> + Send + Sync>;

/// Nodes in one process: 1 to N at first, and those that are added.
pub struct Cluster<S: StateMachine = Kv> {
    configs: RwLock<BTreeMap<NodeId, Config>>,
    machine: Box<dyn Fn() -> S + Send + Sync>,
    nodes: Nodes<S>,
    disks: RwLock<BTreeMap<NodeId, SimDisk>>,
    /// The disk that a node gets, made of its simulated one.
    disk_for: DiskFor,
    network: Network,
    /// The seed of the next disk.
    blanks: AtomicU64,
}

impl Cluster<Kv> {
    /// A cluster of `size` key/value stores with the usual limits.
    pub fn of_stores(size: u64) -> Self {
        Self::start(size, || Kv::new(Limits::default()))
    }

    /// A client that may talk to every node.
    pub fn clerk(&self) -> Clerk {
        self.clerk_with(Options::default())
    }

    /// A client with its own options that may talk to every node.
    ///
    /// # Panics
    /// If the settings are not ones that a Clerk accepts.
    pub fn clerk_with(&self, options: Options) -> Clerk {
        self.clerk_over(self.transport(), self.ids(), options)
    }

    /// A client that reaches the nodes over the given transport instead of
    /// [`transport`](Self::transport), and at first knows only the nodes with these ids.
    ///
    /// # Panics
    /// If the settings are not ones that a Clerk accepts.
    pub fn clerk_over(
        &self,
        transport: Arc<dyn client::Transport>,
        ids: impl IntoIterator<Item = NodeId>,
        options: Options,
    ) -> Clerk {
        let clerk = Clerk::over(transport, ids.into_iter().map(address), options);
        clerk.unwrap_or_else(|error| panic!("no clerk: {error}"))
    }
}

impl<S: StateMachine> Cluster<S> {
    /// A cluster of `size` nodes, each with a state machine made by `machine`.
    ///
    /// # Panics
    /// If a node does not start.
    pub fn start(size: u64, machine: impl Fn() -> S + Send + Sync + 'static) -> Self {
        Self::start_with(size, machine, |_| {})
    }

    /// As [`start`](Self::start), with each node's settings adjusted first.
    ///
    /// # Panics
    /// If a node does not start.
    pub fn start_with(
        size: u64,
        machine: impl Fn() -> S + Send + Sync + 'static,
        adjust: impl Fn(&mut Config),
    ) -> Self {
        Self::start_on(size, machine, adjust, |_, disk| Arc::new(disk))
    }

    /// As [`start_with`](Self::start_with), with each node on the disk that `disk_for` makes of its
    /// simulated one: for disks that hang, or that are watched.
    ///
    /// # Panics
    /// If a node does not start.
    pub fn start_on(
        size: u64,
        machine: impl Fn() -> S + Send + Sync + 'static,
        adjust: impl Fn(&mut Config),
        disk_for: impl Fn(NodeId, SimDisk) -> Arc<dyn Disk> + Send + Sync + 'static,
    ) -> Self {
        let members: BTreeMap<_, _> = (1..=size).map(|id| (id, address(id))).collect();
        let config = |id| {
            let mut config = Config::new(id, members.clone(), "in memory");
            adjust(&mut config);
            (id, config)
        };
        let cluster = Self {
            configs: RwLock::new((1..=size).map(config).collect()),
            machine: Box::new(machine),
            nodes: Arc::default(),
            disks: RwLock::new((1..=size).map(|id| (id, SimDisk::new(id))).collect()),
            disk_for: Box::new(disk_for),
            network: Network::new(size),
            blanks: AtomicU64::new(size + 1),
        };
        cluster.ids().for_each(|id| cluster.restart(id));
        cluster
    }

    /// All ids, in ascending order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<S> {
        let ids: Vec<NodeId> = self.configs.read().keys().copied().collect();
        ids.into_iter()
    }

    /// A transport from clients to the nodes, without faults.
    pub fn transport(&self) -> Arc<dyn client::Transport> {
        Arc::new(InProcess::new(self.nodes.clone()))
    }

    /// The network between the nodes.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A node that is up.
    ///
    /// # Panics
    /// If it is down.
    pub fn node(&self, id: NodeId) -> Arc<Handle<S>> {
        let node = self.node_if_up(id);
        node.unwrap_or_else(|| panic!("node {id} is down"))
    }

    /// A node, if it is up.
    pub fn node_if_up(&self, id: NodeId) -> Option<Arc<Handle<S>>> {
        self.nodes.read().get(&id).cloned()
    }

    /// Whether the node is up.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes.read().contains_key(&id)
    }

    /// The disk of a node, to look at or to damage. After a [`crash`](Self::crash) the node has
    /// another disk, with what survived.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn disk(&self, id: NodeId) -> SimDisk {
        self.disks.read()[&id].clone()
    }

    /// The power of a node fails: writes that it has not synced are lost, torn or kept, by chance.
    pub fn crash(&self, id: NodeId) {
        // The disk stops first. While the threads end after that, nothing more becomes durable, so
        // they cannot acknowledge anything that is not on the disk which the node restarts from.
        if let Some(disk) = self.disks.write().get_mut(&id) {
            disk.stop_at(0);
            *disk = disk.crash();
        }
        self.network.disconnect(id);
        let node = self.nodes.write().remove(&id);
        if let Some(node) = node {
            node.shutdown();
        }
    }

    /// Starts a node that is down, on what its disk holds.
    ///
    /// # Panics
    /// If it does not start, or is up.
    pub fn restart(&self, id: NodeId) {
        assert!(!self.is_up(id), "node {id} is up");
        let (disk, config) = (self.disk(id), self.configs.read()[&id].clone());
        let disk = (self.disk_for)(id, disk);
        let way = Arc::new(Way::new(id, &self.network, &self.nodes));
        let started = Node::start_on(config, (self.machine)(), disk, way);
        let node = Arc::new(started.unwrap_or_else(|error| panic!("node {id}: {error}")));
        let target = Arc::downgrade(&node);
        self.nodes.write().insert(id, node);
        self.network.connect(
            id,
            Arc::new(move |envelope| {
                if let Some(node) = target.upgrade() {
                    node.deliver([envelope]);
                }
            }),
        );
    }

    /// Starts a new node, which knows only the addresses of the others and asks them to let it in.
    /// What it becomes is in `role`; as a [`MemberRole::Joining`] it votes once it has caught up.
    ///
    /// # Panics
    /// If there is such a node already, or it does not start.
    pub fn add(&self, id: NodeId, role: MemberRole) {
        assert!(!self.disks.read().contains_key(&id), "node {id} is there");
        self.start_blank(id, role);
    }

    /// A node loses its data folder. It comes back with a new one, knows only the addresses of the
    /// others, and asks them for its place.
    ///
    /// # Panics
    /// If there is no such node, or it does not start.
    pub fn wipe(&self, id: NodeId) {
        self.crash(id);
        self.start_blank(id, MemberRole::Joining);
    }

    fn start_blank(&self, id: NodeId, role: MemberRole) {
        let join = self.ids().filter(|other| *other != id).map(address);
        let join: Vec<String> = join.collect();
        let mut configs = self.configs.write();
        let like = configs.get(&id).or(configs.values().next()).cloned();
        let like = like.expect("a cluster has a node");
        configs.insert(
            id,
            Config {
                id,
                members: BTreeMap::new(),
                address: Some(address(id)),
                join,
                joins_as: role,
                ..like
            },
        );
        drop(configs);
        // The numbers of folders are drawn from the seed of the disk: each disk has its own.
        let seed = self.blanks.fetch_add(1, Ordering::Relaxed);
        self.disks.write().insert(id, SimDisk::new(seed));
        self.restart(id);
    }

    /// Asks the leader to change the members, again and again until it does, and returns the index
    /// of the configuration with the change. It is done when
    /// [`wait_for_members`](Self::wait_for_members) returns.
    ///
    /// # Panics
    /// If the leader refuses the change for a reason that does not pass.
    pub fn change(&self, change: &ChangeRequest) -> Index {
        let force = false;
        let ask = Ask::Change {
            change: change.clone(),
            force,
        };
        self.wait_for("the leader to change the members", |cluster| {
            match cluster.node(cluster.leader()?).ask(&ask, PATIENCE) {
                Answer::Changed { index, .. } => Some(index),
                Answer::Busy | Answer::NotLeader(_) | Answer::Unknown(_) => None,
                // The change before this one is not done yet.
                Answer::Invalid(sentence) if sentence.contains("is under way") => None,
                other => panic!("{change:?}: {other:?}"),
            }
        })
    }

    /// Waits until the committed configuration of each of these voters has these voters and these
    /// learners, and no change is under way there.
    ///
    /// # Panics
    /// If that takes a long time.
    pub fn wait_for_members(&self, voters: &[NodeId], learners: &[NodeId]) {
        self.wait_for("the members to be others", |cluster| {
            let is_done = |id: &NodeId| {
                let report = cluster.node_if_up(*id)?.members();
                let logged = &report.configuration;
                let configuration = &logged.configuration;
                let with = |role| {
                    let members = configuration.members().iter();
                    let members = members.filter(move |member| member.role == role);
                    members.map(|member| member.id).collect::<Vec<_>>()
                };
                let is_stable = report.committed == logged.index && !configuration.is_joint();
                (is_stable
                    && with(MemberRole::Voter) == voters
                    && with(MemberRole::Learner) == learners)
                    .then_some(())
            };
            voters.iter().map(is_done).collect::<Option<Vec<()>>>()
        });
    }

    /// Ends the faults of all links.
    pub fn heal(&self) {
        self.set_all_links(Link::default());
    }

    /// Gives every direction between two nodes this behaviour.
    pub fn set_all_links(&self, link: Link) {
        self.set_links(|_, _| link);
    }

    /// Lets the nodes of each group talk to each other and to no other node. A node in no group is
    /// alone.
    pub fn partition(&self, groups: &[&[NodeId]]) {
        self.set_links(|from, to| {
            let together = |group: &&[NodeId]| group.contains(&from) && group.contains(&to);
            match groups.iter().any(together) {
                true => Link::default(),
                false => Link::CUT,
            }
        });
    }

    /// Cuts a node off from all others, in both directions.
    pub fn isolate(&self, id: NodeId) {
        let others: Vec<NodeId> = self.ids().filter(|other| *other != id).collect();
        self.partition(&[&others]);
    }

    fn set_links(&self, behaviour: impl Fn(NodeId, NodeId) -> Link) {
        for from in self.ids() {
            for to in self.ids().filter(|to| *to != from) {
                self.network.set_link(from, to, behaviour(from, to));
            }
        }
    }

    /// Runs `body`. Meanwhile, asks each node for a snapshot as soon as it has applied `every`
    /// entries since its last one. That is far more often than a node takes a snapshot by itself,
    /// so a short test sees many.
    pub fn while_taking_snapshots<T>(&self, every: u64, body: impl FnOnce() -> T) -> T {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            // Ends the other thread also if `body` panics: the scope waits for that thread.
            let _end = Raise(&ended);
            scope.spawn(|| {
                self.wait_until(FOREVER, |cluster| {
                    for node in cluster.up() {
                        let status = node.status();
                        if status.applied >= status.snapshot_index + every {
                            node.take_snapshot();
                        }
                    }
                    ended.load(Ordering::Relaxed)
                })
            });
            body()
        })
    }

    fn up(&self) -> Vec<Arc<Handle<S>>> {
        self.nodes.read().values().cloned().collect()
    }

    /// Of the nodes that are up and lead, the one in the highest term.
    pub fn leader(&self) -> Option<NodeId> {
        let statuses = self.up().into_iter().map(|node| node.status());
        let leaders = statuses.filter(|status| status.role == RoleName::Leader);
        let highest = leaders.max_by_key(|status| status.term);
        highest.map(|status| status.id)
    }

    /// Waits until a majority of all voters, up or down, follows one leader in its term.
    ///
    /// # Panics
    /// If there is none for a long time.
    pub fn wait_for_leader(&self) -> NodeId {
        self.wait_for("a leader that a majority follows", |cluster| {
            let statuses: Vec<_> = cluster.up().iter().map(|node| node.status()).collect();
            let leaders = statuses.iter().filter(|s| s.role == RoleName::Leader);
            let leader = leaders.max_by_key(|s| s.term)?;
            let voters = leader.members.iter().map(|(id, _)| *id);
            let voters = voters.filter(|id| !leader.learners.contains(id));
            let voters: BTreeSet<NodeId> = voters.collect();
            let followers = statuses.iter().filter(|s| s.leader == Some(leader.id));
            let followers = followers.filter(|s| s.term == leader.term && voters.contains(&s.id));
            (2 * followers.count() > voters.len()).then_some(leader.id)
        })
    }

    /// Waits until all nodes that are up have applied the same log, including every entry that one
    /// of them knew to be committed when the wait began. Asserts that their states are equal, and
    /// returns the index of the last entry.
    ///
    /// # Panics
    /// If that takes a long time, or states differ.
    pub fn wait_for_agreement(&self) -> Index {
        let commits = self.up().into_iter().map(|node| node.status().commit);
        let target = commits.max().unwrap_or(0);
        self.wait_for("all nodes to apply the same log", |cluster| {
            let before = cluster.applied();
            let digests = cluster
                .up()
                .into_iter()
                .map(|node| node.with_machine(S::digest));
            let digests: BTreeSet<u64> = digests.collect();
            // All digests belong to one index only if no node has applied anything since `before`.
            let settled = before.len() == 1 && before.first() >= Some(&target);
            if !settled || cluster.applied() != before {
                return None;
            }
            assert_eq!(digests.len(), 1, "replicas differ at index {before:?}");
            before.first().copied()
        })
    }

    fn applied(&self) -> BTreeSet<Index> {
        let statuses = self.up().into_iter().map(|node| node.status());
        statuses.map(|status| status.applied).collect()
    }

    /// Calls `find` again and again until it returns something.
    ///
    /// # Panics
    /// If it returns nothing for a long time; the message says `what` was waited for.
    pub fn wait_for<T>(&self, what: &str, mut find: impl FnMut(&Self) -> Option<T>) -> T {
        let mut found = None;
        let is_found = self.wait_until(PATIENCE, |cluster| {
            found = find(cluster);
            found.is_some()
        });
        assert!(is_found, "waited {PATIENCE:?} for {what}");
        found.expect("it was found")
    }

    /// Calls `holds` again and again until it returns true or the time is up. Returns whether it
    /// returned true.
    pub fn wait_until(&self, timeout: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if holds(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let _ = crossbeam::channel::after(left.min(GLANCE)).recv();
        }
    }
}

impl<S: StateMachine> Drop for Cluster<S> {
    fn drop(&mut self) {
        let nodes = std::mem::take(&mut *self.nodes.write());
        for (id, node) in nodes {
            self.network.disconnect(id);
            node.shutdown();
        }
        self.network.close();
    }
}

/// Sets a flag when it is dropped.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The address under which clients know a node.
pub fn address(id: NodeId) -> String {
    format!("node-{id}:1")
}
