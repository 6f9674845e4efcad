//! Checks that a node that starts again has not forgotten what it promised to other nodes: its
//! term, its vote, and the entries that it acknowledged.

use super::Checks;
use crate::sim::Failure;
use raftkv::raft::{EntryId, Envelope, HardState, MemberId, Message, Raft, Term};
use raftkv::storage::Recovered;

/// The promises of one node.
#[derive(Default)]
pub struct Promised {
    /// The highest term that it spoke in.
    term: Term,
    /// Its vote in the latest term that it gave one in.
    vote: Option<(Term, MemberId)>,
    /// The furthest entry that it acknowledged and was not replaced since.
    acknowledged: EntryId,
}

impl Promised {
    /// A message leaves the node.
    pub fn note(&mut self, envelope: &Envelope, raft: &Raft, checks: &Checks) {
        self.term = self.term.max(envelope.term);
        match &envelope.message {
            Message::VoteReply { granted: true } => {
                // An answer is for the folder that asked.
                let candidate = envelope.to_folder.map(|folder| MemberId {
                    id: envelope.to,
                    folder,
                });
                self.vote = candidate.map(|candidate| (envelope.term, candidate));
            }
            Message::Accepted { matched } if *matched > self.acknowledged.index => {
                let entry = raft.entry(*matched).map(|entry| entry.id);
                // What a snapshot holds is committed.
                let id = entry.or_else(|| checks.id(*matched));
                self.acknowledged = id.unwrap_or(EntryId {
                    term: envelope.term,
                    index: *matched,
                });
            }
            _ => {}
        }
    }

    /// A write has become durable that replaces what lies behind the entry given. What was
    /// replaced is not promised any more.
    pub fn replaced(&mut self, kept: Option<EntryId>) {
        if let Some(kept) = kept
            && self.acknowledged.index > kept.index
        {
            self.acknowledged = kept;
        }
    }

    /// The node starts again with what it has found.
    pub fn check(&self, n: usize, found: &Recovered) -> Result<(), Failure> {
        let HardState { term, vote } = found.hard_state;
        let acknowledged = self.acknowledged.index;
        let held = match acknowledged.checked_sub(found.base.index + 1) {
            // A snapshot holds it, and is compared with what is committed.
            None => self.acknowledged,
            Some(at) => (found.entries.get(at as usize)).map_or(EntryId::ZERO, |e| e.id),
        };
        let broken = if term < self.term {
            format!("spoke in term {} and comes back in term {term}", self.term)
        } else if let Some((voted_in, to)) = self.vote
            && voted_in == term
            && vote != Some(to)
        {
            format!("voted for {to} in term {term} and comes back with the vote {vote:?}")
        } else if held != self.acknowledged {
            let acknowledged = self.acknowledged;
            format!("acknowledged {acknowledged} and comes back with {held} in its place")
        } else {
            return Ok(());
        };
        let sentence = format!("node {} {broken}", n + 1);
        Err(Failure::new("nothing promised is forgotten", sentence))
    }
}
