//! The two phases of a run: first faults, under which nothing may go wrong; then most faults end,
//! and the cluster must make progress within a bounded time.

use super::node::address;
use super::trace::trace;
use super::world::{Event, TICK, World};
use super::{Failure, Time, check};
use raftkv::raft::{Raft, RoleName};

/// From the end of most faults on, a quorum may take so long until one of it leads. That is several
/// rounds of voting, with a slow disk and a link that loses packets; the first round of elections
/// that were twenty times slower would begin later than that, 5 s after the last leader was heard.
const MOST_TIME_TO_LEAD: Time = 4_000_000;
/// The same where a disk of the quorum stays slow. If the quorum has no node to spare, each round
/// of voting waits for the vote of that disk, for about as long as an election timeout: so a round
/// often fails, and now and then eight in a row do.
const MOST_TIME_TO_LEAD_WITH_SLOW_DISK: Time = 8_000_000;
/// From then on, so long until every client has had
/// [`PROOFS`] replies to operations that it began since.
const MOST_TIME_TO_PROGRESS: Time = 30_000_000;
/// From then on, so long until all requests have ended and all nodes are level.
const MOST_TIME_TO_SETTLE: Time = 20_000_000;
/// What proves to a client that the cluster works.
const PROOFS: u64 = 3;

impl World {
    /// The whole run.
    pub fn run(&mut self) -> Result<(), Failure> {
        trace!(self, "{:#?}", self.plan);
        self.start_all()?;
        for c in 0..self.clients.len() {
            (0..self.plan.concurrency).for_each(|_| self.think(c));
        }
        for (fault, mean) in self.plan.faults.clone() {
            let first = self.random.exponential(mean);
            self.queue.add(first, Event::Fault(fault, mean));
        }
        while self.now < self.plan.chaos {
            self.next()?;
        }
        self.heal();
        let to_lead = match self.lame {
            Some(_) => MOST_TIME_TO_LEAD_WITH_SLOW_DISK,
            None => MOST_TIME_TO_LEAD,
        };
        self.until(to_lead, "leader", Self::is_led)?;
        self.stats.led_after_us = self.now - self.healed_at;
        self.until(MOST_TIME_TO_PROGRESS, "progress", Self::has_progressed)?;
        self.closing = true;
        self.until(MOST_TIME_TO_SETTLE, "settle", Self::has_settled)?;
        let level = self.at_work.iter().find(|n| self.is_level(**n));
        let node = &self.nodes[*level.expect("a quorum is level")];
        let machine = node.running.as_ref().expect("it has settled").state();
        check::history(&self.checks, &self.history, &machine, &self.plan.limits)
    }

    /// Whether a client goes on with another operation.
    pub(super) fn may_begin(&self, c: usize) -> bool {
        if self.closing {
            return false;
        }
        let room = self.stats.operations < self.plan.max_operations;
        room || (!self.faults_go_on && self.clients[c].done < PROOFS)
    }

