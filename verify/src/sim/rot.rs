//! Disks that go bad under nodes that run: bits flip in files that were written long ago, and reads
//! fail.
//!
//! A node that runs reads its log only to verify it, a little at a time, and so its snapshots, if
//! it does not have to send them. So a flipped bit may stay unnoticed for a while. What is found is
//! repaired from memory, unless the node goes down before that. What becomes of the node is known
//! only when it is down and its disk does not change any more: see [`World::judge`].
//!
//! # How many disks go bad
//!
//! Never so many folders are lost, or may be lost by the next start, that the others are no quorum.
//! A node is at risk from the first bit that flips under it until it has started again or has lost
//! its folder, and [`World::may_lose_a_folder`] counts it as if the folder was lost already. So in
//! clusters of 3, 4, 5 and 7 nodes at most 1, 1, 2 and 3 folders are lost or at risk, and 2, 3, 3
//! and 4 nodes are left, a quorum each time: what was acknowledged is on one of them, and they can
//! go on without the others. In clusters of one or two nodes no bit flips that could cost a folder.
//!
//! Reads that fail are not counted: nothing is lost by them, and when the faults end they are over.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::durable::Damage;
use super::faults::{BLOCK, snapshot_name, snapshot_of};
use super::node::Step;
use super::outside::Watched;
use super::plan::Fault;
use super::trace::trace;
use super::world::{Event, World};
use super::{Failure, Time};
use raftkv::node::NodeError;
use raftkv::node::steps::{Hub, Task};
use raftkv::raft::{EntryId, Envelope, Index, Message};
use raftkv::storage::{Disk, StorageError, Unreadable, inspect};

/// A start reads about so often from the disk.
const READS: u64 = 30;
/// How likely a bit of a snapshot that is being received flips with each step of its courier.
const ROTS_ON_THE_WAY: f64 = 0.1;

/// What one process has sent of the snapshots on its disk, and which of them it must not send any
/// more.
#[derive(Default)]
pub(super) struct SentParts {
    /// Of these the first part was sent since the last part was. Their files have been verified.
    begun: BTreeSet<EntryId>,
    /// Of these a bit flipped after the first part was sent.
    spoilt: BTreeSet<EntryId>,
    /// The file must be found damaged before its first part is sent.
    bad: BTreeSet<EntryId>,
}

impl SentParts {
    /// A bit of the snapshot has flipped.
    fn has_rotted(&mut self, last: EntryId) {
        match self.begun.contains(&last) {
            true => self.spoilt.insert(last),
            false => self.bad.insert(last),
        };
    }

    /// There is a new file in the place of that snapshot's.
    pub fn placed(&mut self, last: EntryId) {
        for snapshots in [&mut self.begun, &mut self.spoilt, &mut self.bad] {
            snapshots.remove(&last);
        }
    }

    /// A part is sent. Whether it may be: the first part only of a file in which no bit flipped
    /// before it was verified. The file is verified before its first part is sent, and again if
    /// that is sent once more after the last part. What rots in between is sent, and the receiver
    /// notices.
    fn may_send(&mut self, last: EntryId, offset: u64, len: u64, bytes: u64) -> bool {
        if offset == 0 && len > 0 {
            if self.bad.contains(&last) {
                return false;
            }
            self.begun.insert(last);
        }
        if offset + len >= bytes {
            self.begun.remove(&last);
            if self.spoilt.remove(&last) {
                self.bad.insert(last);
            }
        }
        true
    }
}

impl World {
    /// A bit flips on the disk of a node that runs.
    pub(super) fn rot_under(&mut self, n: usize, fault: Fault) {
        // A leader reads its snapshot when a follower needs it; the others seldom read theirs.
        let n = self
            .a_leader()
            .filter(|_| self.random.chance(0.5))
            .unwrap_or(n);
        let can_be_lost = self.plan.greets && self.may_lose_a_folder(n);
        if self.nodes[n].running.is_none() || !can_be_lost {
            return;
        }
        if fault == Fault::RotRunningLog {
            let Some((file, bytes)) = self.place_in_log(n) else {
                return;
            };
            self.flip(n, &file, bytes);
        } else {
            let mut snapshots = self.snapshots_on_disk(n);
            let durable = &self.nodes[n].durable;
            snapshots.retain(|last| !durable.is_damaged(last.index));
            if snapshots.is_empty() {
                return;
            }
            let last = *self.random.pick(&snapshots);
            self.flip_anywhere(n, &snapshot_name(last));
            self.nodes[n].durable.damage(last);
            self.running(n).sent.has_rotted(last);
        }
        self.nodes[n].at_risk = true;
    }

