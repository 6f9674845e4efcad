//! What the inputs of a replica lead to, for the threads that carry it out.

use std::collections::VecDeque;

use super::own_disk::DiskNotice;
use super::replica::End;
use super::work::{Share, Work};
use crate::raft::{
    ConfigurationEvent, Envelope, Event, Fault, News, Part, PartRequest, Removed, Write,
};

/// Which kinds of work a thread takes now. Each thread asks for its own kinds, when it has finished
/// the work it took before; see [`Room`](crate::raft::Room).
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The thread takes messages, and sends them to the other nodes.
    pub messages: bool,
    /// The thread takes the next write for the disk.
    pub write: bool,
    /// The thread takes errands: work with the files of snapshots.
    pub errands: bool,
    /// The thread takes work for the state machine, as much as this share allows.
    pub work: Option<Share>,
}

impl Wanted {
    /// Wants no work. What every thread carries out at once, such as the ends of requests, comes
    /// all the same.
    pub const NOTHING: Self = Self {
        messages: false,
        write: false,
        errands: false,
        work: None,
    };

    /// Wants messages only.
    pub const MESSAGES: Self = Self {
        messages: true,
        ..Self::NOTHING
    };

    /// Wants the next write, and the messages that have to leave before it begins.
    pub const WRITE: Self = Self {
        write: true,
        ..Self::MESSAGES
    };

    /// Wants errands, and messages.
    pub const ERRANDS: Self = Self {
        errands: true,
        ..Self::MESSAGES
    };

    /// Wants work for the state machine, as much as this share allows, and nothing else.
    pub const fn work(share: Share) -> Self {
        Self {
            work: Some(share),
            ..Self::NOTHING
        }
    }
}

/// What is to be done, in the order of the fields; see [`Output`](crate::raft::Output). `W` is the
/// waiter of a request.
#[derive(Debug)]
#[must_use = "each item is handed out once"]
pub struct Consequences<W> {
    /// Why the node has to stop. If there is a fault, there is no work, now and later; only the
    /// requests in `ended` are still answered.
    pub fault: Option<Fault>,
    /// Messages to send to the other nodes.
    pub messages: Vec<Envelope>,
    /// The next write for the disk: term and vote, entries, or both.
    pub write: Option<Write>,
    /// Work with the files of snapshots: parts to store and to send.
    pub errands: Errands,
    /// Work for the state machine: a snapshot to install, entries to execute, reads to answer.
    pub work: Work<W>,
    /// Requests that end without having been executed here.
    pub ended: Vec<(W, End)>,
    /// Whom the node speaks to, or the committed configuration, is another one now. The numbers
    /// ascend: a thread that comes late must not put old news in the place of newer ones.
    pub news: Option<(u64, News)>,
    /// Changes of role, term or leader, for the operator's log.
    pub events: Vec<Event>,
    /// What has changed about the members, for people.
    pub configuration_events: Vec<ConfigurationEvent>,
    /// What has changed about this node's disk, for the operator's log.
    pub disk_notices: Vec<DiskNotice>,
    /// Entries that the log has dropped. They are freed last and without the replica's lock,
    /// because to free many takes long.
    pub removed: Removed,
    /// Which kinds of work other threads have to do, or this one later.
    pub left: Left,
}

/// The next work with the files of snapshots.
#[derive(Debug, Default)]
pub struct Errands {
    /// Received parts of a snapshot, to be stored.
    pub to_store: VecDeque<Part>,
    /// A part to read and send. Parts are handed out one at a time: meanwhile a follower may no
    /// longer need the next.
    pub to_send: Option<PartRequest>,
}

/// Which kinds of work wait because the thread has not [asked](Wanted) for them, or has asked for
/// less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// There is a term, a vote or entries to write.
    pub write: bool,
    /// There are parts of snapshots to send or to store.
    pub errands: bool,
    /// There is a snapshot to install or to take, or there are entries to execute or reads to
    /// answer.
    pub work: bool,
}
