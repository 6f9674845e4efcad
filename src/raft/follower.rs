//! A node that follows a leader, or waits for one (paper 5.2, 5.3).

use super::MAX_INDEX;
use super::common::Common;
use super::event::{Fault, Reason};
use super::message::Message;
use super::role::{Change, Role};
use super::snapshots::Part;
use super::types::{Entry, EntryId, Index, NodeId, RoleName};

#[derive(Debug)]
pub(super) struct Follower {
    leader: Option<NodeId>,
    /// Ticks since the leader was heard, or a vote was given.
    elapsed: u32,
    timeout: u32,
    /// Nobody listens at the leader's address any more.
    is_leader_absent: bool,
}

impl Follower {
    pub fn new(common: &mut Common, leader: Option<NodeId>) -> Self {
        Self {
            leader,
            elapsed: 0,
            timeout: common.random_timeout(),
            is_leader_absent: false,
        }
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether the leader was heard within the shortest election timeout: then votes are refused,
    /// so that a node that does not hear the leader cannot depose it (thesis 4.2.3).
    pub fn hears_leader(&self, common: &Common) -> bool {
        let heard = self.elapsed < common.config.election_ticks;
        self.leader.is_some() && heard && !self.is_leader_absent
    }

    pub fn tick(&mut self, common: &mut Common) -> Change {
        self.elapsed += 1;
        if self.elapsed < self.timeout {
            return None;
        }
        if !common.may_vote() {
            self.elapsed = 0;
            return None;
        }
        let reason = match self.is_leader_absent {
            true => Reason::LeaderAbsent,
            false => Reason::NoLeaderHeard,
        };
        Some(Role::ask_for_pre_votes(common, reason))
    }

    /// A vote was given to another node: give it the time to win.
    pub fn voted(&mut self) {
        self.elapsed = 0;
    }

    /// The node's own write has returned: a slow disk must not look like a dead leader.
    pub fn disk_returned(&mut self) {
        if self.leader.is_some() && !self.is_leader_absent {
            self.elapsed = 0;
        }
    }

    /// Nobody listens at a peer's address; see [`Raft::absent`](super::Raft::absent).
    pub fn absent(&mut self, common: &mut Common, peer: NodeId) {
        if self.leader == Some(peer) && !self.is_leader_absent {
            self.is_leader_absent = true;
            let soon = self.elapsed + common.short_timeout();
            self.timeout = self.timeout.min(soon);
        }
    }

    pub fn step(&mut self, common: &mut Common, from: NodeId, message: Message) -> Change {
        match message {
            Message::Append {
                prev,
                entries,
                commit,
            } => {
                if self.hear(common, from) {
                    append(common, from, prev, entries, commit);
                }
            }
            Message::Heartbeat {
                commit,
                matched_by_all,
                round,
            } => {
                if self.hear(common, from) && heartbeat(common, commit, matched_by_all) {
                    common.send(from, Message::HeartbeatReply { round });
                }
            }
            Message::Snapshot {
                meta,
                bytes,
                offset,
                data,
            } => {
                if self.hear(common, from) {
                    let part = Part {
                        meta,
                        bytes,
                        offset,
                        data,
                    };
                    snapshot_part(common, from, part);
                }
            }
            Message::TimeoutNow if common.may_vote() => {
                return Some(Role::campaign(common, Reason::AskedToLead));
            }
            // Answers to what this node asked in an earlier role of the same term. It has no use
            // for them, and their senders do not wait for anything.
            _ => {}
        }
        None
    }

    /// Takes note of a sign of life. False if it comes from a second leader of the same term.
    fn hear(&mut self, common: &mut Common, from: NodeId) -> bool {
        match self.leader {
            Some(known) if known != from => {
                common.fault.get_or_insert(Fault::TwoLeaders {
                    known,
                    other: from,
                    term: common.term(),
                });
                return false;
            }
            Some(_) => {}
            None => {
                self.leader = Some(from);
                common.report(RoleName::Follower, self.leader, Reason::LeaderHeard);
            }
        }
        self.elapsed = 0;
        if std::mem::take(&mut self.is_leader_absent) {
            self.timeout = common.random_timeout();
        }
        true
    }
}

/// Handles an append of the present term's leader (paper figure 2, AppendEntries 2 to 5).
fn append(common: &mut Common, from: NodeId, prev: EntryId, entries: Vec<Entry>, commit: Index) {
    if !follow_each_other(common, prev, &entries) {
        // No leader sends this; the bytes are from a faulty node. It gets no answer.
        return;
    }
    let verified = prev.index + entries.len() as Index;
    let committed = common.log.committed();
    match common.log.term_at(prev.index) {
        Some(term) if term == prev.term => {}
        // The log up to the base is covered by a snapshot and therefore committed: it matches.
        None if prev.index < common.log.base().index => {}
        Some(_) if prev.index <= committed => {
            common
                .fault
                .get_or_insert(Fault::CommittedEntryContradicted {
                    leader: from,
                    index: prev.index,
                });
            return;
        }
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
    // Not the log's own last entry: what lies behind `verified` may contradict the leader's.
    common.log.commit_to(commit.min(verified).max(committed));
    common.acknowledge(from, verified);
}

/// What is wrong with entries that no leader has.
enum Wrong {
    ContradictsCommitted(Index),
    TimeGoesBack,
}

/// Appends what the log does not have yet, in place of what contradicts it.
fn take_over(common: &mut Common, entries: Vec<Entry>) -> Result<(), Wrong> {
    for entry in entries {
        let id = entry.id;
        if id.index < common.log.base().index {
            continue;
        }
        match common.log.term_at(id.index) {
            // An append that was overtaken by later ones: what follows must stay (paper 5.3).
            Some(term) if term == id.term => continue,
            Some(_) if id.index <= common.log.committed() => {
                return Err(Wrong::ContradictsCommitted(id.index));
            }
            Some(_) => common.log.truncate(id.index),
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
    let consecutive = entries.iter().all(|entry| {
        let next = last.index.checked_add(1);
        let follows = Some(entry.id.index) == next && entry.id.term >= last.term;
        last = entry.id;
        follows
    });
    let in_order_of_time = entries.is_sorted_by_key(|entry| entry.time_ms);
    real && consecutive && in_order_of_time && last.term <= common.term()
}

/// Handles a heartbeat of the present term's leader. It carries no more of the commit index than
/// this node has acknowledged in this term. False if this node no longer has what it acknowledged.
fn heartbeat(common: &mut Common, commit: Index, matched_by_all: Index) -> bool {
    let last = common.log.last().index;
    if commit > last {
        common.fault.get_or_insert(Fault::AcknowledgedEntriesLost {
            acknowledged: commit,
            last,
        });
        return false;
    }
    common.log.commit_to(commit);
    common.log.set_matched_by_all(matched_by_all);
    true
}

/// Handles a part of a snapshot from the present term's leader (paper figure 13).
fn snapshot_part(common: &mut Common, from: NodeId, part: Part) {
    let EntryId { term, index } = part.meta.last;
    if !(1..=common.term()).contains(&term) || index > MAX_INDEX {
        // No leader of this term has such an entry; the bytes are from a faulty node.
        return;
    }
    if index <= common.log.committed() {
        // Nothing new, and known to be equal: no byte of it is looked at.
        common.acknowledge(from, index);
        return;
    }
    common.snapshots.receive(part);
}