    /// The courier of a node has taken a step: if it receives a snapshot, a bit may flip in what it
    /// has of it. The node verifies that file before it uses it, so the folder is not at risk.
    pub(super) fn rot_on_the_way(&mut self, n: usize) {
        let rots = |(fault, _): &(Fault, Time)| *fault == Fault::RotRunningSnapshot;
        if !self.faults_go_on || !self.plan.faults.iter().any(rots) {
            return;
        }
        if let Some(file) = self.incoming_file(n)
            && self.random.chance(ROTS_ON_THE_WAY)
        {
            self.flip_anywhere(n, &file);
        }
    }

    pub(super) fn flip_anywhere(&mut self, n: usize, file: &str) {
        let len = self.nodes[n].disk.contents(file).map_or(0, |b| b.len());
        if len > 0 {
            self.flip(n, file, 0..len);
        }
    }

    /// The file of a snapshot that a node is receiving, if it still has to verify that file.
    fn incoming_file(&self, n: usize) -> Option<String> {
        let node = &self.nodes[n];
        let running = node.running.as_ref()?;
        if running.courier.placing().is_some() {
            return None;
        }
        let names = self.names(n);
        names
            .into_iter()
            .rfind(|name| name.starts_with("incoming-"))
    }

    /// A node verifies a little more of its files.
    pub(super) fn scrub(&mut self, n: usize) -> Result<(), NodeError> {
        let running = self.running(n);
        let found = |hub: &Hub<Watched>| hub.damage().is_some();
        let before = found(&running.hub);
        let wait = running.scrubber.step(&running.hub)?;
        let after = found(&running.hub);
        self.stats.rot_found += u64::from(!before && after);
        self.stats.rot_repaired += u64::from(before && !after);
        if let Some(wait) = wait {
            let wait = wait.as_micros() as Time + self.random.below(1000);
            self.later(n, wait, Step::Run(Task::Scrub));
        }
        Ok(())
    }

    /// The names of the files of a node, whether they can be read now or not.
    pub(super) fn names(&self, n: usize) -> Vec<String> {
        let disk = &self.nodes[n].disk;
        let unreadable = disk.fail_reads(Unreadable::Nothing);
        let names = disk.list();
        disk.fail_reads(unreadable);
        names.unwrap_or_default()
    }

    /// The snapshots on the disk of a node, damaged or not.
    pub(super) fn snapshots_on_disk(&self, n: usize) -> Vec<EntryId> {
        let names = self.names(n);
        names.iter().filter_map(|name| snapshot_of(name)).collect()
    }

    /// Reads of a node's disk fail: one, or all of a file, or all, for a while. In some cases the
    /// node goes down now, so that its start runs into it.
    pub(super) fn reads_fail(&mut self, n: usize, until: Time) {
        let unreadable = match self.random.below(4) {
            0 => Unreadable::Everything,
            1 => Unreadable::Once(self.random.below(READS)),
            _ => match &self.names(n)[..] {
                [] => return,
                names => Unreadable::File(self.random.pick(names).clone()),
            },
        };
        trace!(self, "reads of node {} fail: {unreadable:?}", n + 1);
        self.nodes[n].disk.fail_reads(unreadable);
        self.queue.add(until, Event::DiskRecovers(n));
        if self.random.chance(0.6) {
            let power = self.random.chance(0.5);
            self.crash(n, power);
        }
    }

    /// The names of the files of a node of which a read has failed since the last call.
    pub(super) fn failed_reads(&mut self, n: usize) -> BTreeSet<String> {
        let failed = self.nodes[n].disk.take_failed_reads();
        self.stats.failed_reads += failed.len() as u64;
        failed
    }

    /// The courier of a node has taken a step. Of snapshots it reads those that it sends: one that
    /// it could not read is out of use.
    pub(super) fn pass_over_unread(&mut self, n: usize) {
        for name in self.failed_reads(n) {
            if let Some(last) = snapshot_of(&name) {
                self.nodes[n].durable.passed_over(last);
            }
        }
    }

