//! The node that leads its term: it replicates its log and decides what is committed (paper 5.3,
//! 5.4.2), confirms reads (thesis 6.4), transfers leadership on request (thesis 3.10), and steps
//! down when no quorum answers (thesis 6.2).
//!
//! Three rules make a leader safe, and each has one place:
//! - It only adds to its log. Nothing here truncates it.
//! - It commits only what a quorum has on disk, and only through an entry of its own term:
//!   [`Leader::advance_commit`].
//! - It answers a read only after a quorum has answered heartbeats that it sent after the read had
//!   arrived: [`Leader::broadcast`] begins the round, [`Leader::confirm_reads`] ends it.
//!
//! How entries and snapshots reach the followers is in `replication.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::common::Common;
use super::configuration::Member;
use super::event::{Fault, Reason};
use super::message::{Message, Sender};
use super::progress::Progress;
use super::reads::Reads;
use super::replication::receiver;
use super::role::{Change, Role};
use super::types::{EntryId, Index, NodeId, Payload, ReadId, RoleName};
use super::{ProposeError, ReadError};

#[derive(Debug)]
pub(super) struct Leader {
    /// What is known of each other member, learners included. Only other members are in the map:
    /// for this node itself a count takes the log's `durable`.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// The index of the empty entry that opened this term; `first <= last`. Entries from here on
    /// are of this term, those before are of earlier ones. Once it is committed, so is all before.
    first: Index,
    /// Cluster time, which each new entry is stamped with. It goes on from the last entry's time
    /// and grows with ticks only, so it never goes back along the log.
    time_ms: u64,
    /// Ticks since the last heartbeats; less than `heartbeat_ticks` between two inputs.
    heartbeat_elapsed: u32,
    /// Ticks since the last quorum check; less than `election_ticks` between two inputs.
    quorum_elapsed: u32,
    /// The reads that wait for a quorum to confirm that this node still leads.
    pub(super) reads: Reads,
    /// The transfer of leadership that is under way. While there is one, commands are refused.
    transfer: Option<Transfer>,
    /// The weight of all uncommitted entries of this term, in bytes. Entries of earlier terms do
    /// not count: this leader did not accept them.
    uncommitted_bytes: usize,
}

/// A transfer of leadership that is under way (thesis 3.10).
#[derive(Debug)]
struct Transfer {
    /// The voter that is to lead next; never this node.
    to: NodeId,
    /// Ticks since the transfer began; less than `election_ticks` between two inputs.
    elapsed: u32,
    /// Whether the target has been told to campaign. It is told once: if the message is lost, the
    /// transfer is given up in time, and may be asked for again.
    told: bool,
}

impl Leader {
    /// A quorum has voted for this node, and its own vote is on disk if it was one of them.
    pub fn elected(common: &mut Common) -> Self {
        let last = common.log.last().index;
        let others = common.others().into_iter();
        let mut leader = Self {
            progress: others
                .map(|member| (member.id, Progress::new(member.folder, last)))
                .collect(),
            first: last + 1,
            time_ms: common.log.last_time_ms(),
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            reads: Reads::default(),
            transfer: None,
            uncommitted_bytes: 0,
        };
        common.report(RoleName::Leader, Some(common.id()), Reason::VotesWon);
        // An entry of this term, so that entries of earlier terms can be committed with it (paper
        // 5.4.2) and reads need not wait for a client's first command (paper 8).
        leader.append(common, Payload::Empty);
        leader.broadcast(common);
        leader
    }

