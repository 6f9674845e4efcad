//! The snapshots of this node, as far as consensus is concerned: the one that it can send, the
//! parts that are to be sent, and the parts that have come in (paper section 7).
//!
//! The core counts offsets and leaves the bytes to its caller, because a file takes long to read
//! and to write and heartbeats must not wait for it. A part to send is handed out as a request: the
//! caller reads its data, makes the message, and sends it. A part that came in is handed out to be
//! stored, and the caller reports how far the file is. Only a whole, verified and durable snapshot
//! comes back, with [`Raft::install`].
//!
//! Nothing in this file's queues has to survive: a part that is dropped is sent again.

use std::collections::VecDeque;

use bytes::Bytes;

use super::message::{Envelope, Message};
use super::role::Role;
use super::snapshot_sending::StoredSnapshot;
use super::types::{EntryId, FolderId, Index, NodeId, SnapshotMeta, Term};
use super::{MAX_INDEX, Raft};

/// How many received parts may wait to be stored. Further ones are dropped, so that a leader that
/// sends faster than the disk writes holds no memory here; they are sent again.
const MAX_WAITING: usize = 16;

/// A part of a snapshot that is to be read and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRequest {
    /// The id of this node, which sends the part.
    pub from: NodeId,
    /// This node's folder.
    pub from_folder: FolderId,
    /// The follower that needs the part.
    pub to: NodeId,
    /// The folder that the configuration has for the follower.
    pub to_folder: Option<FolderId>,
    /// This node's term when it asked for the part; durable.
    pub term: Term,
    /// The snapshot to whose file the part belongs.
    pub snapshot: StoredSnapshot,
    /// Where in its file the part begins, in bytes.
    pub offset: u64,
    /// How many bytes the part has: at least 1, and none past the end of the file.
    pub length: u64,
}

impl PartRequest {
    /// The message with the data that was read.
    ///
    /// # Panics
    /// If there is more data than was asked for, or less.
    pub fn message(self, data: Bytes) -> Envelope {
        assert_eq!(data.len() as u64, self.length, "another part was read");
        Envelope {
            from: self.from,
            from_folder: self.from_folder,
            to: self.to,
            to_folder: self.to_folder,
            term: self.term,
            message: Message::Snapshot {
                meta: self.snapshot.meta,
                bytes: self.snapshot.bytes,
                offset: self.offset,
                data,
            },
        }
    }
}

/// A part of a snapshot that has come in and is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The snapshot's last entry, that entry's cluster time, and the members then.
    pub meta: SnapshotMeta,
    /// The size of its whole file, in bytes.
    pub bytes: u64,
    /// Where in the file the data belongs.
    pub offset: u64,
    /// The data; never empty, and none of it past the end of the file.
    pub data: Bytes,
}

impl Part {
    fn place(&self) -> Place {
        Place {
            last: self.meta.last,
            bytes: self.bytes,
            offset: self.offset,
        }
    }
}

/// What tells a received part from other parts.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The last entry of the snapshot.
    last: EntryId,
    /// The size of the snapshot's file: another leader's file of the same snapshot may differ.
    bytes: u64,
    /// Where in the file the part begins.
    offset: u64,
}

impl Part {
    /// Whether a leader of this term can have sent it.
    pub(super) fn is_possible(&self, present: Term) -> bool {
        // Its log has no entry of a later term. The bound on the index keeps `index + 1` from
        // overflowing.
        let EntryId { term, index } = self.meta.last;
        let is_entry = (1..=present).contains(&term) && index <= MAX_INDEX;
        // The members are those as of that entry.
        let logged = &self.meta.configuration;
        let are_members = logged.index <= index && logged.configuration.validate().is_ok();
        // A part without data, or beyond the end of the file, is not sent.
        let end = self.offset.checked_add(self.data.len() as u64);
        let is_part = !self.data.is_empty() && end.is_some_and(|end| end <= self.bytes);
        is_entry && are_members && is_part
    }
}

