//! What a node has in every role: its durable state, its log, its outboxes.
//!
//! Who this node answers, and whom it asks, is in `standing.rs`. Three rules are kept here for all
//! roles:
//! - The term only grows, and there is one vote in a term ([`Common::enter_term`],
//!   [`Common::vote_for`]).
//! - The term, vote or entries that a message speaks of are on disk before the message leaves
//!   ([`Common::answer`], [`Common::acknowledge`]; paper figure 2, persistent state).
//! - A node answers only requests that are meant for its very folder, unless the folder is admitted
//!   ([`Common::answer_after`]).
//!
//! Term, vote and entries that gathered while the disk was busy go into one write and share a sync.
//! Writes are numbered from 1, and `done_write < next_write`. A message waits for the number of the
//! write that it depends on.

use std::collections::BTreeSet;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::config::Config;
use super::event::{ConfigurationEvent, Event, Fault, Reason};
use super::log::{Log, NotHandedOut};
use super::message::{Envelope, Message, Receiver, Sender};
use super::news::Told;
use super::outbox::Outbox;
use super::output::DecidedReads;
use super::snapshot_sending::StoredSnapshot;
use super::snapshots::{PartRequest, Snapshots};
use super::types::{
    Entry, EntryId, HardState, Index, MemberId, NodeId, Payload, RoleName, Term, Write, WriteId,
};

#[derive(Debug)]
pub(super) struct Common {
    pub config: Config,
    /// The present term, and the vote in it. No entry of the log is of a later term.
    hard_state: HardState,
    /// The write that makes the present `hard_state` durable: `hard_state_write <= next_write`. It
    /// is `next_write` while the state has not been handed to the disk, and 0 for the state that
    /// was found on disk at the start.
    hard_state_write: WriteId,
    /// The id of the next write to be handed out.
    next_write: WriteId,
    /// All writes up to this one are durable, inclusive; 0 before the first.
    done_write: WriteId,
    pub log: Log,
    /// Messages that may leave, and messages that wait until a write is durable.
    outbox: Outbox,
    /// Draws election timeouts. Seeded, so that a run can be repeated.
    rng: ChaCha8Rng,
    /// Changes of role, term or leader since the last output, for the operator's log.
    pub events: Vec<Event>,
    pub configuration_events: Vec<ConfigurationEvent>,
    /// What of the members has been told already.
    pub told: Told,
    /// Who has sent messages for another folder of this node.
    pub(super) wrong_folders: BTreeSet<NodeId>,
    /// Reads that were confirmed or given up since the last output.
    pub reads_decided: DecidedReads,
    pub snapshots: Snapshots,
    /// The first proof that the cluster's promises are broken. It is never cleared: the caller
    /// stops the node.
    pub fault: Option<Fault>,
}

