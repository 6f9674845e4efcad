//! What the leader knows of one follower, and what it may send to it next.
//!
//! Invariant, asserted by [`Raft::check`](super::Raft) between any two inputs:
//! `matched < next <= last + 1`, where `last` is the leader's last index.
//!
//! `matched` decides what is committed. It only grows, and only by the follower's own word about
//! its disk. `next` is a guess, and a wrong one costs a round trip: it may go back, but never to
//! `matched` or below.

use std::collections::VecDeque;
use std::ops::Range;

use super::catch_up::CatchUp;
use super::snapshot_sending::{SnapshotSending, StoredSnapshot};
use super::types::{EntryId, FolderId, Index};

/// How entries flow to a follower.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is not known where the logs agree. The leader asks one question at a time, by an append
    /// without entries, so a wrong guess costs nothing but the round trip.
    Probe {
        /// Whether the question about `next - 1` has been asked. It is asked again with every
        /// heartbeat, because it or its answer may have been lost.
        asked: bool,
    },
    /// The logs agree up to `next - 1`, as far as has been heard: entries are sent without waiting
    /// for answers, within the limits on what is on its way.
    Replicate {
        /// The last index, inclusive, and the weight of each message that is not acknowledged yet,
        /// oldest first: indexes ascend, and each is larger than `matched`.
        in_flight: VecDeque<(Index, usize)>,
        /// The sum of the weights in `in_flight`, in bytes.
        bytes: usize,
        /// Whether anything was acknowledged since the last heartbeat. If not, a message may have
        /// been lost.
        moved: bool,
    },
    /// The leader's log no longer holds the entries that the follower needs next: it gets a
    /// snapshot, and entries only when it has the snapshot.
    Snapshot(SnapshotSending),
}

#[derive(Debug)]
pub(super) struct Progress {
    /// The folder that the configuration has for the follower: requests are for this one.
    pub folder: Option<FolderId>,
    /// The first folder that has answered, where the configuration has none for the follower.
    /// Answers of another one do not count under this leader.
    pub answered: Option<FolderId>,
    /// Ticks since it last answered; since it is followed if it never did.
    pub silent_ticks: u32,
    /// How often it did not take over in time when this leader handed over to it.
    pub failed_transfers: u32,
    /// How far it is on the way to become a voter, if it is joining.
    pub catch_up: Option<CatchUp>,
    /// Set once it is no member any more. It counts for nothing, and is sent the log a little
    /// longer, so that it learns that it has left.
    pub departing: Option<Departing>,
    /// The follower has said that its log is on disk and equal to the leader's up to here,
    /// inclusive; 0 if it has said nothing yet. It never goes back.
    matched: Index,
    /// The index of the next entry to send, or to ask about: `matched < next <= last + 1`.
    next: Index,
    /// What may be sent to the follower now, and how its answers move `next`.
    flow: Flow,
    /// Whether the follower has answered since the last quorum check (thesis 6.2). At a new leader
    /// each follower counts as having answered until the first check. A follower that has not
    /// answered is sent no part of a snapshot, because each part costs a read of the disk.
    /// Heartbeats ask it whether it is back.
    pub active: bool,
    /// The highest round of read confirmations that the follower has answered; 0 before the first.
    /// It never goes back, and is never higher than the last round begun.
    pub round: u64,
}

/// A follower that has left.
#[derive(Debug)]
pub(super) struct Departing {
    /// Ticks since it left.
    pub ticks: u32,
    /// Where it is reached.
    pub address: String,
}

impl Progress {
    /// A follower of which a new leader knows nothing yet (paper figure 2: nextIndex starts right
    /// after the leader's last entry).
    pub fn new(folder: Option<FolderId>, last: Index) -> Self {
        Self {
            folder,
            answered: None,
            silent_ticks: 0,
            failed_transfers: 0,
            catch_up: None,
            departing: None,
            matched: 0,
            next: last + 1,
            flow: Flow::Probe { asked: false },
            active: true,
            round: 0,
        }
    }

    /// Whether it is the member that now has this folder: the same one, or the one that has
    /// answered while the configuration had none.
    pub fn is_of(&self, folder: Option<FolderId>) -> bool {
        self.folder == folder || self.folder.is_none() && self.answered == folder
    }

