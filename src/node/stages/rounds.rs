//! How long the leader waits for its followers: from an append or a heartbeat to the message that
//! acknowledges it.
//!
//! The core owns no clock, so the messages are watched where they leave and arrive.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::recent::Recent;
use crate::raft::{Envelope, Message, NodeId, Term};

/// How many messages of one kind are timed on their way to one follower, at the most. Usually fewer
/// are on their way. More can be only if they are full, and then it is enough to time some.
const MAX_TIMED: usize = 64;

/// The two kinds of messages that are timed, and their places in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An append with entries; its number is the last entry's index. Acknowledged once the entries
    /// are on the follower's disk.
    Append,
    /// A heartbeat; its number is its round of read confirmations. The answer needs no disk.
    Heartbeat,
}

/// What a message from a follower acknowledges: all messages of one kind up to a number.
#[derive(Debug, PartialEq, Eq)]
pub struct Acknowledged {
    from: NodeId,
    term: Term,
    kind: Kind,
    up_to: u64,
}

impl Acknowledged {
    /// What the message acknowledges, if it does.
    pub fn by(envelope: &Envelope) -> Option<Self> {
        let (kind, up_to) = match envelope.message {
            Message::Accepted { matched } => (Kind::Append, matched),
            Message::HeartbeatReply { round } => (Kind::Heartbeat, round),
            _ => return None,
        };
        Some(Self {
            from: envelope.from,
            term: envelope.term,
            kind,
            up_to,
        })
    }
}

/// The kind of a message that is to be timed, and the first and last number that it carries.
fn question(message: &Message) -> Option<(Kind, u64, u64)> {
    match message {
        // An append without entries only asks where the logs agree: it is not timed.
        Message::Append { prev, entries, .. } => {
            let last = entries.last()?.id.index;
            Some((Kind::Append, prev.index + 1, last))
        }
        Message::Heartbeat { round, .. } => Some((Kind::Heartbeat, *round, *round)),
        _ => None,
    }
}

/// Whether any of these messages is to be timed.
pub fn has_question(messages: &[Envelope]) -> bool {
    messages
        .iter()
        .any(|envelope| question(&envelope.message).is_some())
}

/// Messages on their way to one follower, in ascending order of their numbers, each with the moment
/// at which it left.
type Timed = VecDeque<(u64, Instant)>;

/// The timed messages of a leader that are on their way, and how long earlier ones took.
pub struct Rounds {
    /// The term in which these messages were sent.
    term: Term,
    followers: BTreeMap<NodeId, [Timed; 2]>,
    /// The times from an append to its acknowledgement.
    pub appends: Recent,
    /// The times from a heartbeat to its answer.
    pub heartbeats: Recent,
}

impl Rounds {
    pub fn new(now: Instant) -> Self {
        Self {
            term: 0,
            followers: BTreeMap::new(),
            appends: Recent::new(now),
            heartbeats: Recent::new(now),
        }
    }

    /// Notes that these messages leave now.
    pub fn sent(&mut self, messages: &[Envelope], now: Instant) {
        for Envelope {
            to, term, message, ..
        } in messages
        {
            let Some((kind, first, last)) = question(message) else {
                continue;
            };
            if *term != self.term {
                self.term = *term;
                self.followers.values_mut().flatten().for_each(Timed::clear);
            }
            let new = || [(); 2].map(|()| Timed::with_capacity(MAX_TIMED));
            let timed = &mut self.followers.entry(*to).or_insert_with(new)[kind as usize];
            // The message repeats an earlier one, which was lost, or whose answer would come too
            // early for this one: only the last of them is timed.
            while timed.back().is_some_and(|(number, _)| *number >= first) {
                timed.pop_back();
            }
            if timed.len() < MAX_TIMED {
                timed.push_back((last, now));
            }
        }
    }

