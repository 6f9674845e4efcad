//! What the nodes of a cluster say to each other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::configuration::Member;
use super::types::{Entry, EntryId, FolderId, Index, MemberId, NodeId, SnapshotMeta, Term};

/// A message on its way from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The node that sent it.
    pub from: NodeId,
    /// The sender's folder: what it says counts for this folder, and for no other one of the node.
    pub from_folder: FolderId,
    /// The node it is meant for.
    pub to: NodeId,
    /// The folder of that node that it is meant for. `None` if the sender knows none: its
    /// configuration has no folder for the node.
    pub to_folder: Option<FolderId>,
    /// The sender's current term. It was durable at the sender before the message left.
    pub term: Term,
    /// The message itself.
    pub message: Message,
}

/// Who sent a message, and how it addressed this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    pub member: MemberId,
    /// Whether it addressed this very folder. If not, it knows no folder of this node.
    pub names_us: bool,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    pub id: NodeId,
    /// The folder that the sender's configuration has for the node.
    pub folder: Option<FolderId>,
}

impl From<&Member> for Receiver {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id,
            folder: member.folder,
        }
    }
}

impl From<Sender> for Receiver {
    /// The answer to a message is for the folder that sent it.
    fn from(sender: Sender) -> Self {
        Self {
            id: sender.member.id,
            folder: Some(sender.member.folder),
        }
    }
}

/// The messages of the protocol. Requests may be lost, repeated, delayed and reordered; every
/// handler is written so that this does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// From a node whose election timer ran out, to all voters: would you vote for me in
    /// `next_term`? Changes no state at the receiver (thesis 9.6).
    PreVote {
        /// The term that the sender would campaign in: its own plus one.
        next_term: Term,
        /// The id of the sender's last entry.
        last: EntryId,
    },
    /// The answer to a [`Message::PreVote`].
    PreVoteReply {
        /// The `next_term` of the question. An answer to an older question is ignored.
        next_term: Term,
        /// Whether the vote would be given.
        granted: bool,
    },
    /// From a candidate to all voters: vote for me in this envelope's term (paper 5.2).
    Vote {
        /// The id of the candidate's last entry.
        last: EntryId,
        /// Set when the leader itself asked for this election, so that having heard from it is no
        /// reason to refuse (thesis 3.10 and 4.2.3).
        transfer: bool,
    },
    /// The answer to a [`Message::Vote`] of the same term. Leaves only once the vote is durable.
    VoteReply {
        /// Whether the vote was given.
        granted: bool,
    },
    /// From the leader to a follower: entries to append after `prev` (paper 5.3).
    Append {
        /// The id of the entry that precedes `entries`; [`EntryId::ZERO`] at the log's start.
        prev: EntryId,
        /// Consecutive entries, possibly none: then the message only asks whether `prev` matches.
        entries: Vec<Entry>,
        /// The leader's commit index. May lie beyond the entries of this message.
        commit: Index,
    },
    /// The answer to a [`Message::Append`] of the same term that matched. Leaves only once the
    /// log up to `matched` is durable.
    Accepted {
        /// The follower's log is equal to the leader's up to this index, inclusive.
        matched: Index,
    },
    /// The answer to a [`Message::Append`] of the same term whose `prev` did not match.
    Rejected {
        /// The index of the `prev` that was refused: tells a fresh rejection from a stale one.
        prev: Index,
        /// Where the follower's log could agree at the latest, so that the leader goes back by a
        /// whole term at a time and not by one entry (paper 5.3, end).
        conflict: Conflict,
    },
    /// From the leader to every follower: at a fixed interval, whatever else was sent, and at once
    /// when reads wait to be confirmed (thesis 6.4).
    Heartbeat {
        /// The leader's commit index, but no further than this follower has acknowledged its log.
        commit: Index,
        /// Every member has the log up to here on its disk, inclusive, so none will ask for it
        /// again: the receiver may drop it from memory. It may be an old value; it only grows.
        matched_by_all: Index,
        /// The number of the round of confirmations that this heartbeat belongs to. It only grows
        /// within a term.
        round: u64,
    },
    /// The answer to a [`Message::Heartbeat`] of the same term: does not wait for the disk.
    HeartbeatReply {
        /// The `round` of the heartbeat.
        round: u64,
    },
    /// From the leader to a follower that needs entries which the leader no longer holds: a part of
    /// a snapshot's file (paper section 7). Only a few parts are on their way at a time.
    Snapshot {
        /// The snapshot's last entry, that entry's cluster time, and the members then.
        meta: SnapshotMeta,
        /// The size of the whole file, in bytes.
        bytes: u64,
        /// Where in the file `data` belongs.
        offset: u64,
        /// The part. It is never empty and never reaches beyond the end of the file: a follower
        /// drops such a message without an answer.
        data: Bytes,
    },
    /// The answer to a [`Message::Snapshot`] of the same term while the snapshot is not complete.
    /// Once it is installed, or if it brings nothing new, the answer is [`Message::Accepted`].
    SnapshotReply {
        /// The last entry of the snapshot, which tells it from others.
        last: EntryId,
        /// Up to here the follower has the file: the offset that it needs next. 0 if it has to
        /// start over; never the size of the file.
        received: u64,
    },
    /// From the leader to the follower that is to take over: campaign at once (thesis 3.10).
    TimeoutNow,
    /// The answer to a request of an older term. It carries nothing but the envelope's term, from
    /// which the sender learns that its own has passed; without it a node that is stuck at a
    /// higher term could not rejoin under pre-vote and check-quorum.
    Outdated,
}

impl Message {
    /// Whether it answers a request. Requests are taken from everybody, answers only from those who
    /// may have been asked.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::Accepted { .. }
            | Message::Rejected { .. }
            | Message::HeartbeatReply { .. }
            | Message::SnapshotReply { .. }
            | Message::Outdated => true,
            Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::Snapshot { .. }
            | Message::TimeoutNow => false,
        }
    }
}

/// Where a follower's log departs from the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The term of the follower's entry at `prev`; `None` if the follower has no entry there that
    /// could be in the leader's log: none at all, or one of a higher term than `prev`'s.
    pub term: Option<Term>,
    /// The first index at which the follower has an entry of that term; without a term, the index
    /// after the last entry that could be in the leader's log.
    pub first_index: Index,
}
