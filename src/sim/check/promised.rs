//! What a node has promised the others, and may not have forgotten when it starts again.

use crate::raft::{Entry, EntryId, Envelope, HardState, Message, NodeId, Raft, Term, Write};
use crate::sim::Failure;
use crate::storage::Recovered;

/// The promises of one node.
#[derive(Default)]
pub struct Promised {
    /// The highest term that it spoke in.
    term: Term,
    /// Its vote in the latest term that it gave one in.
    vote: Option<(Term, NodeId)>,
    /// The furthest entry that it acknowledged and was not replaced since.
    acknowledged: EntryId,
}

impl Promised {
    /// A message leaves the node.
    pub fn note(&mut self, envelope: &Envelope, raft: &Raft) {
        self.term = self.term.max(envelope.term);
        match &envelope.message {
            Message::VoteReply { granted: true } => self.vote = Some((envelope.term, envelope.to)),
            Message::Accepted { matched } if *matched > self.acknowledged.index => {
                let entry = raft.entry(*matched).map(|entry| entry.id);
                self.acknowledged = entry.unwrap_or(EntryId {
                    term: envelope.term,
                    index: *matched,
                });
            }
            _ => {}
        }
    }

    /// A write has become durable. Entries that it replaces are not promised any more.
    pub fn overwritten(&mut self, write: &Write, log: &[Entry]) {
        let Some(first) = write.entries.first() else {
            return;
        };
        let replaced = log.len() as u64 >= first.id.index;
        if replaced && self.acknowledged.index >= first.id.index {
            let kept = log.get(first.id.index as usize - 2).map(|entry| entry.id);
            self.acknowledged = kept.unwrap_or(EntryId::ZERO);
        }
    }

    /// The node starts again with what it has found.
    pub fn check(&self, n: usize, found: &Recovered) -> Result<(), Failure> {
        let HardState { term, vote } = found.hard_state;
        let acknowledged = self.acknowledged.index;
        let held = match acknowledged {
            0 => EntryId::ZERO,
            index => (found.entries.get(index as usize - 1)).map_or(EntryId::ZERO, |e| e.id),
        };
        let broken = if term < self.term {
            format!("spoke in term {} and comes back in term {term}", self.term)
        } else if let Some((voted_in, to)) = self.vote
            && voted_in == term
            && vote != Some(to)
        {
            format!("voted for node {to} in term {term} and comes back with the vote {vote:?}")
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
