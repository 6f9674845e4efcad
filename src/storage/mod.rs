//! What a node keeps on disk: its log, its term and vote, and whose they are.
//!
//! One thread owns a [`Storage`] and hands it the writes of the core, one after the other; each is
//! durable when [`Storage::write`] returns. The data folder holds
//!
//! | file | what | specified in |
//! | --- | --- | --- |
//! | `identity` | cluster, node and state machine that the folder belongs to | `identity.rs` |
//! | `vote` | term and vote, twice | `vote.rs` |
//! | `log-` and a number | the log, in segments | `segment.rs`, `record.rs` |
//! | `lock` | held by the running node | `real_disk.rs` |
//! | *name*`.new` | a file that was being created; removed at the next start | `folder.rs` |
//!
//! # What holds
//!
//! 1. **Any prefix of the disk writes recovers to a log that was true at some moment.** A log that
//!    is never overwritten but only continued makes it so: a record that starts within the log
//!    replaces its tail when it is replayed, wholly or not at all.
//! 2. **A write is there after a crash if it was acknowledged, and may be there if it was not.**
//!    Term and vote are durable before the entries of the same write.
//! 3. **A torn tail is cut, damage is not.** One record for each write, and none before the last
//!    one is durable, make the difference exact: see `torn_bytes` in `segment.rs`. Cutting is noted;
//!    on damage nothing is changed and the node does not start.
//! 4. **The first error of a write or a sync is the last**: nothing more is written, for nobody
//!    knows what the disk holds. Recovery trusts only what it has written and synced itself.
//! 5. **A folder belongs to one node**, and each file in it says to which.
//!
//! What it cannot notice: that the disk lost synced records from the end of the log and left zeros, or
//! that the folder was replaced by an older copy of itself. Raft has no answer to either.

mod block;
mod canary;
mod disk;
mod error;
mod folder;
mod identity;
mod log;
mod outline;
mod real_disk;
mod record;
mod replay;
mod segment;
mod sim_disk;
#[cfg(test)]
mod tests;
mod vote;

use std::sync::Arc;

use crate::raft::{Entry, EntryId, HardState, Write};

#[cfg(not(feature = "sim"))]
use canary::Canary;
#[cfg(feature = "sim")]
pub use canary::Canary;
pub use disk::{Disk, DiskFile};
pub use error::StorageError;
pub use identity::Identity;
pub use real_disk::RealDisk;
pub use sim_disk::{Outcome, SimDisk};

use error::VOTE_ADVICE;
use folder::Folder;
use identity::Owner;
use log::Log;
use vote::Vote;

/// How the log uses its space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment that has reached this size is followed by another one, in bytes. A write that is
    /// larger makes a larger segment.
    pub segment_bytes: u64,
    /// The space ahead of the log is filled with zeros in steps of so many bytes. Each step costs
    /// a sync more.
    pub allocate_bytes: u64,
    /// What the folder does wrong on purpose.
    #[cfg(feature = "sim")]
    pub canary: Option<Canary>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            allocate_bytes: 1 << 20,
            #[cfg(feature = "sim")]
            canary: None,
        }
    }
}

impl Options {
    /// Whether this folder is to be wrong in this way, as a test of the tests.
    pub(super) fn is(&self, canary: Canary) -> bool {
        #[cfg(feature = "sim")]
        return self.canary == Some(canary);
        #[cfg(not(feature = "sim"))]
        return {
            let _ = canary;
            false
        };
    }
}

/// What a node knew when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The term and vote.
    pub hard_state: HardState,
    /// The log, from its first entry.
    pub entries: Vec<Entry>,
    /// What was found out of order and repaired, for the node's own log: one sentence each.
    pub notes: Vec<String>,
}

/// The data folder of a running node, open for writing.
pub struct Storage {
    vote: Vote,
    log: Log,
    /// See [`Canary`].
    goes_on: bool,
    /// Why nothing more may be written.
    stopped: Option<String>,
}

impl Storage {
    /// Opens the data folder, or makes a new one in an empty folder. All that is returned is
    /// durable. If there is an error about what the folder holds, nothing in it has been changed.
    ///
    /// # Errors
    /// [`StorageError::WrongFolder`] if it belongs to something else or is of a newer format,
    /// [`StorageError::Damaged`] if what was made durable is not there, [`StorageError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        identity: &Identity,
        options: Options,
    ) -> Result<(Self, Recovered), StorageError> {
        let folder = Folder::new(disk);
        let names = folder.list()?;
        let owner = match identity::read(&folder, &names, identity)? {
            Some(owner) => owner,
            None => create(&folder, identity, &options)?,
        };
        let found = vote::read(&folder, &owner)?;
        let (mut replay, last) = replay::read(&folder, &owner, &options)?;
        let hard_state = found.state();
        check_term(&folder, hard_state, replay.outline.last())?;

        let notes = found.note.iter().cloned().chain(last.note()).collect();
        let entries = std::mem::take(&mut replay.entries);
        folder.remove_unfinished()?;
        let vote = found.settle(options.is(Canary::VoteUnsynced))?;
        let goes_on = options.is(Canary::GoesOnAfterFailure);
        let log = Log::settle(&folder, options, replay, last)?;
        folder.sync()?;
        let storage = Self {
            vote,
            log,
            goes_on,
            stopped: None,
        };
        let recovered = Recovered {
            hard_state,
            entries,
            notes,
        };
        Ok((storage, recovered))
    }

    /// Makes a write durable: when this returns, no crash can undo it.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it could not be made durable; it may be there after a restart, or
    /// not. From then on always [`StorageError::Stopped`].
    ///
    /// # Panics
    /// If the write breaks the order that recovery relies on: the term or the vote goes back, an
    /// entry is of a later term than the node's, or the entries do not continue the log.
    pub fn write(&mut self, write: &Write) -> Result<(), StorageError> {
        if let Some(reason) = self.stopped.clone() {
            return Err(StorageError::Stopped { reason });
        }
        let result = self.write_in_order(write);
        if let Err(error) = &result
            && !self.goes_on
        {
            self.stopped = Some(error.to_string());
        }
        result
    }

    fn write_in_order(&mut self, write: &Write) -> Result<(), StorageError> {
        if let Some(hard_state) = write.hard_state {
            self.vote.store(hard_state)?;
        }
        if let Some(last) = write.entries.last() {
            assert!(
                last.id.term <= self.vote.state().term,
                "entry {} is of a later term than the node's, which is {}",
                last.id,
                self.vote.state().term
            );
            self.log.append(&write.entries)?;
        }
        Ok(())
    }

    /// How many bytes the records of the log occupy, those included that were replaced since.
    pub fn log_bytes(&self) -> u64 {
        self.log.record_bytes()
    }
}

/// Makes a new folder: see [`identity`] for the order.
fn create(folder: &Folder, identity: &Identity, options: &Options) -> Result<Owner, StorageError> {
    let owner = identity::begin(folder, identity)?;
    vote::create(folder, &owner)?;
    log::create(folder, &owner, options)?;
    identity::finish(folder)?;
    Ok(owner)
}

/// A node knows the term of every entry before it writes the entry.
fn check_term(folder: &Folder, state: HardState, last: EntryId) -> Result<(), StorageError> {
    if last.term <= state.term {
        return Ok(());
    }
    Err(StorageError::Damaged {
        path: folder.path().join(vote::NAME),
        offset: 0,
        problem: format!(
            "it holds term {}, but the log ends with entry {last}: a vote has been lost",
            state.term
        ),
        advice: VOTE_ADVICE,
    })
}
