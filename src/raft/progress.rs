//! What the leader knows of one follower, and what it may send to it next.

use std::collections::VecDeque;

use super::snapshot_sending::{Piece, SnapshotSending, StoredSnapshot};
use super::types::{EntryId, Index};

/// How entries flow to a follower.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is not known where the logs agree. One question at a time, without entries: a guess that
    /// fails costs nothing but the round trip.
    Probe {
        /// Whether the question has been asked. It is asked again with every heartbeat.
        asked: bool,
    },
    /// The logs agree up to `next - 1`, as far as has been heard: entries are sent without waiting
    /// for answers, within the limits on what is on its way.
    Replicate {
        /// The last index and the weight of each message that is on its way.
        in_flight: VecDeque<(Index, usize)>,
        /// The weights together.
        bytes: usize,
        /// Whether anything was acknowledged since the last heartbeat. If not, a message may have
        /// been lost.
        moved: bool,
    },
    /// The entries that the follower needs next are no longer held: it gets a snapshot.
    Snapshot(SnapshotSending),
}

#[derive(Debug)]
pub(super) struct Progress {
    /// The follower's log is known to equal the leader's up to here, durably.
    matched: Index,
    /// The next entry to send.
    next: Index,
    flow: Flow,
    /// Whether it has answered since the last quorum check (thesis 6.2). A new leader gives
    /// everybody the time until its first check. One that has not answered is sent no part of a
    /// snapshot: each costs a read of the disk. Heartbeats ask it whether it is back.
    pub active: bool,
    /// The highest round of read confirmations that it has answered.
    pub round: u64,
}

impl Progress {
    /// A follower of which a new leader knows nothing yet (paper figure 2: nextIndex starts behind
    /// the leader's last entry).
    pub fn new(last: Index) -> Self {
        Self {
            matched: 0,
            next: last + 1,
            flow: Flow::Probe { asked: false },
            active: true,
            round: 0,
        }
    }

    pub fn matched(&self) -> Index {
        self.matched
    }

    pub fn next(&self) -> Index {
        self.next
    }

    /// Whether a question about `next - 1` may be asked now.
    pub fn may_ask(&self) -> bool {
        self.flow == Flow::Probe { asked: false }
    }

    pub fn asked(&mut self) {
        if let Flow::Probe { asked } = &mut self.flow {
            *asked = true;
        }
    }

    /// Whether entries may be sent now.
    pub fn may_send(&self, max_messages: usize, max_bytes: usize) -> bool {
        match &self.flow {
            Flow::Replicate {
                in_flight, bytes, ..
            } => in_flight.len() < max_messages && *bytes < max_bytes,
            Flow::Probe { .. } | Flow::Snapshot(_) => false,
        }
    }

    /// How many messages with entries are on their way.
    pub fn in_flight(&self) -> usize {
        match &self.flow {
            Flow::Replicate { in_flight, .. } => in_flight.len(),
            Flow::Probe { .. } | Flow::Snapshot(_) => 0,
        }
    }

    /// Entries up to `last` have been sent.
    pub fn sent(&mut self, last: Index, weight: usize) {
        if let Flow::Replicate {
            in_flight, bytes, ..
        } = &mut self.flow
        {
            in_flight.push_back((last, weight));
            *bytes += weight;
            self.next = last + 1;
        }
    }

    /// The follower has acknowledged its log up to `index`. Returns whether that is news.
    pub fn accepted(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(index + 1);
        match &mut self.flow {
            // An answer to a question of long ago says nothing about the present one.
            Flow::Probe { .. } if index + 1 < self.next => {}
            // It has what the snapshot would bring, or at least not all of it yet.
            Flow::Snapshot(sending) if self.next <= sending.last().index => {}
            Flow::Probe { .. } | Flow::Snapshot(_) => self.replicate(),
            Flow::Replicate {
                in_flight,
                bytes,
                moved,
            } => {
                *moved |= news;
                while let Some((last, weight)) = in_flight.front().copied() {
                    if last > index {
                        break;
                    }
                    *bytes -= weight;
                    in_flight.pop_front();
                }
            }
        }
        news
    }

    fn replicate(&mut self) {
        self.flow = Flow::Replicate {
            in_flight: VecDeque::new(),
            bytes: 0,
            moved: true,
        };
    }

    /// The follower's log does not match at `prev`; the logs may agree right before `next`.
    /// Returns whether the rejection is news: a stale one, of a question that has been answered
    /// since, must not move anything back.
    pub fn rejected(&mut self, prev: Index, next: Index) -> bool {
        let asked = match self.flow {
            // Not `prev + 1`: a peer says what `prev` is. `next` is ours, and at least 1.
            Flow::Probe { .. } => prev == self.next - 1,
            Flow::Replicate { .. } => prev < self.next,
            Flow::Snapshot(_) => false,
        };
        // What was acknowledged matches for good. A follower that denies it has lost its disk: to
        // ask it again at once would go on without end.
        let fresh = asked && prev > self.matched;
        if fresh {
            self.next = next.clamp(self.matched + 1, prev);
            self.flow = Flow::Probe { asked: false };
        }
        fresh
    }

    /// Whether the next entry to send is one that the log, which begins behind `base`, no longer
    /// holds, and no snapshot is on its way yet. Such a follower cannot even be asked where it
    /// stands.
    pub fn needs_snapshot(&self, base: Index) -> bool {
        self.next <= base && !matches!(self.flow, Flow::Snapshot(_))
    }

    pub fn send_snapshot(&mut self, snapshot: StoredSnapshot) {
        self.flow = Flow::Snapshot(SnapshotSending::new(snapshot));
    }

