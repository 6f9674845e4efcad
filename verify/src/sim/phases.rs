//! The course of a run: faults under which nothing may go wrong, then an end to the faults after
//! which things must go on.

use super::node::address;
use super::trace::trace;
use super::world::{Event, TICK, World};
use super::{Failure, Time, check};
use raftkv::raft::RoleName;

/// From the end of the faults on, a quorum may take so long until every client has had
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
        for n in 0..self.nodes.len() {
            self.start(n)?;
        }
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
        self.until(MOST_TIME_TO_PROGRESS, "progress", Self::has_progressed)?;
        self.closing = true;
        self.until(MOST_TIME_TO_SETTLE, "settle", Self::has_settled)?;
        let node = &self.nodes[self.core[0]];
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

    /// Ends all faults, for a quorum that is drawn among the nodes that are not damaged. The others
    /// stay down, or cut off from everybody, for good; or are well too.
    fn heal(&mut self) {
        self.faults_go_on = false;
        self.healed_at = self.now;
        self.network.heal();
        let mut healthy: Vec<usize> = (0..self.nodes.len()).collect();
        healthy.retain(|n| !self.nodes[*n].damaged);
        self.random.shuffle(&mut healthy);
        let most = healthy.len() as u64;
        let size = self.random.between(self.plan.quorum() as u64, most) as usize;
        self.core = healthy[..size].to_vec();
        trace!(
            self,
            "faults end; nodes that must go on, from 0: {:?}", self.core
        );
        for n in 0..self.nodes.len() {
            self.disk_recovers(n);
            (self.nodes[n].fail_next, self.nodes[n].tick) = (None, TICK);
            let now = self.now;
            if let Some(running) = &mut self.nodes[n].running {
                running.set_tick(now, TICK);
            }
            if self.core.contains(&n) {
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

    fn has_settled(&self) -> bool {
        let last = self.checks.last().index;
        let level = self.core.iter().all(|n| {
            let running = self.nodes[*n].running.as_ref();
            running.is_some_and(|running| {
                running
                    .hub
                    .with_raft(|raft| raft.applied_index() == last && raft.last().index == last)
            })
        });
        level && self.clients.iter().all(|client| client.is_idle())
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
