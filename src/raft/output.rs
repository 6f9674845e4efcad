//! The work that the core hands out: one value for each call of [`Raft::output`], whose fields
//! stand in the order in which they are to be carried out.

use std::collections::VecDeque;

use super::Raft;
use super::event::{ConfigurationEvent, Event, Fault};
use super::message::Envelope;
use super::news::News;
use super::removed::Removed;
use super::role::Role;
use super::snapshots::{Part, PartRequest};
use super::types::{Entry, Index, ReadId, SnapshotMeta, Write};

/// What the caller can carry out now. Other work stays in the core, and [`Left`] says which kinds
/// there are.
///
/// A thread asks only for its own kind of work, and only when it has finished what it was given
/// before. So everything that gathers while the disk is busy goes into one write, and shares one
/// sync; and the entries that gather while the state machine is busy are executed as one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The network can take messages. Reads that wait begin their round only now: a round is a
    /// message to every follower, and reads that come while no message can leave share it.
    pub messages: bool,
    /// The disk can take the next write.
    pub write: bool,
    /// The files of snapshots can be worked on.
    pub parts: bool,
    /// The state machine can take over a snapshot.
    pub install: bool,
    /// The state machine can execute entries of about this many bytes: at least one entry, if the
    /// number is not 0.
    pub entry_bytes: usize,
}

impl Room {
    /// No room: the output holds only what every output may hold, such as events and decided reads.
    pub const NOTHING: Self = Self {
        messages: false,
        write: false,
        parts: false,
        install: false,
        entry_bytes: 0,
    };

    /// Room for messages only.
    pub const MESSAGES: Self = Self {
        messages: true,
        ..Self::NOTHING
    };

    /// Room for everything, without a bound, for a program with a single thread.
    pub const EVERYTHING: Self = Self {
        messages: true,
        write: true,
        parts: true,
        install: true,
        entry_bytes: usize::MAX,
    };
}

/// What is to be done. The fields stand in the order in which they are to be carried out, and each
/// item is handed out once.
///
/// Work of one kind is done in order: all writes of one `Output` come before those of the next.
/// Work of different kinds need not wait for each other: messages, writes, files and the state
/// machine are independent, because the core holds back whatever depends on something that is not
/// done yet.
#[derive(Debug, Default)]
#[must_use = "each item is handed out once"]
pub struct Output {
    /// Proof that the cluster's promises are broken. The node stops. Apart from `events` this
    /// output and all later ones hold nothing else: what such a node knows may be wrong, so it says
    /// nothing, writes nothing and executes nothing any more.
    pub fault: Option<Fault>,
    /// Leave before the write begins, so that the followers write at the same time as this node
    /// (thesis 10.2.1). Messages may be lost, repeated and reordered. None of them vouches for what
    /// is not on this node's disk yet: the core holds such a message back until [`Raft::durable`].
    pub messages: Vec<Envelope>,
    /// Goes to the disk after all earlier writes. The caller reports it with [`Raft::durable`] once
    /// it is synced.
    pub write: Option<Write>,
    /// Parts of a snapshot that have come in, to be stored in order. Each is reported once, in the
    /// same order: by [`Raft::install`] if a whole snapshot is on the disk now, and otherwise by
    /// [`Raft::part_stored`]. Until then the same part is not handed out again.
    pub to_store: VecDeque<Part>,
    /// A part to be read and sent; [`Raft::snapshot_gone`] reports that it cannot be read. Parts
    /// are handed out one at a time: meanwhile a follower may no longer need the next.
    pub to_send: Option<PartRequest>,
    /// The state machine takes over this snapshot, which is on disk, before it executes `entries`:
    /// the entries up to the snapshot's last one are not in the log any more.
    pub install: Option<SnapshotMeta>,
    /// The state machine executes these committed entries, in order; [`Raft::applied`] reports it.
    pub entries: Vec<Entry>,
    /// Reads that were confirmed, or that failed because leadership was lost.
    pub reads: DecidedReads,
    /// A snapshot of the state is to be taken: a follower needs one, and this node has none after
    /// which its log continues. That happens when the follower has lost what it had acknowledged,
    /// or when this node's snapshot is gone or damaged.
    pub wants_snapshot: bool,
    /// Whom this node speaks to, or the committed configuration, is another one now: the network
    /// and clients are to be told. The first output has it.
    pub news: Option<News>,
    /// Changes of role, term or leader, for the operator's log.
    pub events: Vec<Event>,
    /// What has changed about the members, for people.
    pub configuration_events: Vec<ConfigurationEvent>,
    /// Entries that the log has dropped, for the caller to free. To free many takes long, so it is
    /// done without the lock that guards the core.
    pub removed: Removed,
    /// Which kinds of work are left: the caller had no room, or not enough.
    pub left: Left,
}

/// Reads that were confirmed, or that failed; no read is named twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecidedReads {
    /// Confirmed reads. Each may be answered once the state machine has executed its index.
    pub ready: Vec<(ReadId, Index)>,
    /// Reads that cannot be answered here, because leadership was lost.
    pub failed: Vec<ReadId>,
}

/// Which kinds of work would be handed out if there were more [`Room`]. Messages are not among
/// them; a caller asks for messages after each tick at the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// There is a term, a vote or entries to write.
    pub write: bool,
    /// There is a part of a snapshot to store or to send.
    pub parts: bool,
    /// There is a snapshot for the state machine to take over.
    pub install: bool,
    /// There are committed entries to execute.
    pub entries: bool,
}

impl Raft {
    /// Hands out the work that has come up since the last call, as far as the caller has `room` for
    /// it. To be called after each input, before the lock that guards this value is released: then
    /// there is never work of which no thread knows.
    pub fn output(&mut self, room: Room) -> Output {
        if room.messages
            && let Role::Leader(leader) = &mut self.role
        {
            leader.broadcast(&mut self.common);
        }
        let news = self.take_news();
        let common = &mut self.common;
        let events = std::mem::take(&mut common.events);
        let configuration_events = std::mem::take(&mut common.configuration_events);
        if let fault @ Some(_) = common.fault {
            return Output {
                fault,
                events,
                configuration_events,
                ..Output::default()
            };
        }
        let mut output = Output {
            events,
            news,
            configuration_events,
            reads: std::mem::take(&mut common.reads_decided),
            wants_snapshot: common.snapshots.take_wanted(),
            removed: common.log.take_removed(),
            ..Output::default()
        };
        if room.messages {
            output.messages = common.take_messages();
        }
        if room.write {
            output.write = common.take_write();
        }
        // While the term is not durable, nothing of the term is stored or executed: neither a file
        // nor a state may name a term that the node has forgotten after a crash.
        let is_durable = common.hard_state_durable();
        if room.parts {
            output.to_send = common.snapshots.take_request();
            if is_durable {
                output.to_store = common.snapshots.take_received();
            }
        }
        // The snapshot was durable before the core heard of it, so it waits for nothing.
        if room.install {
            output.install = common.snapshots.to_install.take();
        }
        // Entries follow the snapshot: without its state they cannot be executed.
        let waits = common.snapshots.to_install.is_some();
        if is_durable && !waits && room.entry_bytes > 0 {
            output.entries = common.log.take_committed(room.entry_bytes);
        }
        output.left = Left {
            write: common.has_write(),
            parts: common.snapshots.has_request() || is_durable && common.snapshots.has_received(),
            install: waits,
            entries: is_durable && common.log.has_committed(),
        };
        output
    }
}
