//! Reads without a log write: the leader confirms that it still leads (thesis 6.4).
//!
//! All reads that wait are confirmed by one round of heartbeats, which starts after they arrived.
//! The answer to a heartbeat of round `n` confirms every round up to `n`: a node that
//! was still in this term after round `n` began was so after each earlier one.
//!
//! A lost heartbeat is not sent again: the next ordinary heartbeat carries the number of the last
//! round.

use std::collections::VecDeque;

use super::types::{Index, ReadId};

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The reads that have arrived and are in no round yet.
    waiting: Vec<ReadId>,
    /// The rounds that are not confirmed yet, oldest first; their numbers ascend, and the last one
    /// is at most `number`.
    rounds: VecDeque<Round>,
    /// The number of the last round begun; 0 before the first. It only grows within a term.
    number: u64,
    /// How many reads are in `waiting` and `rounds` together.
    pending: usize,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// The leader's commit index when the round began, inclusive. Every write that was acknowledged
    /// before the reads arrived lies at or below it.
    index: Index,
    /// The reads that had arrived when the round began; never empty.
    reads: Vec<ReadId>,
}

impl Reads {
    /// Takes in a read, for the next round.
    pub fn add(&mut self, id: ReadId) {
        self.waiting.push(id);
        self.pending += 1;
    }

    /// How many reads wait, in a round or for one.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The number of the last round begun, which each heartbeat carries.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Begins a round for the reads that wait, if any do. `commit` is the leader's commit index;
    /// the leader has committed an entry of its own term. Returns whether heartbeats are to be
    /// sent.
    pub fn begin_round(&mut self, commit: Index) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        self.number += 1;
        self.rounds.push_back(Round {
            number: self.number,
            index: commit,
            reads: std::mem::take(&mut self.waiting),
        });
        true
    }

    /// A quorum has confirmed all rounds up to `number`: those reads may be answered once the
    /// index that comes with each has been applied.
    pub fn confirmed(&mut self, number: u64) -> Vec<(ReadId, Index)> {
        let mut ready = Vec::new();
        while let Some(round) = self.rounds.front() {
            if round.number > number {
                break;
            }
            let index = round.index;
            ready.extend(round.reads.iter().map(|id| (*id, index)));
            self.rounds.pop_front();
        }
        self.pending -= ready.len();
        ready
    }

    /// Leadership is lost: returns all reads that wait, and forgets them. None can be answered
    /// here.
    pub fn abandon(&mut self) -> Vec<ReadId> {
        let Self {
            waiting, rounds, ..
        } = std::mem::take(self);
        let in_rounds = rounds.into_iter().flat_map(|round| round.reads);
        in_rounds.chain(waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_confirms_what_arrived_before_it_began_and_nothing_later() {
        let mut reads = Reads::default();
        reads.add(1);
        reads.add(2);
        assert!(reads.begin_round(10));
        reads.add(3);
        assert_eq!(reads.confirmed(1), [(1, 10), (2, 10)]);
        assert_eq!(reads.pending(), 1);
        assert!(reads.begin_round(12));
        assert_eq!(reads.confirmed(1), []);
        assert_eq!(reads.confirmed(2), [(3, 12)]);
    }

    #[test]
    fn no_read_no_round() {
        assert!(!Reads::default().begin_round(10));
    }

    #[test]
    fn abandoned_reads_are_all_named_once() {
        let mut reads = Reads::default();
        reads.add(1);
        reads.begin_round(1);
        reads.add(2);
        assert_eq!(reads.abandon(), [1, 2]);
    }
}
