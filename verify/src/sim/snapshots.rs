//! The steps of a simulated node's taker and courier, which write, move and remove files, and
//! checks that the snapshots they leave on the disk hold the right state.

use raftkv::node::NodeError;
use raftkv::node::steps;
use raftkv::raft::{EntryId, SnapshotMeta};
use raftkv::storage::Unreadable;

use super::Failure;
use super::trace::trace;
use super::world::World;

impl World {
    /// The thread that writes snapshots takes its next step. Whether it goes on.
    pub(super) fn take_snapshot(&mut self, n: usize) -> Result<bool, Failure> {
        let placing = self.running(n).taker.placing();
        self.perhaps(n, placing);
        let running = self.running(n);
        let was_busy = running.taker.is_busy();
        let goes_on = running.taker.step(&running.hub);
        if self.was_placed(n, placing)? {
            self.stats.snapshots += 1;
        } else if was_busy && !goes_on {
            trace!(self, "node {} takes no snapshot", n + 1);
            self.stats.snapshots_failed += 1;
        }
        Ok(goes_on)
    }

    /// The courier ends an errand and begins the next one. Whether there is one.
    pub(super) fn carry(&mut self, n: usize) -> Result<Result<bool, NodeError>, Failure> {
        let placing = self.running(n).courier.placing();
        self.perhaps(n, placing);
        let running = self.running(n);
        let removes = running.courier.is_removing();
        let stepped = running.courier.step(&running.hub);
        self.stats.cuts += u64::from(removes && stepped.is_ok());
        self.pass_over_unread(n);
        self.was_placed(n, placing)?;
        self.rot_on_the_way(n);
        Ok(stepped)
    }

    /// A snapshot is about to get its name: a crash may leave it there or not.
    pub(super) fn perhaps(&mut self, n: usize, placing: Option<EntryId>) {
        if let Some(last) = placing {
            self.nodes[n].durable.perhaps(last);
        }
    }

    /// Whether a snapshot has got its place, by the step that was to bring it there. Then it must
    /// hold the state of its entry.
    fn was_placed(&mut self, n: usize, placing: Option<EntryId>) -> Result<bool, Failure> {
        let newest = self.running(n).hub.snapshots().newest();
        let Some(info) = newest.filter(|newest| Some(newest.meta.last) == placing) else {
            return Ok(false);
        };
        trace!(self, "node {} has snapshot {}", n + 1, info.meta.last);
        self.nodes[n].durable.placed(info.meta.last);
        self.running(n).sent.placed(info.meta.last);
        self.verify(n, &info.meta)?;
        Ok(true)
    }

    /// Reads a snapshot that has come to its place.
    fn verify(&mut self, n: usize, meta: &SnapshotMeta) -> Result<(), Failure> {
        let members = &self.checks.members;
        members.snapshot(n, meta.last, &meta.configuration)?;
        let running = self.running(n);
        let (hub, state) = (running.hub.clone(), running.state());
        let disk = &self.nodes[n].disk;
        let unreadable = disk.fail_reads(Unreadable::Nothing);
        let restored = steps::restore(&state, hub.snapshots(), meta);
        disk.fail_reads(unreadable);
        match restored {
            Ok(restored) => self.checks.snapshot(n, meta.last, &restored),
            Err(error) => {
                let sentence = format!("node {}, snapshot {}: {error}", n + 1, meta.last);
                Err(Failure::new("a snapshot in its place is whole", sentence))
            }
        }
    }
}
