//! A node that follows a leader, or waits for one (paper 5.2, 5.3).
//!
//! A follower lets the leader overwrite its log, with two exceptions: entries that are committed
//! here stay, and entries that no leader could have are not taken. A message that asks for the
//! first is proof of a lost or forged log, and recorded as a [`Fault`]; one that asks for the
//! second comes from a faulty node, and gets no answer.
//!
//! A follower asks for nothing: all that it lacks comes because the leader repeats its questions.
//! So each message may be dropped, and it is enough that those which are handled are handled
//! safely, in any order and any number of times.

use super::MAX_INDEX;
use super::common::Common;
use super::event::{Fault, Reason};
use super::message::Message;
use super::role::{Change, Role};
use super::snapshots::Part;
use super::types::{Entry, EntryId, Index, NodeId, RoleName};

/// The leader of the present term, as a follower knows it.
#[derive(Clone, Copy, Debug)]
struct Heard {
    id: NodeId,
    /// Nobody listens at the leader's address any more, and the leader was not heard since.
    is_absent: bool,
}

#[derive(Debug)]
pub(super) struct Follower {
    /// The leader of the present term, once it was heard. Its id does not change within a term.
    leader: Option<Heard>,
    /// Ticks since the leader was heard, a vote was given, or this node's own write returned;
    /// `elapsed < timeout` between two inputs.
    elapsed: u32,
    /// When `elapsed` reaches this, the node asks for pre-votes. Random, so that of the nodes that
    /// miss a leader one asks before the others (paper 5.2).
    timeout: u32,
}

impl Follower {
    /// A follower in the present term, which waits for a whole timeout from now on.
    pub fn new(common: &mut Common, leader: Option<NodeId>) -> Self {
        let is_absent = false;
        Self {
            leader: leader.map(|id| Heard { id, is_absent }),
            elapsed: 0,
            timeout: common.random_timeout(),
        }
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.leader.map(|leader| leader.id)
    }

    /// Whether a leader was heard that, as far as is known, still listens at its address.
    fn leader_listens(&self) -> bool {
        self.leader.is_some_and(|leader| !leader.is_absent)
    }

    /// Whether the leader was heard within the shortest election timeout: then votes are refused,
    /// so that a node that does not hear the leader cannot depose it (thesis 4.2.3).
    pub fn hears_leader(&self, common: &Common) -> bool {
        self.elapsed < common.config.election_ticks && self.leader_listens()
    }

    /// One tick has passed. Returns the candidate that this node becomes if it has waited enough.
    pub fn tick(&mut self, common: &mut Common) -> Change {
        self.elapsed += 1;
        if self.elapsed < self.timeout {
            return None;
        }
        // A learner, or a node whose folder is not admitted yet, must not lead: it waits on.
        if !common.may_vote() {
            self.elapsed = 0;
            return None;
        }
        let reason = match self.leader {
            Some(leader) if leader.is_absent => Reason::LeaderAbsent,
            _ => Reason::NoLeaderHeard,
        };
        Some(Role::ask_for_pre_votes(common, reason))
    }

    /// A vote was given to another node: give it the time to win.
    pub fn voted(&mut self) {
        self.elapsed = 0;
    }

    /// The node's own write has returned. A slow disk must not look like a dead leader, so the
    /// leader that is followed gets a whole timeout from now on.
    pub fn disk_returned(&mut self) {
        if self.leader_listens() {
            self.elapsed = 0;
        }
    }

    /// Nobody listens at a peer's address; see [`Raft::absent`](super::Raft::absent).
    pub fn absent(&mut self, common: &mut Common, peer: NodeId) {
        if let Some(leader) = &mut self.leader
            && leader.id == peer
            && !leader.is_absent
        {
            leader.is_absent = true;
            let soon = self.elapsed + common.short_timeout();
            // Sooner only, never later: a broken connection must not prolong the wait.
            self.timeout = self.timeout.min(soon);
        }
    }

