//! The snapshots of this node, as far as consensus is concerned: the one that it can send, the
//! parts that are to be sent, and the parts that have come in. Bytes are moved by others.

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::{Envelope, Message};
use super::transfer::StoredSnapshot;
use super::types::{EntryId, NodeId, SnapshotMeta};

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
}

impl Snapshots {
    pub fn new(newest: Option<StoredSnapshot>) -> Self {
        Self {
            newest,
            requests: VecDeque::new(),
            received: VecDeque::new(),
            to_install: None,
        }
    }

    /// The newest snapshot on this node's disk.
    pub fn newest(&self) -> Option<&StoredSnapshot> {
        self.newest.as_ref()
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
