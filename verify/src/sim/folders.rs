//! Folders that are lost, and how many may be.
//!
//! As long as the cluster is being founded, as many folders as the largest minority may be lost,
//! one after the other (`storage/peers.rs`). From then on a lost folder is made up for by a change
//! of members, so any number may be lost in the end; but in each configuration that may be in force
//! anywhere, now or once its leader goes on, a majority of the voters of each half must still have
//! their folders. What a majority has lost nobody can bring back.

use super::check::{Promised, member};
use super::durable::Durable;
use super::node::address;
use super::trace::trace;
use super::world::World;
use raftkv::raft::{Configuration, Member, MemberId, MemberRole, NodeId};
use raftkv::storage::SimDisk;

impl World {
    /// What the cluster is founded with.
    pub(super) fn founders(&self) -> impl Iterator<Item = (NodeId, String)> + use<> {
        (0..self.plan.nodes).map(|n| (n as NodeId + 1, address(n)))
    }

    /// Whether the folder of a node is there, and will be when the node starts again.
    fn has_folder(&self, voter: &Member) -> bool {
        let n = voter.id as usize - 1;
        let node = &self.nodes[n];
        let its = match voter.folder {
            Some(_) => voter.folder == node.folder,
            None => node.has_first_folder,
        };
        its && !node.damaged && !node.at_risk
    }

    /// Whether a majority of the voters of each half fulfils a condition, also when those who are
    /// to become voters are some.
    pub(super) fn has_majorities(
        configuration: &Configuration,
        holds: impl Fn(&Member) -> bool,
    ) -> bool {
        let founding = configuration.is_founding();
        let holds = |voter: &&&Member| (founding || voter.folder.is_some()) && holds(voter);
        let majority = |half: &[Member], learners: bool| {
            let votes = |m: &&Member| {
                m.role == MemberRole::Voter || learners && m.role == MemberRole::Joining
            };
            let voters: Vec<&Member> = half.iter().filter(votes).collect();
            voters.is_empty() || 2 * voters.iter().filter(holds).count() > voters.len()
        };
        majority(configuration.members(), false)
            && majority(configuration.members(), true)
            && majority(configuration.outgoing(), false)
    }

    /// Whether a configuration has such majorities of folders, even without that of `losing`.
    pub(super) fn survives(&self, configuration: &Configuration, losing: Option<usize>) -> bool {
        Self::has_majorities(configuration, |voter| {
            Some(voter.id as usize - 1) != losing && self.has_folder(voter)
        })
    }

    /// Every configuration that may be in force anywhere, now or later, if nobody asks for another.
    pub(super) fn possible_configurations(&self) -> Vec<Configuration> {
        let members = &self.checks.members;
        let newest = members.newest().map(|(_, newest)| newest.clone());
        let newest = newest.unwrap_or_else(|| Configuration::founding(self.founders()));
        let pending = members.pending().cloned();
        [newest].into_iter().chain(pending).collect()
    }

    /// Whether a node has a folder that does not count, in place of one that perhaps did. A leader
    /// may know what that one acknowledged; the node is right to say that it does not have that.
    pub(super) fn lacks_a_past(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        !node.has_first_folder && !node.admitted && !self.has_stood(n)
    }

    /// Whether the present folder of a node stands in a committed configuration, or stood in one.
    fn has_stood(&self, n: usize) -> bool {
        let who = member(n, &self.nodes[n]);
        who.is_some_and(|who| self.checks.members.has_stood(who))
    }

    /// Whether the folder of a node may be lost, besides those that are lost or at risk.
    pub(super) fn may_lose_a_folder(&self, n: usize) -> bool {
        let founders = 0..self.plan.nodes;
        let is_at_risk = |other: &usize| *other != n && self.nodes[*other].at_risk;
        let at_risk = founders.clone().filter(is_at_risk).count();
        let most = self.plan.nodes - self.plan.quorum();
        let is_founder = usize::from(n < self.plan.nodes);
        let among_founders = match self.checks.members.newest() {
            None => self.lost_folders + at_risk + is_founder,
            Some(_) => {
                // Those with a folder that is new and stands nowhere yet.
                let is_blank = |other: &usize| {
                    let node = &self.nodes[*other];
                    let is_new = !node.has_first_folder && !self.has_stood(*other);
                    *other != n && (is_new || node.damaged)
                };
                founders.filter(is_blank).count() + at_risk + is_founder
            }
        };
        let is_settling = self.is_about_to_settle() && !self.nodes[n].at_risk;
        let mut possible = self.possible_configurations().into_iter();
        among_founders <= most && !is_settling && possible.all(|it| self.survives(&it, Some(n)))
    }

    /// Whether a leader may be asked for the first change, upon which it enters the folders of the
    /// founders that have answered it: none of these may be lost by now.
    pub(super) fn may_settle(&self, n: usize) -> bool {
        let at_risk = self.nodes.iter().any(|node| node.at_risk);
        !at_risk && self.lost_at < self.nodes[n].leads_since
    }

    /// Whether a leader was asked for the first change and has not entered the folders yet.
    fn is_about_to_settle(&self) -> bool {
        let Some((n, life)) = self.settles else {
            return false;
        };
        let node = &self.nodes[n];
        let running = node.running.as_ref().filter(|_| node.life == life);
        self.leads(n) && running.is_some_and(|running| running.configuration.index == 0)
    }

    /// A node's folder is lost for good, as far as what it promised goes.
    pub(super) fn lose_folder(&mut self, n: usize) {
        if n < self.plan.nodes {
            self.lost_folders += 1;
        }
        self.lost_at = self.now;
        (self.nodes[n].has_first_folder, self.nodes[n].at_risk) = (false, false);
    }

    /// A node comes back with an empty disk in place of its own, or of its damaged one.
    pub(super) fn wipe(&mut self, n: usize) {
        if !self.plan.greets || self.nodes[n].retired {
            return;
        }
        if !self.nodes[n].damaged {
            if !self.may_lose_a_folder(n) {
                return;
            }
            self.lose_folder(n);
        }
        trace!(self, "node {} loses its folder", n + 1);
        self.crash(n, true);
        let seed = self.random.number();
        let node = &mut self.nodes[n];
        node.disk = SimDisk::new(seed);
        let durable = std::mem::replace(&mut node.durable, Durable::new());
        let lost: Option<MemberId> = member(n, node);
        self.lost.extend(lost.map(|who| (who, durable)));
        (node.folder, node.promised) = (None, Promised::default());
        (node.was_up, node.has_one_vote, node.fail_next) = (false, false, None);
        (node.damaged, node.admitted) = (false, false);
        self.stats.wiped += 1;
        self.restart_later(n);
    }
}
