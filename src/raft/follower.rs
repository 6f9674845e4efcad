//! A node that follows a leader, or waits for one (paper 5.2, 5.3).
//!
//! A follower lets the leader overwrite its log, with two exceptions: entries that are committed
//! here stay, and entries that no leader could have are not taken. A message that contradicts a
//! committed entry is proof of a lost or forged log, and recorded as a [`Fault`]; one with entries
//! that no leader could have comes from a faulty node, and gets no answer.
//!
//! A follower asks for nothing: all that it lacks comes because the leader repeats its questions.
//! So each message may be dropped, and it is enough that a message which is handled does no harm,
//! in any order and any number of times.

use super::common::Common;
use super::event::{Fault, Reason};
use super::message::{Message, Sender};
use super::role::{Change, Role};
use super::snapshots::Part;
use super::types::{Entry, EntryId, Index, NodeId, Payload, RoleName};

/// The leader of the present term, as a follower knows it.
#[derive(Clone, Copy, Debug)]
struct Heard {
    sender: Sender,
    /// Set when nobody listens at the leader's address; cleared when the leader is heard again.
    is_absent: bool,
}

#[derive(Debug)]
pub(super) struct Follower {
    /// The leader of the present term, once it was heard. Its id does not change within a term.
    leader: Option<Heard>,
    /// Ticks since the leader was heard, a vote was given, or this node's own write returned;
    /// `elapsed <= timeout`, and less between two inputs at a node that may campaign.
    elapsed: u32,
    /// When `elapsed` reaches this, the node asks for pre-votes. Random, so that of the nodes that
    /// miss a leader one asks before the others (paper 5.2).
    timeout: u32,
}

impl Follower {
    /// A follower in the present term, which waits for a whole timeout from now on.
    pub fn new(common: &mut Common, leader: Option<Sender>) -> Self {
        let is_absent = false;
        Self {
            leader: leader.map(|sender| Heard { sender, is_absent }),
            elapsed: 0,
            timeout: common.random_timeout(),
        }
    }

    pub fn leader(&self) -> Option<Sender> {
        self.leader.map(|leader| leader.sender)
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

    /// One tick has passed. Returns the role that stands for election, if the timeout is over.
    pub fn tick(&mut self, common: &mut Common) -> Change {
        self.elapsed = self.timeout.min(self.elapsed + 1);
        // A learner, or a node whose folder does not count, must not lead: it waits on. It still
        // knows how long, for the leader is as silent for it as for others that ask for its vote.
        if self.elapsed < self.timeout || !common.may_campaign() {
            return None;
        }
        let reason = match self.leader {
            Some(leader) if leader.is_absent => Reason::LeaderAbsent,
            _ => Reason::NoLeaderHeard,
        };
        Some(Role::ask_for_pre_votes(common, reason))
    }

    /// This node has voted for another one, which gets a whole timeout to win the election.
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
            && leader.sender.member.id == peer
            && !leader.is_absent
        {
            leader.is_absent = true;
            let soon = self.elapsed + common.short_timeout();
            // The timeout may only become shorter: a broken connection must not prolong the wait.
            self.timeout = self.timeout.min(soon);
        }
    }

    /// Handles a message of the present term.
    pub fn step(&mut self, common: &mut Common, from: Sender, message: Message) -> Change {
        // Only the leader of the term sends these three, so each shows that it lives. If two nodes
        // claim to lead the term, no message of either may be trusted.
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
            // would refuse (thesis 3.10). A late or repeated order only brings about an election,
            // which is always safe; from another node than the leader it is not taken.
            Message::TimeoutNow if common.may_campaign() && self.may_lead(from) => {
                return Some(Role::campaign(common, Reason::AskedToLead));
            }
            // Answers to what this node asked in an earlier role of the same term. To drop them is
            // safe: their senders do not wait, and this node counts nothing any more. `TimeoutNow`
            // gets here at a node that must not lead; the leader gives the transfer up in time.
            // `Outdated` carries nothing but its term, which has been looked at already.
            _ => {}
        }
        None
    }

    /// Whether this may be the leader of the term.
    fn may_lead(&self, from: Sender) -> bool {
        self.leader
            .is_none_or(|leader| leader.sender.member == from.member)
    }

    /// Takes note of a sign of life of the leader. False if it comes from a second leader of the
    /// same term, which proves that a voter has voted twice.
    fn hear(&mut self, common: &mut Common, from: Sender) -> bool {
        match self.leader {
            Some(known) if known.sender.member != from.member => {
                common.fault.get_or_insert(Fault::TwoLeaders {
                    known: known.sender.member.id,
                    other: from.member.id,
                    term: common.term(),
                });
                return false;
            }
            // The leader lives after all: the shortened timeout must not stay, or this node would
            // ask for pre-votes after each short pause.
            Some(known) if known.is_absent => self.timeout = common.random_timeout(),
            Some(_) => {}
            None => {
                let leader = Some(from.member.id);
                common.report(RoleName::Follower, leader, Reason::LeaderHeard);
            }
        }
        // Each time, because by now the leader may know the folder that it speaks to.
        self.leader = Some(Heard {
            sender: from,
            is_absent: false,
        });
        self.elapsed = 0;
        true
    }
}

