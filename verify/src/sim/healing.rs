//! How the faults of a run end: some nodes work from then on, the others stay down, and some disks
//! stay damaged. The checks of liveness need such an end: they ask that the cluster serves its
//! clients once enough nodes work.

use super::node::address;
use super::trace::trace;
use super::world::{Event, TICK, World};
use raftkv::raft::{Configuration, Member, MemberRole, NodeId};

impl World {
    /// Ends the faults but for those of [`leave_some`](Self::leave_some). Drawn are some nodes that
    /// are at work from now on; the others stay down, or cut off from everybody, for good. In each
    /// configuration that may be in force those at work are a majority of each half. A node whose
    /// folder is lost may be at work as well: it must have a place again in the end.
    ///
    /// A node at work may have flipped bits on its disk. If it is down, it can start from what is
    /// left. If it runs, it goes on: it reads its log never, and of its snapshots it needs none but
    /// one that it has received and not taken over yet, which must be whole.
    ///
    /// If the cluster is still being founded, and so few are admitted yet that they are no quorum,
    /// more than a quorum have to be up, for that is the price of a first start
    /// (`storage/peers.rs`). Then all start, those that are damaged with an empty folder, and all
    /// that never lost theirs must go on.
    pub(super) fn heal(&mut self) {
        self.faults_go_on = false;
        self.healed_at = self.now;
        self.network.heal();
        for n in 0..self.nodes.len() {
            if self.nodes[n].running.is_none() && !self.nodes[n].retired {
                self.judge(n);
            }
        }
        self.choose_who_goes_on();
        trace!(
            self,
            "faults end; nodes at work, from 0: {:?}; of these must go on: {:?}",
            self.at_work,
            self.core
        );
        self.leave_some();
        for n in 0..self.nodes.len() {
            self.disk_recovers(n);
            (self.nodes[n].fail_next, self.nodes[n].tick) = (None, TICK);
            let now = self.now;
            if let Some(running) = &mut self.nodes[n].running {
                running.set_tick(now, TICK);
            }
            if self.at_work.contains(&n) {
                if self.nodes[n].running.is_some() {
                    self.wake(n);
                }
                self.queue.add(self.now + 1, Event::Start(n));
            } else if self.random.chance(0.5) {
                self.network.sever(n);
            } else {
                self.nodes[n].retired = true;
                self.crash(n, true);
            }
        }
        for c in 0..self.clients.len() {
            self.tell_of_somebody(c);
            (0..self.plan.concurrency).for_each(|_| self.think(c));
        }
    }

    fn choose_who_goes_on(&mut self) {
        let all = 0..self.nodes.len();
        let well: Vec<usize> = all.clone().filter(|n| self.is_well(*n)).collect();
        if !self.are_enough(&well) {
            let first = |n: &usize| {
                let node = &self.nodes[*n];
                node.has_first_folder && !node.damaged && !self.may_still_stop(*n)
            };
            self.core = (0..self.plan.nodes).filter(first).collect();
            self.at_work = all.clone().collect();
            for n in all {
                if self.nodes[n].damaged || self.may_still_stop(n) {
                    self.wipe(n);
                }
            }
        } else {
            for n in all {
                if self.nodes[n].damaged && self.random.chance(0.5) {
                    self.wipe(n);
                }
            }
            let mut at_work: Vec<usize> = (0..self.nodes.len())
                .filter(|n| !self.nodes[*n].damaged && !self.may_still_stop(*n))
                .collect();
            let mut order = at_work.clone();
            self.random.shuffle(&mut order);
            let likely = *self.random.pick(&[0.1, 0.5, 1.0]);
            for n in order {
                let mut rest = at_work.clone();
                rest.retain(|other| *other != n);
                if self.random.chance(likely) && self.are_enough(&rest) {
                    at_work = rest;
                }
            }
            let core = at_work.iter().filter(|n| self.is_well(**n));
            self.core = core.copied().collect();
            self.at_work = at_work;
        }
        // An operator who sees a node without a place lets it ask for one.
        self.plan.rejoins = true;
        for n in 0..self.nodes.len() {
            if n >= self.plan.nodes && self.lacks_a_past(n) {
                self.nodes[n].joins = Some(MemberRole::Joining);
            }
            if self.nodes[n].running.is_some() {
                self.begin_to_join(n);
            }
        }
    }

    /// Whether a node has the folder by which it counts, if it counts, and can use it.
    fn is_well(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let founding = self.checks.members.newest().is_none();
        let counts = match founding {
            true => node.has_first_folder && (node.admitted || !self.plan.greets),
            false => node.folder.is_some(),
        };
        counts && !node.damaged && !self.may_still_stop(n)
    }

    /// Whether these nodes can decide, whichever configuration is in force.
    fn are_enough(&self, these: &[usize]) -> bool {
        let counts = |voter: &Member| {
            let n = voter.id as usize - 1;
            let node = &self.nodes[n];
            let its = voter
                .folder
                .is_none_or(|folder| node.folder == Some(folder));
            its && these.contains(&n) && self.is_well(n)
        };
        let possible = self.possible_configurations();
        possible.iter().all(|it| Self::has_majorities(it, counts))
    }

    /// A client that knows nobody of those that are at work and are members learns of one.
    fn tell_of_somebody(&mut self, c: usize) {
        // One that is about to be removed may not hear who leads.
        let possible = self.possible_configurations();
        let is_of_use = |n: &usize| {
            let is_in = |configuration: &Configuration| {
                let mut members = configuration.members().iter();
                members.any(|member| {
                    let its = match configuration.is_founding() {
                        true => self.core.contains(n),
                        false => member.folder == self.nodes[*n].folder,
                    };
                    member.id == *n as NodeId + 1 && its
                })
            };
            self.at_work.contains(n) && possible.iter().all(is_in)
        };
        if self.clients[c].servers().any(|n| is_of_use(&n)) {
            return;
        }
        let of_use = (0..self.nodes.len()).find(is_of_use);
        if let Some(n) = of_use {
            trace!(self, "client {c} is told of node {}", n + 1);
            self.clients[c].told_of(&address(n));
        }
    }

    /// Leaves one disk slow, or one link lossy, or both, in about half of the runs: what a cluster
    /// has to live with for good.
    fn leave_some(&mut self) {
        if !self.plan.lasting {
            return;
        }
        if self.random.chance(0.5) {
            self.lame = Some(*self.random.pick(&self.core));
        }
        let mut link = self.core.clone();
        self.random.shuffle(&mut link);
        if let [from, to, ..] = link[..]
            && self.random.chance(0.5)
        {
            self.network.make_lossy(from, to);
        }
        trace!(
            self,
            "the disk of {:?} stays slow; links that lose packets, if any: {:?}",
            self.lame,
            self.network.lossy()
        );
    }
}
