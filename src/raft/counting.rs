//! What a quorum of the members has reached, as far as the leader knows: what is committed (paper
//! 5.3, 5.4.2), which reads are confirmed (thesis 6.4), whether enough members are heard (thesis
//! 6.2).
//!
//! All that is not committed is counted by the configuration in force, also the entries before the
//! one that it stands in.

use super::common::Common;
use super::configuration::Member;
use super::leader::Leader;
use super::progress::Progress;
use super::types::{Index, NodeId};

impl Leader {
    /// Whether a quorum, this node included, was heard from since the last check. A new period
    /// begins, in which nobody counts as heard from yet.
    pub(super) fn quorum_is_active(&mut self, common: &Common) -> bool {
        let is_active = |p: &Progress| Index::from(p.active);
        let heard = |m: &Member| self.reached(common, m, 1, is_active) == 1;
        let is_active = common.configuration().has_quorum(heard);
        for progress in self.progress.values_mut() {
            progress.active = false;
        }
        is_active
    }

    /// How far a member of the configuration is: `own` if it is this node, else what is known of it
    /// as a follower. An empty seat, and whoever is not followed under this very folder, is
    /// nowhere: 0. So a leader that is no member does not count itself (thesis 4.2.2).
    pub(super) fn reached(
        &self,
        common: &Common,
        member: &Member,
        own: Index,
        of: impl Fn(&Progress) -> Index,
    ) -> Index {
        let configuration = common.configuration();
        if configuration.seats(member, common.me()) {
            return own;
        }
        if configuration.is_empty_seat(member) {
            return 0;
        }
        let progress = self.progress.get(&member.id);
        let progress = progress.filter(|progress| progress.folder == member.folder);
        progress.map_or(0, of)
    }

    /// The members that were heard from since the last quorum check, this node included, in
    /// ascending order.
    pub fn active(&self, common: &Common) -> Vec<NodeId> {
        let members = self.progress.iter().filter(|(_, p)| p.departing.is_none());
        let heard = members.filter(|(_, p)| p.active);
        let mut active: Vec<NodeId> = heard.map(|(id, _)| *id).collect();
        active.push(common.id());
        active.sort_unstable();
        active
    }

    /// Decides the reads of every round that a quorum has answered. This node is one of the quorum,
    /// and counts as having answered every round that it has begun.
    pub(super) fn confirm_reads(&mut self, common: &mut Common) {
        let own = self.reads.number();
        let round_of = |m: &Member| self.reached(common, m, own, |p| p.round);
        let confirmed = common.configuration().quorum_value(round_of);
        let ready = self.reads.confirmed(confirmed);
        common.reads_decided.ready.extend(ready);
    }

    /// Commits what a quorum has on disk, this node's own disk counting as one of them (thesis
    /// 10.2.1), but only through an entry of the present term (paper 5.4.2).
    ///
    /// Why only through one: an entry of an earlier term that a quorum has may still be replaced. A
    /// node that lacks the entry, but whose log ends in a higher term, may win the votes of that
    /// quorum (paper, figure 8). With an entry of the present term that cannot happen: a log that
    /// lacks it ends in a lower term, or earlier in this one, and each node of the quorum refuses
    /// its vote. So every later leader has the entry, and all entries before it.
    pub fn advance_commit(&mut self, common: &mut Common) {
        let durable = common.log.durable();
        let matched_of = |m: &Member| self.reached(common, m, durable, Progress::matched);
        let matched_by_quorum = common.configuration().quorum_value(matched_of);
        let committed = common.log.committed();
        let is_of_this_term = common.log.term_at(matched_by_quorum) == Some(common.term());
        if matched_by_quorum <= committed || !is_of_this_term {
            return;
        }
        common.log.commit_to(matched_by_quorum);
        let newly = committed + 1..=matched_by_quorum;
        let weights = newly.filter_map(|index| common.log.get(index));
        // Entries of earlier terms were never counted: they are all below the first of this one.
        let done = weights.filter(|entry| entry.id.index >= self.first);
        self.uncommitted_bytes -= done.map(|entry| entry.weight()).sum::<usize>();
    }
}
