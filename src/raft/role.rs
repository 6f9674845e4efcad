//! The roles as types, and how one becomes another.
//!
//! A follower has no `next` to misuse and a leader no election timer: what a role does not have
//! cannot be wrong. Every transition consumes the old role and returns the new one.

use super::candidate::Candidate;
use super::common::Common;
use super::event::Reason;
use super::follower::Follower;
use super::leader::Leader;
use super::message::Message;
use super::types::{NodeId, RoleName, Term};

#[derive(Debug)]
pub(super) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

impl Role {
    pub fn name(&self) -> RoleName {
        match self {
            Role::Follower(_) => RoleName::Follower,
            Role::Candidate(candidate) => candidate.role_name(),
            Role::Leader(_) => RoleName::Leader,
        }
    }

    pub fn leader(&self, common: &Common) -> Option<NodeId> {
        match self {
            Role::Follower(follower) => follower.leader(),
            Role::Candidate(_) => None,
            Role::Leader(_) => Some(common.id()),
        }
    }

    /// Whether this node is sure enough of a living leader to refuse its vote (thesis 4.2.3).
    pub fn hears_leader(&self, common: &Common) -> bool {
        match self {
            Role::Follower(follower) => follower.hears_leader(common),
            Role::Candidate(_) => false,
            // It steps down by itself once no quorum answers.
            Role::Leader(_) => true,
        }
    }

    pub fn tick(self, common: &mut Common) -> Role {
        match self {
            Role::Follower(follower) => follower.tick(common),
            Role::Candidate(candidate) => candidate.tick(common),
            Role::Leader(leader) => leader.tick(common),
        }
    }

    pub fn disk_returned(self, common: &mut Common) -> Role {
        match self {
            Role::Follower(mut follower) => {
                follower.disk_returned();
                Role::Follower(follower)
            }
            Role::Candidate(candidate) => candidate.disk_returned(common),
            Role::Leader(mut leader) => {
                leader.advance_commit(common);
                Role::Leader(leader)
            }
        }
    }

    /// Begins a round of pre-votes.
    pub fn ask_for_pre_votes(common: &mut Common, reason: Reason) -> Role {
        let candidate = Candidate::ask_for_pre_votes(common);
        common.report(candidate.role_name(), None, reason);
        candidate.count(common)
    }

    /// Begins an election.
    pub fn campaign(common: &mut Common, reason: Reason) -> Role {
        let candidate = Candidate::campaign(common, reason == Reason::AskedToLead);
        common.report(candidate.role_name(), None, reason);
        Role::Candidate(candidate)
    }

    /// Becomes a follower without a leader in the present term.
    pub fn step_down(self, common: &mut Common, reason: Reason) -> Role {
        if let Role::Leader(leader) = self {
            let reads = leader.abandon_reads();
            common.reads_failed.extend(reads);
        }
        let follower = Follower::new(common, None);
        common.report(RoleName::Follower, None, reason);
        Role::Follower(follower)
    }

    /// Handles a message, judging its term first (paper 5.1).
    pub fn receive(self, common: &mut Common, from: NodeId, term: Term, message: Message) -> Role {
        match message {
            Message::PreVote { next_term, last } => {
                let granted = common.may_vote()
                    && next_term > common.term()
                    && is_complete(common, last)
                    && !self.hears_leader(common);
                common.send(from, Message::PreVoteReply { next_term, granted });
                return self;
            }
            // The term of a node that grants a pre-vote may be any up to the one it grants.
            Message::PreVoteReply { next_term, granted } if granted || term <= common.term() => {
                return match self {
                    Role::Candidate(candidate) => {
                        candidate.pre_vote_answered(common, from, next_term, granted)
                    }
                    other => other,
                };
            }
            // Not even the term is taken over: a node that was cut off must not depose a leader
            // that the others hear (thesis 4.2.3).
            Message::Vote {
                transfer: false, ..
            } if term > common.term() && self.hears_leader(common) => {
                return self;
            }
            _ => {}
        }
        if term < common.term() {
            return self.receive_outdated(common, from, &message);
        }
        let role = if term > common.term() {
            common.enter_term(term);
            self.step_down(common, Reason::HigherTerm { from })
        } else {
            self
        };
        match (role, message) {
            (role, Message::Vote { last, .. }) => role.vote(common, from, last),
            (Role::Follower(follower), message) => follower.step(common, from, message),
            (Role::Candidate(candidate), message) => candidate.step(common, from, message),
            (Role::Leader(leader), message) => leader.step(common, from, message),
        }
    }

    /// Tells the sender of an outdated request that its term has passed. Outdated answers are
    /// dropped: they are about a role that this node has left.
    fn receive_outdated(self, common: &mut Common, from: NodeId, message: &Message) -> Role {
        match message {
            Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::Snapshot { .. }
            | Message::Vote { .. } => common.send(from, Message::Outdated),
            _ => {}
        }
        self
    }

    /// Gives or refuses a vote in the present term (paper 5.2 and 5.4.1). A candidate that asks
    /// again, because the answer was lost, gets the same answer.
    fn vote(mut self, common: &mut Common, from: NodeId, last: super::EntryId) -> Role {
        let free = common.may_vote() && common.vote().is_none_or(|vote| vote == from);
        let granted = free && self.leader(common).is_none() && is_complete(common, last);
        if granted {
            common.vote_for(from);
            if let Role::Follower(follower) = &mut self {
                follower.voted();
            }
        }
        common.send(from, Message::VoteReply { granted });
        self
    }
}

/// Whether a log that ends with `last` is at least as up-to-date as this node's (paper 5.4.1).
fn is_complete(common: &Common, last: super::EntryId) -> bool {
    last >= common.log.last()
}
