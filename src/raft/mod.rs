#![doc = include_str!("README.md")]

mod candidate;
mod catch_up;
mod change;
mod common;
mod config;
pub mod configuration;
mod configurations;
mod configuring;
mod counting;
mod event;
mod follower;
mod following;
mod leader;
mod log;
mod log_reading;
mod member;
mod message;
mod news;
mod outbox;
mod output;
mod own_disk;
mod progress;
mod reads;
mod refusal;
mod removed;
mod replication;
mod role;
mod snapshot_sending;
mod snapshots;
mod standing;
mod transferring;
mod types;
mod view;

use bytes::Bytes;

pub use change::{Change, Changed};
pub use config::Config;
pub use configuration::{Configuration, LoggedConfiguration, Member, MemberRole, VoteResult};
pub use event::{ConfigurationEvent, Event, Fault, Reason};
pub use message::{Conflict, Envelope, Message};
pub use news::{Contact, MemberProgress, News};
pub use output::{DecidedReads, Left, Output, Room};
pub use refusal::{ChangeError, ProposeError, ReadError};
pub use removed::Removed;
pub use snapshot_sending::StoredSnapshot;
pub use snapshots::{Part, PartRequest};
pub use types::{
    Entry, EntryId, FolderId, HardState, Index, MemberId, NodeId, Payload, ReadId, RoleName,
    SnapshotMeta, Term, Write, WriteId,
};

use common::Common;
use follower::Follower;
use message::Sender;
use role::Role;

/// A message of a term beyond this is dropped, so that `term + 1` cannot overflow. No cluster lives
/// to see so many elections.
const MAX_TERM: Term = Term::MAX / 2;

/// A snapshot whose last index lies beyond this is dropped, so that `index + 1` cannot overflow.
/// Entries need no such bound: the index of each is the one before plus one.
const MAX_INDEX: Index = Index::MAX / 2;

/// The consensus core of one node. Inputs are method calls; [`output`](Self::output) hands out the
/// work that they lead to.
///
/// ```
/// use raftkv::raft::{Config, Configuration, HardState, Raft, RoleName, Room};
///
/// // The only node of its cluster elects itself as soon as its vote is on disk.
/// let config = Config::new(1, Configuration::of_voters([1]), 7);
/// let mut raft = Raft::new(config, HardState::default(), Vec::new());
/// while raft.role() != RoleName::Leader {
///     raft.tick();
///     if let Some(write) = raft.output(Room::EVERYTHING).write {
///         raft.durable(write.id);
///     }
/// }
/// let id = raft.propose("command".into()).unwrap();
/// assert_eq!(raft.commit(), 0, "not committed before it is on disk");
/// let write = raft.output(Room::EVERYTHING).write.unwrap();
/// raft.durable(write.id);
/// assert_eq!(raft.commit(), id.index);
/// let entries = raft.output(Room::EVERYTHING).entries;
/// assert_eq!(entries.last().map(|entry| entry.id), Some(id));
/// ```
#[derive(Debug)]
pub struct Raft {
    /// The state that the node has in every role.
    common: Common,
    /// The state that it has in its present role.
    role: Role,
}

impl Raft {
    /// A node as it comes up: a follower with what was found on its disk.
    ///
    /// # Panics
    /// If the settings are not [valid](Config::validate), or the entries are not a log.
    pub fn new(config: Config, hard_state: HardState, entries: Vec<Entry>) -> Self {
        Self::restore(config, hard_state, None, entries)
    }

    /// A node as it comes up with a snapshot, from which the state machine has been restored, and
    /// the entries that follow it.
    ///
    /// # Panics
    /// If the settings are not [valid](Config::validate), or the entries do not follow the
    /// snapshot.
    pub fn restore(
        config: Config,
        hard_state: HardState,
        snapshot: Option<StoredSnapshot>,
        entries: Vec<Entry>,
    ) -> Self {
        if let Err(sentence) = config.validate() {
            panic!("invalid settings: {sentence}");
        }
        let mut common = Common::new(config, hard_state, snapshot, entries);
        let follower = Follower::new(&mut common, None);
        Self {
            common,
            role: Role::Follower(follower),
        }
    }

