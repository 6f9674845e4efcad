//! What an input of the replica leads to, for the threads that carry it out.

use std::collections::VecDeque;

use super::replica::End;
use super::work::{Share, Work};
use crate::raft::{Envelope, Event, Fault, Part, PartRequest, Removed, Write};

/// What a thread carries out now. Each thread asks for its own kind of work, when it has finished
/// the work before; see [`Room`](crate::raft::Room).
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Messages, to send them.
    pub messages: bool,
    /// The next write of the log.
    pub write: bool,
    /// Work with the files of snapshots.
    pub errands: bool,
    /// Work for the state machine, of this share.
    pub work: Option<Share>,
}

impl Wanted {
    /// Only what every thread acts on.
    pub const NOTHING: Self = Self {
        messages: false,
        write: false,
        errands: false,
        work: None,
    };

    /// Messages only.
    pub const MESSAGES: Self = Self {
        messages: true,
        ..Self::NOTHING
    };

    /// The next write, and the messages that leave before it begins.
    pub const WRITE: Self = Self {
        write: true,
        ..Self::MESSAGES
    };

    /// Errands, and messages.
    pub const ERRANDS: Self = Self {
        errands: true,
        ..Self::MESSAGES
    };

    /// Work for the state machine, of this share.
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
    /// Why the node has to stop. A node whose core has found a fault does nothing else.
    pub fault: Option<Fault>,
    /// Messages to send.
    pub messages: Vec<Envelope>,
    /// What the log's next write holds.
    pub write: Option<Write>,
    /// Work with the files of snapshots.
    pub errands: Errands,
    /// Work for the state machine.
    pub work: Work<W>,
    /// Requests that end without having been executed here.
    pub ended: Vec<(W, End)>,
    /// What has changed, for people.
    pub events: Vec<Event>,
    /// Entries that the log has let go of. To free many takes long, so that happens last, and
    /// without the replica's lock.
    pub removed: Removed,
    /// What other threads have to do, or this one later.
    pub left: Left,
}

/// What is to be done with the files of snapshots next.
#[derive(Debug, Default)]
pub struct Errands {
    /// Parts that have come in, to be stored.
    pub to_store: VecDeque<Part>,
    /// A part to read and send. One at a time: others may turn out not to be needed meanwhile.
    pub to_send: Option<PartRequest>,
}

/// Which kinds of work wait that were not [wanted](Wanted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Something to write.
    pub write: bool,
    /// Errands.
    pub errands: bool,
    /// Work for the state machine.
    pub work: bool,
}
