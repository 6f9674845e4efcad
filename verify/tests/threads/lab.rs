//! A cluster as the course's tests handle one: servers are connected and disconnected, crashed and
//! started, and the leader is looked for.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use raftkv::machine::StateMachine;
use raftkv::node::Config;
use raftkv::raft::{NodeId, RoleName, Term};
use raftkv::testkit::{Cluster, Link};
use raftkv::wire::client::Status;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The nominal election timeout: no timeout is longer.
pub const T: Duration = Duration::from_millis(500);

/// How long the course gives a cluster to elect a leader.
const ELECTION: Duration = Duration::from_secs(5);

/// The course's unreliable network, which also repeats a message now and then.
pub const UNRELIABLE: Link = Link {
    cut: false,
    min_delay: Duration::ZERO,
    max_delay: Duration::from_millis(26),
    late_permille: 0,
    late_delay: Duration::ZERO,
    loss_permille: 100,
    twice_permille: 20,
};

/// Servers 1 to N with a network between them.
pub struct Lab<S: StateMachine> {
    pub cluster: Cluster<S>,
    network: Mutex<Wiring>,
    leaders: Mutex<BTreeMap<Term, NodeId>>,
    random: Mutex<ChaCha8Rng>,
}

/// Servers of the same side reach each other, over links of this kind.
struct Wiring {
    sides: BTreeMap<NodeId, u64>,
    link: Link,
}

impl<S: StateMachine> Lab<S> {
    /// Servers that never take a snapshot by themselves.
    pub fn new(size: u64, machine: impl Fn() -> S + Send + Sync + 'static) -> Self {
        Self::with_snapshots(size, None, machine)
    }

    /// Servers that take a snapshot after so many bytes of log.
    pub fn with_snapshots(
        size: u64,
        log_bytes: Option<u64>,
        machine: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        let adjust = |config: &mut Config| config.snapshot_log_bytes = log_bytes;
        let cluster = Cluster::start_with(size, machine, adjust);
        Self {
            network: Mutex::new(Wiring {
                sides: cluster.ids().map(|id| (id, 0)).collect(),
                link: Link::default(),
            }),
            cluster,
            leaders: Mutex::default(),
            random: Mutex::new(ChaCha8Rng::seed_from_u64(size)),
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.cluster.ids().collect()
    }

    /// The id `distance` places behind this one, in a circle.
    pub fn after(&self, id: NodeId, distance: u64) -> NodeId {
        (id - 1 + distance) % self.ids().len() as u64 + 1
    }

    /// All links are of this kind from now on.
    pub fn set_links(&self, link: Link) {
        self.rewire(|wiring| wiring.link = link);
    }

    /// Cuts a server off, in both directions; its process goes on.
    pub fn disconnect(&self, id: NodeId) {
        self.put_on_side(id, id);
    }

    pub fn connect(&self, id: NodeId) {
        self.put_on_side(id, 0);
    }

    /// Puts these on one side and all others on the other.
    pub fn split(&self, side: &[NodeId]) {
        self.rewire(|wiring| {
            for (id, at) in &mut wiring.sides {
                *at = if side.contains(id) { u64::MAX } else { 0 };
            }
        });
    }

    fn put_on_side(&self, id: NodeId, side: u64) {
        self.rewire(|wiring| {
            wiring.sides.insert(id, side);
        });
    }

    fn rewire(&self, change: impl FnOnce(&mut Wiring)) {
        let mut wiring = self.network.lock();
        change(&mut wiring);
        for (from, side) in &wiring.sides {
            for (to, other) in wiring.sides.iter().filter(|(to, _)| *to != from) {
                let link = if side == other {
                    wiring.link
                } else {
                    Link::CUT
                };
                self.cluster.network().set_link(*from, *to, link);
            }
        }
    }

    pub fn is_connected(&self, id: NodeId) -> bool {
        self.cluster.is_up(id) && self.network.lock().sides[&id] == 0
    }

    pub fn connected(&self) -> Vec<NodeId> {
        let mut ids = self.ids();
        ids.retain(|id| self.is_connected(*id));
        ids
    }

    /// The server's power fails. It is disconnected, too.
    pub fn crash(&self, id: NodeId) {
        self.disconnect(id);
        self.cluster.crash(id);
    }

    /// Starts a server that was crashed, and connects it.
    pub fn start(&self, id: NodeId) {
        self.cluster.restart(id);
        self.connect(id);
    }

    /// What the servers that are up say of themselves. Asserts that no term has two leaders.
    pub fn statuses(&self) -> BTreeMap<NodeId, Status> {
        let nodes = self.ids().into_iter();
        let nodes = nodes.filter_map(|id| Some((id, self.cluster.node_if_up(id)?)));
        let statuses: BTreeMap<_, _> = nodes.map(|(id, node)| (id, node.status())).collect();
        let mut leaders = self.leaders.lock();
        for status in statuses.values().filter(|s| s.role == RoleName::Leader) {
            let first = *leaders.entry(status.term).or_insert(status.id);
            assert_eq!(first, status.id, "two leaders in term {}", status.term);
        }
        statuses
    }

    /// Waits for the one leader that all connected servers follow in its term.
    pub fn check_one_leader(&self) -> NodeId {
        let mut leader = None;
        let found = self.cluster.wait_until(ELECTION, |_| {
            let connected = self.connected();
            let mut statuses = self.statuses();
            statuses.retain(|id, _| connected.contains(id));
            let leads = |s: &&Status| s.role == RoleName::Leader;
            leader = statuses.values().find(leads).map(|s| (s.id, s.term));
            let Some((id, term)) = leader else {
                return false;
            };
            let follows = |s: &Status| s.leader == Some(id) && s.term == term;
            statuses.values().all(follows)
        });
        assert!(found, "no leader of all {:?}", self.connected());
        leader.expect("it was found").0
    }

    /// The course's limit on the saved Raft state, in entries: what a server holds of the log in
    /// memory, and what it has applied since its last snapshot. Ours takes snapshots beside the
    /// work and not in the middle of it, so a moment may pass until it holds.
    pub fn check_log_size(&self, entries: u64) {
        self.check_log_size_of(&self.ids(), entries);
    }

    /// As [`check_log_size`](Self::check_log_size), of these servers only.
    pub fn check_log_size_of(&self, servers: &[NodeId], entries: u64) {
        let small = |s: &Status| {
            // Of which the first may be yet to come.
            let held = (s.last_index + 1).saturating_sub(s.first_index);
            held <= entries && s.applied.saturating_sub(s.snapshot_index) <= entries
        };
        let are_small = self.cluster.wait_until(ELECTION, |_| {
            let statuses = self.statuses();
            servers.iter().all(|id| statuses.get(id).is_none_or(small))
        });
        assert!(are_small, "a log is too long: {:?}", self.statuses());
    }

    /// Asserts that every server has a snapshot, or that none has.
    pub fn check_snapshots(&self, exist: bool) {
        let statuses = self.statuses();
        let right = statuses.values().all(|s| (s.snapshot_index > 0) == exist);
        assert!(right, "snapshots must exist: {exist}. {statuses:?}");
    }

    /// Does nothing for a while: for what must not happen in it, or may.
    pub fn let_time_pass(&self, time: Duration) {
        let never = |_: &Cluster<S>| false;
        self.cluster.wait_until(time, never);
    }

    /// A number below the bound.
    pub fn below(&self, bound: u64) -> u64 {
        self.random.lock().next_u64() % bound
    }

    /// True so many times in a hundred.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
