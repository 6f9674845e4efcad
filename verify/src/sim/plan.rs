//! The plan of a run: every rate, size and kind of fault, drawn from the run's seed (swarm
//! testing).
//!
//! A run in which all faults happen seldom gets far. Runs that each have only some of the faults
//! together reach deeper states.

use super::Time;
use super::network::Quality;
use super::random::Random;
use raftkv::kv::Limits;

const MS: Time = 1000;
const SECOND: Time = 1000 * MS;
/// How long the operations of clients may take at least where members change. A client asks the
/// servers of its newest list first, and those that are not on it only if time is left: a client
/// with less time than one attempt would never come to these.
const LEAST_DEADLINE: Time = 4 * SECOND;
/// The most nodes of a run.
const MOST_NODES: u64 = 7;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// One directed link loses everything for a while.
    CutLink,
    /// The nodes fall into two groups, in one direction or in both.
    Partition,
    /// A link holds everything back for a while.
    Clog,
    /// A node loses what was not synced.
    PowerCut,
    /// A node's process dies; what it wrote stays.
    Kill,
    /// Whoever leads loses its power.
    LeaderCrash,
    /// All nodes lose their power.
    Blackout,
    /// A node stands still for a while: no ticks, no input, no completion.
    Pause,
    /// A node's syncs take long for a while.
    SlowDisk,
    /// A node's next write fails at some operation.
    FailDisk,
    /// A node's disk has no more room for a while.
    FullDisk,
    /// Bits flip in the log of a node that is down; it must not start again.
    RotLog,
    /// Bits flip in both copies of the vote of a node that is down; it must not start again.
    RotVote,
    /// Bits flip in one copy of the vote of a node that is down; it must start nevertheless.
    RotVoteCopy,
    /// A client dies, and another takes its place.
    ClientDies,
    /// Somebody asks for leadership to be handed over.
    Transfer,
    /// Somebody asks a node for a snapshot.
    WantSnapshot,
    /// Bits flip in a snapshot of a node that is down; if it has another one that the log follows,
    /// it must start nevertheless, else it must not.
    RotSnapshot,
    /// A node loses its folder and comes back with an empty one under its id.
    Wipe,
    /// Bits flip in the log of a node that runs; unless that part of the log is removed before, the
    /// node must not start again.
    RotRunningLog,
    /// Bits flip in a snapshot of a node that runs, and in those that nodes receive.
    RotRunningSnapshot,
    /// A node cannot read its disk, or a file, for a while, or one read fails.
    FailReads,
    /// Somebody asks for a change of members.
    Change,
}

const FAULTS: [(Fault, Time); 22] = [
    (Fault::CutLink, 3 * SECOND),
    (Fault::Partition, 2 * SECOND),
    (Fault::Clog, 3 * SECOND),
    (Fault::PowerCut, 3 * SECOND),
    (Fault::Kill, 6 * SECOND),
    (Fault::LeaderCrash, 3 * SECOND),
    (Fault::Blackout, 20 * SECOND),
    (Fault::Pause, 4 * SECOND),
    (Fault::SlowDisk, 3 * SECOND),
    (Fault::FailDisk, 8 * SECOND),
    (Fault::FullDisk, 20 * SECOND),
    (Fault::RotLog, 20 * SECOND),
    (Fault::RotVote, 30 * SECOND),
    (Fault::RotVoteCopy, 15 * SECOND),
    (Fault::ClientDies, 6 * SECOND),
    (Fault::Transfer, 6 * SECOND),
    (Fault::WantSnapshot, 400 * MS),
    (Fault::RotSnapshot, 6 * SECOND),
    (Fault::Wipe, 12 * SECOND),
    (Fault::RotRunningLog, 30 * SECOND),
    (Fault::RotRunningSnapshot, SECOND),
    (Fault::FailReads, 2 * SECOND),
];

