//! Who belongs to the cluster, and the arithmetic of majorities.
//!
//! A member is an id *and* the number of its data folder. A node that lost its folder has forgotten
//! its votes and its entries, so the same id with another folder is another member: it counts for
//! nothing that the former one was counted for.
//!
//! All counting of votes and copies goes through [`Configuration`], so that a joint configuration
//! (paper section 6, thesis 4.3: both majorities must agree) needs no second look at any caller.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use super::member::{Member, MemberRole};
use super::types::{Index, MemberId, NodeId};

/// The most voters that a change of members may lead to. A cluster may be founded with more.
pub const MAX_VOTERS: usize = 9;

/// The most that a configuration may [weigh](Configuration::weight), so that the header of a
/// snapshot, which names it, fits into one block.
pub const MAX_CONFIGURATION_WEIGHT: usize = 1900;

/// The members of a cluster: stable, or joint during a change of voters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// A random number that tells this cluster's configurations from those of another one with the
    /// same name. 0 before one was logged: the cluster is being founded.
    lineage: u64,
    /// The members, in ascending order of ids, each id once. During a change of voters those after
    /// the change.
    members: Vec<Member>,
    /// The voters before a change of voters that is under way, in ascending order of ids; empty
    /// when none is. An id may be in `members` too, with the same folder or another one.
    outgoing: Vec<Member>,
}

/// A configuration and where it stands in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedConfiguration {
    /// The index of its entry. 0: the one that the cluster was founded with, which is in no log.
    pub index: Index,
    /// The configuration.
    pub configuration: Configuration,
}

/// Where a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A quorum said yes.
    Won,
    /// A quorum of yes can no longer be reached.
    Lost,
    /// Answers are missing that could decide it.
    Pending,
}

impl LoggedConfiguration {
    /// The one that a cluster is founded with.
    pub fn founding(configuration: Configuration) -> Self {
        let index = 0;
        Self {
            index,
            configuration,
        }
    }
}

impl Configuration {
    /// The configuration that a cluster is founded with: these voters, whose folders nobody knows
    /// yet.
    pub fn founding(members: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        let voter = |(id, address)| Member {
            id,
            folder: None,
            address,
            role: MemberRole::Voter,
        };
        Self::of(0, members.into_iter().map(voter).collect(), Vec::new())
    }

    /// Voters whose folders have the same numbers as they themselves, and that have no address: for
    /// programs that carry the messages of cores between them, and lose no folder.
    pub fn of_voters(ids: impl IntoIterator<Item = NodeId>) -> Self {
        let voter = |id| Member {
            id,
            folder: Some(MemberId::plain(id).folder),
            address: String::new(),
            role: MemberRole::Voter,
        };
        Self::of(1, ids.into_iter().map(voter).collect(), Vec::new())
    }

