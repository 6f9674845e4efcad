//! How a leader sends a snapshot to one follower (paper section 7): in parts, few at a time, from
//! where the follower says that it is.
//!
//! The sender keeps two offsets into the snapshot's file, `received <= sent <= size`. The bytes
//! before `received` are on the follower's disk, as it has said itself. The bytes from `received`
//! to `sent` are on their way. No part carries a number: the follower stores the part that it needs
//! next, drops every other one, and answers with its offset. So a part that is lost, repeated or
//! late does no harm, and a lost answer is made up for by the next one.
//!
//! When the follower's answers stop, the sender goes back to `received` and sends one part only.
//! The waiting time doubles with each repetition, and one answer that shows progress opens the
//! whole window again.
//!
//! Only parts are sent, and no part is empty. A message that merely asks how far the follower is
//! would say nothing that a part does not say: the follower answers every part with its offset.
//! This needs a part that can be repeated until the follower has installed the snapshot, so
//! `received < size` always. The follower does not answer the last part with the size of the file.
//! It verifies and installs the snapshot and answers with [`Message::Accepted`], or it finds the
//! file bad and answers with the offset 0.
//!
//! [`Message::Accepted`]: super::message::Message::Accepted

use std::ops::Range;

use super::types::{EntryId, SnapshotMeta};

/// The most heartbeats that pass before a silent follower is sent a part again.
const MAX_PATIENCE: u32 = 64;

/// A snapshot whose file is on this node's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The last entry that the snapshot covers, with its cluster time and the members then.
    pub meta: SnapshotMeta,
    /// The size of its file, in bytes; never 0, because a file has a header.
    pub bytes: u64,
}

/// One follower that is being sent a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SnapshotSending {
    snapshot: StoredSnapshot,
    /// The follower has the file up to here, exclusive: `received < snapshot.bytes`.
    received: u64,
    /// Where in the file the last part that was sent ends: `received <= sent <= snapshot.bytes`.
    sent: u64,
    /// The offset of the follower's last answer since something was sent again. It is smaller than
    /// `received` if the follower had to start over, or if the answer is an old one that was late.
    claimed: Option<u64>,
    pace: Pace,
    answers: Answers,
    /// After how many heartbeats without progress the bytes on their way count as lost; at least 1,
    /// at most [`MAX_PATIENCE`]. On a slow or long way a part takes longer than a heartbeat and is
    /// not lost, and to repeat such parts would leave no room for new ones. So the number doubles
    /// with each repetition, as TCP's retransmission timeout does (RFC 6298, 5.5).
    patience: u32,
}

/// How many bytes of the snapshot may be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// The follower answers: as many bytes as the window holds.
    Streaming,
    /// The follower fell silent: one part, to learn whether parts arrive at all.
    Probing,
}

/// Whether the follower's answers show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// An answer has shown progress since the last heartbeat, or sending began after that
    /// heartbeat.
    Progress,
    /// No answer has shown progress for this many heartbeats in a row; less than `patience`.
    Silence { heartbeats: u32 },
}

impl SnapshotSending {
    /// # Panics
    /// If the snapshot's file is empty, which no file of a snapshot is.
    pub fn new(snapshot: StoredSnapshot) -> Self {
        assert!(snapshot.bytes > 0, "the file of a snapshot has a header");
        Self {
            snapshot,
            received: 0,
            sent: 0,
            claimed: None,
            pace: Pace::Streaming,
            answers: Answers::Progress,
            patience: 1,
        }
    }

    /// The last entry that the snapshot covers: it tells this snapshot from others.
    pub fn last(&self) -> EntryId {
        self.snapshot.meta.last
    }

    pub fn snapshot(&self) -> &StoredSnapshot {
        &self.snapshot
    }

    /// The offset up to which the follower has the file, exclusive.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The offsets of the next part to send, if one may be sent now; never empty. The part counts
    /// as sent.
    pub fn next_part(&mut self, part_bytes: u64, window_bytes: u64) -> Option<Range<u64>> {
        let on_their_way = self.sent - self.received;
        // The last part may reach beyond the window: otherwise a window smaller than a part would
        // let nothing through.
        let has_room = match self.pace {
            Pace::Streaming => on_their_way < window_bytes,
            Pace::Probing => on_their_way == 0,
        };
        let rest = self.snapshot.bytes - self.sent;
        if !has_room || rest == 0 {
            return None;
        }
        let start = self.sent;
        self.sent += part_bytes.min(rest);
        Some(start..self.sent)
    }

    /// The follower says that it has the file of the snapshot up to `last` as far as `received`.
    pub fn answered(&mut self, last: EntryId, received: u64) {
        // An answer about another snapshot was late. No follower says that it has the whole of this
        // file: see the head of this file. A follower may say so of another file of the same
        // snapshot, which an earlier leader has sent. If that were believed, no part would be left
        // to repeat, and the follower would never be heard again. To drop either answer is safe:
        // parts are repeated until an answer shows progress.
        if last != self.last() || received >= self.snapshot.bytes {
            return;
        }
        self.claimed = Some(received);
        if received > self.received {
            self.progressed(received);
        } else if received == 0 && self.received > 0 {
            // The follower has lost what it had, most likely by a restart: sending starts again at
            // once. If the answer is an old one from the very beginning, parts are sent twice,
            // which does no harm.
            self.received = 0;
            self.sent = 0;
        }
    }