/// The settings of one run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The nodes that found the cluster.
    pub nodes: usize,
    /// The nodes besides these, which are no members at first.
    pub spare: usize,
    /// Whether a node that has lost its folder asks for a place by itself.
    pub rejoins: bool,
    pub clients: usize,
    /// How many operations a client has under way at the most.
    pub concurrency: usize,
    /// Whether the clocks of some nodes run fast and those of others slow.
    pub clocks_differ: bool,
    /// Keys that are only appended to, and keys that see everything.
    pub append_keys: u64,
    pub mixed_keys: u64,
    /// How long values are at the most, but for what makes them different.
    pub value_bytes: u64,
    /// How long faults go on.
    pub chaos: Time,
    /// How many operations the clients begin in that time at the most.
    pub max_operations: u64,
    pub think: Time,
    pub network: Quality,
    /// How long one write takes, on average.
    pub sync: Time,
    pub segment_bytes: u64,
    /// The faults of this run with the mean time between two of a kind.
    pub faults: Vec<(Fault, Time)>,
    pub mean_outage: Time,
    /// Whether a slow disk or a lossy link stays when the other faults end.
    pub lasting: bool,
    /// How likely a node that has just been elected loses its power, or is cut off, before long.
    pub doom: f64,
    /// Whether leaders fail as they do in figure 8 of the paper.
    pub figure_eight: bool,
    /// Whether nodes must greet each other before they talk, and be admitted before they count.
    pub greets: bool,
    /// How long it takes a node to start for the first time, on average.
    pub starts: Time,
    /// Whether the last node comes late, and is met by few at first.
    pub newcomer: bool,
    /// The states of all nodes are compared at every so manieth index.
    pub compare_every: u64,
    pub snapshots: Snapshots,
    pub limits: Limits,
    pub max_append_bytes: usize,
    pub max_inflight_messages: usize,
    pub max_uncommitted_bytes: usize,
    /// How many requests may wait at a node.
    pub max_waiting: usize,
    pub attempt_timeout: Time,
    pub deadline: Time,
    /// How likely a request is repeated though it was answered, or while it is in doubt.
    pub repeat: f64,
    /// How likely a node learns within a tick that nobody listens at the address of one that is
    /// down, and that it takes one for down that is not.
    pub notices: f64,
    pub false_alarms: f64,
}