    /// Ends the faults but for those of [`leave_some`](Self::leave_some), for a quorum that is
    /// drawn among the nodes that are admitted with their first folder. The others stay down, or
    /// cut off from everybody, for good.
    ///
    /// A node of that quorum may have flipped bits on its disk. If it is down, it can start from
    /// what is left. If it runs, it goes on: it reads its log never, and of its snapshots it needs
    /// none but one that it has received and not taken over yet, which must be whole.
    ///
    /// If so few are admitted yet that they are no quorum, more than a quorum have to be up, for
    /// that is the price of a first start (`storage/peers.rs`). Then all start, those that are
    /// damaged with an empty folder, and all that never lost theirs must go on.
    fn heal(&mut self) {
        self.faults_go_on = false;
        self.healed_at = self.now;
        self.network.heal();
        for n in 0..self.nodes.len() {
            if self.nodes[n].running.is_none() && !self.nodes[n].retired {
                self.judge(n);
            }
        }
        let mut healthy: Vec<usize> = (0..self.nodes.len()).collect();
        healthy.retain(|n| self.nodes[*n].has_first_folder && !self.may_still_stop(*n));
        let admitted = |n: &&usize| self.nodes[**n].admitted || !self.plan.greets;
        let admitted: Vec<usize> = healthy.iter().filter(admitted).copied().collect();
        let all_start = admitted.len() < self.plan.quorum();
        if all_start {
            self.core = healthy;
            self.at_work = (0..self.nodes.len()).collect();
            for n in 0..self.nodes.len() {
                if self.nodes[n].damaged || self.may_still_stop(n) {
                    self.wipe(n);
                }
            }
        } else {
            healthy = admitted;
            self.random.shuffle(&mut healthy);
            let most = healthy.len() as u64;
            let size = self.random.between(self.plan.quorum() as u64, most) as usize;
            self.core = healthy[..size].to_vec();
            self.at_work = self.core.clone();
        }
        trace!(
            self,
            "faults end; nodes that must go on, from 0: {:?}", self.core
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
            (0..self.plan.concurrency).for_each(|_| self.think(c));
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

    /// Whether a node leads in the highest term that any of those at work is in. How long its first
    /// commit takes depends on how far the others lag, so that has the time for progress.
    fn is_led(&self) -> bool {
        let running = self.at_work.iter();
        let running = running.filter_map(|n| self.nodes[*n].running.as_ref());
        let state = |raft: &Raft| (raft.term(), raft.role() == RoleName::Leader);
        let states = running.map(|running| running.hub.with_raft(state));
        states.max().is_some_and(|(_, leads)| leads)
    }

    fn until(
        &mut self,
        most: Time,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<(), Failure> {
        let start = self.now;
        while !holds(self) {
            if self.now > start + most {
                return Err(Failure::new(
                    "a healthy quorum goes on",
                    format!("no {what} within {} s: {}", most / 1_000_000, self.state()),
                ));
            }
            self.next()?;
        }
        Ok(())
    }

    fn has_progressed(&self) -> bool {
        self.clients.iter().all(|client| client.done >= PROOFS)
    }

    /// Whether a node refuses the folder of one that is at work, because it knows a former folder
    /// of that one. While that one leads, it gets no entries.
    fn refuses_somebody(&self, n: usize) -> bool {
        let refused = &self.nodes[n].refuses;
        self.at_work.iter().any(|other| refused.contains(other))
    }

    /// Whether a node has executed all that is committed, and its log holds nothing else.
    fn is_level(&self, n: usize) -> bool {
        let last = self.checks.last().index;
        let running = self.nodes[n].running.as_ref();
        running.is_some_and(|running| {
            let ends = |raft: &Raft| (raft.applied_index(), raft.last().index);
            running.hub.with_raft(ends) == (last, last)
        })
    }

    /// Whether all requests have ended, and all nodes that hear every leader are level, and a
    /// quorum at least.
    fn has_settled(&self) -> bool {
        let mut core = self.core.iter();
        let level = core.all(|n| self.is_level(*n) || self.refuses_somebody(*n));
        let at_work = self.at_work.iter().filter(|n| self.is_level(**n));
        let enough = at_work.count() >= self.plan.quorum();
        level && enough && self.clients.iter().all(|client| client.is_idle())
    }

    /// What everybody is doing, for somebody who wonders why nothing happens.
    fn state(&self) -> String {
        let nodes = self.nodes.iter().enumerate().map(|(n, node)| {
            let in_core = if self.core.contains(&n) {
                "core"
            } else {
                "other"
            };
            match &node.running {
                None => format!("{} ({in_core}) is down", address(n)),
                Some(running) => running.hub.with_raft(|raft| {
                    format!(
                        "{} ({in_core}) {} in term {}{}, log {}, commit {}, applied {}",
                        address(n),
                        raft.role(),
                        raft.term(),
                        if raft.role() == RoleName::Leader {
                            " leads"
                        } else {
                            ""
                        },
                        raft.last(),
                        raft.commit(),
                        raft.applied_index()
                    )
                }),
            }
        });
        let clients = self.clients.iter().enumerate();
        let clients = clients.map(|(c, client)| format!("client {c} had {} replies", client.done));
        nodes.chain(clients).collect::<Vec<_>>().join("; ")
    }
}
