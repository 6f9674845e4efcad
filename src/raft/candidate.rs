//! A node that asks for votes: first whether it could win (thesis 9.6), then for real (paper 5.2).

use std::collections::BTreeMap;

use super::common::Common;
use super::event::Reason;
use super::follower::Follower;
use super::leader::Leader;
use super::membership::VoteResult;
use super::message::Message;
use super::role::Role;
use super::types::{NodeId, RoleName};

/// What the answers of the voters are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ballot {
    /// Would you vote for me in the next term? Nothing is written, nobody is disturbed.
    Pre,
    /// Vote for me in this term.
    Real,
}

#[derive(Debug)]
pub(super) struct Candidate {
    ballot: Ballot,
    votes: BTreeMap<NodeId, bool>,
    elapsed: u32,
    timeout: u32,
}

impl Candidate {
    /// Asks all voters whether they would vote for this node in the next term.
    pub fn ask_for_pre_votes(common: &mut Common) -> Self {
        let question = Message::PreVote {
            next_term: common.term() + 1,
            last: common.log.last(),
        };
        for voter in common.other_voters() {
            common.send(voter, question.clone());
        }
        let mut candidate = Self::new(common, Ballot::Pre);
        candidate.votes.insert(common.id(), true);
        candidate
    }

    /// Enters the next term and asks all voters for their vote. Its own vote counts, like every
    /// other, from the moment at which it is durable.
    pub fn campaign(common: &mut Common, transfer: bool) -> Self {
        common.enter_term(common.term() + 1);
        common.vote_for(common.id());
        let question = Message::Vote {
            last: common.log.last(),
            transfer,
        };
        for voter in common.other_voters() {
            common.send(voter, question.clone());
        }
        Self::new(common, Ballot::Real)
    }

    fn new(common: &mut Common, ballot: Ballot) -> Self {
        Self {
            ballot,
            votes: BTreeMap::new(),
            elapsed: 0,
            timeout: common.random_timeout(),
        }
    }

    pub fn role_name(&self) -> RoleName {
        match self.ballot {
            Ballot::Pre => RoleName::PreCandidate,
            Ballot::Real => RoleName::Candidate,
        }
    }

    pub fn tick(mut self, common: &mut Common) -> Role {
        // Nobody has been asked before the own vote is on disk. Were the time counted that it takes
        // to get there, a disk slower than the timeout would never let an election be held.
        if self.ballot == Ballot::Real && !common.hard_state_durable() {
            return Role::Candidate(self);
        }
        self.elapsed += 1;
        if self.elapsed < self.timeout {
            return Role::Candidate(self);
        }
        Role::ask_for_pre_votes(common, Reason::VotesMissing)
    }

    pub fn step(self, common: &mut Common, from: NodeId, message: Message) -> Role {
        match message {
            Message::VoteReply { granted } if self.ballot == Ballot::Real => {
                self.answered(common, from, granted)
            }
            // A leader of this term exists: its sender won the election (paper 5.2). Without this
            // a candidate's term would outrun every entry's.
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. } => {
                Follower::new(common, None).step(common, from, message)
            }
            // Answers to an earlier role's questions; the senders do not wait.
            _ => Role::Candidate(self),
        }
    }

    /// An answer to a pre-vote of any term of the sender.
    pub fn pre_vote_answered(
        self,
        common: &mut Common,
        from: NodeId,
        next_term: u64,
        granted: bool,
    ) -> Role {
        let current = self.ballot == Ballot::Pre && next_term == common.term() + 1;
        if current {
            self.answered(common, from, granted)
        } else {
            Role::Candidate(self)
        }
    }

    /// The disk has done a write: this node's own vote may have become durable.
    pub fn disk_returned(self, common: &mut Common) -> Role {
        if self.ballot == Ballot::Real && common.hard_state_durable() {
            let id = common.id();
            self.answered(common, id, true)
        } else {
            Role::Candidate(self)
        }
    }

    fn answered(mut self, common: &mut Common, from: NodeId, granted: bool) -> Role {
        self.votes.insert(from, granted);
        self.count(common)
    }

    /// Acts on the votes as they stand.
    pub fn count(self, common: &mut Common) -> Role {
        match (
            common.config.membership.vote_result(&self.votes),
            self.ballot,
        ) {
            (VoteResult::Pending, _) => Role::Candidate(self),
            (VoteResult::Won, Ballot::Pre) => Role::campaign(common, Reason::PreVoteWon),
            (VoteResult::Won, Ballot::Real) => Role::Leader(Leader::elected(common)),
            (VoteResult::Lost, _) => {
                let follower = Follower::new(common, None);
                common.report(RoleName::Follower, None, Reason::VotesLost);
                Role::Follower(follower)
            }
        }
    }
}
