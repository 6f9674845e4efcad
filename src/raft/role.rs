//! The roles as types, and how one takes the place of another.
//!
//! A follower has no `next` index to misuse and a leader no election timer: what a role does not
//! have cannot be wrong. Each input is a method of the role that returns a [`Change`]: the role
//! that takes its place, if one does. Only this file puts a role in the place of another.
//!
//! ```text
//!              timeout                  quorum would vote             quorum voted
//!  follower ------------> pre-candidate ------------------> candidate ------------> leader
//!     ^                      |                                 |                      |
//!     +----------------------+---------------------------------+----------------------+
//!       a higher term, a leader of this term, votes lost; for a leader: no quorum answers
//! ```
//!
//! This file also judges the term of each message before a role sees the message (paper 5.1), and
//! answers the two questions that every role answers by the same rule: votes and pre-votes.

use super::candidate::{Candidate, PreCandidate};
use super::common::Common;
use super::event::Reason;
use super::follower::Follower;
use super::leader::Leader;
use super::message::{Message, Sender};
use super::types::{EntryId, NodeId, RoleName, Term};

#[derive(Debug)]
pub(super) enum Role {
    Follower(Follower),
    /// Asks whether it could win an election (thesis 9.6). Its term and its vote are untouched.
    PreCandidate(PreCandidate),
    /// Asks for votes in a term that it has entered (paper 5.2).
    Candidate(Candidate),
    Leader(Leader),
}

/// The role that a node changes to because of an input; `None` if it keeps its role.
pub(super) type Change = Option<Role>;