    /// If this snapshot is on its way, it does not arrive.
    pub fn abandon_snapshot(&mut self, last: EntryId) {
        let is_on_its_way = self.sending().is_some_and(|sending| sending.last() == last);
        if is_on_its_way {
            self.flow = Flow::Probe { asked: false };
        }
    }

    /// The snapshot that is on its way.
    pub fn sending(&self) -> Option<&SnapshotSending> {
        match &self.flow {
            Flow::Snapshot(sending) => Some(sending),
            _ => None,
        }
    }

    /// The next part of the snapshot to send, if one is on its way and may be sent now: no more
    /// than the window holds, and none while the follower does not answer.
    pub fn next_piece(
        &mut self,
        part_bytes: u64,
        window_bytes: u64,
    ) -> Option<(StoredSnapshot, Piece)> {
        let Flow::Snapshot(sending) = &mut self.flow else {
            return None;
        };
        if !self.active {
            return None;
        }
        let piece = sending.next_piece(part_bytes, window_bytes)?;
        Some((sending.snapshot().clone(), piece))
    }

    /// The follower says how far it has received a snapshot.
    pub fn received(&mut self, last: EntryId, received: u64) {
        if let Flow::Snapshot(sending) = &mut self.flow {
            sending.answered(last, received);
        }
    }

    /// A heartbeat is due. Returns whether to ask where the follower stands, because what was sent
    /// may have been lost: nothing of it was acknowledged since the heartbeat before.
    pub fn heartbeat_due(&mut self) -> bool {
        match &mut self.flow {
            Flow::Probe { .. } => true,
            Flow::Replicate {
                in_flight, moved, ..
            } => !std::mem::replace(moved, false) && !in_flight.is_empty(),
            // Nothing is sent to a follower that does not answer, so nothing counts as lost.
            Flow::Snapshot(_) if !self.active => false,
            Flow::Snapshot(sending) => {
                sending.heartbeat_due();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Membership, SnapshotMeta};

    fn replicating(last: Index) -> Progress {
        let mut progress = Progress::new(last);
        progress.accepted(last);
        progress
    }

    #[test]
    fn a_probe_asks_once_and_again_with_each_heartbeat() {
        let mut progress = Progress::new(5);
        assert!(progress.may_ask());
        progress.asked();
        assert!(!progress.may_ask());
        assert!(progress.heartbeat_due());
    }

    #[test]
    fn a_stale_rejection_moves_nothing() {
        let mut progress = replicating(5);
        progress.sent(8, 100);
        assert!(!progress.rejected(5, 3), "matched up to 5 already");
        assert!(!progress.rejected(9, 3), "never sent");
        assert!(!Progress::new(5).rejected(Index::MAX, 3), "never asked");
        assert_eq!((progress.matched(), progress.next()), (5, 9));
        assert!(progress.rejected(7, 3));
        assert_eq!((progress.matched(), progress.next()), (5, 6));
    }

    #[test]
    fn a_rejection_goes_back_by_one_at_least() {
        let mut progress = Progress::new(5);
        assert!(progress.rejected(5, 99));
        assert_eq!(progress.next(), 5);
    }

    #[test]
    fn a_rejection_of_any_number_is_survived() {
        let mut progress = Progress::new(5);
        assert!(!progress.rejected(u64::MAX, u64::MAX));
        assert!(!progress.rejected(0, 0), "an empty log rejects nothing");
        assert_eq!(progress.next(), 6);
    }

    #[test]
    fn a_follower_that_denies_what_it_acknowledged_is_not_asked_again_at_once() {
        let mut progress = replicating(5);
        progress.sent(6, 10);
        assert!(progress.rejected(6, 1));
        progress.asked();
        assert!(!progress.rejected(5, 1));
        assert!(!progress.may_ask(), "not before the next heartbeat");
    }

    #[test]
    fn what_is_on_its_way_is_bounded_and_acknowledged_in_order() {
        let mut progress = replicating(0);
        progress.sent(2, 60);
        assert!(progress.may_send(2, 100));
        progress.sent(4, 60);
        assert!(!progress.may_send(9, 100) && !progress.may_send(2, 1000));
        assert!(progress.accepted(2));
        assert!(progress.may_send(2, 100));
        assert!(!progress.accepted(2), "the same acknowledgement again");
    }

    #[test]
    fn silence_between_two_heartbeats_leads_to_a_question_but_progress_does_not() {
        let mut progress = replicating(0);
        progress.sent(1, 10);
        assert!(!progress.heartbeat_due(), "just begun");
        assert!(progress.heartbeat_due(), "nothing moved since");
        progress.accepted(1);
        assert!(!progress.heartbeat_due());
    }

    #[test]
    fn a_follower_behind_the_log_gets_a_snapshot_until_it_is_past_it() {
        let mut progress = replicating(3);
        assert!(!progress.needs_snapshot(3));
        assert!(progress.needs_snapshot(4));
        let last = EntryId { term: 1, index: 9 };
        let meta = SnapshotMeta {
            last,
            time_ms: 0,
            membership: Membership::of_voters([1]),
        };
        progress.send_snapshot(StoredSnapshot { meta, bytes: 10 });
        assert!(!progress.needs_snapshot(4), "it is on its way");
        assert!(!progress.may_send(9, 100) && !progress.may_ask());
        progress.accepted(8);
        assert!(progress.sending().is_some(), "it has not all of it yet");
        progress.accepted(9);
        assert!(progress.sending().is_none() && progress.next() == 10);
    }
}
