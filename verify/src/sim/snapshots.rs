//! The threads of a node that move snapshots: the one that writes one, and the courier.
//!
//! What `node::snapshots` does in one go is done here in steps, between which anything else may
//! happen: the file is begun, each piece is written, it is synced, renamed, the folder is synced.
//! Each step is executed when its time is up; a crash before executes a part of it.

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;

use super::Failure;
use super::node::{Running, Step};
use super::trace::trace;
use super::world::World;
use raftkv::kv::{self, Kv};
use raftkv::machine::StateMachine;
use raftkv::node::{Courier, Gone, Stored, in_its_place, report, stored};
use raftkv::raft::{EntryId, Part, PartRequest, SnapshotMeta};
use raftkv::storage::{
    Incoming, Renamed, Sealed, SnapshotInfo, SnapshotWriter, Snapshots, StorageError,
};

/// A snapshot that is being written.
pub(super) struct Taking {
    meta: SnapshotMeta,
    copy: kv::Snapshot,
    stage: Taken,
}

enum Taken {
    Copied,
    /// With what of the state is still to be written.
    Begun(SnapshotWriter, Vec<u8>),
    Sealed(Sealed),
    Renamed(Renamed),
    Done(SnapshotInfo),
}

impl Taking {
    pub fn new(meta: SnapshotMeta, copy: kv::Snapshot) -> Self {
        Self {
            meta,
            copy,
            stage: Taken::Copied,
        }
    }

    /// Takes the next step, writing at most `bytes` of the state.
    fn step(mut self, files: &Snapshots, bytes: usize) -> Result<Self, Box<dyn Error>> {
        self.stage = match self.stage {
            Taken::Copied => {
                let writer = files.create(self.meta.clone())?;
                let mut state = Vec::new();
                let written = Kv::write_snapshot(&self.copy, &mut state);
                written.expect("memory takes everything");
                Taken::Begun(writer, state)
            }
            Taken::Begun(writer, rest) if rest.is_empty() => Taken::Sealed(writer.seal()?),
            Taken::Begun(mut writer, mut rest) => {
                let later = rest.split_off(bytes.min(rest.len()));
                writer.write_all(&rest)?;
                Taken::Begun(writer, later)
            }
            Taken::Sealed(sealed) => Taken::Renamed(sealed.rename()?),
            Taken::Renamed(renamed) => Taken::Done(renamed.settle()?),
            Taken::Done(info) => Taken::Done(info),
        };
        Ok(self)
    }
}

/// The courier and what it has been sent for.
#[derive(Default)]
pub(super) struct Errands {
    courier: Courier,
    waiting: VecDeque<Errand>,
    under_way: Option<Errand>,
    /// Whether the courier is on its way, or about to be.
    pub busy: bool,
}

enum Errand {
    Send(PartRequest),
    Store(Part),
    Seal(EntryId, Incoming),
    Rename(EntryId, Sealed),
    Settle(EntryId, Renamed),
}

/// What came of an errand.
enum Ran {
    Sent(Box<Result<raftkv::raft::Envelope, Gone>>),
    Stored(EntryId, Result<Stored, StorageError>),
    /// There is a next step.
    GoesOn(Errand),
}

impl Errand {
    fn run(self, courier: &mut Courier, files: &Snapshots) -> Ran {
        let (last, result) = match self {
            Errand::Send(request) => return Ran::Sent(Box::new(courier.fetch(files, request))),
            Errand::Store(part) => {
                let last = part.meta.last;
                match courier.add(files, part) {
                    Ok(Stored::Complete(incoming)) => {
                        return Ran::GoesOn(Errand::Seal(last, incoming));
                    }
                    result => (last, result),
                }
            }
            Errand::Seal(last, incoming) => match incoming.seal() {
                Ok(sealed) => return Ran::GoesOn(Errand::Rename(last, sealed)),
                Err(error) => (last, Err(error)),
            },
            Errand::Rename(last, sealed) => match sealed.rename() {
                Ok(renamed) => return Ran::GoesOn(Errand::Settle(last, renamed)),
                Err(error) => (last, in_its_place(files, Err(error))),
            },
            Errand::Settle(last, renamed) => (last, in_its_place(files, renamed.settle())),
        };
        Ran::Stored(last, result)
    }
}

