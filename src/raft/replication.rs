//! How the leader brings its followers up to date: entries (paper 5.3), and snapshots where the
//! entries are gone (paper section 7).

use super::common::Common;
use super::leader::Leader;
use super::message::{Conflict, Message};
use super::progress::Progress;
use super::types::{Entry, EntryId, Index, NodeId};

/// So many messages that are not full may be on their way to one follower. Its disk works on one
/// while the next arrives; what comes meanwhile gathers into a larger one (as by Nagle's algorithm,
/// RFC 896), which costs both sides and both disks less than many small ones.
const MAX_SMALL: usize = 2;

/// A message with so many bytes of entries is full: it is sent at once, however many are on their
/// way, so that a long way is filled as well.
const FULL: usize = 64 << 10;

impl Leader {
    /// Asks the followers of which nothing was heard since the last heartbeat where they stand.
    pub(super) fn repeat_questions(&mut self, common: &mut Common) {
        for (id, progress) in &mut self.progress {
            if progress.heartbeat_due() && !progress.needs_snapshot(common.log.base().index) {
                progress.asked();
                send_question(common, *id, progress.next());
            }
        }
    }

    pub(super) fn send_heartbeats(&mut self, common: &mut Common) {
        let (round, committed) = (self.reads.number(), common.log.committed());
        let matched_by_all = self.matched_by_all(common);
        for (id, progress) in &self.progress {
            let commit = committed.min(progress.matched());
            let heartbeat = Message::Heartbeat {
                commit,
                matched_by_all,
                round,
            };
            common.send(*id, heartbeat);
        }
    }

    /// Up to where every member has the log on its disk.
    fn matched_by_all(&self, common: &Common) -> Index {
        let others = self.progress.values().map(Progress::matched);
        others.fold(common.log.durable(), Index::min)
    }

    pub(super) fn send_appends(&mut self, common: &mut Common, id: NodeId) {
        let Some(progress) = self.progress.get_mut(&id) else {
            return;
        };
        let base = common.log.base().index;
        if progress.needs_snapshot(base) {
            // A follower that is down gets one when it has answered a heartbeat. Until then a
            // snapshot would be read, and perhaps even taken, for nobody.
            if !progress.active {
                return;
            }
            let Some(snapshot) = common.snapshots.reaching(base) else {
                return;
            };
            progress.send_snapshot(snapshot);
        }
        let sending = progress.sending();
        let needed = sending.map(|sending| (sending.last(), sending.received()));
        common.snapshots.keep_requests(id, needed);
        let (part_bytes, window) = (
            common.config.snapshot_part_bytes,
            common.config.snapshot_window_bytes,
        );
        while let Some((snapshot, piece)) = progress.next_piece(part_bytes, window) {
            common.request_part(id, snapshot, piece);
        }
        if progress.may_ask() {
            progress.asked();
            send_question(common, id, progress.next());
        }
        let config = &common.config;
        let (max_messages, max_bytes) = (config.max_inflight_messages, config.max_inflight_bytes);
        let max_append = config.max_append_bytes;
        while progress.may_send(max_messages, max_bytes)
            && progress.next() <= common.log.last().index
            && (progress.in_flight() < MAX_SMALL || common.log.weighs(progress.next(), FULL))
        {
            let (last, weight) = send_entries(common, id, progress.next(), max_append);
            progress.sent(last, weight);
        }
    }

    pub(super) fn accepted(&mut self, common: &mut Common, from: NodeId, matched: Index) {
        let Some(progress) = self.progress.get_mut(&from) else {
            return;
        };
        // Beyond the log: no follower of this term says so.
        if matched <= common.log.last().index && progress.accepted(matched) {
            self.advance_commit(common);
            common.log.set_matched_by_all(self.matched_by_all(common));
            self.finish_transfer(common);
        }
    }

    pub(super) fn rejected(
        &mut self,
        common: &mut Common,
        from: NodeId,
        prev: Index,
        conflict: Conflict,
    ) {
        let Some(progress) = self.progress.get_mut(&from) else {
            return;
        };
        // Where this leader has entries of the conflicting term too, the logs may agree up to the
        // last of them; otherwise not within that term at all (paper 5.3), nor where this leader's
        // terms are higher.
        let possible = common.log.last_index_up_to_term(conflict.term);
        let next = match common.log.term_at(possible) {
            _ if conflict.term == 0 => conflict.first_index,
            Some(term) if term == conflict.term => possible + 1,
            _ => conflict.first_index.min(possible + 1),
        };
        progress.rejected(prev, next);
    }

    /// The snapshot that is on its way to `to` cannot be read any more: another one has to be sent.
    pub fn snapshot_gone(&mut self, to: NodeId, last: EntryId) {
        if let Some(progress) = self.progress.get_mut(&to) {
            progress.abandon_snapshot(last);
        }
    }

    /// Up to where the log may be dropped: a follower that is being sent a snapshot will need what
    /// follows it. One that has fallen silent holds nothing up.
    pub fn may_compact_to(&self) -> Index {
        let active = self.progress.values().filter(|progress| progress.active);
        let sendings = active.filter_map(Progress::sending);
        let lasts = sendings.map(|sending| sending.last().index);
        lasts.min().unwrap_or(Index::MAX)
    }
}

/// Asks whether the follower's log agrees with this one right before `next`. The question is an
/// append without entries, so a yes is an acknowledgement like any other.
fn send_question(common: &mut Common, to: NodeId, next: Index) {
    send_append(common, to, next, Vec::new());
}

/// Sends the entries from `next` on, as many as weigh `max_bytes` together, but at least one.
/// Returns the index of the last one, and what they weigh together.
fn send_entries(common: &mut Common, to: NodeId, next: Index, max_bytes: usize) -> (Index, usize) {
    let entries = common.log.slice(next, Index::MAX, max_bytes);
    let weight = entries.iter().map(Entry::weight).sum();
    let last = next - 1 + entries.len() as Index;
    send_append(common, to, next, entries);
    (last, weight)
}

fn send_append(common: &mut Common, to: NodeId, next: Index, entries: Vec<Entry>) {
    let prev = EntryId {
        index: next - 1,
        term: common.log.term_at(next - 1).expect("next is in the log"),
    };
    let append = Message::Append {
        prev,
        entries,
        commit: common.log.committed(),
    };
    common.send(to, append);
}
