//! The node that leads its term: it replicates its log and decides what is committed (paper 5.3,
//! 5.4.2), confirms reads (thesis 6.4), and steps down when no quorum answers (thesis 6.2).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::common::Common;
use super::event::{Fault, Reason};
use super::message::Message;
use super::progress::Progress;
use super::reads::Reads;
use super::role::{Change, Role};
use super::types::{EntryId, Index, NodeId, Payload, ReadId, RoleName};
use super::{ProposeError, ReadError};

#[derive(Debug)]
pub(super) struct Leader {
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// The empty entry that opened this term. Once it is committed, so is all before it.
    first: Index,
    /// Cluster time: goes on from the last entry's.
    time_ms: u64,
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
    pub(super) reads: Reads,
    transfer: Option<Transfer>,
    uncommitted_bytes: usize,
}

/// A hand-over of leadership that is under way (thesis 3.10).
#[derive(Debug)]
struct Transfer {
    to: NodeId,
    elapsed: u32,
    /// Whether the target has been told to campaign.
    told: bool,
}

impl Leader {
    /// A quorum has voted for this node.
    pub fn elected(common: &mut Common) -> Self {
        let last = common.log.last().index;
        let others = common.others().into_iter();
        let mut leader = Self {
            progress: others.map(|id| (id, Progress::new(last))).collect(),
            first: last + 1,
            time_ms: common.log.last_time_ms(),
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            reads: Reads::default(),
            transfer: None,
            uncommitted_bytes: 0,
        };
        common.report(RoleName::Leader, Some(common.id()), Reason::VotesWon);
        // Lets entries of earlier terms be committed (paper 5.4.2) and reads be served (8).
        leader.append(common, Payload::Empty);
        leader.broadcast(common);
        leader
    }

