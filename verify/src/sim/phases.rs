//! The two phases of a run: first faults, under which nothing may go wrong; then most faults end,
//! and the cluster must make progress within a bounded time.

use super::node::address;
use super::trace::trace;
use super::world::{Event, World};
use super::{Failure, Time, check};
use raftkv::raft::{Member, MemberRole, NodeId, Raft, RoleName};

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

    /// Whether a node has executed all that is committed, and its log holds nothing else.
    fn is_level(&self, n: usize) -> bool {
        let last = self.checks.last().index;
        let running = self.nodes[n].running.as_ref();
        running.is_some_and(|running| {
            let ends = |raft: &Raft| (raft.applied_index(), raft.last().index);
            running.hub.with_raft(ends) == (last, last)
        })
    }

    /// Whether all requests have ended, and all members at work are level and have their places. As
    /// long as the folders of the founders are not in the log, those must be level that count.
    fn has_settled(&self) -> bool {
        let level = |n: &&usize| self.is_level(**n);
        let enough = self.at_work.iter().filter(level).count() >= self.fewest_level();
        let is_right = match self.checks.members.newest() {
            None => self.core.iter().all(|n| self.is_level(*n)),
            Some((_, members)) => {
                let right = |n: &usize| match members.contact(*n as NodeId + 1) {
                    None => true,
                    Some(member) => self.has_its_place(*n, member) && self.is_level(*n),
                };
                !members.is_joint() && self.at_work.iter().all(right)
            }
        };
        enough && is_right && self.clients.iter().all(|client| client.is_idle())
    }

    fn fewest_level(&self) -> usize {
        match self.checks.members.newest() {
            None => self.plan.quorum(),
            Some(_) => 1,
        }
    }

    /// Whether the node counts with the folder that it has, or learns, and is not joining.
    fn has_its_place(&self, n: usize, member: &Member) -> bool {
        member.folder == self.nodes[n].folder && member.role != MemberRole::Joining
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
                        "{} ({in_core}) {} in term {}{}, log {}, commit {}, applied {}, members {} \
                         of entry {}",
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
                        raft.applied_index(),
                        raft.configuration().configuration,
                        raft.configuration().index
                    )
                }),
            }
        });
        let clients = self.clients.iter().enumerate();
        let clients = clients.map(|(c, client)| format!("client {c} had {} replies", client.done));
        nodes.chain(clients).collect::<Vec<_>>().join("; ")
    }
}
