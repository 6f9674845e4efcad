//! How the leader brings its followers up to date: entries (paper 5.3), and snapshots where the
//! entries are gone (paper section 7).
//!
//! What may be sent to a follower is decided by what is known of it, its [`Progress`]; this file
//! reads the log and makes the messages. Nothing here is needed for safety: a follower takes over
//! only what follows an entry that it shares with the leader, and a commit counts only what a
//! follower has acknowledged. What is at stake is that every follower catches up in the end,
//! whatever is lost, and that none costs more memory, disk or network than its limits allow.

use super::common::Common;
use super::leader::Leader;
use super::message::{Conflict, Message, Receiver};
use super::progress::Progress;
use super::snapshot_sending::StoredSnapshot;
use super::types::{Entry, EntryId, Index, NodeId};

impl Leader {
    /// Asks each follower that owes an acknowledgement, and has sent none since the last heartbeat,
    /// where the logs agree. Only this finds out what was lost: no message has a timer of its own.
    pub(super) fn repeat_questions(&mut self, common: &mut Common) {
        // A follower that needs a snapshot cannot be asked: the log no longer holds the entry that
        // the question would name.
        for (id, progress) in &mut self.progress {
            if progress.heartbeat_due() && !progress.needs_snapshot(common.log.base().index) {
                progress.asked();
                let to = receiver(*id, progress);
                send_question(common, to, progress.next());
            }
        }
    }

    /// Sends every follower a heartbeat: a sign of life, the question of the present round of
    /// confirmations, and how far the follower may commit.
    pub(super) fn send_heartbeats(&mut self, common: &mut Common) {
        let (round, committed) = (self.reads.number(), common.log.committed());
        let matched_by_all = self.matched_by_all(common);
        for (id, progress) in &self.progress {
            // No further than the follower is known to have the log: past that its log may hold
            // entries of another leader, which it must not execute.
            let commit = committed.min(progress.matched());
            let heartbeat = Message::Heartbeat {
                commit,
                matched_by_all,
                round,
            };
            common.ask(receiver(*id, progress), heartbeat);
        }
    }

    /// The index up to which every member, this node included, has the log on its disk. Learners
    /// count too: they need the entries as much as voters do.
    fn matched_by_all(&self, common: &Common) -> Index {
        let members = self.progress.values().filter(|p| p.departing.is_none());
        let others = members.map(Progress::matched);
        others.fold(common.log.durable(), Index::min)
    }

    /// Sends the follower all that it may be sent now: parts of a snapshot, one question, or
    /// entries. The follower's [`Progress`] allows only one of the three at a time.
    pub(super) fn send_appends(&mut self, common: &mut Common, id: NodeId) {
        let Some(progress) = self.progress.get_mut(&id) else {
            return;
        };
        let to = receiver(id, progress);
        let base = common.log.base().index;
        if progress.needs_snapshot(base) {
            // A follower that is down gets a snapshot when it has answered a heartbeat. Until then
            // a snapshot would be read, and perhaps even taken, for nobody. One that has
            // left needs no state any more.
            if !progress.active || progress.departing.is_some() {
                return;
            }
            // If no snapshot reaches up to the start of the log, this call has asked for a new one,
            // and a later call sends it.
            let Some(snapshot) = common.snapshots.reaching(base) else {
                return;
            };
            progress.send_snapshot(snapshot);
        }
        let sending = progress.sending();
        let needed = sending.map(|sending| (sending.last(), sending.received()));
        // Requests for parts that this follower has by now, or of a snapshot that it does not get
        // any more, are dropped: to read the parts would cost the disk for nothing.
        common.snapshots.keep_requests(id, needed);
        let (part_bytes, window) = (
            common.config.snapshot_part_bytes,
            common.config.snapshot_window_bytes,
        );
        while let Some((snapshot, part)) = progress.next_part(part_bytes, window) {
            common.request_part(to, snapshot, part);
        }
        if progress.may_ask() {
            progress.asked();
            send_question(common, to, progress.next());
        }
        let config = &common.config;
        let (max_messages, max_bytes) = (config.max_inflight_messages, config.max_inflight_bytes);
        let max_append = config.max_append_bytes;
        while progress.may_send(max_messages, max_bytes)
            && progress.next() <= common.log.last().index
        {
            let (last, weight) = send_entries(common, to, progress.next(), max_append);
            progress.sent(last, weight);
        }
    }