    /// A configuration with these parts, in any order; see [`validate`](Self::validate). Without
    /// `outgoing` voters it is stable, else joint.
    pub fn of(lineage: u64, mut members: Vec<Member>, mut outgoing: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.id);
        outgoing.sort_by_key(|member| member.id);
        Self {
            lineage,
            members,
            outgoing,
        }
    }

    /// The number that all configurations of this cluster have; 0 while it is being founded.
    pub fn lineage(&self) -> u64 {
        self.lineage
    }

    /// The members, during a change of voters those after it.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The voters before a change of voters that is under way.
    pub fn outgoing(&self) -> &[Member] {
        &self.outgoing
    }

    /// Whether there is no member at all: a node that is to join a cluster knows none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a change of voters is under way: two majorities must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the cluster is being founded: the folders of its members are not in the log yet.
    pub fn is_founding(&self) -> bool {
        self.lineage == 0
    }

    /// Whether `who` is the one that counts as `member` in this configuration.
    pub fn seats(&self, member: &Member, who: MemberId) -> bool {
        let its_folder = match member.folder {
            Some(folder) => folder == who.folder,
            None => self.is_founding(),
        };
        member.id == who.id && its_folder
    }

    /// Whether nobody counts as this member, whatever folder answers under its id.
    pub fn is_empty_seat(&self, member: &Member) -> bool {
        member.folder.is_none() && !self.is_founding()
    }

    /// The member that is reached under this id: in a joint configuration the one after the change.
    pub fn contact(&self, id: NodeId) -> Option<&Member> {
        find(&self.members, id).or_else(|| find(&self.outgoing, id))
    }

    /// All members that are reached, one for each id. In a joint configuration the members after
    /// the change come first.
    pub fn contacts(&self) -> impl Iterator<Item = &Member> {
        let leaving = |member: &&Member| find(&self.members, member.id).is_none();
        self.members
            .iter()
            .chain(self.outgoing.iter().filter(leaving))
    }

    /// Whether `who` counts in elections and for commits, in either half.
    pub fn is_voter(&self, who: MemberId) -> bool {
        let mut voters = self.sets().flatten();
        voters.any(|voter| self.seats(voter, who))
    }

    /// Whether the member counts in either half.
    pub fn counts(&self, member: &Member) -> bool {
        let is_same = |voter: &Member| voter.id == member.id && voter.folder == member.folder;
        self.sets().flatten().any(is_same)
    }

    /// The voters after a change that is under way, or simply the voters.
    pub fn voters(&self) -> impl Iterator<Item = &Member> + Clone {
        let votes = |member: &&Member| member.role == MemberRole::Voter;
        self.members.iter().filter(votes)
    }

    /// Counts a vote: `votes` holds the answers so far. Answers of nodes that are no voters, or
    /// have another folder, count for nothing. A configuration without voters elects nobody.
    pub fn vote_result(&self, votes: &BTreeMap<MemberId, bool>) -> VoteResult {
        if self.voters().next().is_none() {
            return VoteResult::Lost;
        }
        let results = self.sets().map(|set| self.majority_vote(set, votes));
        results.fold(VoteResult::Won, |all, one| match (all, one) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Pending, _) | (_, VoteResult::Pending) => VoteResult::Pending,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        })
    }

    fn majority_vote<'a>(
        &self,
        set: impl Iterator<Item = &'a Member> + Clone,
        votes: &BTreeMap<MemberId, bool>,
    ) -> VoteResult {
        let count = |answer: bool| {
            let says = |voter: &&Member| {
                let mut answers = votes.iter();
                let its = answers.find(|(who, _)| self.seats(voter, **who));
                its.is_some_and(|(_, its)| *its == answer)
            };
            set.clone().filter(says).count()
        };
        let size = set.clone().count();
        let quorum = size / 2 + 1;
        if count(true) >= quorum {
            VoteResult::Won
        } else if size - count(false) < quorum {
            VoteResult::Lost
        } else {
            VoteResult::Pending
        }
    }

    /// Whether a quorum satisfies the condition.
    pub fn has_quorum(&self, holds: impl Fn(&Member) -> bool) -> bool {
        self.quorum_value(|member| holds(member).into()) == 1
    }

    /// The highest value that a quorum has reached, where `reached` gives each voter's: the index
    /// that may be committed (paper 5.3), or the round that is confirmed.
    pub fn quorum_value(&self, reached: impl Fn(&Member) -> Index) -> Index {
        if self.voters().next().is_none() {
            return 0;
        }
        let values = self.sets().map(|set| {
            let mut values: Vec<Index> = set.map(&reached).collect();
            // Of n values in descending order the one at n / 2 is reached by n / 2 + 1 voters, a
            // majority: the third of 4 or 5, the fourth of 7.
            values.sort_unstable_by(|a, b| b.cmp(a));
            values[values.len() / 2]
        });
        values.min().unwrap_or(0)
    }

    /// The sets of voters of which each must agree: one, or two during a change. None is empty.
    fn sets(&self) -> impl Iterator<Item = impl Iterator<Item = &Member> + Clone> {
        let votes = |member: &&Member| member.role == MemberRole::Voter;
        [&self.members, &self.outgoing]
            .into_iter()
            .map(move |members| members.iter().filter(votes))
            .filter(|set| set.clone().next().is_some())
    }

    /// The configuration after the change that is under way.
    pub fn left(&self) -> Self {
        Self {
            outgoing: Vec::new(),
            ..self.clone()
        }
    }

    /// What it weighs: a bound on how many bytes its encoding has.
    pub fn weight(&self) -> usize {
        let both = self.members.iter().chain(&self.outgoing);
        both.map(Member::weight).sum()
    }

    /// Says what is wrong with a configuration that came from outside, if anything is.
    ///
    /// # Errors
    /// A sentence.
    pub fn validate(&self) -> Result<(), String> {
        let in_order = |half: &[Member]| half.is_sorted_by(|a, b| a.id < b.id);
        let votes = |member: &Member| member.role == MemberRole::Voter;
        let rules = [
            (
                in_order(&self.members) && in_order(&self.outgoing),
                "its members are not in the order of their ids",
            ),
            (
                self.contacts().all(|member| member.id != 0),
                "it has a member with the id 0",
            ),
            (self.members.iter().any(votes), "it has no voter"),
            (
                self.outgoing.iter().all(votes),
                "one who leaves is no voter",
            ),
            (
                self.weight() <= MAX_CONFIGURATION_WEIGHT,
                "its addresses are too long",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, sentence)) => Err((*sentence).to_string()),
        }
    }
}

impl fmt::Display for Configuration {
    /// Each member with its role, and behind a bar the voters that leave.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, half: &[Member]| {
            for (place, member) in half.iter().enumerate() {
                let comma = if place > 0 { ", " } else { "" };
                let role = match member.role {
                    MemberRole::Voter => "",
                    MemberRole::Learner => " (learner)",
                    MemberRole::Joining => " (joining)",
                };
                write!(f, "{comma}{}{role}", member.id)?;
            }
            Ok(())
        };
        list(f, &self.members)?;
        if self.is_joint() {
            f.write_str(" | ")?;
            list(f, &self.outgoing)?;
        }
        Ok(())
    }
}

/// The member with this id, of members in ascending order of ids.
fn find(members: &[Member], id: NodeId) -> Option<&Member> {
    let place = members.binary_search_by_key(&id, |member| member.id).ok()?;
    members.get(place)
}

#[cfg(test)]
mod tests;