    pub fn tick(&mut self, common: &mut Common) -> Change {
        self.time_ms = self.time_ms.saturating_add(common.config.tick_ms);
        self.quorum_elapsed += 1;
        if self.quorum_elapsed >= common.config.election_ticks {
            self.quorum_elapsed = 0;
            if !self.quorum_is_active(common) {
                self.abandon_reads(common);
                return Some(Role::follower(common, Reason::QuorumSilent));
            }
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.elapsed += 1;
            if transfer.elapsed >= common.config.election_ticks {
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

    /// Whether a quorum was heard from since the last time that this was asked.
    fn quorum_is_active(&mut self, common: &Common) -> bool {
        let active = self.active(common);
        for progress in self.progress.values_mut() {
            progress.active = false;
        }
        common
            .config
            .membership
            .has_quorum(|id| active.contains(&id))
    }

    /// The members that were heard from lately, this node included.
    pub fn active(&self, common: &Common) -> Vec<NodeId> {
        let heard = self.progress.iter().filter(|(_, p)| p.active);
        let mut active: Vec<NodeId> = heard.map(|(id, _)| *id).collect();
        active.push(common.id());
        active.sort_unstable();
        active
    }

    pub fn propose(
        &mut self,
        common: &mut Common,
        command: Bytes,
    ) -> Result<EntryId, ProposeError> {
        if self.transfer.is_some() {
            return Err(ProposeError::Busy);
        }
        let full = self.uncommitted_bytes > 0
            && self.uncommitted_bytes + command.len() > common.config.max_uncommitted_bytes;
        if full {
            return Err(ProposeError::Busy);
        }
        Ok(self.append(common, Payload::Command(command)))
    }

    fn append(&mut self, common: &mut Common, payload: Payload) -> EntryId {
        let id = common.append(self.time_ms, payload);
        self.uncommitted_bytes += common.log.get(id.index).map_or(0, |e| e.weight());
        id
    }

    pub fn read(&mut self, common: &Common, id: ReadId) -> Result<(), ReadError> {
        if self.reads.pending() >= common.config.max_pending_reads {
            return Err(ReadError::Busy);
        }
        self.reads.add(id);
        Ok(())
    }

    /// Hands leadership to a voter: `to`, or the one that is furthest along. Returns to whom.
    pub fn transfer(&mut self, common: &mut Common, to: Option<NodeId>) -> Option<NodeId> {
        let voters = common.other_voters();
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

    /// Tells the target to campaign once it holds the whole log.
    pub(super) fn finish_transfer(&mut self, common: &mut Common) {
        let Some(transfer) = self.transfer.as_mut().filter(|t| !t.told) else {
            return;
        };
        let matched = self.progress.get(&transfer.to).map(Progress::matched);
        if matched == Some(common.log.last().index) {
            transfer.told = true;
            common.send(transfer.to, Message::TimeoutNow);
        }
    }

    /// Begins what has gathered since the last time: entries for every follower that can take
    /// them, and a round of confirmations for the reads that wait. Called when messages are
    /// collected, so that what came in together goes out together.
    pub fn broadcast(&mut self, common: &mut Common) {
        let has_committed_in_term = common.log.committed() >= self.first;
        if has_committed_in_term && self.reads.begin_round(common.log.committed()) {
            self.send_heartbeats(common);
            self.confirm_reads(common);
        }
        let followers: Vec<NodeId> = self.progress.keys().copied().collect();
        for id in followers {
            self.send_appends(common, id);
        }
    }

    pub fn step(&mut self, common: &mut Common, from: NodeId, message: Message) -> Change {
        // Only an answer to this leader shows that the follower hears it. Others of the same term
        // may be late, from before it led, and one may come from a node that is not admitted.
        let answers = matches!(
            message,
            Message::Accepted { .. }
                | Message::Rejected { .. }
                | Message::HeartbeatReply { .. }
                | Message::SnapshotReply { .. }
        );
        if answers && let Some(progress) = self.progress.get_mut(&from) {
            progress.active = true;
        }
        match message {
            Message::Accepted { matched } => self.accepted(common, from, matched),
            Message::Rejected { prev, conflict } => self.rejected(common, from, prev, conflict),
            Message::HeartbeatReply { round } => self.heartbeat_answered(common, from, round),
            Message::SnapshotReply { last, received } => {
                if let Some(progress) = self.progress.get_mut(&from) {
                    progress.received(last, received);
                }
            }
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. } => {
                common.fault.get_or_insert(Fault::TwoLeaders {
                    known: common.id(),
                    other: from,
                    term: common.term(),
                });
            }
            // Late votes of the election that this node has won, and a hand-over that has
            // already taken place.
            _ => {}
        }
        None
    }

    fn heartbeat_answered(&mut self, common: &mut Common, from: NodeId, round: u64) {
        // A round that has not begun: no follower of this term says so.
        if round > self.reads.number() {
            return;
        }
        let Some(progress) = self.progress.get_mut(&from) else {
            return;
        };
        if round > progress.round {
            progress.round = round;
            self.confirm_reads(common);
        }
    }

    fn confirm_reads(&mut self, common: &mut Common) {
        let own = self.reads.number();
        let round_of = |id: NodeId| self.progress.get(&id).map_or(own, |p| p.round);
        let confirmed = common.config.membership.quorum_value(round_of);
        common.reads_ready.extend(self.reads.confirmed(confirmed));
    }

    /// Commits what a quorum holds durably, this node's own disk counting as one vote (thesis
    /// 10.2.1): but only through an entry of the present term (paper 5.4.2).
    pub fn advance_commit(&mut self, common: &mut Common) {
        let durable = common.log.durable();
        let matched_of = |id: NodeId| self.progress.get(&id).map_or(durable, |p| p.matched());
        let held = common.config.membership.quorum_value(matched_of);
        let committed = common.log.committed();
        let own = common.log.term_at(held) == Some(common.term());
        if held <= committed || !own {
            return;
        }
        common.log.commit_to(held);
        let weights = (committed + 1..=held).filter_map(|index| common.log.get(index));
        // Entries of earlier terms were never counted: they are all below the first of this one.
        let done = weights.filter(|entry| entry.id.index >= self.first);
        self.uncommitted_bytes -= done.map(|entry| entry.weight()).sum::<usize>();
    }

    /// Leadership is lost: no read that still waits can be answered here.
    pub fn abandon_reads(&mut self, common: &mut Common) {
        common.reads_failed.extend(self.reads.abandon());
    }

    pub fn progress(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        self.progress.iter().map(|(id, progress)| (*id, progress))
    }

    pub fn first(&self) -> Index {
        self.first
    }
}
