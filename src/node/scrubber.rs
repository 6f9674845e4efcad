//! Verifying the node's files while it runs, and repairing what has gone bad.
//!
//! All of the log and all snapshots are read once in a [period](super::Config::scrub), a little at
//! a time. Nothing else reads the log while a node runs: followers that lag are sent entries from
//! memory, or a snapshot, which is verified as a whole before its first part leaves.
//!
//! What is found is repaired from the state in memory, which no flipped bit on the disk has
//! touched. The node need not stop for that, nor does it need the other nodes:
//! - *A damaged snapshot* is set aside, and another one is taken.
//! - *A damaged segment* is needed as long as the older of the two snapshots does not cover it. So
//!   snapshots are taken until the segment is cut off the log: two, with at least one command
//!   between them. The segment that is being written is given up: the log goes on in the next one.
//!
//! Until then the entries in the segment are on one disk fewer than they should be, and the node
//! would not start again from its folder. So a leader hands over as soon as it finds damage in its
//! log, if another voter can take over. If no snapshot can be taken, the disk is past help: the
//! node stops with the error of the damage, and its next start has to get the state from the
//! others.

use std::time::Duration;

use super::NodeError;
use super::courier::stored_as;
use super::hub::Hub;
use super::sync::{self, Nudged};
use crate::machine::StateMachine;
use crate::raft::Index;
use crate::storage::{DamagedPart, Scrub, Scrubbed, StorageError};

/// The most bytes that are read in a second, however large the folder is and short the period.
const MOST_PER_SECOND: u64 = 32 << 20;

/// A wait is at most this fraction (one part in so many) of the period. So a small folder is read
/// more often than asked for, and one that has grown is not waited for too long.
const LONGEST_WAIT: u32 = 1000;

/// How often the node looks whether a damaged part has gone out of use.
const GLANCE: Duration = Duration::from_millis(500);

/// How many snapshots in a row may fail before the node stops.
const ATTEMPTS: u32 = 10;

/// Reads the node's files again and verifies them.
pub struct Scrubber {
    scrub: Scrub,
    /// In which time all files are read once; `None`: they are not.
    period: Option<Duration>,
    repair: Option<Repair>,
}

/// A damaged part that is still used.
struct Repair {
    part: DamagedPart,
    error: StorageError,
    /// The newest snapshot when one was asked for last.
    asked: Option<Index>,
    /// How many snapshots in a row have failed.
    failed: u32,
}

impl Scrubber {
    pub(super) fn new(scrub: Scrub, period: Option<Duration>) -> Self {
        Self {
            scrub,
            period,
            repair: None,
        }
    }

    /// Reads a little more, or goes on with a repair. Returns how long to wait before the next
    /// step; `None` if nothing is to be read.
    ///
    /// # Errors
    /// [`NodeError::Storage`] with what is damaged, if it cannot be repaired: the node must stop.
    pub fn step<S: StateMachine>(&mut self, hub: &Hub<S>) -> Result<Option<Duration>, NodeError> {
        let Some(period) = self.period else {
            return Ok(None);
        };
        if let Some(repair) = self.repair.take() {
            return self.go_on_with(repair, hub).map(Some);
        }
        Ok(Some(match self.scrub.step() {
            Scrubbed::Whole(bytes) => {
                hub.files.verified(bytes);
                self.wait_after(bytes, period)
            }
            Scrubbed::All => {
                hub.files.verified_all();
                period / LONGEST_WAIT
            }
            Scrubbed::Unread(error) => {
                log::warn!("a file could not be verified, as it could not be read: {error}");
                period / LONGEST_WAIT
            }
            Scrubbed::Damaged(part, error) => {
                self.found(part, error, hub);
                Duration::ZERO
            }
        }))
    }

    /// How long to wait after so many bytes, so that all files take the whole period.
    fn wait_after(&self, bytes: u64, period: Duration) -> Duration {
        let all = self.scrub.bytes().max(bytes).max(1);
        let share = period.mul_f64(bytes as f64 / all as f64);
        let least = Duration::from_secs_f64(bytes as f64 / MOST_PER_SECOND as f64);
        share.min(period / LONGEST_WAIT).max(least)
    }

    fn found<S: StateMachine>(&mut self, part: DamagedPart, error: StorageError, hub: &Hub<S>) {
        log::error!("found while the files were verified: {error}");
        hub.files.note_damage(Some(error.to_string()));
        match part {
            DamagedPart::Segment(number) => {
                self.scrub.give_up(number);
                let to = hub.exchange(|replica| {
                    let to = replica.raft().successor_by_disk(None)?;
                    replica.transfer(Some(to))
                });
                if let Some(to) = to {
                    log::warn!("leadership is handed to node {to}: this node's log is damaged");
                }
            }
            DamagedPart::Snapshot(last) => {
                let files = &hub.files.snapshots;
                let lost = files.list().into_iter().find(|info| info.meta.last == last);
                if let Err(error) = files.set_aside(last) {
                    log::warn!("a damaged snapshot cannot be renamed: {error}");
                }
                if let Some(lost) = lost {
                    hub.input(|replica| replica.snapshot_lost(&stored_as(lost)));
                }
            }
        }
        self.repair = Some(Repair {
            part,
            error,
            asked: None,
            failed: 0,
        });
    }

    /// Asks for snapshots until the damaged part is not used any more, and another snapshot is
    /// there in the place of a damaged one.
    fn go_on_with<S: StateMachine>(
        &mut self,
        mut repair: Repair,
        hub: &Hub<S>,
    ) -> Result<Duration, NodeError> {
        let newest = hub.files.snapshots.newest();
        let newest = newest.map_or(0, |info| info.meta.last.index);
        let is_repaired = match repair.part {
            DamagedPart::Segment(number) => !self.scrub.is_in_log(number),
            // It was set aside, so this is another one, perhaps of the same entry.
            DamagedPart::Snapshot(last) => newest >= last.index,
        };
        if is_repaired {
            log::info!("repaired: what was damaged is not used any more");
            hub.files.note_damage(None);
            return Ok(Duration::ZERO);
        }
        let (pending, executed) = {
            let replica = hub.replica();
            (replica.snapshot_pending(), replica.applying())
        };
        if !pending && executed > newest {
            if repair.asked == Some(newest) {
                repair.failed += 1;
                if repair.failed == ATTEMPTS {
                    return Err(NodeError::Storage(repair.error));
                }
            } else {
                repair.failed = 0;
            }
            repair.asked = Some(newest);
            hub.input(|replica| replica.want_snapshot());
        }
        self.repair = Some(repair);
        Ok(GLANCE)
    }

    /// The body of the scrubber's thread: verifies files until the node stops, at a low priority.
    pub(super) fn run<S: StateMachine>(
        mut self,
        hub: &Hub<S>,
        nudged: &Nudged,
    ) -> Result<(), NodeError> {
        sync::yield_to_others();
        if let Some(period) = self.period {
            // A node that starts has other things to do, and has just verified its files.
            nudged.wait_for(period / LONGEST_WAIT);
        }
        while !hub.is_stopping() {
            match self.step(hub)? {
                Some(wait) if wait.is_zero() => {}
                Some(wait) => nudged.wait_for(wait),
                None => nudged.wait(),
            }
        }
        Ok(())
    }
}
