//! What a node has in every role: its durable state, its log, its outboxes.

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::config::Config;
use super::event::{Event, Fault, Reason};
use super::log::{Log, NotHandedOut};
use super::message::{Envelope, Message};
use super::outbox::Outbox;
use super::snapshot_sending::{Piece, StoredSnapshot};
use super::snapshots::{PartRequest, Snapshots};
use super::types::{
    Entry, EntryId, HardState, Index, NodeId, Payload, ReadId, RoleName, Term, Write, WriteId,
};

#[derive(Debug)]
pub(super) struct Common {
    pub config: Config,
    hard_state: HardState,
    /// The write that makes the present `hard_state` durable.
    hard_state_write: WriteId,
    /// The id of the next write to be handed out.
    next_write: WriteId,
    /// All writes up to this one are durable.
    done_write: WriteId,
    pub log: Log,
    outbox: Outbox,
    rng: ChaCha8Rng,
    pub events: Vec<Event>,
    pub reads_ready: Vec<(ReadId, Index)>,
    pub reads_failed: Vec<ReadId>,
    pub snapshots: Snapshots,
    pub fault: Option<Fault>,
}

impl Common {
    pub fn new(
        config: Config,
        hard_state: HardState,
        snapshot: Option<StoredSnapshot>,
        entries: Vec<Entry>,
    ) -> Self {
        let base = snapshot.as_ref().map(|snapshot| &snapshot.meta);
        let log = match base {
            Some(meta) => Log::recovered(meta.last, meta.time_ms, entries),
            None => Log::recovered(EntryId::ZERO, 0, entries),
        };
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
            reads_ready: Vec::new(),
            reads_failed: Vec::new(),
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

    pub fn vote(&self) -> Option<NodeId> {
        self.hard_state.vote
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The members that messages go to.
    pub fn others(&self) -> Vec<NodeId> {
        let mut members = self.config.membership.members();
        members.remove(&self.id());
        members.into_iter().collect()
    }

    pub fn other_voters(&self) -> Vec<NodeId> {
        let mut voters = self.config.membership.voters();
        voters.remove(&self.id());
        voters.into_iter().collect()
    }

    /// Enters a higher term, in which this node has not voted yet.
    pub fn enter_term(&mut self, term: Term) {
        assert!(term > self.hard_state.term, "terms only grow");
        self.set_hard_state(HardState { term, vote: None });
    }

    /// Votes in the present term.
    pub fn vote_for(&mut self, candidate: NodeId) {
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

    fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        self.hard_state_write = self.next_write;
    }

    /// Whether the present term and vote are on disk.
    pub fn hard_state_durable(&self) -> bool {
        self.hard_state_write <= self.done_write
    }

    /// Sends a message as soon as the term that it carries, and a vote that it may speak of, are
    /// durable; that is at once unless an election is going on.
    pub fn send(&mut self, to: NodeId, message: Message) {
        self.send_after(self.hard_state_write, to, message);
    }

    /// Acknowledges the log up to `matched`, once it is on disk.
    pub fn acknowledge(&mut self, to: NodeId, matched: Index) {
        let log_write = match self.log.write_covering(matched) {
            Ok(None) => 0,
            Ok(Some(id)) => id,
            Err(NotHandedOut) => self.next_write,
        };
        let write = log_write.max(self.hard_state_write);
        self.send_after(write, to, Message::Accepted { matched });
    }

    /// Every message of this node passes here, but for the parts of snapshots that a leader sends.
    ///
    /// A node that is not [admitted](Config::admitted) sends nothing that a majority could count:
    /// no vote, no acknowledgement, no confirmation, and no other answer either, for the leader
    /// takes each for a sign of life and stays in office. It is silent from here on, and not later,
    /// so that no answer waits in the outbox across the admission. All questions are repeated, so
    /// what is not answered now is asked again. The one message that it does send counts nowhere:
    /// it only tells who is in a lower term, and does no harm whatever the node has forgotten.
    fn send_after(&mut self, write: WriteId, to: NodeId, message: Message) {
        if !self.config.admitted && message != Message::Outdated {
            return;
        }
        let envelope = Envelope {
            from: self.id(),
            to,
            term: self.term(),
            message,
        };
        if write <= self.done_write {
            self.outbox.send(envelope);
        } else {
            self.outbox.send_after(write, envelope);
        }
    }

    /// Has a piece of a snapshot read and sent. The term is durable: a leader's always is.
    pub fn request_part(&mut self, to: NodeId, of: StoredSnapshot, piece: Piece) {
        let (offset, length) = match piece {
            Piece::Part { offset, length } => (offset, length),
            // In the message a question is a part of no bytes, which begins at the file's end.
            Piece::Question { size } => (size, 0),
        };
        let envelope = Envelope {
            from: self.id(),
            to,
            term: self.term(),
            message: Message::Snapshot {
                meta: of.meta,
                bytes: of.bytes,
                offset,
                data: Bytes::new(),
            },
        };
        self.snapshots.request(PartRequest { envelope, length });
    }

    pub fn take_messages(&mut self) -> Vec<Envelope> {
        self.outbox.take()
    }

    /// All that the disk does not have yet, as one write.
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

    pub fn has_write(&self) -> bool {
        self.hard_state_write == self.next_write || self.log.has_unwritten()
    }

    /// The disk has done all writes up to `id`: what waited for them may leave.
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

    /// Lets go of some of what every member has, so that the log in memory is as long as what the
    /// slowest of them lacks.
    pub fn let_go_of_matched(&mut self) {
        if !self.config.keeps_matched {
            self.log.let_go_of_matched();
        }
    }

    /// Whether this node has a vote, and cannot have lost its former ones.
    pub fn may_vote(&self) -> bool {
        self.config.admitted && self.config.membership.is_voter(self.id())
    }

    /// Whether the log holds the last entry of a snapshot, and so goes on behind it.
    pub fn fits(&self, last: EntryId) -> bool {
        self.log.term_at(last.index) == Some(last.term)
    }

    /// An election timeout, drawn anew each time (paper 5.2).
    pub fn random_timeout(&mut self) -> u32 {
        let shortest = self.config.election_ticks;
        shortest + self.rng.next_u32() % shortest
    }

    /// A short wait, so that of those who learn of the leader's end at the same moment one asks for
    /// votes before the others.
    pub fn short_timeout(&mut self) -> u32 {
        1 + self.rng.next_u32() % self.config.heartbeat_ticks
    }

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
