//! The snapshots of this node, as far as consensus is concerned: the one that it can send, the
//! parts that are to be sent, and the parts that have come in. Bytes are moved by others.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Raft;
use super::message::{Envelope, Message};
use super::role::Role;
use super::snapshot_sending::StoredSnapshot;
use super::types::{EntryId, Index, NodeId, SnapshotMeta};

/// How many received parts may wait to be stored; further ones are dropped and sent again.
const MAX_WAITING: usize = 16;

/// A part of a snapshot that is to be read and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRequest {
    /// The message, complete but for its data.
    pub envelope: Envelope,
    /// How many bytes of data it is to carry.
    pub length: u64,
}

/// A part of a snapshot that has come in and is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// The size of its whole file, in bytes.
    pub bytes: u64,
    /// Where in the file the data belongs.
    pub offset: u64,
    /// The data. Empty if the leader only asks how far this node is.
    pub data: Bytes,
}

#[derive(Debug)]
pub(super) struct Snapshots {
    newest: Option<StoredSnapshot>,
    /// Parts that wait to be read: no more than the windows of all followers hold.
    requests: VecDeque<PartRequest>,
    received: VecDeque<Part>,
    /// One that the state machine has to take over before it executes anything else.
    pub to_install: Option<SnapshotMeta>,
    /// A follower needs a newer one than there is.
    wanted: bool,
}

impl Snapshots {
    pub fn new(newest: Option<StoredSnapshot>) -> Self {
        Self {
            newest,
            requests: VecDeque::new(),
            received: VecDeque::new(),
            to_install: None,
            wanted: false,
        }
    }

    /// The newest snapshot on this node's disk.
    pub fn newest(&self) -> Option<&StoredSnapshot> {
        self.newest.as_ref()
    }

    /// The newest snapshot, if the log behind `base` goes on where it ends. If it does not, because
    /// the log had no need of one to let go of what all members had, a new one is wanted.
    pub fn reaching(&mut self, base: Index) -> Option<StoredSnapshot> {
        let newest = self.newest.as_ref();
        let reaching = newest.filter(|newest| newest.meta.last.index >= base);
        self.wanted |= reaching.is_none();
        reaching.cloned()
    }

    /// This snapshot is not there any more.
    pub fn forget(&mut self, last: EntryId) {
        self.newest.take_if(|newest| newest.meta.last == last);
    }

    pub fn stored(&mut self, snapshot: StoredSnapshot) {
        let index = |s: &StoredSnapshot| s.meta.last.index;
        if self.newest.as_ref().map(index) < Some(index(&snapshot)) {
            self.newest = Some(snapshot);
        }
    }

    /// Has a part read and sent. Where it waits already it waits once: a disk that is slower than
    /// the heartbeats, with which parts are asked for again, would fall behind for good.
    pub fn request(&mut self, request: PartRequest) {
        if !self.requests.contains(&request) {
            self.requests.push_back(request);
        }
    }

    /// Forgets the parts for a follower that it does not need any more: all but those of the
    /// snapshot given from the offset on.
    pub fn keep_requests(&mut self, to: NodeId, needed: Option<(EntryId, u64)>) {
        self.requests.retain(|request| {
            let Message::Snapshot { meta, offset, .. } = &request.envelope.message else {
                return false;
            };
            let needs = |(last, from): (EntryId, u64)| meta.last == last && *offset >= from;
            request.envelope.to != to || needed.is_some_and(needs)
        });
    }

    pub fn has_request(&self) -> bool {
        !self.requests.is_empty()
    }

    pub fn take_request(&mut self) -> Option<PartRequest> {
        self.requests.pop_front()
    }

    pub fn receive(&mut self, part: Part) {
        if self.received.len() < MAX_WAITING {
            self.received.push_back(part);
        }
    }

    pub fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    pub fn take_received(&mut self) -> VecDeque<Part> {
        std::mem::take(&mut self.received)
    }
}

/// What a node does with snapshots.
impl Raft {
    /// Whether [`take_install`](Self::take_install) would return something.
    pub fn has_install(&self) -> bool {
        self.common.snapshots.to_install.is_some()
    }

    /// Whether a snapshot has to be taken, since the last call: a follower needs one, and there is
    /// none that the log goes on behind. So it is when the follower has lost what it had
    /// acknowledged, or this node its snapshot.
    pub fn take_snapshot_wanted(&mut self) -> bool {
        std::mem::take(&mut self.common.snapshots.wanted)
    }

    /// A snapshot of this node's own state has become durable: the log that it covers goes, and is
    /// [handed out](Self::take_removed).
    pub fn snapshot_taken(&mut self, snapshot: StoredSnapshot) {
        let last = snapshot.meta.last.index;
        self.common.snapshots.stored(snapshot);
        let up_to = match &self.role {
            Role::Leader(leader) => last.min(leader.may_compact_to()),
            _ => last,
        };
        let trailing = self.common.config.trailing_bytes;
        self.common.log.compact(up_to, trailing);
        self.check();
    }

    /// A part that was requested for `to` cannot be read: the snapshot up to `last` is gone, or is
    /// damaged and must not be used.
    pub fn snapshot_gone(&mut self, to: NodeId, last: EntryId) {
        self.common.snapshots.forget(last);
        if let Role::Leader(leader) = &mut self.role {
            leader.snapshot_gone(to, last);
        }
    }

    /// The parts of a snapshot that have come in since the last call, to be stored. None while a
    /// term is not durable yet, as in [`take_committed`](Self::take_committed).
    pub fn take_received_parts(&mut self) -> VecDeque<Part> {
        match self.common.hard_state_durable() {
            true => self.common.snapshots.take_received(),
            false => VecDeque::new(),
        }
    }

    /// The snapshot up to `last` has been stored up to the offset `received`.
    pub fn part_stored(&mut self, last: EntryId, received: u64) {
        if let Role::Follower(follower) = &self.role
            && let Some(leader) = follower.leader()
        {
            let reply = Message::SnapshotReply { last, received };
            self.common.send(leader, reply);
        }
    }

    /// A snapshot from the leader is whole, verified and durable. Returns whether it takes the
    /// place of this node's state: it does not if the node has moved on meanwhile.
    pub fn install(&mut self, snapshot: StoredSnapshot) -> bool {
        let meta = snapshot.meta.clone();
        let Role::Follower(follower) = &self.role else {
            return false;
        };
        let leader = follower.leader();
        self.common.snapshots.stored(snapshot);
        let index = meta.last.index;
        let news = index > self.common.log.committed();
        if news {
            let fits = self.common.fits(meta.last);
            self.common.log.install(meta.last, meta.time_ms, fits);
            self.common.snapshots.to_install = Some(meta);
        }
        if let Some(leader) = leader {
            self.common.acknowledge(leader, index);
        }
        self.check();
        news
    }

    /// The snapshot that the state machine has to take over before it executes the entries that
    /// [`take_committed`](Self::take_committed) returns next.
    pub fn take_install(&mut self) -> Option<SnapshotMeta> {
        self.common.snapshots.to_install.take()
    }
}