impl Common {
    /// The state of a node as it was found on its disk: all of it is durable.
    pub fn new(
        config: Config,
        hard_state: HardState,
        snapshot: Option<StoredSnapshot>,
        entries: Vec<Entry>,
    ) -> Self {
        let base = snapshot.as_ref().map(|snapshot| &snapshot.meta);
        let log = Log::recovered(config.founding.clone(), base, entries);
        assert!(
            log.last().term <= hard_state.term,
            "the log holds a term that the node does not know"
        );
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            hard_state,
            hard_state_write: 0,
            next_write: 1,
            done_write: 0,
            log,
            outbox: Outbox::default(),
            events: Vec::new(),
            configuration_events: Vec::new(),
            told: Told::nothing(),
            wrong_folders: BTreeSet::new(),
            reads_decided: DecidedReads::default(),
            snapshots: Snapshots::new(snapshot),
            fault: None,
        }
    }

    pub fn id(&self) -> NodeId {
        self.config.id
    }

    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    pub fn vote(&self) -> Option<MemberId> {
        self.hard_state.vote
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Enters a higher term, in which this node has not voted yet.
    pub fn enter_term(&mut self, term: Term) {
        assert!(term > self.hard_state.term, "terms only grow");
        self.set_hard_state(HardState { term, vote: None });
    }

    /// Votes in the present term. To vote for the same candidate again changes nothing, so that a
    /// repeated question costs no write.
    pub fn vote_for(&mut self, candidate: MemberId) {
        let earlier = self.hard_state.vote;
        assert!(
            earlier.is_none_or(|vote| vote == candidate),
            "two votes in one term"
        );
        if earlier.is_none() {
            self.set_hard_state(HardState {
                vote: Some(candidate),
                ..self.hard_state
            });
        }
    }

    /// Changes term and vote. The change goes into the next write; a write that is already under
    /// way does not contain it.
    fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        self.hard_state_write = self.next_write;
    }

    /// Whether the present term and vote are on disk.
    pub fn hard_state_durable(&self) -> bool {
        self.hard_state_write <= self.done_write
    }

    /// Sends a request as soon as the term that it carries is durable; that is at once unless an
    /// election is going on.
    ///
    /// Only candidates and leaders make requests: [`may_campaign`](Self::may_campaign) says who may
    /// become one.
    pub fn ask(&mut self, to: Receiver, message: Message) {
        self.send_after(self.hard_state_write, to, message);
    }

    /// Sends an answer as soon as the term that it carries, and a vote that it may speak of, are
    /// durable.
    pub fn answer(&mut self, sender: Sender, message: Message) {
        self.answer_after(self.hard_state_write, sender, message);
    }

    /// Acknowledges the log up to `matched`, inclusive, once it is on disk, and the term with it:
    /// the leader counts this acknowledgement when it commits, so the entries must survive a crash.
    pub fn acknowledge(&mut self, leader: Sender, matched: Index) {
        let log_write = match self.log.write_covering(matched) {
            Ok(None) => 0,
            Ok(Some(id)) => id,
            Err(NotHandedOut) => self.next_write,
        };
        let write = log_write.max(self.hard_state_write);
        self.answer_after(write, leader, Message::Accepted { matched });
    }

    /// Every answer passes here.
    ///
    /// A node that [may not answer](Self::may_answer) sends nothing that a majority could count: no
    /// vote, no acknowledgement, no answer to a heartbeat. It sends no other answer either, because
    /// the leader takes every answer for a sign of life and stays in office. The messages are
    /// dropped here and not when they would leave, so that none waits in the outbox and leaves
    /// after the admission. Every request is repeated, so it is answered after the admission. The
    /// one exception, [`Message::Outdated`], counts nowhere: it only tells a sender that its term
    /// has passed, and does no harm whatever this node has forgotten.
    fn answer_after(&mut self, write: WriteId, sender: Sender, message: Message) {
        if self.may_answer(sender) || message == Message::Outdated {
            self.send_after(write, sender.into(), message);
        }
    }

    /// Every message of this node passes here, but for the parts of snapshots that a leader sends.
    fn send_after(&mut self, write: WriteId, to: Receiver, message: Message) {
        let envelope = self.envelope(to, message);
        if write <= self.done_write {
            self.outbox.send(envelope);
        } else {
            self.outbox.send_after(write, envelope);
        }
    }

    fn envelope(&self, to: Receiver, message: Message) -> Envelope {
        Envelope {
            from: self.id(),
            from_folder: self.config.folder,
            to: to.id,
            to_folder: to.folder,
            term: self.term(),
            message,
        }
    }

    /// Asks the caller to read a part of a snapshot and to send it. The term that the part will
    /// carry is durable: a leader's always is.
    pub fn request_part(&mut self, to: Receiver, snapshot: StoredSnapshot, part: Range<u64>) {
        self.snapshots.request(PartRequest {
            from: self.id(),
            from_folder: self.config.folder,
            to: to.id,
            to_folder: to.folder,
            term: self.term(),
            snapshot,
            offset: part.start,
            length: part.end - part.start,
        });
    }

    /// The messages that may leave now.
    pub fn take_messages(&mut self) -> Vec<Envelope> {
        self.outbox.take()
    }

    /// The term, vote and entries that have not been handed to the disk yet, as one write. Several
    /// writes may be under way; the disk does them in order.
    pub fn take_write(&mut self) -> Option<Write> {
        if !self.has_write() {
            return None;
        }
        let id = self.next_write;
        self.next_write += 1;
        Some(Write {
            id,
            hard_state: (self.hard_state_write == id).then_some(self.hard_state),
            restart: self.log.take_restart(),
            entries: self.log.hand_out(id),
        })
    }

    /// Whether [`take_write`](Self::take_write) would return something.
    pub fn has_write(&self) -> bool {
        self.hard_state_write == self.next_write || self.log.has_unwritten()
    }

    /// The disk has done all writes up to `id`, inclusive: messages that waited for them may leave.
    pub fn durable(&mut self, id: WriteId) {
        assert!(
            self.done_write < id && id < self.next_write,
            "write {id} was not under way"
        );
        self.done_write = id;
        self.log.written(id);
        self.outbox.release(id, self.hard_state.term);
    }

    /// Appends an entry of the present term; only a leader does.
    pub fn append(&mut self, time_ms: u64, payload: Payload) -> EntryId {
        let id = EntryId {
            term: self.term(),
            index: self.log.last().index + 1,
        };
        self.log.push(Entry {
            id,
            time_ms,
            payload,
        });
        id
    }

    /// Drops from memory some of the entries that every member has on its disk, so that in the long
    /// run the log in memory holds only what the slowest member lacks.
    pub fn let_go_of_matched(&mut self) {
        if !self.config.keeps_matched {
            self.log.let_go_of_matched();
        }
    }

    /// Whether the log holds the very entry with which a snapshot ends, so that the entries after
    /// it in the log continue the snapshot.
    pub fn fits(&self, last: EntryId) -> bool {
        self.log.term_at(last.index) == Some(last.term)
    }

    /// An election timeout in ticks, drawn anew each time from `election_ticks..2 *
    /// election_ticks`, so that nodes that split the votes once hardly do so again (paper 5.2).
    pub fn random_timeout(&mut self) -> u32 {
        let shortest = self.config.election_ticks;
        shortest + self.rng.next_u32() % shortest
    }

    /// A number for the lineage of a new cluster; not 0.
    pub fn lineage(&mut self) -> u64 {
        self.rng.next_u64().max(1)
    }

    /// A short wait in ticks, from `1..=heartbeat_ticks`, so that of the nodes that learn at the
    /// same moment that the leader's process has ended one asks for votes before the others.
    pub fn short_timeout(&mut self) -> u32 {
        1 + self.rng.next_u32() % self.config.heartbeat_ticks
    }

    /// Notes a change of role, term or leader for the operator's log; nothing is decided by it.
    pub fn report(&mut self, role: RoleName, leader: Option<NodeId>, reason: Reason) {
        let term = self.term();
        self.events.push(Event {
            role,
            term,
            leader,
            reason,
        });
    }
}