/// Who is putting a snapshot in its place: one at a time, as if they held a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placing {
    Taker,
    Courier,
}

impl Running {
    /// The snapshot of its own that is about to get its name, or has got it.
    fn to_be_placed(&self) -> Option<(Placing, EntryId)> {
        let taking = self.taking.as_ref()?;
        match taking.stage {
            Taken::Sealed(_) | Taken::Renamed(_) => Some((Placing::Taker, taking.meta.last)),
            _ => None,
        }
    }

    fn to_be_placed_by_courier(&self) -> Option<(Placing, EntryId)> {
        match &self.errands.under_way {
            Some(Errand::Rename(last, _) | Errand::Settle(last, _)) => {
                Some((Placing::Courier, *last))
            }
            _ => None,
        }
    }

    /// Executes what is under way with snapshots, as far as the disk goes along. Nobody hears of
    /// what comes of it.
    /// Returns the snapshot that may have got its name thereby: two cannot get theirs at once.
    pub fn break_off_snapshots(&mut self, bytes: usize) -> Option<EntryId> {
        let both = [self.to_be_placed(), self.to_be_placed_by_courier()];
        let begun = both.into_iter().flatten();
        let mut placed = begun.filter(|(who, _)| self.placing.is_none_or(|other| other == *who));
        let placed = placed.next();
        let may = |who| placed.is_none_or(|(placing, _)| placing == who);
        let (may_take, may_carry) = (may(Placing::Taker), may(Placing::Courier));
        if may_take && let Some(taking) = self.taking.take() {
            // What fails is what the crash prevents.
            let _ = taking.step(&self.files, bytes);
        }
        if may_carry && let Some(errand) = self.errands.under_way.take() {
            errand.run(&mut self.errands.courier, &self.files);
        }
        placed.map(|(_, last)| last)
    }
}

impl World {
    /// Time that a step with snapshots takes on the disk.
    pub(super) fn disk_time(&mut self, n: usize) -> super::Time {
        let mean = self.plan.sync * if self.nodes[n].slow_disk { 50 } else { 1 };
        20 + self.random.exponential(mean)
    }

    /// The state was copied: a thread of its own writes the copy.
    pub(super) fn begin_taking(&mut self, n: usize, meta: SnapshotMeta) {
        let running = self.running(n);
        let copy = running.machine.snapshot();
        running.taking = Some(Taking::new(meta, copy));
        let took = self.disk_time(n);
        self.later(n, took, Step::Take);
    }

    /// False if another thread is at it: then this one waits.
    fn may_place(&mut self, n: usize, who: Placing, last: EntryId) -> bool {
        let node = &mut self.nodes[n];
        let running = node.running.as_mut().expect("it runs");
        if running.placing.is_some_and(|other| other != who) {
            return false;
        }
        running.placing = Some(who);
        node.durable.perhaps(last);
        true
    }

    pub(super) fn take(&mut self, n: usize) -> Result<(), Failure> {
        if let Some((_, last)) = self.running(n).to_be_placed()
            && !self.may_place(n, Placing::Taker, last)
        {
            self.soon(n, Step::Take);
            return Ok(());
        }
        self.let_disk_fail(n);
        let bytes = self.plan.snapshots.piece_bytes;
        let running = self.running(n);
        let taking = running.taking.take().expect("a snapshot is being taken");
        let result = taking.step(&running.files, bytes);
        self.nodes[n].disk.heal();
        match result {
            Ok(Taking {
                stage: Taken::Done(info),
                ..
            }) => {
                self.running(n).placing = None;
                trace!(self, "node {} has snapshot {}", n + 1, info.meta.last);
                self.nodes[n].durable.placed(info.meta.last);
                self.stats.snapshots += 1;
                self.verify(n, &info.meta)?;
                self.input(n, |replica| replica.snapshot_taken(stored(info)))?;
                self.cut_log(n);
            }
            Ok(taking) => {
                self.running(n).taking = Some(taking);
                let took = self.disk_time(n);
                self.later(n, took, Step::Take);
            }
            Err(error) => {
                trace!(self, "node {} takes no snapshot: {error}", n + 1);
                let running = self.running(n);
                running.placing.take_if(|who| *who == Placing::Taker);
                self.stats.snapshots_failed += 1;
                self.input(n, |replica| replica.snapshot_failed())?;
            }
        }
        Ok(())
    }