impl Role {
    pub fn name(&self) -> RoleName {
        match self {
            Role::Follower(_) => RoleName::Follower,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// The leader of the present term, as far as this node knows.
    pub fn leader(&self, common: &Common) -> Option<NodeId> {
        match self {
            Role::Follower(follower) => follower.leader().map(|leader| leader.member.id),
            // A node that asks for votes or pre-votes knows no leader: a leader's message would
            // have made it a follower.
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(common.id()),
        }
    }

    /// Whether this node is sure enough of a living leader to refuse its vote (thesis 4.2.3).
    pub fn hears_leader(&self, common: &Common) -> bool {
        match self {
            Role::Follower(follower) => follower.hears_leader(common),
            // A message of the leader would have made this node a follower.
            Role::PreCandidate(_) | Role::Candidate(_) => false,
            // A leader that no quorum answers steps down by itself, so it does not refuse votes for
            // long.
            Role::Leader(_) => true,
        }
    }

    /// One tick of time has passed.
    pub fn tick(&mut self, common: &mut Common) {
        let change = match self {
            Role::Follower(follower) => follower.tick(common),
            Role::PreCandidate(candidate) => candidate.tick(common),
            Role::Candidate(candidate) => candidate.tick(common),
            Role::Leader(leader) => leader.tick(common),
        };
        self.become_next(change);
    }

    /// The disk has done a write.
    pub fn disk_returned(&mut self, common: &mut Common) {
        let change = match self {
            Role::Follower(follower) => {
                follower.disk_returned();
                None
            }
            // A pre-candidate waits for no write: its own pre-vote needs no disk.
            Role::PreCandidate(_) => None,
            Role::Candidate(candidate) => candidate.disk_returned(common),
            // The leader's own disk counts as one of the quorum that commits (thesis 10.2.1).
            Role::Leader(leader) => {
                leader.advance_commit(common);
                leader.mind_configuration(common)
            }
        };
        self.become_next(change);
    }

    fn become_next(&mut self, change: Change) {
        if let Some(next) = change {
            *self = next;
        }
    }

    /// Begins a round of pre-votes. The only voter of its cluster wins it at once.
    pub fn ask_for_pre_votes(common: &mut Common, reason: Reason) -> Role {
        let candidate = PreCandidate::ask(common);
        common.report(RoleName::PreCandidate, None, reason);
        let change = candidate.count(common);
        change.unwrap_or(Role::PreCandidate(candidate))
    }

    /// Begins an election. Not even the only voter wins it before its own vote is on disk.
    pub fn campaign(common: &mut Common, reason: Reason) -> Role {
        let candidate = Candidate::campaign(common, reason == Reason::AskedToLead);
        common.report(RoleName::Candidate, None, reason);
        Role::Candidate(candidate)
    }

    /// A follower that knows no leader in the present term.
    pub fn follower(common: &mut Common, reason: Reason) -> Role {
        let follower = Follower::new(common, None);
        common.report(RoleName::Follower, None, reason);
        Role::Follower(follower)
    }

    /// Handles a message, judging its term first (paper 5.1).
    pub fn receive(&mut self, common: &mut Common, from: Sender, term: Term, message: Message) {
        // Before the terms are compared: the term of a stranger must not depose a leader. Nobody
        // has asked the sender, so it does not wait either. Requests are taken from everybody: who
        // leads a term was elected by a majority of its own configuration, and this node's may be
        // older; and a candidate that this node does not know may have been added since.
        if message.is_answer() && !self.is_asked(common, from, term, &message) {
            return;
        }
        match message {
            // Handled before the terms are compared: the sender is still in its former term, and a
            // question about a future term must not move anybody's term (thesis 9.6).
            Message::PreVote { next_term, last } => {
                self.pre_vote(common, from, next_term, last);
                return;
            }
            // A node that grants a pre-vote may itself be in any term up to the one it grants, so
            // the term of a grant says nothing. A refusal of a higher term is not handled here: it
            // tells that this node's term has passed, and the comparison below takes it over.
            Message::PreVoteReply { next_term, granted } if granted || term <= common.term() => {
                if let Role::PreCandidate(candidate) = self {
                    let change = candidate.answered(common, from.member, next_term, granted);
                    self.become_next(change);
                }
                // In any other role the round of pre-votes is over: won, lost or given up.
                return;
            }
            // The request is dropped, and not even its term is taken over: a node that was cut off
            // must not depose a leader that the others hear (thesis 4.2.3).
            Message::Vote {
                transfer: false, ..
            } if term > common.term() && self.hears_leader(common) => {
                return;
            }
            _ => {}
        }
        if term < common.term() {
            return receive_outdated(common, from, &message);
        }
        if term > common.term() {
            common.enter_term(term);
            self.step_down(
                common,
                Reason::HigherTerm {
                    from: from.member.id,
                },
            );
        }
        // From here on the message is of the present term.
        let change = match (&mut *self, message) {
            (_, Message::Vote { last, .. }) => {
                self.vote(common, from, last);
                None
            }
            (Role::Follower(follower), message) => follower.step(common, from, message),
            (Role::PreCandidate(candidate), message) => candidate.step(common, from, message),
            (Role::Candidate(candidate), message) => candidate.step(common, from, message),
            (Role::Leader(leader), message) => leader.step(common, from, message),
        };
        self.become_next(change);
    }

    /// Whether an answer comes from a node that this one may have asked.
    fn is_asked(&self, common: &Common, from: Sender, term: Term, message: &Message) -> bool {
        let of_log = matches!(
            message,
            Message::Accepted { .. } | Message::Rejected { .. } | Message::SnapshotReply { .. }
        );
        match self {
            // Of those that have left only what tells how far they are, and no term.
            Role::Leader(leader) if of_log && term == common.term() => {
                common.is_asked(from.member) || leader.is_departing(from.member)
            }
            _ => common.is_asked(from.member),
        }
    }

    /// Becomes a follower without a leader, because a higher term has begun.
    fn step_down(&mut self, common: &mut Common, reason: Reason) {
        if let Role::Leader(leader) = self {
            leader.abandon_reads(common);
        }
        *self = Role::follower(common, reason);
    }

    /// Says whether this node would vote for `from` in `next_term` (thesis 9.6). The answer
    /// promises nothing: no state changes, so any number of nodes may be told yes. A pre-vote is
    /// refused for each reason for which the vote itself would be refused, and while this node
    /// hears a leader.
    fn pre_vote(&self, common: &mut Common, from: Sender, next_term: Term, last: EntryId) {
        let granted = common.may_answer(from)
            && next_term > common.term()
            && is_complete(common, last)
            && !self.hears_leader(common);
        common.answer(from, Message::PreVoteReply { next_term, granted });
    }

    /// Gives or refuses a vote in the present term (paper 5.2 and 5.4.1). A candidate that asks
    /// again, because the answer was lost, gets the same answer. Whether the vote counts is decided
    /// by the candidate's configuration: this node may have become a voter without having heard of
    /// it.
    fn vote(&mut self, common: &mut Common, from: Sender, last: EntryId) {
        // One vote a term: so no two candidates get a majority of the same term. It is on disk
        // before the answer leaves, so a restart does not make this node free to vote again.
        let free = common.may_answer(from) && common.vote().is_none_or(|vote| vote == from.member);
        // A term that has a leader needs no other one: the candidate cannot win any more.
        let granted = free && self.leader(common).is_none() && is_complete(common, last);
        if granted {
            common.vote_for(from.member);
            if let Role::Follower(follower) = self {
                follower.voted();
            }
        }
        common.answer(from, Message::VoteReply { granted });
    }
}

/// Handles a message of a term that has passed.
fn receive_outdated(common: &mut Common, from: Sender, message: &Message) {
    match message {
        // The sender of a request acts in a term that has passed: it is told so, and steps down.
        Message::Append { .. }
        | Message::Heartbeat { .. }
        | Message::Snapshot { .. }
        | Message::Vote { .. } => common.answer(from, Message::Outdated),
        // Answers are dropped: they answer a role that this node has left. Dropping a late
        // `TimeoutNow` or `Outdated` is safe too: the term in which it said something is over.
        _ => {}
    }
}

/// Whether a log that ends with `last` is at least as up-to-date as this node's (paper 5.4.1).
///
/// A committed entry is in the logs of a majority, and each member of it refuses a candidate whose
/// log lacks the entry. So a candidate with a majority of votes has every committed entry.
fn is_complete(common: &Common, last: EntryId) -> bool {
    last >= common.log.last()
}