    /// A follower has its log on disk, equal to this leader's, up to `matched`.
    pub(super) fn accepted(&mut self, common: &mut Common, from: NodeId, matched: Index) {
        let Some(progress) = self.progress.get_mut(&from) else {
            return;
        };
        // An index beyond the log is dropped: no correct follower of this term says so, and to
        // count it would commit entries that do not exist yet.
        if matched <= common.log.last().index && progress.accepted(matched) {
            self.advance_commit(common);
            common.log.set_matched_by_all(self.matched_by_all(common));
            self.finish_transfer(common);
        }
    }

    /// A follower's log does not match at `prev`: finds the next place to ask about.
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
        let next = match conflict.term {
            // The follower names no term: it has worked out the index by itself.
            None => conflict.first_index,
            Some(term) => {
                let possible = common.log.last_index_up_to_term(term);
                match common.log.term_at(possible) == Some(term) {
                    // This leader has entries of the conflicting term: the logs may agree up to the
                    // last one.
                    true => possible + 1,
                    // It has none: every entry of that term at the follower is wrong, and so is
                    // every one after `possible`, where this leader's terms are higher.
                    false => conflict.first_index.min(possible + 1),
                }
            }
        };
        progress.rejected(prev, next);
    }

    /// The snapshot that is on its way to `to` cannot be read any more: another one has to be sent.
    /// Which one is decided when messages are collected next.
    pub fn snapshot_gone(&mut self, to: NodeId, gone: &StoredSnapshot) {
        if let Some(progress) = self.progress.get_mut(&to) {
            progress.abandon_snapshot(gone);
        }
    }

    /// Up to this index, inclusive, the log may be dropped. A follower that is being sent a
    /// snapshot will need the entries after the snapshot; without them it would need the next
    /// snapshot at once, and so on for ever. A follower that does not answer keeps nothing from
    /// being dropped.
    pub fn may_compact_to(&self) -> Index {
        let active = self.progress.values().filter(|progress| progress.active);
        let sendings = active.filter_map(Progress::sending);
        let lasts = sendings.map(|sending| sending.last().index);
        lasts.min().unwrap_or(Index::MAX)
    }
}

/// The follower as it is addressed.
pub(super) fn receiver(id: NodeId, progress: &Progress) -> Receiver {
    let folder = progress.folder;
    Receiver { id, folder }
}

/// Asks whether the follower's log agrees with this one right before `next`. The question is an
/// append without entries, so a yes is an acknowledgement like any other.
fn send_question(common: &mut Common, to: Receiver, next: Index) {
    send_append(common, to, next, Vec::new());
}

/// Sends the entries from `next` on, as many as weigh `max_bytes` together, but at least one.
/// Returns the index of the last one, and what they weigh together.
fn send_entries(
    common: &mut Common,
    to: Receiver,
    next: Index,
    max_bytes: usize,
) -> (Index, usize) {
    let entries = common.log.slice(next, Index::MAX, max_bytes);
    let weight = entries.iter().map(Entry::weight).sum();
    let last = next - 1 + entries.len() as Index;
    send_append(common, to, next, entries);
    (last, weight)
}

fn send_append(common: &mut Common, to: Receiver, next: Index, entries: Vec<Entry>) {
    let prev = EntryId {
        index: next - 1,
        term: common.log.term_at(next - 1).expect("next is in the log"),
    };
    let append = Message::Append {
        prev,
        entries,
        commit: common.log.committed(),
    };
    common.ask(to, append);
}