    /// The courier ends an errand and begins the next one.
    pub(super) fn run_errand(&mut self, n: usize) -> Result<(), Failure> {
        if let Some((_, last)) = self.running(n).to_be_placed_by_courier()
            && !self.may_place(n, Placing::Courier, last)
        {
            self.soon(n, Step::Errand);
            return Ok(());
        }
        self.let_disk_fail(n);
        let running = self.running(n);
        let errand = running.errands.under_way.take();
        let ran = errand.map(|errand| errand.run(&mut running.errands.courier, &running.files));
        self.nodes[n].disk.heal();
        let goes_on = match ran {
            Some(Ran::GoesOn(errand)) => Some(errand),
            Some(Ran::Sent(result)) => {
                self.part_read(n, *result)?;
                None
            }
            Some(Ran::Stored(last, result)) => {
                self.part_stored(n, last, result)?;
                None
            }
            None => None,
        };
        let next = match goes_on {
            Some(errand) => Some(errand),
            None => self.next_errand(n)?,
        };
        let running = self.running(n);
        running.errands.busy = next.is_some();
        running.errands.under_way = next;
        if running.errands.busy {
            let took = self.disk_time(n);
            self.later(n, took, Step::Errand);
        }
        Ok(())
    }

    fn next_errand(&mut self, n: usize) -> Result<Option<Errand>, Failure> {
        if self.running(n).errands.waiting.is_empty() {
            self.send(n)?;
            let fresh = self.input(n, |replica| replica.take_errands())?;
            let to_send = fresh.to_send.into_iter().map(Errand::Send);
            let to_store = fresh.to_store.into_iter().map(Errand::Store);
            let waiting = to_send.chain(to_store).collect();
            self.running(n).errands.waiting = waiting;
        }
        Ok(self.running(n).errands.waiting.pop_front())
    }

    fn part_read(
        &mut self,
        n: usize,
        result: Result<raftkv::raft::Envelope, Gone>,
    ) -> Result<(), Failure> {
        match result {
            Ok(envelope) => {
                self.stats.parts += 1;
                self.carry_message(n, envelope);
                Ok(())
            }
            Err(Gone { to, last, error }) => {
                trace!(self, "node {} cannot send {last} to {to}: {error}", n + 1);
                self.input(n, |replica| replica.snapshot_gone(to, last))
            }
        }
    }

    fn part_stored(
        &mut self,
        n: usize,
        last: EntryId,
        result: Result<Stored, StorageError>,
    ) -> Result<(), Failure> {
        let running = self.running(n);
        running.placing.take_if(|who| *who == Placing::Courier);
        match &result {
            Ok(Stored::Whole(info)) => {
                trace!(self, "node {} has received {}", n + 1, info.meta.last);
                self.nodes[n].durable.placed(info.meta.last);
                let meta = info.meta.clone();
                self.verify(n, &meta)?;
            }
            Err(error) => trace!(self, "node {} cannot take in {last}: {error}", n + 1),
            Ok(Stored::Partly(_) | Stored::Complete(_)) => {}
        }
        let installs = matches!(result, Ok(Stored::Whole(_)));
        self.input(n, |replica| report(replica, last, result))?;
        if installs {
            self.cut_log(n);
        }
        Ok(())
    }

    /// Reads a snapshot that has come to its place: it must hold the state of its entry.
    fn verify(&mut self, n: usize, meta: &SnapshotMeta) -> Result<(), Failure> {
        let node = &self.nodes[n];
        let running = node.running.as_ref().expect("it runs");
        let restored = raftkv::node::restore(&running.machine, &running.files, meta);
        match restored {
            Ok(machine) => self.checks.snapshot(n, meta.last, &machine),
            Err(error) => {
                let sentence = format!("node {}, snapshot {}: {error}", n + 1, meta.last);
                Err(Failure::new("a snapshot in its place is whole", sentence))
            }
        }
    }

    /// Lets the replicator remove what the log holds up to where it is not needed any more.
    fn cut_log(&mut self, n: usize) {
        let running = self.running(n);
        running.cut_to = running.cut_to.max(running.files.log_needed_behind());
        if !running.replicating {
            running.replicating = true;
            self.soon(n, Step::Replicate);
        }
    }
}
