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
//! What a quorum has reached is counted in `counting.rs`. How entries and snapshots reach the
//! followers is in `replication.rs`, and leadership another node in `transferring.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::common::Common;
use super::event::{Fault, Reason};
use super::message::{Message, Sender};
use super::progress::Progress;
use super::reads::Reads;
use super::role::{Change, Role};
use super::transferring::Transfer;
use super::types::{EntryId, Index, NodeId, Payload, ReadId, RoleName};
use super::{ProposeError, ReadError};

#[derive(Debug)]
pub(super) struct Leader {
    /// What is known of each other member, learners included, and of those that have left and are
    /// told so. Only other nodes are in the map: for this node itself a count takes the log's
    /// `durable`.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// The index of the empty entry that opened this term; `first <= last`. Entries from here on
    /// are of this term, those before are of earlier ones. Once it is committed, so is all before.
    pub(super) first: Index,
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
    pub(super) transfer: Option<Transfer>,
    /// The weight of all uncommitted entries of this term, in bytes. Entries of earlier terms do
    /// not count: this leader did not accept them.
    pub(super) uncommitted_bytes: usize,
    /// Whether a committed configuration has taken this leader's vote, and it has begun to hand
    /// over.
    pub(super) is_leaving: bool,
    /// Whether somebody asked for a change of members while the founders are not in the log yet.
    pub(super) settles_now: bool,
}

impl Leader {
    /// A quorum has voted for this node, and its own vote is on disk if it was one of them.
    pub fn elected(common: &mut Common) -> Self {
        let last = common.log.last().index;
        let mut leader = Self {
            progress: BTreeMap::new(),
            first: last + 1,
            time_ms: common.log.last_time_ms(),
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            reads: Reads::default(),
            transfer: None,
            uncommitted_bytes: 0,
            is_leaving: false,
            settles_now: false,
        };
        leader.configure(common);
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
        self.members_tick(common);
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
        self.transfer_tick(common);
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= common.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.send_heartbeats(common);
            self.repeat_questions(common);
        }
        self.mind_configuration(common)
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
    pub(super) fn append(&mut self, common: &mut Common, payload: Payload) -> EntryId {
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
            // Another folder of the node than the one that is followed: to drop what it says is
            // safe, for it is asked nothing.
            if !progress.is_followed(from.member.folder) {
                return None;
            }
            progress.active = true;
            progress.silent_ticks = 0;
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
        match answers {
            // Something may be committed now, or a member have caught up.
            true => self.mind_configuration(common),
            false => None,
        }
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