    /// Whether an answer of this folder is an answer of this follower. While the configuration has
    /// no folder for it, the first one that answers is.
    pub fn is_followed(&mut self, folder: FolderId) -> bool {
        let its = self.folder.unwrap_or(*self.answered.get_or_insert(folder));
        its == folder
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

    /// The question has been sent. While entries are streamed, or a snapshot is sent, there is
    /// nothing to note: an answer is judged by its index alone.
    pub fn asked(&mut self) {
        if let Flow::Probe { asked } = &mut self.flow {
            *asked = true;
        }
    }

    /// Whether entries may be sent now. The limits are on what is on its way before this message,
    /// so one message may exceed them: an entry larger than `max_bytes` is sent all the same.
    pub fn may_send(&self, max_messages: usize, max_bytes: usize) -> bool {
        match &self.flow {
            Flow::Replicate {
                in_flight, bytes, ..
            } => in_flight.len() < max_messages && *bytes < max_bytes,
            Flow::Probe { .. } | Flow::Snapshot(_) => false,
        }
    }

    /// Entries from `next` up to `last` have been sent, in one message of this weight.
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

    /// The follower has acknowledged its log up to `index`, inclusive, which the caller has found
    /// within the leader's log. Returns whether that is news. A late or repeated acknowledgement
    /// may come at any time; it changes nothing.
    pub fn accepted(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(index + 1);
        match &mut self.flow {
            // This answers an earlier question, about a lower index: whether the logs agree at
            // `next - 1` is still open.
            Flow::Probe { .. } if index + 1 < self.next => {}
            // The follower still lacks entries that only the snapshot can bring: the sending goes
            // on.
            Flow::Snapshot(sending) if self.next <= sending.last().index => {}
            // The question is answered with yes, or the snapshot is installed or not needed any
            // more: entries may follow.
            Flow::Probe { .. } | Flow::Snapshot(_) => self.replicate(),
            Flow::Replicate {
                in_flight,
                bytes,
                moved,
            } => {
                // An acknowledgement covers all messages up to its index: those which are not
                // acknowledged one by one have arrived too.
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

    /// Begins to stream entries from `next` on. Nothing is on its way yet.
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
            // Only the present question counts. Compared with `next - 1` and not `prev + 1`: a peer
            // says what `prev` is, so `prev + 1` might overflow. `next` is at least 1.
            Flow::Probe { .. } => prev == self.next - 1,
            // Any message on its way may be the one that was refused, because an earlier one was
            // lost. Each of them has a `prev` below `next`.
            Flow::Replicate { .. } => prev < self.next,
            // While a snapshot is sent no question is open. The leader asks again after the
            // snapshot.
            Flow::Snapshot(_) => false,
        };
        // What was acknowledged matches for good. A follower that denies it has lost its disk: to
        // ask it again at once would go on without end.
        let fresh = asked && prev > self.matched;
        if fresh {
            // `next` goes back by at least one, so that the search ends, but stays above `matched`.
            self.next = next.clamp(self.matched + 1, prev);
            self.flow = Flow::Probe { asked: false };
        }
        fresh
    }

    /// Whether the next entry to send is one that the log, which begins after `base`, no longer
    /// holds, and no snapshot is on its way yet. Such a follower cannot even be asked where it
    /// stands.
    pub fn needs_snapshot(&self, base: Index) -> bool {
        self.next <= base && !matches!(self.flow, Flow::Snapshot(_))
    }

    /// Begins to send a snapshot. `next` stays, so if the snapshot is abandoned,
    /// [`needs_snapshot`](Self::needs_snapshot) finds again that the follower needs one.
    pub fn send_snapshot(&mut self, snapshot: StoredSnapshot) {
        self.flow = Flow::Snapshot(SnapshotSending::new(snapshot));
    }

    /// The snapshot `gone` cannot be read any more. If it is on its way to the follower, its
    /// sending ends, and the leader asks again where the logs agree. The sending of another
    /// snapshot goes on, for this report may be late.
    pub fn abandon_snapshot(&mut self, gone: &StoredSnapshot) {
        let is_on_its_way = self
            .sending()
            .is_some_and(|sending| sending.snapshot() == gone);
        if is_on_its_way {
            self.flow = Flow::Probe { asked: false };
        }
    }

    /// The snapshot that is on its way to the follower.
    pub fn sending(&self) -> Option<&SnapshotSending> {
        match &self.flow {
            Flow::Snapshot(sending) => Some(sending),
            _ => None,
        }
    }

    /// The next part of the snapshot to send, if one is on its way and may be sent now: no more
    /// than the window holds, and none while the follower does not answer.
    pub fn next_part(
        &mut self,
        part_bytes: u64,
        window_bytes: u64,
    ) -> Option<(StoredSnapshot, Range<u64>)> {
        let Flow::Snapshot(sending) = &mut self.flow else {
            return None;
        };
        if !self.active {
            return None;
        }
        let part = sending.next_part(part_bytes, window_bytes)?;
        Some((sending.snapshot().clone(), part))
    }

    /// The follower says how far it has received a snapshot.
    pub fn received(&mut self, last: EntryId, received: u64) {
        if let Flow::Snapshot(sending) = &mut self.flow {
            sending.answered(last, received);
        }
    }

    /// A heartbeat is due. Returns whether to ask where the follower stands, because what was sent
    /// may have been lost: nothing was acknowledged since the last heartbeat.
    pub fn heartbeat_due(&mut self) -> bool {
        match &mut self.flow {
            Flow::Probe { .. } => true,
            Flow::Replicate {
                in_flight, moved, ..
            } => !std::mem::replace(moved, false) && !in_flight.is_empty(),
            // No part is sent to a follower that does not answer, so none counts as lost.
            Flow::Snapshot(_) if !self.active => false,
            Flow::Snapshot(sending) => {
                sending.heartbeat_due();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
