//! Makes the faults of a run happen, and ends them again.

use std::ops::Range;
use std::sync::Arc;

use super::Time;
use super::durable::Damage;
use super::node::Step;
use super::plan::Fault;
use super::trace::trace;
use super::world::{Event, World};
use raftkv::node::steps::Task;
use raftkv::raft::{EntryId, Raft, RoleName};
use raftkv::storage::{Inspection, Unreadable, inspect};

/// The most operations into a write at which it fails.
const MAX_OPERATIONS: u64 = 8;
/// How many times longer than usual a slow disk takes, and one that stays slow to the end.
const SLOW: Time = 50;
const LAME: Time = 10;
/// For how long a leader that is to fail is heard by few.
const CUT_OFF: Time = 300_000;
/// The size of a block of the folder, in bytes; the log's records begin behind the first.
pub(super) const BLOCK: usize = 4096;

impl World {
    /// A fault strikes.
    pub(super) fn strike(&mut self, fault: Fault, mean: Time) {
        if !self.faults_go_on {
            return;
        }
        let next = self.now + 1 + self.random.exponential(mean);
        self.queue.add(next, Event::Fault(fault, mean));
        self.stats.faults += 1;
        let n = self.somebody();
        let until = self.now + 1 + self.random.exponential(2 * self.plan.mean_outage);
        trace!(self, "{fault:?} strikes, perhaps at node {}", n + 1);
        match fault {
            Fault::CutLink => {
                let (from, to) = self.a_link();
                self.network.cut(from, to, until);
            }
            Fault::Clog => {
                let (from, to) = self.a_link();
                self.network.clog(from, to, until);
            }
            Fault::Partition => self.partition(until),
            Fault::PowerCut | Fault::Kill => {
                let victim = self.victim();
                self.crash(victim, fault == Fault::PowerCut);
            }
            Fault::LeaderCrash => {
                if let Some(leader) = self.a_leader() {
                    self.crash(leader, true);
                }
            }
            Fault::Blackout => (0..self.nodes.len()).for_each(|n| self.crash(n, true)),
            Fault::Pause => self.pause(n, until),
            Fault::SlowDisk => {
                self.nodes[n].slowness = SLOW;
                self.queue.add(until, Event::DiskRecovers(n));
            }
            Fault::FailDisk => {
                let most = *self.random.pick(&[2, MAX_OPERATIONS]);
                self.nodes[n].fail_next = Some(self.random.below(most));
            }
            Fault::FullDisk => {
                let room = self.disk_bytes(n) + self.random.below(2 * BLOCK as u64);
                self.nodes[n].disk.set_capacity(Some(room));
                self.queue.add(until, Event::DiskRecovers(n));
            }
            Fault::RotLog | Fault::RotVote | Fault::RotVoteCopy | Fault::RotSnapshot => {
                self.rot(fault);
            }
            Fault::ClientDies => {
                let c = self.random.below(self.clients.len() as u64) as usize;
                self.client_dies(c);
            }
            Fault::Transfer => self.ask_for_transfer(),
            Fault::WantSnapshot => self.ask_for_snapshot(n),
            Fault::Wipe => self.wipe(self.worst_folder(n)),
            Fault::RotRunningLog | Fault::RotRunningSnapshot => self.rot_under(n, fault),
            Fault::FailReads => self.reads_fail(n, until),
            Fault::Change => self.operate(),
        }
    }

    /// A node that leads, if one does.
    pub(super) fn a_leader(&self) -> Option<usize> {
        let leads = |node: &super::node::Node| {
            let running = node.running.as_ref();
            running.is_some_and(|running| running.hub.with_raft(Raft::role) == RoleName::Leader)
        };
        self.nodes.iter().position(leads)
    }

    /// Any node, but often one that leads.
    fn somebody(&mut self) -> usize {
        let anybody = self.random.below(self.nodes.len() as u64) as usize;
        match self.a_leader() {
            Some(leader) if self.random.chance(0.4) => leader,
            _ => anybody,
        }
    }

    /// A node has been elected: its luck may not last for long (paper figure 8).
    pub(super) fn elected(&mut self, n: usize) {
        self.nodes[n].leads_since = self.now;
        if !self.faults_go_on || !self.random.chance(self.plan.doom) {
            return;
        }
        let network = &self.plan.network;
        let mut mean = network.least_delay + 2 * network.mean_delay + self.plan.sync;
        if self.plan.figure_eight {
            self.let_few_hear(n);
            mean *= 8;
        }
        // Before it has committed anything, or after.
        let mean = mean * *self.random.pick(&[1, 20]);
        let at = self.now + self.random.exponential(mean);
        let life = self.nodes[n].life;
        self.queue.add(at, Event::Doom(n, life));
    }