#[derive(Debug)]
pub(super) struct Snapshots {
    /// The newest snapshot on this node's disk, unless it was found damaged. Its last entry is
    /// committed here.
    newest: Option<StoredSnapshot>,
    /// Parts that wait to be read: no more than the windows of all followers hold, each once.
    requests: VecDeque<PartRequest>,
    /// Parts that wait to be stored, in the order in which they came; at most [`MAX_WAITING`], each
    /// once.
    received: VecDeque<Part>,
    /// Parts that were handed out to be stored and of which the caller has not reported yet, in the
    /// order in which they were handed out.
    being_stored: VecDeque<Place>,
    /// A snapshot that the state machine has to take over before it executes anything else: the
    /// entries up to it are not in the log any more.
    pub to_install: Option<SnapshotMeta>,
    /// Whether a follower needs a newer snapshot than there is. Set until the next output.
    wanted: bool,
}

impl Snapshots {
    pub fn new(newest: Option<StoredSnapshot>) -> Self {
        Self {
            newest,
            requests: VecDeque::new(),
            received: VecDeque::new(),
            being_stored: VecDeque::new(),
            to_install: None,
            wanted: false,
        }
    }

    /// The newest snapshot on this node's disk.
    pub fn newest(&self) -> Option<&StoredSnapshot> {
        self.newest.as_ref()
    }

    /// The newest snapshot, if the log, whose first entry is the one after `base`, continues it
    /// without a gap. Otherwise a follower that installed the snapshot would need entries that are
    /// gone, and a new snapshot is wanted. Such a gap arises because the log drops the entries that
    /// all members have on their disks, whether or not a snapshot covers them.
    pub fn reaching(&mut self, base: Index) -> Option<StoredSnapshot> {
        let newest = self.newest.as_ref();
        let reaching = newest.filter(|newest| newest.meta.last.index >= base);
        self.wanted |= reaching.is_none();
        reaching.cloned()
    }

    /// The snapshot `gone` is not there any more. Another one that has been stored since stays,
    /// even if it ends with the same entry: its file is another one.
    pub fn forget(&mut self, gone: &StoredSnapshot) {
        self.newest.take_if(|newest| newest == gone);
    }

    /// A snapshot is on this node's disk. An older one than is known changes nothing: the node's
    /// own and one from the leader may be completed in any order.
    pub fn stored(&mut self, snapshot: StoredSnapshot) {
        let index = |s: &StoredSnapshot| s.meta.last.index;
        if self.newest.as_ref().map(index) < Some(index(&snapshot)) {
            self.newest = Some(snapshot);
        }
    }

    /// Queues a part to be read and sent. A part that waits already is not queued again: parts
    /// count as lost after some heartbeats, and a disk slower than that would never catch up.
    pub fn request(&mut self, request: PartRequest) {
        if !self.requests.contains(&request) {
            self.requests.push_back(request);
        }
    }

    /// Forgets the queued parts for the follower `to`, except those that it still needs: the parts
    /// of the snapshot `needed` from the offset on, or none at all.
    pub fn keep_requests(&mut self, to: NodeId, needed: Option<(EntryId, u64)>) {
        self.requests.retain(|request| {
            let of = request.snapshot.meta.last;
            let needs = |(last, from): (EntryId, u64)| of == last && request.offset >= from;
            request.to != to || needed.is_some_and(needs)
        });
    }

    pub fn has_request(&self) -> bool {
        !self.requests.is_empty()
    }

    pub fn take_request(&mut self) -> Option<PartRequest> {
        self.requests.pop_front()
    }

    /// Keeps a part until the caller collects it; drops it if too many wait.
    ///
    /// A part that waits already, or is being stored, is dropped, too. The leader repeats a part
    /// that is not answered within some heartbeats, and a disk slower than these would be given the
    /// same part again and again. Nothing is lost by this: the part that came first is answered
    /// when it is stored, and if that answer gets lost, the leader repeats the part once more.
    pub fn receive(&mut self, part: Part) {
        let place = part.place();
        let waits = self.received.iter().any(|other| other.place() == place);
        if !waits && !self.being_stored.contains(&place) && self.received.len() < MAX_WAITING {
            self.received.push_back(part);
        }
    }

