//! What a node does about its own disk while the disk is full or does not return: pure, and counted
//! in ticks.
//!
//! - *The disk is full.* The node takes no commands, and leadership goes to another voter, if there
//!   is one with the whole log. Reads go on. What is on its way still fits: a full disk shows when
//!   the log's next segment is made ready, while the present one has room.
//! - *A write does not return.* The leader hands over, if the others have meanwhile committed what
//!   this disk has not written.
//!
//! Which voter can take over is for the core to say ([`Raft::successor_by_disk`]). The transfer
//! writes nothing here. A node hands over once in [`REST_MS`] at most: leadership must not go round
//! in circles where all disks are bad. For the same reason a node with a bad disk does not follow a
//! leader's order to campaign.

use std::fmt;

use crate::raft::{Message, NodeId, Raft, RoleName, WriteId};

/// For how many election timeouts a write may be under way before the disk counts as hanging: by
/// default one second, which no disk in order takes for one write.
const PATIENCE: u64 = 4;

/// How long a node does not hand over again because of its disk, in milliseconds.
const REST_MS: u64 = 60_000;

/// What the threads of a node know of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskState {
    /// Whether there is no space for the log's next segment.
    pub is_full: bool,
    /// The write of the log that is under way, if one is: handed out, and not durable yet.
    pub write: Option<WriteId>,
}

/// What has changed about the disk, for the operator's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskNotice {
    /// The disk is full, or has space again.
    Full(bool),
    /// The present write has been under way for too long.
    Hangs {
        /// How long it has been under way, in milliseconds.
        ms: u64,
    },
    /// This leader hands over because of its disk.
    HandsOver {
        /// The voter that is to lead.
        to: NodeId,
        /// What is wrong with the disk.
        why: Trouble,
    },
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is full.
    Full,
    /// A write has not returned for so many milliseconds.
    Hangs {
        /// How long the write has been under way.
        ms: u64,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Full => f.write_str("the disk of this node is full"),
            Trouble::Hangs { ms } => {
                write!(f, "a write of this node's log has not returned for {ms} ms")
            }
        }
    }
}

impl fmt::Display for DiskNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskNotice::Full(true) => f.write_str(
                "the disk is full: this node takes no commands until there is space for a whole \
                 segment of the log",
            ),
            DiskNotice::Full(false) => {
                f.write_str("the disk has space again: this node takes commands")
            }
            DiskNotice::Hangs { ms } => write!(
                f,
                "the disk hangs: a write of the log has not returned for {ms} ms. Look at the \
                 disk and at the operating system's log"
            ),
            DiskNotice::HandsOver { to, why } => {
                write!(f, "leadership is handed to node {to}: {why}")
            }
        }
    }
}

/// A node's own disk, as it was at the last tick.
#[derive(Debug, Default)]
pub(super) struct OwnDisk {
    state: DiskState,
    /// For how many ticks the write in `state` has been under way.
    write_ticks: u64,
    /// How many ticks have to pass before this node may hand over again because of its disk.
    rest: u64,
    /// The voter that leadership was handed to last.
    handed_to: Option<NodeId>,
    notices: Vec<DiskNotice>,
}

impl OwnDisk {
    /// Notes the state of the disk; a tick follows.
    pub fn note(&mut self, state: DiskState) {
        if state.write != self.state.write {
            self.write_ticks = 0;
        }
        if state.is_full != self.state.is_full {
            self.notices.push(DiskNotice::Full(state.is_full));
        }
        self.state = state;
    }

    /// Whether there is no space for the log's next segment.
    pub fn is_full(&self) -> bool {
        self.state.is_full
    }

    /// For how many ticks the present write has been under way.
    pub fn write_ticks(&self) -> u64 {
        self.write_ticks
    }

    pub fn take_notices(&mut self) -> Vec<DiskNotice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether the node does what a message asks for, as far as the disk goes. A node whose disk is
    /// bad does not campaign when the leader asks it to: it would hand over again at once. To drop
    /// the message is to lose it, which every sender has to expect.
    pub fn admits(&self, message: &Message, raft: &Raft) -> bool {
        !(matches!(message, Message::TimeoutNow) && self.trouble(raft).is_some())
    }

    /// One tick has passed. Returns the voter that leadership is to be handed to, if it is.
    pub fn tick(&mut self, raft: &Raft) -> Option<NodeId> {
        self.rest = self.rest.saturating_sub(1);
        if self.state.write.is_some() {
            self.write_ticks += 1;
            if self.write_ticks == patience(raft) && !self.state.is_full {
                let ms = self.write_ticks * raft.tick_ms();
                self.notices.push(DiskNotice::Hangs { ms });
            }
        }
        if self.rest > 0 || raft.role() != RoleName::Leader {
            return None;
        }
        let why = self.trouble(raft)?;
        let to = raft.successor_by_disk(self.handed_to)?;
        self.rest = REST_MS / raft.tick_ms().max(1);
        self.handed_to = Some(to);
        self.notices.push(DiskNotice::HandsOver { to, why });
        Some(to)
    }

    fn trouble(&self, raft: &Raft) -> Option<Trouble> {
        let ms = self.write_ticks * raft.tick_ms();
        match self.state.is_full {
            true => Some(Trouble::Full),
            false => (self.write_ticks >= patience(raft)).then_some(Trouble::Hangs { ms }),
        }
    }
}

fn patience(raft: &Raft) -> u64 {
    PATIENCE * u64::from(raft.election_ticks())
}

#[cfg(test)]
mod tests;