/// Handles an append of the present term's leader (paper figure 2, AppendEntries 2 to 5).
///
/// A repeated or late append changes nothing: entries that are there already stay, with what
/// follows them, and the answer is the same. By the time an answer leaves, what it says is true of
/// this node's disk.
fn append(common: &mut Common, from: Sender, prev: EntryId, entries: Vec<Entry>, commit: Index) {
    if !follow_each_other(common, prev, &entries) {
        // No correct leader sends such entries: the sender is faulty, and gets no answer.
        return;
    }
    // Up to here, inclusive, the logs are equal once `prev` matches and `entries` are taken over.
    let verified = prev.index + entries.len() as Index;
    let committed = common.log.committed();
    match common.log.term_at(prev.index) {
        // The terms at `prev.index` are equal, so the logs are equal up to there (paper 5.3).
        Some(term) if term == prev.term => {}
        // `prev` lies before the base. Every entry up to the base is committed, so it matches.
        None if prev.index < common.log.base().index => {}
        // This log has another entry at `prev.index`, and it is committed: the leader has lost or
        // changed its log, or this node has.
        Some(_) if prev.index <= committed => {
            common
                .fault
                .get_or_insert(Fault::CommittedEntryContradicted {
                    leader: from.member.id,
                    index: prev.index,
                });
            return;
        }
        // This log has no entry at `prev.index`, or one of another term that is not committed: the
        // leader has to go back to where the logs may agree.
        _ => {
            let conflict = common.log.conflict_at(prev);
            let prev = prev.index;
            common.answer(from, Message::Rejected { prev, conflict });
            return;
        }
    }
    match take_over(common, entries) {
        Ok(()) => {}
        Err(Wrong::ContradictsCommitted(index)) => {
            let fault = Fault::CommittedEntryContradicted {
                leader: from.member.id,
                index,
            };
            common.fault.get_or_insert(fault);
            return;
        }
        // In no correct leader's log does cluster time go back, and the state machine relies on
        // that. The message is from a faulty node, and gets no answer.
        Err(Wrong::TimeGoesBack) => return,
    }
    // The commit index goes no further than `verified`: entries of this log past it may contradict
    // the leader's, and would be executed. Nor does it go back: a late append carries an old one.
    common.log.commit_to(commit.min(verified).max(committed));
    common.acknowledge(from, verified);
}

/// Why a follower does not take over entries that were sent to it.
enum Wrong {
    /// At this index this node has another entry, and that one is committed.
    ContradictsCommitted(Index),
    /// An entry's cluster time lies before that of the entry that precedes it.
    TimeGoesBack,
}

/// Appends the entries that the log lacks, and first drops those that contradict them. The entries
/// have consecutive indexes, and the first one follows an entry that both logs share.
fn take_over(common: &mut Common, entries: Vec<Entry>) -> Result<(), Wrong> {
    for entry in entries {
        let id = entry.id;
        // Before the base every entry is committed, so this log had the same entry.
        if id.index < common.log.base().index {
            continue;
        }
        match common.log.term_at(id.index) {
            // The log holds this entry already, and keeps what follows it: only a contradiction
            // truncates the log. This append may be an old one that later ones have overtaken,
            // whose entries follow here and are acknowledged (paper 5.3).
            Some(term) if term == id.term => continue,
            // A committed entry is never replaced.
            Some(_) if id.index <= common.log.committed() => {
                return Err(Wrong::ContradictsCommitted(id.index));
            }
            // An uncommitted entry of another term: it is dropped, with all that follow it (paper
            // 5.3).
            Some(_) => common.log.truncate(id.index),
            // The index lies past the end of the log, so nothing is to be dropped.
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
    // Only the position before the first entry has term 0, and only it has index 0.
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
    // What a faulty node says is a configuration is none.
    let sensible = entries.iter().all(|entry| match &entry.payload {
        Payload::Configuration(configuration) => configuration.validate().is_ok(),
        Payload::Empty | Payload::Command(_) => true,
    });
    // No leader has an entry of a term later than its own.
    real && sensible && consecutive && in_order_of_time && last.term <= common.term()
}

/// Handles a heartbeat of the present term's leader. The answer confirms that this node is still in
/// the leader's term, and waits for no entry to be written: it speaks of none.
///
/// The leader sends its commit index, but never more than this node has acknowledged to it, and up
/// to there the logs are equal. So this node takes the index over without a look at the entries. An
/// index past the end of this log proves that the disk has lost what it had reported as synced.
/// Then this node does not answer, because an answer would count as a sign of life.
fn heartbeat(common: &mut Common, from: Sender, commit: Index, matched_by_all: Index, round: u64) {
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
    common.answer(from, Message::HeartbeatReply { round });
}

/// Handles a part of a snapshot from the present term's leader (paper figure 13).
fn snapshot_part(common: &mut Common, from: Sender, part: Part) {
    if !part.is_possible(common.term()) {
        // The bytes are from a faulty node, which gets no answer.
        return;
    }
    let index = part.meta.last.index;
    if index <= common.log.committed() {
        // What the snapshot covers is committed here, so the logs are equal up to there, and the
        // leader is told so: it then sends entries again.
        common.acknowledge(from, index);
        return;
    }
    common.snapshots.receive(part);
}
