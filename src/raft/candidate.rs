//! The two roles of a node that wants to lead: one that asks whether it could win an election
//! (thesis 9.6), and one that asks for votes (paper 5.2).
//!
//! They are two types because they may do different things: a [`PreCandidate`] has written nothing
//! and disturbs nobody, so it counts its own yes at once. A [`Candidate`] has entered a new term,
//! and its own vote counts only once it is on disk.

use std::collections::BTreeMap;

use super::common::Common;
use super::configuration::VoteResult;
use super::event::Reason;
use super::follower::Follower;
use super::leader::Leader;
use super::message::{Message, Sender};
use super::role::{Change, Role};
use super::types::{MemberId, Term};

/// The voters' answers to one request for votes or pre-votes, and how long they are waited for.
#[derive(Debug)]
struct Poll {
    /// The last answer of each node that has answered: true if it gives its vote. Only the answers
    /// of voters count.
    answers: BTreeMap<MemberId, bool>,
    /// Ticks since the voters were asked; `elapsed < timeout` between two inputs.
    elapsed: u32,
    /// After this many ticks without a decision the node begins anew. Random, so that of two nodes
    /// that split the votes one asks again before the other (paper 5.2).
    timeout: u32,
}

impl Poll {
    fn new(common: &mut Common) -> Self {
        Self {
            answers: BTreeMap::new(),
            elapsed: 0,
            timeout: common.random_timeout(),
        }
    }

    /// One tick has passed. Returns whether the time for answers is over.
    fn tick(&mut self) -> bool {
        self.elapsed += 1;
        self.elapsed >= self.timeout
    }

    fn result(&self, common: &Common) -> VoteResult {
        common.configuration().vote_result(&self.answers)
    }
}

/// A node that asks whether a majority would vote for it in the next term.
///
/// Nothing is written and no term changes: a node that was cut off and comes back asks, hears no,
/// and follows the leader again. Without the question it would come back with a higher term and
/// depose the leader, once for every time that it was cut off.
#[derive(Debug)]
pub(super) struct PreCandidate {
    poll: Poll,
}

impl PreCandidate {
    /// Asks all voters whether they would vote for this node in the next term.
    pub fn ask(common: &mut Common) -> Self {
        let question = Message::PreVote {
            next_term: common.term() + 1,
            last: common.log.last(),
        };
        for voter in common.other_voters() {
            common.ask((&voter).into(), question.clone());
        }
        let mut poll = Poll::new(common);
        poll.answers.insert(common.me(), true);
        Self { poll }
    }

    /// After a timeout the node asks again: the questions or the answers may have been lost.
    pub fn tick(&mut self, common: &mut Common) -> Change {
        let expired = self.poll.tick();
        expired.then(|| Role::ask_for_pre_votes(common, Reason::VotesMissing))
    }

    pub fn step(&self, common: &mut Common, from: Sender, message: Message) -> Change {
        match message {
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. } => {
                Some(follow(common, from, message))
            }
            // What is left are answers to what this node asked in an earlier role of this term.
            // They are dropped, because their senders do not wait. A late `TimeoutNow` of this term
            // is dropped too: a node that asks for pre-votes is on its way to an election already.
            _ => None,
        }
    }

    /// A voter, which may be in any term, has answered the question about `next_term`.
    pub fn answered(
        &mut self,
        common: &mut Common,
        from: MemberId,
        next_term: Term,
        granted: bool,
    ) -> Change {
        // An answer about another term answers a question of a round that is over. It must not
        // count: the voter has not been asked about the log that this node has now.
        if next_term != common.term() + 1 {
            return None;
        }
        self.poll.answers.insert(from, granted);
        self.count(common)
    }

    /// Decides the round by the answers so far: won, lost or still open.
    pub fn count(&self, common: &mut Common) -> Change {
        match self.poll.result(common) {
            VoteResult::Pending => None,
            VoteResult::Won => Some(Role::campaign(common, Reason::PreVoteWon)),
            // The round is lost. The node waits for a leader, or for its next timeout: to ask again
            // at once would bring the same answers.
            VoteResult::Lost => Some(Role::follower(common, Reason::VotesLost)),
        }
    }
}

/// A node that asks for votes in the present term, which it entered for this purpose.
#[derive(Debug)]
pub(super) struct Candidate {
    poll: Poll,
}

impl Candidate {
    /// Enters the next term, votes for itself and asks all voters for their vote. Its own vote
    /// counts, like every other, from the moment at which it is durable; the requests leave then as
    /// well, because no message of a term leaves before the term is durable.
    pub fn campaign(common: &mut Common, transfer: bool) -> Self {
        common.enter_term(common.term() + 1);
        common.vote_for(common.me());
        let question = Message::Vote {
            last: common.log.last(),
            transfer,
        };
        for voter in common.other_voters() {
            common.ask((&voter).into(), question.clone());
        }
        Self {
            poll: Poll::new(common),
        }
    }

    pub fn tick(&mut self, common: &mut Common) -> Change {
        // The requests leave once this node's own vote is on disk. If the time before that counted,
        // a disk slower than the timeout would let no election ever be won.
        if !common.hard_state_durable() {
            return None;
        }
        // Votes were split or messages lost. The node asks for pre-votes first, and not for votes
        // in yet another term: in the meantime there may be a leader that the others hear.
        let expired = self.poll.tick();
        expired.then(|| Role::ask_for_pre_votes(common, Reason::VotesMissing))
    }

    pub fn step(&mut self, common: &mut Common, from: Sender, message: Message) -> Change {
        match message {
            // The reply is of this very term, so it answers this election: a node campaigns once in
            // a term.
            Message::VoteReply { granted } => self.answered(common, from.member, granted),
            // A leader of this term exists: its sender won the election (paper 5.2).
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. } => {
                Some(follow(common, from, message))
            }
            // Nothing else of this term is meant for a candidate: it entered the term by itself,
            // and has asked for nothing but votes in it.
            _ => None,
        }
    }

    /// The disk has done a write: this node's own vote may have become durable.
    pub fn disk_returned(&mut self, common: &mut Common) -> Change {
        if !common.hard_state_durable() {
            return None;
        }
        let me = common.me();
        self.answered(common, me, true)
    }

    fn answered(&mut self, common: &mut Common, from: MemberId, granted: bool) -> Change {
        self.poll.answers.insert(from, granted);
        match self.poll.result(common) {
            VoteResult::Pending => None,
            VoteResult::Won => Some(Role::Leader(Leader::elected(common))),
            VoteResult::Lost => Some(Role::follower(common, Reason::VotesLost)),
        }
    }
}

/// Becomes a follower of the leader of the present term, from which `message` came. The follower
/// handles the message as any other, and so notes who leads.
fn follow(common: &mut Common, from: Sender, message: Message) -> Role {
    let mut follower = Follower::new(common, None);
    let change = follower.step(common, from, message);
    change.unwrap_or(Role::Follower(follower))
}