    /// An answer shows that the follower has more of the file than before.
    fn progressed(&mut self, received: u64) {
        if let Answers::Silence { heartbeats } = self.answers {
            // The answer took this many heartbeats, so it is enough to wait twice as long for the
            // next one.
            self.patience = self.patience.min((2 * heartbeats).max(1));
        }
        self.answers = Answers::Progress;
        self.pace = Pace::Streaming;
        self.received = received;
        // The answer may speak of a part that counted as lost and has arrived all the same.
        self.sent = self.sent.max(received);
    }

    /// A heartbeat is due. Bytes that have been on their way for too long count as lost.
    pub fn heartbeat_due(&mut self) {
        let heartbeats = match self.answers {
            Answers::Progress => 0,
            Answers::Silence { heartbeats } if heartbeats + 1 < self.patience => heartbeats + 1,
            Answers::Silence { .. } => {
                self.send_again();
                0
            }
        };
        self.answers = Answers::Silence { heartbeats };
    }

    /// Goes back to what the follower has, and sends one part at a time from there.
    fn send_again(&mut self) {
        self.patience = (self.patience * 2).min(MAX_PATIENCE);
        // An offset below `received` is believed only now, and not when the answer arrived: that
        // answer may have been an old one that was delayed. The last answer before a long silence
        // is not old.
        let claimed = self.claimed.take().unwrap_or(self.received);
        self.received = self.received.min(claimed);
        self.sent = self.received;
        self.pace = Pace::Probing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::LoggedConfiguration;

    const LAST: EntryId = EntryId { term: 2, index: 9 };

    fn sending(bytes: u64) -> SnapshotSending {
        let configuration = LoggedConfiguration::default();
        let meta = SnapshotMeta {
            last: LAST,
            time_ms: 0,
            configuration,
        };
        SnapshotSending::new(StoredSnapshot { meta, bytes })
    }

    fn part(offset: u64, length: u64) -> Option<Range<u64>> {
        Some(offset..offset + length)
    }

    #[test]
    fn parts_flow_within_the_window_as_the_follower_takes_them() {
        let mut sending = sending(25);
        assert_eq!(sending.next_part(10, 20), part(0, 10));
        assert_eq!(sending.next_part(10, 20), part(10, 10));
        assert_eq!(sending.next_part(10, 20), None);
        sending.answered(LAST, 10);
        assert_eq!(sending.next_part(10, 20), part(20, 5));
        sending.answered(LAST, 25);
        assert_eq!(sending.next_part(10, 20), None);
    }

    #[test]
    fn a_lost_part_is_sent_again_after_a_silent_heartbeat() {
        let mut sending = sending(30);
        while sending.next_part(10, 30).is_some() {}
        sending.answered(LAST, 10);
        sending.heartbeat_due();
        assert_eq!(sending.next_part(10, 30), None, "something moved");
        sending.heartbeat_due();
        assert_eq!(sending.next_part(10, 30), part(10, 10));
    }

    #[test]
    fn a_follower_that_had_to_start_over_is_sent_what_it_lost() {
        let mut sending = sending(30);
        while sending.next_part(10, 30).is_some() {}
        sending.answered(LAST, 20);
        // The follower's disk was full: it started over, and one late part is all that it has now.
        sending.answered(LAST, 10);
        sending.heartbeat_due();
        sending.heartbeat_due();
        assert_eq!(sending.next_part(10, 30), part(10, 10));
    }

    #[test]
    fn what_is_only_late_is_repeated_ever_more_rarely_and_one_part_at_a_time() {
        let mut sending = sending(1000);
        while sending.next_part(10, 100).is_some() {}
        let mut repeated = Vec::new();
        for heartbeat in 0..40 {
            sending.heartbeat_due();
            while let Some(part) = sending.next_part(10, 100) {
                assert_eq!(part, 0..10);
                repeated.push(heartbeat);
            }
        }
        assert_eq!(repeated, [1, 3, 7, 15, 31]);
        // An answer shows progress: the whole window may be sent, and two heartbeats of silence are
        // no reason to repeat.
        sending.answered(LAST, 10);
        assert_eq!(sending.next_part(10, 100), part(10, 10));
        assert_eq!(sending.next_part(10, 100), part(20, 10));
        sending.heartbeat_due();
        sending.heartbeat_due();
        assert_eq!(sending.next_part(10, 20), None);
    }

    #[test]
    fn a_follower_that_came_back_without_it_gets_it_from_the_beginning() {
        let mut sending = sending(30);
        while sending.next_part(10, 30).is_some() {}
        sending.answered(LAST, 20);
        sending.answered(LAST, 0);
        assert_eq!(sending.next_part(10, 30), part(0, 10));
    }

    /// The follower has the whole file, and says so only by its acknowledgement of the last entry.
    #[test]
    fn the_last_part_is_sent_again_until_the_snapshot_is_acknowledged() {
        let mut sending = sending(20);
        while sending.next_part(10, 20).is_some() {}
        sending.answered(LAST, 10);
        for _ in 0..3 {
            assert_eq!(sending.next_part(10, 20), None);
            while sending.sent == 20 {
                sending.heartbeat_due();
            }
            assert_eq!(sending.next_part(10, 20), part(10, 10));
        }
    }

    #[test]
    fn answers_about_another_snapshot_or_that_claim_the_whole_file_move_nothing() {
        let mut sending = sending(30);
        sending.answered(EntryId { term: 1, index: 9 }, 10);
        sending.answered(LAST, 30);
        sending.answered(LAST, 31);
        assert_eq!(sending, self::sending(30), "an answer was believed");
    }
}