/// When nodes take snapshots, and how they write and send them.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    /// See [`Replica::new`](raftkv::node::Replica::new).
    pub log_bytes: Option<u64>,
    pub trailing_bytes: usize,
    pub keeps_matched: bool,
    /// How much of a state is written at a time.
    pub piece_bytes: usize,
    /// How much of a file is written between two syncs.
    pub sync_bytes: u64,
    pub part_bytes: u64,
    pub window_bytes: u64,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Self {
        let nodes = *random.pick(&[1, 2, 3, 3, 3, 4, 5, 5, 5, 7]);
        let (clients, concurrency) = (random.between(1, 6), random.between(1, 4));
        let chaos = random.between(5, 30) * SECOND;
        let max_operations = random.between(100, 1500);
        // Spread over the whole time, or the sooner done.
        let think = chaos * clients * concurrency / max_operations;
        let mut plan = Self {
            nodes,
            spare: 0,
            rejoins: true,
            clients: clients as usize,
            concurrency: concurrency as usize,
            clocks_differ: random.chance(0.4),
            append_keys: random.between(1, 3),
            mixed_keys: random.between(1, 4),
            // Of long values, the state becomes larger than the largest pieces.
            value_bytes: *random.pick(&[20, 20, 20, 20, 20, 600]),
            chaos,
            max_operations,
            think: think / *random.pick(&[1, 4, 16]),
            network: network(random),
            sync: *random.pick(&[100, MS, 5 * MS, 20 * MS]),
            segment_bytes: *random.pick(&[5 << 10, 8 << 10, 32 << 10, 1 << 20]),
            snapshots: snapshots(random),
            faults: faults(random),
            lasting: random.chance(0.6),
            doom: *random.pick(&[0.0, 0.0, 0.3, 0.8]),
            figure_eight: false,
            greets: true,
            starts: *random.pick(&[0, 0, SECOND, 5 * SECOND]),
            newcomer: false,
            compare_every: *random.pick(&[1, 4, 4, 16]),
            mean_outage: *random.pick(&[300 * MS, SECOND, 3 * SECOND]),
            limits: limits(random),
            max_append_bytes: *random.pick(&[1, 200, 1 << 20]),
            max_inflight_messages: *random.pick(&[1, 4, 256]),
            max_uncommitted_bytes: *random.pick(&[300, 1 << 20, 64 << 20]),
            max_waiting: *random.pick(&[3, 65_536, 65_536]),
            attempt_timeout: *random.pick(&[50 * MS, 50 * MS, 300 * MS, SECOND]),
            deadline: *random.pick(&[SECOND, 4 * SECOND, 10 * SECOND]),
            repeat: *random.pick(&[0.0, 0.05, 0.3]),
            notices: *random.pick(&[0.0, 0.1, 1.0]),
            false_alarms: *random.pick(&[0.0, 0.0, 0.01]),
        };
        if random.chance(0.1) {
            plan.play_figure_eight();
        } else if random.chance(0.1) {
            plan.play_newcomer(random);
        }
        if plan.lasting {
            plan.send_in_batches();
        }
        plan
    }

    /// A cluster in which nothing happens by itself, with the product's own limits.
    pub fn calm(nodes: usize, clients: usize) -> Self {
        Self {
            nodes,
            spare: 0,
            rejoins: true,
            clients,
            concurrency: 1,
            clocks_differ: false,
            append_keys: 1,
            mixed_keys: 1,
            value_bytes: 20,
            chaos: 0,
            max_operations: 0,
            think: 0,
            network: Quality {
                loss: 0.0,
                corruption: 0.0,
                duplicate: 0.0,
                least_delay: 0,
                mean_delay: 0,
                reorder: false,
            },
            sync: 5 * MS,
            segment_bytes: 8 << 10,
            snapshots: Snapshots {
                log_bytes: None,
                trailing_bytes: 0,
                keeps_matched: true,
                piece_bytes: 4 << 10,
                sync_bytes: 512 << 10,
                part_bytes: 4 << 10,
                window_bytes: 16 << 10,
            },
            faults: Vec::new(),
            mean_outage: 0,
            lasting: false,
            doom: 0.0,
            figure_eight: false,
            greets: false,
            starts: 0,
            newcomer: false,
            compare_every: 4,
            limits: Limits::default(),
            max_append_bytes: 1 << 20,
            max_inflight_messages: 256,
            max_uncommitted_bytes: 64 << 20,
            max_waiting: 65_536,
            attempt_timeout: SECOND,
            deadline: 60 * SECOND,
            repeat: 0.0,
            notices: 0.0,
            false_alarms: 0.0,
        }
    }

    /// Leaders that get to replicate an entry to one or two others, if at all, before the next one
    /// is elected (paper figure 8): what swarms of independent draws seldom come to.
    fn play_figure_eight(&mut self) {
        self.figure_eight = true;
        self.greets = false;
        self.starts = 0;
        self.lasting = false;
        self.nodes = 5;
        self.doom = 1.0;
        self.mean_outage = 200 * MS;
        self.max_append_bytes = 1;
        self.max_inflight_messages = 1;
        self.sync = 200;
        self.clocks_differ = false;
        self.chaos = 25 * SECOND;
        self.network = Quality::good();
        self.faults.clear();
    }

    /// A cluster of five or seven, in which one node comes late; see `newcomer.rs`.
    fn play_newcomer(&mut self, random: &mut Random) {
        self.newcomer = true;
        self.lasting = false;
        self.nodes = *random.pick(&[5, 5, 7]);
        self.starts = 0;
        self.doom = 0.0;
        self.mean_outage = 200 * MS;
        self.sync = 200;
        self.clocks_differ = false;
        self.chaos = 12 * SECOND;
        self.network = Quality::good();
        self.faults = vec![(Fault::Wipe, 10 * SECOND)];
    }

    /// Members change in some runs, up to seven of them.
    pub fn draw_members(&mut self, random: &mut Random) {
        if self.figure_eight || self.newcomer || !random.chance(0.4) {
            return;
        }
        self.spare = random.below(MOST_NODES - self.nodes as u64 + 1) as usize;
        self.rejoins = random.chance(0.8);
        self.deadline = self.deadline.max(LEAST_DEADLINE);
        let mean = *random.pick(&[300 * MS, SECOND, 4 * SECOND]);
        self.faults.push((Fault::Change, mean));
    }

    /// Members change all the time, under those faults that are hardest on a change: leaders that
    /// fail, folders that are lost, nodes that are cut off. What swarms of independent draws seldom
    /// come to.
    pub fn play_members(&mut self, random: &mut Random) {
        self.figure_eight = false;
        self.newcomer = false;
        self.nodes = *random.pick(&[1, 2, 3, 3, 3, 4, 5]);
        self.spare = random.between(1, MOST_NODES - self.nodes as u64) as usize;
        self.rejoins = random.chance(0.8);
        self.deadline = self.deadline.max(LEAST_DEADLINE);
        self.greets = true;
        self.starts = 0;
        self.lasting = false;
        self.doom = *random.pick(&[0.0, 0.3, 0.8]);
        self.mean_outage = 300 * MS;
        self.sync = *random.pick(&[200, MS, 5 * MS]);
        self.chaos = 15 * SECOND;
        self.network = Quality::good();
        self.network.loss = *random.pick(&[0.0, 0.0, 0.1]);
        self.snapshots.log_bytes = *random.pick(&[None, Some(0), Some(30 << 10)]);
        self.max_inflight_messages = self.max_inflight_messages.max(4);
        self.faults = vec![(Fault::Change, *random.pick(&[60 * MS, 200 * MS]))];
        let others = [
            (Fault::Wipe, 2 * SECOND),
            (Fault::LeaderCrash, SECOND),
            (Fault::PowerCut, SECOND),
            (Fault::Partition, SECOND),
            (Fault::CutLink, 500 * MS),
            (Fault::Transfer, SECOND),
            (Fault::WantSnapshot, 300 * MS),
            (Fault::Blackout, 5 * SECOND),
        ];
        let drawn = others.into_iter().filter(|_| random.chance(0.6));
        self.faults.extend(drawn);
    }

    /// A log that travels entry by entry, or a snapshot in tiny parts, takes minutes over a slow
    /// disk or a lossy link: traces without this show one leader that stays in office while a
    /// follower that the quorum needs takes some twenty entries a second, as many as its disk
    /// syncs. That would say nothing about how soon a cluster works again.
    fn send_in_batches(&mut self) {
        self.max_append_bytes = 1 << 20;
        self.max_inflight_messages = self.max_inflight_messages.max(4);
        self.snapshots.part_bytes = 256 << 10;
        self.snapshots.window_bytes = 1 << 20;
    }

    /// Whether the run has another list of members in the end than in the beginning.
    pub fn members_change(&self) -> bool {
        self.faults.iter().any(|(fault, _)| *fault == Fault::Change)
    }

    pub fn quorum(&self) -> usize {
        self.nodes / 2 + 1
    }
}