    /// One tick has passed. Returns the follower that this node becomes if no quorum answers it.
    pub fn tick(&mut self, common: &mut Common) -> Change {
        self.time_ms = self.time_ms.saturating_add(common.config.tick_ms);
        self.quorum_elapsed += 1;
        if self.quorum_elapsed >= common.config.election_ticks {
            self.quorum_elapsed = 0;
            // A leader that is cut off from a quorum can commit nothing, while the others may have
            // elected another one. It steps down, so that its clients look elsewhere (thesis 6.2).
            if !self.quorum_is_active(common) {
                self.abandon_reads(common);
                return Some(Role::follower(common, Reason::QuorumSilent));
            }
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.elapsed += 1;
            if transfer.elapsed >= common.config.election_ticks {
                // The target may be dead: from here on commands are accepted again. If the target
                // campaigns all the same, its higher term deposes this leader, which is safe.
                self.transfer = None;
            }
        }
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= common.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.send_heartbeats(common);
            self.repeat_questions(common);
        }
        None
    }

    /// Whether a quorum, this node included, was heard from since the last check. A new period
    /// begins, in which nobody counts as heard from yet.
    fn quorum_is_active(&mut self, common: &Common) -> bool {
        let active = self.active(common);
        for progress in self.progress.values_mut() {
            progress.active = false;
        }
        let is_active = |member: &Member| active.contains(&member.id);
        common.configuration().has_quorum(is_active)
    }

    /// The members that were heard from since the last quorum check, this node included, in
    /// ascending order.
    pub fn active(&self, common: &Common) -> Vec<NodeId> {
        let heard = self.progress.iter().filter(|(_, p)| p.active);
        let mut active: Vec<NodeId> = heard.map(|(id, _)| *id).collect();
        active.push(common.id());
        active.sort_unstable();
        active
    }

    /// Appends a command. A refused command is in no log, so the client may ask another node.
    pub fn propose(
        &mut self,
        common: &mut Common,
        command: Bytes,
    ) -> Result<EntryId, ProposeError> {
        // While leadership is transferred no command is taken: the target has to catch up with the
        // whole log, and a log that grows would keep it from that (thesis 3.10).
        if self.transfer.is_some() {
            return Err(ProposeError::Busy);
        }
        // Bounds what a leader without a quorum piles up. A command larger than the bound is
        // accepted when nothing else is uncommitted: otherwise it never would be.
        let full = self.uncommitted_bytes > 0
            && self.uncommitted_bytes + command.len() > common.config.max_uncommitted_bytes;
        if full {
            return Err(ProposeError::Busy);
        }
        Ok(self.append(common, Payload::Command(command)))
    }

    /// Appends an entry with the present cluster time, and counts its weight. Every entry of this
    /// term is made here.
    fn append(&mut self, common: &mut Common, payload: Payload) -> EntryId {
        let id = common.append(self.time_ms, payload);
        self.uncommitted_bytes += common.log.get(id.index).map_or(0, |e| e.weight());
        id
    }

    /// Takes a read in. It joins the next round of confirmations, never one that has begun: such a
    /// round shows only that this node led before the read arrived.
    pub fn read(&mut self, common: &Common, id: ReadId) -> Result<(), ReadError> {
        if self.reads.pending() >= common.config.max_pending_reads {
            return Err(ReadError::Busy);
        }
        self.reads.add(id);
        Ok(())
    }

    /// Transfers leadership to a voter: `to`, or the one that is furthest along, where one that has
    /// answered lately comes before one that has not. Returns that voter; `None` if `to` is not
    /// another voter, or there is no other voter. A transfer that is under way is replaced.
    pub fn transfer(&mut self, common: &mut Common, to: Option<NodeId>) -> Option<NodeId> {
        let voters = common.other_voters().into_iter().map(|member| member.id);
        let voters: Vec<NodeId> = voters.collect();
        let furthest = |id: &&NodeId| self.progress.get(id).map(|p| (p.active, p.matched()));
        let to = match to {
            Some(to) => voters.contains(&to).then_some(to)?,
            None => *voters.iter().max_by_key(furthest)?,
        };
        self.transfer = Some(Transfer {
            to,
            elapsed: 0,
            told: false,
        });
        self.finish_transfer(common);
        Some(to)
    }

    /// Tells the target to campaign once it has the whole log: only then is it sure to get the
    /// votes of nodes whose logs are as long as this one.
    pub(super) fn finish_transfer(&mut self, common: &mut Common) {
        let Some(transfer) = self.transfer.as_mut().filter(|t| !t.told) else {
            return;
        };
        let Some(progress) = self.progress.get(&transfer.to) else {
            return;
        };
        if progress.matched() == common.log.last().index {
            transfer.told = true;
            common.ask(receiver(transfer.to, progress), Message::TimeoutNow);
        }
    }

    /// Sends what has gathered since the last call: entries to every follower that can take them,
    /// and heartbeats that begin a round of confirmations for the reads that wait. Called when
    /// messages are collected, and not for each command or read, so that what came in together goes
    /// out together.
    pub fn broadcast(&mut self, common: &mut Common) {
        // Before this leader has committed an entry of its term, its commit index may be lower than
        // what its predecessor has acknowledged to clients, and a read would miss that (paper 8).
        let has_committed_in_term = common.log.committed() >= self.first;
        if has_committed_in_term && self.reads.begin_round(common.log.committed()) {
            self.send_heartbeats(common);
            // The only voter of its cluster is a quorum by itself and waits for no answer.
            self.confirm_reads(common);
        }
        let followers: Vec<NodeId> = self.progress.keys().copied().collect();
        for id in followers {
            self.send_appends(common, id);
        }
    }

    /// Handles a message of the present term. No message of this term ends leadership: only a
    /// higher term does, or [`tick`](Self::tick) when no quorum answers.
    pub fn step(&mut self, common: &mut Common, from: Sender, message: Message) -> Change {
        // Only an answer to this leader shows that the follower hears it. A message of another kind
        // may have been sent before this node led, or by a node that is not admitted yet.
        let answers = matches!(
            message,
            Message::Accepted { .. }
                | Message::Rejected { .. }
                | Message::HeartbeatReply { .. }
                | Message::SnapshotReply { .. }
        );
        let sender = from.member.id;
        if answers && let Some(progress) = self.progress.get_mut(&sender) {
            progress.active = true;
        }
        match message {
            // The follower had these entries on disk when it sent this, in this term, in which this
            // leader's log only grows. So an acknowledgement stays true: a late one says less, but
            // nothing wrong.
            Message::Accepted { matched } => self.accepted(common, sender, matched),
            // The rejection was true when it was sent, but the follower's log may have grown since:
            // `Progress` tells a fresh rejection from a stale one.
            Message::Rejected { prev, conflict } => self.rejected(common, sender, prev, conflict),
            // The follower was in this term when it answered, so it had voted in no later one. If
            // that is true of a quorum, nobody led a later term when the round began.
            Message::HeartbeatReply { round } => self.heartbeat_answered(common, sender, round),
            // It says how far the follower has stored the snapshot's file. A wrong or old number
            // costs parts that are sent twice or late: the follower verifies the whole file before
            // it installs it.
            Message::SnapshotReply { last, received } => {
                if let Some(progress) = self.progress.get_mut(&sender) {
                    progress.received(last, received);
                }
            }
            // Only a leader of the term sends these, and this node is that leader. Two leaders of a
            // term mean that a voter has voted twice.
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. } => {
                common.fault.get_or_insert(Fault::TwoLeaders {
                    known: common.id(),
                    other: sender,
                    term: common.term(),
                });
            }
            // What is left are late votes of the election that this node has won, a late order to
            // campaign, and `Outdated`, which says nothing but its term. To drop them is safe: this
            // node leads already. Requests for votes and pre-votes do not get here.
            _ => {}
        }
        None
    }

    fn heartbeat_answered(&mut self, common: &mut Common, from: NodeId, round: u64) {
        // No correct follower answers a round that has not begun. If such an answer counted, it
        // would confirm reads that have not even arrived.
        if round > self.reads.number() {
            return;
        }
        let Some(progress) = self.progress.get_mut(&from) else {
            return;
        };
        // An answer to an older round was delayed, and says nothing new.
        if round > progress.round {
            progress.round = round;
            self.confirm_reads(common);
        }
    }

    /// Decides the reads of every round that a quorum has answered. This node is one of the quorum,
    /// and counts as having answered every round that it has begun.
    fn confirm_reads(&mut self, common: &mut Common) {
        let own = self.reads.number();
        let round_of = |m: &Member| self.progress.get(&m.id).map_or(own, |p| p.round);
        let confirmed = common.configuration().quorum_value(round_of);
        let ready = self.reads.confirmed(confirmed);
        common.reads_decided.ready.extend(ready);
    }

    /// Commits what a quorum has on disk, this node's own disk counting as one of them (thesis
    /// 10.2.1), but only through an entry of the present term (paper 5.4.2).
    ///
    /// Why only through one: an entry of an earlier term that a quorum has may still be replaced. A
    /// node that lacks the entry, but whose log ends in a higher term, may win the votes of that
    /// quorum (paper, figure 8). With an entry of the present term that cannot happen: a log that
    /// lacks it ends in a lower term, or earlier in this one, and each node of the quorum refuses
    /// its vote. So every later leader has the entry, and all entries before it.
    pub fn advance_commit(&mut self, common: &mut Common) {
        let durable = common.log.durable();
        let matched_of = |m: &Member| self.progress.get(&m.id).map_or(durable, |p| p.matched());
        let matched_by_quorum = common.configuration().quorum_value(matched_of);
        let committed = common.log.committed();
        let is_of_this_term = common.log.term_at(matched_by_quorum) == Some(common.term());
        if matched_by_quorum <= committed || !is_of_this_term {
            return;
        }
        common.log.commit_to(matched_by_quorum);
        let newly = committed + 1..=matched_by_quorum;
        let weights = newly.filter_map(|index| common.log.get(index));
        // Entries of earlier terms were never counted: they are all below the first of this one.
        let done = weights.filter(|entry| entry.id.index >= self.first);
        self.uncommitted_bytes -= done.map(|entry| entry.weight()).sum::<usize>();
    }

    /// Leadership is lost: no read that still waits can be answered here.
    pub fn abandon_reads(&mut self, common: &mut Common) {
        common.reads_decided.failed.extend(self.reads.abandon());
    }

    pub fn progress(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        self.progress.iter().map(|(id, progress)| (*id, progress))
    }

    pub fn first(&self) -> Index {
        self.first
    }
}