    /// From now on the node votes, stands for election and acknowledges; see [`Config::admitted`].
    /// Entries that it took in before are acknowledged when the leader asks again, with its next
    /// heartbeat at the latest.
    pub fn admit(&mut self) {
        self.common.config.admitted = true;
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        self.role.tick(&mut self.common);
        self.check();
        self.common.let_go_of_matched();
    }

    /// A message has arrived. Whatever it holds, it does not panic: what no correct node sends is
    /// dropped, or recorded as a [`fault`](Self::fault).
    pub fn step(&mut self, envelope: Envelope) {
        let Envelope {
            from,
            from_folder,
            to,
            to_folder,
            term,
            message,
        } = envelope;
        // A message for another node, or a message of an incredible term, which is damaged. To drop
        // them is to lose a message, which every sender has to expect.
        if to != self.common.id() || from == to || term > MAX_TERM {
            return;
        }
        // Meant for a folder that this node had once, or has on another machine. What that one was
        // asked for this one must not answer: it knows nothing of its votes and entries.
        if to_folder.is_some_and(|folder| folder != self.common.config.folder) {
            self.common.wrong_folder(from);
            return;
        }
        let sender = Sender {
            member: MemberId {
                id: from,
                folder: from_folder,
            },
            names_us: to_folder.is_some(),
        };
        self.role.receive(&mut self.common, sender, term, message);
        self.check();
    }

    /// Nobody listens at a peer's address, so its process has most likely ended. If it led, this
    /// node does not wait for the election timeout to find that out. If the report is wrong, the
    /// others hear the leader, and refuse: nobody is disturbed (thesis 9.6).
    pub fn absent(&mut self, peer: NodeId) {
        if let Role::Follower(follower) = &mut self.role {
            follower.absent(&mut self.common, peer);
        }
    }

    /// Appends a command to the leader's log and returns the id of its entry. The command is
    /// executed if and only if this very entry, of this index *and* term, is committed.
    ///
    /// # Errors
    /// [`ProposeError`] if the command was refused; then it is never executed.
    pub fn propose(&mut self, command: Bytes) -> Result<EntryId, ProposeError> {
        match &mut self.role {
            Role::Leader(leader) => leader.propose(&mut self.common, command),
            _ => Err(ProposeError::NotLeader),
        }
    }

    /// Asks for a linearizable read. `id` comes back with [`Output::reads`].
    ///
    /// # Errors
    /// [`ReadError`] if the read was refused; then `id` does not come back.
    pub fn read(&mut self, id: ReadId) -> Result<(), ReadError> {
        match &mut self.role {
            Role::Leader(leader) => leader.read(&self.common, id),
            _ => Err(ReadError::NotLeader),
        }
    }

    /// Transfers leadership to `to`, or to the voter that is furthest along (thesis 3.10). Returns
    /// that voter, or `None` if this node does not lead or there is no such voter. The transfer is
    /// given up if it has not happened within an election timeout.
    pub fn transfer(&mut self, to: Option<NodeId>) -> Option<NodeId> {
        match &mut self.role {
            Role::Leader(leader) => leader.transfer(&mut self.common, to),
            _ => None,
        }
    }

    /// All writes up to and including this one are on disk.
    ///
    /// # Panics
    /// If no such write is under way.
    pub fn durable(&mut self, write: WriteId) {
        self.common.durable(write);
        self.role.disk_returned(&mut self.common);
        self.check();
    }

    /// The state machine has executed all entries up to `index`.
    ///
    /// # Panics
    /// If `index` goes back, or beyond what [`Output::entries`] gave out.
    pub fn applied(&mut self, index: Index) {
        self.common.log.applied_to(index);
        self.common.let_go_of_matched();
    }
}

#[cfg(test)]
mod tests;