    /// Handles a message of the present term.
    pub fn step(&mut self, common: &mut Common, from: NodeId, message: Message) -> Change {
        // Only the leader of the term sends these three, so each is a sign of life of it. If there
        // are two leaders, nothing that either says may be trusted.
        let is_from_leader = matches!(
            message,
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. }
        );
        if is_from_leader && !self.hear(common, from) {
            return None;
        }
        match message {
            Message::Append {
                prev,
                entries,
                commit,
            } => append(common, from, prev, entries, commit),
            Message::Heartbeat {
                commit,
                matched_by_all,
                round,
            } => heartbeat(common, from, commit, matched_by_all, round),
            Message::Snapshot {
                meta,
                bytes,
                offset,
                data,
            } => {
                let part = Part {
                    meta,
                    bytes,
                    offset,
                    data,
                };
                snapshot_part(common, from, part);
            }
            // The leader wants this node to lead. No pre-vote: the others hear the leader, and
            // would refuse (thesis 3.10). An old one, repeated, only brings about an election,
            // which is always safe.
            Message::TimeoutNow if common.may_vote() => {
                return Some(Role::campaign(common, Reason::AskedToLead));
            }
            // Answers to what this node asked in an earlier role of the same term. To drop them is
            // safe: their senders do not wait, and this node counts nothing any more. `TimeoutNow`
            // gets here at a node that must not lead; the leader gives the transfer up in time.
            // `Outdated` has said all that it says by its term.
            _ => {}
        }
        None
    }

    /// Takes note of a sign of life of the leader. False if it comes from a second leader of the
    /// same term, which proves that a voter has voted twice.
    fn hear(&mut self, common: &mut Common, from: NodeId) -> bool {
        match &mut self.leader {
            Some(known) if known.id != from => {
                common.fault.get_or_insert(Fault::TwoLeaders {
                    known: known.id,
                    other: from,
                    term: common.term(),
                });
                return false;
            }
            // The leader lives after all: the shortened timeout must not stay, or this node would
            // ask for pre-votes after each short pause.
            Some(known) if known.is_absent => {
                known.is_absent = false;
                self.timeout = common.random_timeout();
            }
            Some(_) => {}
            None => {
                let (id, is_absent) = (from, false);
                self.leader = Some(Heard { id, is_absent });
                common.report(RoleName::Follower, Some(id), Reason::LeaderHeard);
            }
        }
        self.elapsed = 0;
        true
    }
}

/// Handles an append of the present term's leader (paper figure 2, AppendEntries 2 to 5).
///
/// A repeated or late append changes nothing: entries that are there already stay, with what
/// follows them, and the answer is the same. An answer always says something that is true of this
/// node's disk by the time it leaves.
fn append(common: &mut Common, from: NodeId, prev: EntryId, entries: Vec<Entry>, commit: Index) {
    if !follow_each_other(common, prev, &entries) {
        // No leader sends this; the bytes are from a faulty node. It gets no answer.
        return;
    }
    // Where this append shows the logs to be equal, once `prev` matches and `entries` are taken.
    let verified = prev.index + entries.len() as Index;
    let committed = common.log.committed();
    match common.log.term_at(prev.index) {
        // The same id, so the logs are equal up to here (paper 5.3, log matching).
        Some(term) if term == prev.term => {}
        // The log up to the base is covered by a snapshot and therefore committed: it matches.
        None if prev.index < common.log.base().index => {}
        // Another entry where this node's is committed: the leader has lost or changed its log, or
        // this node has.
        Some(_) if prev.index <= committed => {
            common
                .fault
                .get_or_insert(Fault::CommittedEntryContradicted {
                    leader: from,
                    index: prev.index,
                });
            return;
        }
        // No entry at `prev`, or one of another term that is not committed: the leader has to go
        // back to where the logs may agree.
        _ => {
            let conflict = common.log.conflict_at(prev);
            let prev = prev.index;
            common.send(from, Message::Rejected { prev, conflict });
            return;
        }
    }
    match take_over(common, entries) {
        Ok(()) => {}
        Err(Wrong::ContradictsCommitted(index)) => {
            let fault = Fault::CommittedEntryContradicted {
                leader: from,
                index,
            };
            common.fault.get_or_insert(fault);
            return;
        }
        // No leader's log has its time go back, and the state machine relies on that. The bytes are
        // from a faulty node; they get no answer.
        Err(Wrong::TimeGoesBack) => return,
    }
    // Not as far as this log reaches: what lies behind `verified` may contradict the leader's, and
    // would be executed. Not below `committed` either: a late append carries an old commit index.
    common.log.commit_to(commit.min(verified).max(committed));
    common.acknowledge(from, verified);
}