    pub fn take_wanted(&mut self) -> bool {
        std::mem::take(&mut self.wanted)
    }

    pub fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    pub fn take_received(&mut self) -> VecDeque<Part> {
        let parts = std::mem::take(&mut self.received);
        self.being_stored.extend(parts.iter().map(Part::place));
        parts
    }

    /// The caller has reported on the oldest part that was handed out to be stored.
    fn reported(&mut self) {
        self.being_stored.pop_front();
    }
}

/// The inputs by which the caller reports what became of snapshots and of their parts.
impl Raft {
    /// A snapshot of this node's own state has become durable: the log drops the entries that it
    /// covers, and hands them out to be freed.
    pub fn snapshot_taken(&mut self, snapshot: StoredSnapshot) {
        let last = snapshot.meta.last.index;
        self.common.snapshots.stored(snapshot);
        let up_to = match &self.role {
            // A follower that is being sent an older snapshot needs the entries after that one.
            Role::Leader(leader) => last.min(leader.may_compact_to()),
            _ => last,
        };
        let trailing = self.common.config.trailing_bytes;
        self.common.log.compact(up_to, trailing);
        self.check();
    }

    /// A part that was requested for `to` cannot be read: this snapshot is gone, or is damaged and
    /// must not be used.
    pub fn snapshot_gone(&mut self, to: NodeId, gone: &StoredSnapshot) {
        self.common.snapshots.forget(gone);
        if let Role::Leader(leader) = &mut self.role {
            leader.snapshot_gone(to, gone);
        }
    }

    /// The file of this snapshot was found damaged, and is out of use. If it was the newest one,
    /// the core knows of none until the next one is taken.
    pub fn snapshot_lost(&mut self, lost: &StoredSnapshot) {
        self.common.snapshots.forget(lost);
    }

    /// The file of the snapshot up to `last` has been stored up to the offset `received`,
    /// exclusive. The leader is told. A node that does not follow a leader any more tells nobody:
    /// the next leader starts from the beginning.
    pub fn part_stored(&mut self, last: EntryId, received: u64) {
        self.common.snapshots.reported();
        if let Role::Follower(follower) = &self.role
            && let Some(leader) = follower.leader()
        {
            let reply = Message::SnapshotReply { last, received };
            self.common.answer(leader, reply);
        }
    }

    /// A snapshot from the leader is whole, verified and durable. Returns whether it takes the
    /// place of this node's state: it does not if this node has committed as much meanwhile, or is
    /// no follower any more.
    ///
    /// A snapshot stands for committed entries, whichever leader sent it, so it may be installed in
    /// a later term than the one in which it came.
    pub fn install(&mut self, snapshot: StoredSnapshot) -> bool {
        self.common.snapshots.reported();
        let meta = snapshot.meta.clone();
        // Only a follower installs a snapshot: a leader's log only grows, and a candidate has asked
        // for votes for the log that it has. To drop the snapshot is safe: a leader sends one again
        // if this node still needs it.
        let Role::Follower(follower) = &self.role else {
            return false;
        };
        let leader = follower.leader();
        self.common.snapshots.stored(snapshot);
        let index = meta.last.index;
        let news = index > self.common.log.committed();
        // A node that has committed as much has executed as much, or will: a snapshot would take
        // its state machine back.
        if news {
            let fits = self.common.fits(meta.last);
            self.common.log.install(&meta, fits);
            self.common.snapshots.to_install = Some(meta);
        }
        // The acknowledgement is true in either case: the log up to `index` is covered by a durable
        // snapshot, or committed.
        if let Some(leader) = leader {
            self.common.acknowledge(leader, index);
        }
        self.check();
        news
    }
}