    /// A new leader reaches two others at the most.
    fn let_few_hear(&mut self, n: usize) {
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != n).collect();
        self.random.shuffle(&mut others);
        let heard = *self.random.pick(&[0, 1, 1, 2, 2]);
        for other in others.into_iter().skip(heard) {
            self.network.cut(n, other, self.now + CUT_OFF);
        }
    }

    /// A leader has just committed something. In the plan of figure 8 that is often the last thing
    /// that it does: nobody hears of it.
    pub(super) fn has_committed(&mut self, n: usize) {
        self.newcomer_may_go(n);
        if !self.plan.figure_eight || !self.faults_go_on || self.random.chance(0.3) {
            return;
        }
        for other in 0..self.nodes.len() {
            self.network.cut(n, other, self.now + CUT_OFF);
        }
        let life = self.nodes[n].life;
        self.queue.add(self.now + 1, Event::Doom(n, life));
    }

    pub(super) fn doom(&mut self, n: usize) {
        let for_good = self.plan.figure_eight || self.plan.newcomer;
        if for_good || self.random.chance(0.5) {
            self.crash(n, true);
            return;
        }
        let until = self.now + self.random.exponential(2 * self.plan.mean_outage);
        for other in 0..self.nodes.len() {
            self.network.cut(n, other, until);
            self.network.cut(other, n, until);
        }
    }

    /// A directed link between two nodes, or between a node and a client.
    fn a_link(&mut self) -> (usize, usize) {
        let places = (self.nodes.len() + self.clients.len()) as u64;
        let from = self.random.below(places) as usize;
        let to = self.random.below(places) as usize;
        (from, to)
    }

    /// Parts the nodes in one of several ways: by coin toss, one against all, or around a bridge
    /// that both sides see; in both directions or in one.
    fn partition(&mut self, until: Time) {
        let count = self.nodes.len();
        let alone = self.somebody();
        let side: Vec<u64> = match self.random.below(4) {
            0 => (0..count).map(|_| self.random.below(2)).collect(),
            1 | 2 => (0..count).map(|n| u64::from(n == alone)).collect(),
            _ => {
                let half = |n: usize| if n == alone { 2 } else { (n % 2) as u64 };
                (0..count).map(half).collect()
            }
        };
        let one_way = self.random.chance(0.3);
        for from in 0..count {
            for to in 0..count {
                let parted = side[from] != side[to] && side[from] != 2 && side[to] != 2;
                if parted && (!one_way || side[from] < side[to]) {
                    self.network.cut(from, to, until);
                }
            }
        }
    }

    /// A node to crash: ten times likelier one whose write is under way.
    fn victim(&mut self) -> usize {
        let weigh = |node: &super::node::Node| match &node.running {
            Some(running) if running.is_writing() => 10,
            _ => 1,
        };
        let weights: Vec<u64> = self.nodes.iter().map(weigh).collect();
        let mut at = self.random.below(weights.iter().sum());
        for (n, weight) in weights.into_iter().enumerate() {
            if at < weight {
                return n;
            }
            at -= weight;
        }
        0
    }

    fn pause(&mut self, n: usize, until: Time) {
        let life = self.nodes[n].life;
        if let Some(running) = &mut self.nodes[n].running
            && running.paused.is_none()
        {
            running.paused = Some(Vec::new());
            self.queue.add(until, Event::Wake(n, life));
        }
    }

    /// A disk is as fast as before, has room again and can be read. What it was slow at ends soon,
    /// too: the time that was drawn for that may be many times the mean.
    pub(super) fn disk_recovers(&mut self, n: usize) {
        self.nodes[n].slowness = match self.lame == Some(n) {
            true => LAME,
            false => 1,
        };
        self.nodes[n].disk.set_capacity(None);
        self.nodes[n].disk.fail_reads(Unreadable::Nothing);
        let latest = self.now + self.disk_time(n);
        let life = self.nodes[n].life;
        let on_disk = |event: &Event| {
            let tasks = [Task::Replicate, Task::Carry, Task::TakeSnapshot].map(Step::Run);
            let Event::Node(of, in_life, step) = event else {
                return false;
            };
            (*of, *in_life) == (n, life) && tasks.contains(step)
        };
        self.queue.bring_forward(latest, on_disk);
    }

    /// A node that cannot start any more, if there is one: it gets an empty folder first.
    fn worst_folder(&self, n: usize) -> usize {
        let damaged = self.nodes.iter().position(|node| node.damaged);
        damaged.unwrap_or(n)
    }

    /// Bits have flipped, so that a node must refuse to start.
    pub(super) fn damaged(&mut self, n: usize) {
        self.nodes[n].damaged = true;
        // It counts as lost: what the node promised cannot be read any more.
        self.lose_folder(n);
    }

    /// Bits flip on the disk of a node that is down. So few nodes are damaged that the others are
    /// a quorum: a cluster that lost more would be right to stand still.
    fn rot(&mut self, fault: Fault) {
        let down = |n: &usize| {
            let node = &self.nodes[*n];
            node.running.is_none() && node.was_up && !node.damaged
        };
        let Some(n) = (0..self.nodes.len()).find(down) else {
            return;
        };
        // Its power fails first: a write that is still in memory would put right what has flipped.
        self.crash(n, true);
        self.note_rot(n);
        let room = self.may_lose_a_folder(n);
        match fault {
            Fault::RotLog if room => self.rot_log(n),
            Fault::RotVote if room => {
                for copy in [0, BLOCK] {
                    self.flip(n, "vote", copy..copy + BLOCK);
                }
                self.damaged(n);
            }
            Fault::RotSnapshot => self.rot_snapshot(n, room),
            // If the write of one copy was broken off, the other is the only one.
            Fault::RotVoteCopy
                if self.nodes[n].durable.unfinished.is_none() && !self.nodes[n].has_one_vote =>
            {
                let copy = *self.random.pick(&[0, BLOCK]);
                self.flip(n, "vote", copy..copy + BLOCK);
                self.nodes[n].has_one_vote = true;
            }
            _ => {}
        }
    }

    /// Flips a bit in one of the snapshots. Where the node has another one to start from, it does;
    /// where it is not known here whether it has, no bit flips.
    fn rot_snapshot(&mut self, n: usize, room: bool) {
        let mut found = self.snapshots_on_disk(n);
        let durable = &self.nodes[n].durable;
        found.retain(|last| !durable.is_damaged(last.index));
        if found.is_empty() {
            return;
        }
        let last = found.swap_remove(self.random.below(found.len() as u64) as usize);
        let damage = self.nodes[n].durable.if_damaged(last, &found);
        match damage {
            Damage::Unclear => return,
            Damage::Fatal if !room => return,
            Damage::Fatal => self.damaged(n),
            Damage::Harmless => {}
        }
        self.flip_anywhere(n, &snapshot_name(last));
        trace!(self, "which is {damage:?}");
        self.nodes[n].durable.damage(last);
    }

    fn rot_log(&mut self, n: usize) {
        if let Some((file, bytes)) = self.place_in_log(n) {
            self.flip(n, &file, bytes);
            self.damaged(n);
        }
    }

    /// The head or the records of one of the segments of a log: the last one or an older one.
    pub(super) fn place_in_log(&mut self, n: usize) -> Option<(String, Range<usize>)> {
        let disk = self.nodes[n].disk.fork();
        disk.fail_reads(Unreadable::Nothing);
        let Inspection { segments, .. } = inspect(Arc::new(disk)).ok()?;
        if segments.is_empty() {
            return None;
        }
        let segment = self.random.pick(&segments);
        let end = BLOCK + segment.record_bytes as usize;
        // Of a short segment, the head is by far the larger part.
        let in_head = end == BLOCK || self.random.chance(0.2);
        let bytes = if in_head { 0..BLOCK } else { BLOCK..end };
        Some((segment.name.clone(), bytes))
    }

    pub(super) fn flip(&mut self, n: usize, file: &str, range: Range<usize>) {
        let offset = self
            .random
            .between(range.start as u64, range.end as u64 - 1) as usize;
        let bit = self.random.below(8) as u8;
        trace!(
            self,
            "bit {bit} of {file} of node {} flips at {offset}",
            n + 1
        );
        self.nodes[n].disk.flip_bit(file, offset, bit);
        self.stats.rotted += 1;
    }
}

pub(super) fn snapshot_name(last: EntryId) -> String {
    format!("snapshot-{:020}-{}", last.index, last.term)
}

pub(super) fn snapshot_of(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_prefix("snapshot-")?.split_once('-')?;
    let (index, term) = (index.parse().ok()?, term.parse().ok()?);
    let last = EntryId { term, index };
    (snapshot_name(last) == name).then_some(last)
}