    /// Notes that this acknowledgement has arrived now.
    pub fn acknowledged(&mut self, acknowledged: &Acknowledged, now: Instant) {
        let Acknowledged {
            from,
            term,
            kind,
            up_to,
        } = acknowledged;
        let Some(timed) = self.followers.get_mut(from).filter(|_| *term == self.term) else {
            return;
        };
        let timed = &mut timed[*kind as usize];
        let recent = match kind {
            Kind::Append => &mut self.appends,
            Kind::Heartbeat => &mut self.heartbeats,
        };
        while let Some((_, sent)) = timed.pop_front_if(|(number, _)| *number <= *up_to) {
            recent.note(sent, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::stages::recent::sum_up;
    use crate::raft::{Entry, EntryId, Payload};
    use crate::wire::client::Stage;

    const MS: Duration = Duration::from_millis(1);

    fn append(to: NodeId, term: Term, prev: u64, last: u64) -> Envelope {
        let id = |index| EntryId { term, index };
        let entry = |index| Entry {
            id: id(index),
            time_ms: 0,
            payload: Payload::Empty,
        };
        let message = Message::Append {
            prev: id(prev),
            entries: (prev + 1..=last).map(entry).collect(),
            commit: 0,
        };
        envelope(1, to, term, message)
    }

    fn envelope(from: NodeId, to: NodeId, term: Term, message: Message) -> Envelope {
        Envelope {
            from,
            from_folder: from.into(),
            to,
            to_folder: Some(to.into()),
            term,
            message,
        }
    }

    fn accepted(from: NodeId, term: Term, matched: u64) -> Acknowledged {
        let message = Message::Accepted { matched };
        Acknowledged::by(&envelope(from, 1, term, message)).expect("it acknowledges")
    }

    fn appends(rounds: &mut Rounds, now: Instant) -> Stage {
        sum_up("round", rounds.appends.copy(now))
    }

    #[test]
    fn an_acknowledgement_ends_all_that_it_covers_of_this_follower_and_term() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        rounds.sent(&[append(2, 5, 0, 3), append(3, 5, 0, 3)], start);
        rounds.sent(&[append(2, 5, 3, 4)], start + MS);
        rounds.sent(&[append(2, 5, 4, 9)], start + 2 * MS);
        let now = start + 10 * MS;
        rounds.acknowledged(&accepted(2, 4, 9), now);
        rounds.acknowledged(&accepted(4, 5, 9), now);
        assert_eq!(appends(&mut rounds, now).count, 0);
        rounds.acknowledged(&accepted(2, 5, 4), now);
        let stage = appends(&mut rounds, now);
        assert_eq!(stage.count, 2);
        assert!((9_900_000..10_100_000).contains(&stage.max_ns), "{stage:?}");
        rounds.acknowledged(&accepted(2, 5, 9), now);
        rounds.acknowledged(&accepted(2, 5, 9), now);
        rounds.acknowledged(&accepted(3, 5, 3), now);
        assert_eq!(appends(&mut rounds, now).count, 4);
    }

    #[test]
    fn what_is_sent_again_counts_from_then_on_and_what_another_term_sent_not_at_all() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        rounds.sent(&[append(2, 5, 0, 3)], start);
        rounds.sent(&[append(2, 5, 3, 6)], start);
        rounds.sent(&[append(2, 5, 1, 6)], start + 50 * MS);
        rounds.acknowledged(&accepted(2, 5, 6), start + 51 * MS);
        let stage = appends(&mut rounds, start);
        assert_eq!(stage.count, 1);
        assert!(stage.max_ns < 1_100_000, "{stage:?}");
        rounds.sent(&[append(2, 5, 6, 7)], start);
        rounds.sent(&[append(3, 6, 6, 7)], start);
        rounds.acknowledged(&accepted(2, 6, 7), start);
        assert_eq!(appends(&mut rounds, start).count, 1);
    }

    #[test]
    fn heartbeats_are_told_from_appends_and_what_is_repeated_counts_once() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        let heartbeat = |round| {
            envelope(
                1,
                2,
                5,
                Message::Heartbeat {
                    commit: 0,
                    matched_by_all: 0,
                    round,
                },
            )
        };
        for round in [0, 0, 7] {
            rounds.sent(&[heartbeat(round)], start);
        }
        let reply = envelope(2, 1, 5, Message::HeartbeatReply { round: 7 });
        let reply = Acknowledged::by(&reply).expect("it acknowledges");
        rounds.acknowledged(&reply, start + MS);
        let stage = sum_up("heartbeat", rounds.heartbeats.copy(start));
        assert_eq!(stage.count, 2);
        assert_eq!(appends(&mut rounds, start).count, 0);
    }

    #[test]
    fn probes_and_what_is_too_much_are_not_timed() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        assert!(!has_question(&[append(2, 5, 9, 9)]));
        for index in 0..10 * MAX_TIMED as u64 {
            rounds.sent(&[append(2, 5, index, index + 1)], start);
        }
        rounds.acknowledged(&accepted(2, 5, u64::MAX), start);
        assert_eq!(appends(&mut rounds, start).count, MAX_TIMED as u64);
    }
}