fn network(random: &mut Random) -> Quality {
    Quality {
        loss: *random.pick(&[0.0, 0.01, 0.1, 0.25]),
        corruption: *random.pick(&[0.0, 0.0, 0.001, 0.02]),
        duplicate: *random.pick(&[0.0, 0.02, 0.2]),
        least_delay: *random.pick(&[50, 500, 5 * MS]),
        mean_delay: *random.pick(&[100, MS, 10 * MS, 50 * MS]),
        reorder: random.chance(0.5),
    }
}

fn snapshots(random: &mut Random) -> Snapshots {
    let part_bytes = *random.pick(&[1000, 4 << 10, 256 << 10]);
    Snapshots {
        log_bytes: *random.pick(&[None, Some(0), Some(0), Some(30 << 10)]),
        trailing_bytes: *random.pick(&[0, 0, 500, 8 << 20]),
        keeps_matched: random.chance(0.3),
        piece_bytes: *random.pick(&[300, 4 << 10, 64 << 10]),
        sync_bytes: *random.pick(&[1, 5 << 10, 512 << 10]),
        part_bytes,
        window_bytes: part_bytes * *random.pick(&[1, 2, 16]),
    }
}

/// About half of all kinds, each more or less often; in some runs none.
fn faults(random: &mut Random) -> Vec<(Fault, Time)> {
    if random.chance(0.05) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (fault, mean) in FAULTS {
        let mean = *random.pick(&[mean / 4, mean, mean * 2]);
        if random.chance(0.5) {
            faults.push((fault, mean));
        }
    }
    faults
}

/// Small limits in some runs, so that sessions expire, displace each other and fill up.
fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    if random.chance(0.3) {
        limits.session_ttl_ms = random.between(300, 5000);
    }
    if random.chance(0.3) {
        limits.max_sessions = random.between(2, 8) as usize;
    }
    if random.chance(0.2) {
        limits.max_in_flight = random.between(1, 6);
    }
    if random.chance(0.2) {
        limits.max_session_reply_bytes = random.between(64, 1000);
    }
    if random.chance(0.2) {
        limits.max_value_bytes = random.between(20, 200) as usize;
    }
    if random.chance(0.2) {
        limits.max_scan_items = random.between(1, 4) as usize;
    }
    limits
}
