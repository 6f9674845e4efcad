//! A snapshot on its way to one follower (paper section 7): in parts, few at a time, from where
//! the follower says that it is.

use super::types::{EntryId, SnapshotMeta};

/// The most heartbeats that pass before a silent follower is sent a part again.
const MAX_PATIENCE: u32 = 64;

/// A snapshot whose file is on this node's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The size of its file, in bytes.
    pub bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct SnapshotTransfer {
    snapshot: StoredSnapshot,
    /// The follower has the file up to here.
    received: u64,
    /// What it said last, since something was sent again: less, if it had to start over.
    claimed: Option<u64>,
    /// Parts up to here are on their way.
    sent: u64,
    /// Whether the follower's answers have moved anything since the last heartbeat.
    moved: bool,
    /// How many heartbeats in a row nothing has moved.
    silent: u32,
    /// After how many of these what was sent counts as lost. On a slow or long way parts take
    /// longer than a heartbeat and are not lost: to repeat them over and over would leave no room
    /// for new ones. So it doubles with each repetition, as TCP's does (RFC 6298, 5.5).
    patience: u32,
    /// Only one part is on its way, as a question whether the way is there at all.
    careful: bool,
    /// Whether a question is due that carries no data.
    ask: bool,
}

impl SnapshotTransfer {
    pub fn new(snapshot: StoredSnapshot) -> Self {
        Self {
            snapshot,
            received: 0,
            claimed: None,
            sent: 0,
            moved: true,
            silent: 0,
            patience: 1,
            careful: false,
            ask: false,
        }
    }

    pub fn last(&self) -> EntryId {
        self.snapshot.meta.last
    }

    pub fn snapshot(&self) -> &StoredSnapshot {
        &self.snapshot
    }

    /// Up to where the follower has the file.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next part to send, as its offset and length, if one may be sent now.
    pub fn next_part(&mut self, part_bytes: u64, window_bytes: u64) -> Option<(u64, u64)> {
        let left = self.snapshot.bytes - self.sent;
        let offset = self.sent;
        let window_bytes = if self.careful { 1 } else { window_bytes };
        if left > 0 && self.sent - self.received < window_bytes {
            let length = left.min(part_bytes);
            self.sent += length;
            return Some((offset, length));
        }
        std::mem::take(&mut self.ask).then_some((self.snapshot.bytes, 0))
    }

    /// The follower says how far it is. If it lost what it had, it starts again from the beginning.
    pub fn answered(&mut self, last: EntryId, received: u64) {
        let of_this = last == self.last() && received <= self.snapshot.bytes;
        if of_this {
            self.claimed = Some(received);
        }
        if of_this && (received > self.received || received == 0) {
            if received > self.received {
                self.moved = true;
                self.careful = false;
                // Twice what it took now is patient enough for a way that has become quicker.
                self.patience = self.patience.min((2 * self.silent).max(1));
            }
            if received == 0 && self.received > 0 {
                self.sent = 0;
            }
            self.received = received;
            self.sent = self.sent.max(received);
        }
    }

    /// A heartbeat is due. What nothing was heard of for long enough is sent again.
    pub fn heartbeat_due(&mut self) {
        if std::mem::replace(&mut self.moved, false) {
            self.silent = 0;
            return;
        }
        self.silent += 1;
        if self.silent >= self.patience {
            self.silent = 0;
            self.patience = (self.patience * 2).min(MAX_PATIENCE);
            self.careful = true;
            // Not at once: an answer of long ago says less, too.
            let claimed = self.claimed.take().unwrap_or(self.received);
            self.received = self.received.min(claimed);
            self.sent = self.received;
            self.ask = self.received == self.snapshot.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Membership;

    const LAST: EntryId = EntryId { term: 2, index: 9 };

    fn transfer(bytes: u64) -> SnapshotTransfer {
        let membership = Membership::of_voters([1]);
        let meta = SnapshotMeta {
            last: LAST,
            time_ms: 0,
            membership,
        };
        SnapshotTransfer::new(StoredSnapshot { meta, bytes })
    }

    #[test]
    fn parts_flow_within_the_window_as_the_follower_takes_them() {
        let mut transfer = transfer(25);
        assert_eq!(transfer.next_part(10, 20), Some((0, 10)));
        assert_eq!(transfer.next_part(10, 20), Some((10, 10)));
        assert_eq!(transfer.next_part(10, 20), None);
        transfer.answered(LAST, 10);
        assert_eq!(transfer.next_part(10, 20), Some((20, 5)));
        transfer.answered(LAST, 25);
        assert_eq!(transfer.next_part(10, 20), None);
    }

    #[test]
    fn a_lost_part_is_sent_again_after_a_silent_heartbeat() {
        let mut transfer = transfer(30);
        while transfer.next_part(10, 30).is_some() {}
        transfer.answered(LAST, 10);
        transfer.heartbeat_due();
        assert_eq!(transfer.next_part(10, 30), None, "something moved");
        transfer.heartbeat_due();
        assert_eq!(transfer.next_part(10, 30), Some((10, 10)));
    }

    #[test]
    fn a_follower_that_had_to_start_over_is_sent_what_it_lost() {
        let mut transfer = transfer(30);
        while transfer.next_part(10, 30).is_some() {}
        transfer.answered(LAST, 20);
        // Its disk was full: it started over, and a part that was late is all that it has now.
        transfer.answered(LAST, 10);
        transfer.heartbeat_due();
        transfer.heartbeat_due();
        assert_eq!(transfer.next_part(10, 30), Some((10, 10)));
    }

    #[test]
    fn what_is_only_late_is_repeated_ever_more_rarely_and_one_part_at_a_time() {
        let mut transfer = transfer(1000);
        while transfer.next_part(10, 100).is_some() {}
        let mut repeated = Vec::new();
        for heartbeat in 0..40 {
            transfer.heartbeat_due();
            while let Some((offset, _)) = transfer.next_part(10, 100) {
                assert_eq!(offset, 0);
                repeated.push(heartbeat);
            }
        }
        assert_eq!(repeated, [1, 3, 7, 15, 31]);
        // It moves: the whole window again, and no hurry.
        transfer.answered(LAST, 10);
        assert_eq!(transfer.next_part(10, 100), Some((10, 10)));
        assert_eq!(transfer.next_part(10, 100), Some((20, 10)));
        transfer.heartbeat_due();
        transfer.heartbeat_due();
        assert_eq!(transfer.next_part(10, 20), None);
    }

    #[test]
    fn a_follower_that_came_back_without_it_gets_it_from_the_beginning() {
        let mut transfer = transfer(30);
        while transfer.next_part(10, 30).is_some() {}
        transfer.answered(LAST, 20);
        transfer.answered(LAST, 0);
        assert_eq!(transfer.next_part(10, 30), Some((0, 10)));
    }

    #[test]
    fn a_lost_last_answer_is_asked_for() {
        let mut transfer = transfer(10);
        transfer.next_part(10, 10);
        transfer.answered(LAST, 10);
        transfer.heartbeat_due();
        transfer.heartbeat_due();
        assert_eq!(transfer.next_part(10, 10), Some((10, 0)));
        assert_eq!(transfer.next_part(10, 10), None);
    }

    #[test]
    fn answers_about_another_snapshot_or_beyond_its_end_move_nothing() {
        let mut transfer = transfer(30);
        transfer.answered(EntryId { term: 1, index: 9 }, 10);
        transfer.answered(LAST, 31);
        assert_eq!(transfer, self::transfer(30));
    }
}