    /// Notes which snapshots of a node that is down are damaged by now: files were removed, set
    /// aside and replaced since the bits flipped.
    pub(super) fn note_rot(&mut self, n: usize) {
        for last in self.snapshots_on_disk(n) {
            let node = &mut self.nodes[n];
            let flipped = node.disk.flipped_bits(&snapshot_name(last));
            node.durable.know_damaged(last, !flipped.is_empty());
        }
    }

    /// Finds out what has become of a node under which bits have flipped, now that it is down.
    /// Either it must start and lack nothing, or it must refuse to start, or it is not known here.
    /// In the last case it gets an empty folder: its disk is replaced. A node that is not at risk
    /// counts as one that must start, also if it is known already that it must not.
    pub(super) fn judge(&mut self, n: usize) -> Damage {
        self.note_rot(n);
        if !self.nodes[n].at_risk || self.nodes[n].damaged {
            return Damage::Harmless;
        }
        let snapshots = self.snapshots_on_disk(n);
        let outlook = match self.is_log_damaged(n) {
            true => Damage::Fatal,
            false => self.nodes[n].durable.outlook(&snapshots),
        };
        trace!(self, "what has rotted under node {} is {outlook:?}", n + 1);
        match outlook {
            Damage::Harmless => {}
            Damage::Fatal => self.damaged(n),
            Damage::Unclear => self.wipe(n),
        }
        outlook
    }

    /// Whether bits have flipped in the segments of the log, in their heads or in a record. A start
    /// reads all of these. A segment that was cut off the log has another name, or none; bits that
    /// flipped in it do no harm behind the records of the segment that its file became.
    fn is_log_damaged(&self, n: usize) -> bool {
        let disk = &self.nodes[n].disk;
        let names = self.names(n);
        let healthy = disk.fork();
        healthy.fail_reads(Unreadable::Nothing);
        for name in &names {
            for (offset, bit) in disk.flipped_bits(name) {
                healthy.flip_bit(name, offset, bit);
            }
        }
        let Ok(inspection) = inspect(Arc::new(healthy)) else {
            return false;
        };
        inspection.segments.iter().any(|segment| {
            let end = BLOCK + segment.record_bytes as usize;
            let flipped = disk.flipped_bits(&segment.name);
            flipped.iter().any(|(offset, _)| *offset < end)
        })
    }

    /// Whether a node that runs may still come upon a snapshot that is damaged, and stop: one that
    /// it has received and not taken over. Of all others it needs nothing.
    pub(super) fn may_still_stop(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let Some(running) = &node.running else {
            return false;
        };
        let executed = running.hub.executed().index;
        let snapshots = self.snapshots_on_disk(n).into_iter();
        let mut not_taken_over = snapshots.filter(|last| last.index > executed);
        not_taken_over.any(|last| node.durable.is_damaged(last.index))
    }

    /// Whether a node may stop because it cannot take the state of a snapshot over.
    pub(super) fn may_fail_to_install(&mut self, n: usize, index: Index) -> bool {
        !self.failed_reads(n).is_empty() || self.nodes[n].durable.is_damaged(index)
    }

    /// A node stops because of its disk. If it says that something is damaged, that must be so.
    pub(super) fn stops_for(&mut self, n: usize, error: &StorageError) -> Result<(), Failure> {
        if matches!(error, StorageError::Damaged { .. }) && !self.nodes[n].at_risk {
            let sentence = format!("node {} stops on a disk that is well: {error}", n + 1);
            return Err(Failure::new("only damage is called damage", sentence));
        }
        self.disk_failed(n, error);
        Ok(())
    }

    /// A message leaves a node: if it is the first part of a snapshot, the file was whole when it
    /// was verified.
    pub(super) fn check_part(&mut self, n: usize, envelope: &Envelope) -> Result<(), Failure> {
        let Message::Snapshot {
            meta,
            bytes,
            offset,
            data,
        } = &envelope.message
        else {
            return Ok(());
        };
        let (last, len) = (meta.last, data.len() as u64);
        if self.running(n).sent.may_send(last, *offset, len, *bytes) {
            return Ok(());
        }
        let sentence = format!(
            "node {} sends the start of its snapshot {last}, in which a bit has flipped",
            n + 1
        );
        Err(Failure::new("no damaged snapshot is sent", sentence))
    }
}
