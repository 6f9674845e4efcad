//! The two outboxes: messages that may leave now, and messages that must wait for the disk.
//!
//! No vote and no acknowledgement may leave before the state that it speaks of is durable (paper
//! figure 2, persistent state). Threads take messages from the first outbox only, so no thread can
//! send a message too early.

use std::collections::VecDeque;

use super::message::{Envelope, Message};
use super::types::{Term, WriteId};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Messages that speak only of what is durable, in the order in which they were sent.
    now: Vec<Envelope>,
    /// Messages that wait, each with the write that must be done before it leaves.
    later: VecDeque<(WriteId, Envelope)>,
}

impl Outbox {
    pub fn send(&mut self, envelope: Envelope) {
        self.now.push(envelope);
    }

    /// Keeps the message until the write is durable. Of equal messages that wait for the same write
    /// one is kept, and of acknowledgements and answers to heartbeats the furthest, so that a flood
    /// of requests takes no memory.
    pub fn send_after(&mut self, write: WriteId, envelope: Envelope) {
        let absorbed = self
            .later
            .iter_mut()
            .any(|(other_write, other)| *other_write == write && absorb(other, &envelope));
        if !absorbed {
            self.later.push_back((write, envelope));
        }
    }

    /// All writes up to `done`, inclusive, are durable. Messages of a term that has passed are
    /// dropped: they speak of a state that may be gone, such as entries that a later leader has
    /// replaced. Dropping them is safe, because every receiver ignores a passed term.
    pub fn release(&mut self, done: WriteId, term: Term) {
        let waiting = std::mem::take(&mut self.later);
        for (write, envelope) in waiting {
            if envelope.term < term {
                continue;
            }
            if write <= done {
                self.now.push(envelope);
            } else {
                self.later.push_back((write, envelope));
            }
        }
    }

    pub fn take(&mut self) -> Vec<Envelope> {
        std::mem::take(&mut self.now)
    }
}

/// Merges `new` into `waiting`, if one message can say both. Returns whether it did.
fn absorb(waiting: &mut Envelope, new: &Envelope) -> bool {
    let same_way = waiting.to == new.to && waiting.term == new.term;
    match (&mut waiting.message, &new.message) {
        (Message::Accepted { matched }, Message::Accepted { matched: other }) if same_way => {
            *matched = (*matched).max(*other);
            true
        }
        (Message::HeartbeatReply { round }, Message::HeartbeatReply { round: other })
            if same_way =>
        {
            *round = (*round).max(*other);
            true
        }
        _ => waiting == new,
    }
}