/// What is wrong with entries that no leader has.
enum Wrong {
    /// The entry at this index is not the one that is committed here.
    ContradictsCommitted(Index),
    /// An entry's cluster time lies before that of the entry that precedes it.
    TimeGoesBack,
}

/// Appends what the log does not have yet, in place of what contradicts it. The entries follow each
/// other, and the first one follows an entry that this log shares with the leader's.
fn take_over(common: &mut Common, entries: Vec<Entry>) -> Result<(), Wrong> {
    for entry in entries {
        let id = entry.id;
        // Covered by a snapshot, hence committed: it is the same entry.
        if id.index < common.log.base().index {
            continue;
        }
        match common.log.term_at(id.index) {
            // It is there already. Only a contradiction truncates: this append may be an old one
            // that later ones have overtaken, whose entries follow here and are acknowledged (paper
            // 5.3).
            Some(term) if term == id.term => continue,
            // A committed entry is never replaced.
            Some(_) if id.index <= common.log.committed() => {
                return Err(Wrong::ContradictsCommitted(id.index));
            }
            // Another entry, from a leader that did not get a quorum for it: all from here on goes.
            Some(_) => common.log.truncate(id.index),
            // Behind the end of the log.
            None => {}
        }
        if entry.time_ms < common.log.last_time_ms() {
            return Err(Wrong::TimeGoesBack);
        }
        common.log.push(entry);
    }
    Ok(())
}

/// Whether these are entries that some leader of this term could have in its log after `prev`.
fn follow_each_other(common: &Common, prev: EntryId, entries: &[Entry]) -> bool {
    // Only what stands before the first entry has no term, and it has no index either.
    let real = (prev.index == 0) == (prev.term == 0);
    let mut last = prev;
    // In every log indexes have no gap, and terms do not go back (paper 5.3).
    let consecutive = entries.iter().all(|entry| {
        let next = last.index.checked_add(1);
        let follows = Some(entry.id.index) == next && entry.id.term >= last.term;
        last = entry.id;
        follows
    });
    let in_order_of_time = entries.is_sorted_by_key(|entry| entry.time_ms);
    // No leader has an entry of a term later than its own.
    real && consecutive && in_order_of_time && last.term <= common.term()
}

/// Handles a heartbeat of the present term's leader. The answer confirms that this node is still in
/// the leader's term, and waits for no entry to be written: it speaks of none.
///
/// The heartbeat carries no more of the commit index than this node has acknowledged to this
/// leader, which is equal to the leader's log. So the index may be taken over without a look at the
/// entries, and one behind the end of this log proves that the disk has lost what it had reported
/// as synced. Then there is no answer: it would be a sign of life.
fn heartbeat(common: &mut Common, from: NodeId, commit: Index, matched_by_all: Index, round: u64) {
    let last = common.log.last().index;
    if commit > last {
        common.fault.get_or_insert(Fault::AcknowledgedEntriesLost {
            acknowledged: commit,
            last,
        });
        return;
    }
    common.log.commit_to(commit);
    common.log.set_matched_by_all(matched_by_all);
    common.send(from, Message::HeartbeatReply { round });
}

/// Handles a part of a snapshot from the present term's leader (paper figure 13).
fn snapshot_part(common: &mut Common, from: NodeId, part: Part) {
    let EntryId { term, index } = part.meta.last;
    if !(1..=common.term()).contains(&term) || index > MAX_INDEX {
        // No leader of this term has such an entry; the bytes are from a faulty node, which gets no
        // answer. An index that is not dropped here may be counted on from without overflow.
        return;
    }
    let end = part.offset.checked_add(part.data.len() as u64);
    if part.data.is_empty() || end.is_none_or(|end| end > part.bytes) {
        // No leader sends a part without data or beyond the end of the file: the bytes are from a
        // faulty node, which gets no answer.
        return;
    }
    if index <= common.log.committed() {
        // What the snapshot covers is committed here, so the logs are equal up to there, and the
        // leader is told so: it then sends entries again.
        common.acknowledge(from, index);
        return;
    }
    common.snapshots.receive(part);
}
