//! Who belongs to the cluster, and the arithmetic of majorities.
//!
//! All counting of votes and copies goes through [`Membership`], so that callers need not know
//! whether a joint configuration is in force (paper section 6: both majorities must agree).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::types::{Index, NodeId};

/// The voters and learners of a cluster, and during a change of voters the outgoing set too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The voters, or those after a change that is under way.
    voters: BTreeSet<NodeId>,
    /// The voters before a change that is under way; empty when none is.
    outgoing: BTreeSet<NodeId>,
    /// Members that receive the log and count towards no quorum.
    learners: BTreeSet<NodeId>,
}

/// How far the answers so far decide a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A quorum said yes.
    Won,
    /// A quorum of yes can no longer be reached.
    Lost,
    /// Answers are missing that could decide it.
    Pending,
}

impl Membership {
    /// A configuration with the given voters and nobody else.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A configuration between two sets of voters, in which both majorities must agree.
    pub fn joint(
        incoming: impl IntoIterator<Item = NodeId>,
        outgoing: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        Self {
            voters: incoming.into_iter().collect(),
            outgoing: outgoing.into_iter().collect(),
            learners: learners.into_iter().collect(),
        }
    }

    /// All members, the voters of both sets and the learners, in ascending order.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let voters = self.voters.union(&self.outgoing).copied();
        voters.chain(self.learners.iter().copied()).collect()
    }

    /// Whether the node is a voter or a learner.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// How many members there are, learners included.
    pub fn len(&self) -> usize {
        self.members().len()
    }

    /// Whether there is no member at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the node has a vote in either set.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// The voters of both sets, in ascending order.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.voters.union(&self.outgoing).copied().collect()
    }

    /// Counts a vote: `votes` holds the answers so far. Answers of nodes that are no voters count
    /// for nothing.
    pub fn vote_result(&self, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
        let results = self.sets().map(|set| majority_vote(set, votes));
        results.fold(VoteResult::Won, |all, one| match (all, one) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Pending, _) | (_, VoteResult::Pending) => VoteResult::Pending,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        })
    }

    /// Whether a quorum satisfies the condition.
    pub fn has_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        !self.voters.is_empty()
            && self
                .sets()
                .all(|set| 2 * set.iter().filter(|id| holds(**id)).count() > set.len())
    }

    /// The highest value that a quorum has reached, where `reached` gives each voter's: the index
    /// that may be committed (paper 5.3), or the round that is confirmed.
    pub fn quorum_value(&self, reached: impl Fn(NodeId) -> Index) -> Index {
        self.sets()
            .map(|set| {
                let mut values: Vec<Index> = set.iter().map(|id| reached(*id)).collect();
                // Of n values in descending order the one at n / 2 is reached by n / 2 + 1 voters,
                // a majority: the third of 4 or 5, the fourth of 7.
                values.sort_unstable_by(|a, b| b.cmp(a));
                values[set.len() / 2]
            })
            .min()
            .unwrap_or(0)
    }

    /// The sets of voters of which each must agree: one, or two during a change.
    fn sets(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        [&self.voters, &self.outgoing]
            .into_iter()
            .filter(|set| !set.is_empty())
    }
}

fn majority_vote(set: &BTreeSet<NodeId>, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
    let count = |answer: bool| {
        set.iter()
            .filter(|id| votes.get(id) == Some(&answer))
            .count()
    };
    let quorum = set.len() / 2 + 1;
    if count(true) >= quorum {
        VoteResult::Won
    } else if set.len() - count(false) < quorum {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = Membership::joint([1, 2, 3], [3, 4, 5], []);
        let yes = |ids: &[NodeId]| ids.iter().map(|id| (*id, true)).collect();
        assert_eq!(joint.vote_result(&yes(&[1, 2])), VoteResult::Pending);
        assert_eq!(joint.vote_result(&yes(&[1, 3, 4])), VoteResult::Won);
        let no = BTreeMap::from([(4, false), (5, false), (1, true), (2, true), (3, true)]);
        assert_eq!(joint.vote_result(&no), VoteResult::Lost);
    }

    #[test]
    fn a_learner_counts_for_nothing() {
        let membership = Membership::joint([1, 2, 3], [], [4, 5]);
        assert!(!membership.has_quorum(|id| id > 2));
        assert_eq!(membership.quorum_value(|id| id), 2);
    }

    #[test]
    fn an_empty_configuration_reaches_nothing() {
        assert_eq!(Membership::default().quorum_value(|_| 7), 0);
        assert!(!Membership::default().has_quorum(|_| true));
    }

    proptest! {
        /// The sorted pick against the definition: the largest value that a majority reached.
        #[test]
        fn quorum_value_is_what_a_majority_reached(values in prop::collection::vec(0u64..9, 1..8)) {
            let membership = Membership::of_voters(0..values.len() as u64);
            let naive = (0..9u64)
                .filter(|v| 2 * values.iter().filter(|x| *x >= v).count() > values.len())
                .max()
                .unwrap_or(0);
            prop_assert_eq!(membership.quorum_value(|id| values[id as usize]), naive);
        }

        /// A vote is won or lost exactly when no answer that is still missing could change it.
        #[test]
        fn a_vote_is_decided_when_nothing_can_change_it(
            answers in prop::collection::vec(prop::option::of(any::<bool>()), 1..8),
        ) {
            let membership = Membership::of_voters(0..answers.len() as u64);
            let votes = answers.iter().enumerate()
                .filter_map(|(id, answer)| answer.map(|a| (id as NodeId, a))).collect();
            let yes = answers.iter().filter(|a| **a == Some(true)).count();
            let open = answers.iter().filter(|a| a.is_none()).count();
            let expected = if 2 * yes > answers.len() {
                VoteResult::Won
            } else if 2 * (yes + open) <= answers.len() {
                VoteResult::Lost
            } else {
                VoteResult::Pending
            };
            prop_assert_eq!(membership.vote_result(&votes), expected);
        }
    }
}
