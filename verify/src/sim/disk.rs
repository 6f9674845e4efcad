//! A node and its disk: starting from it, writing to it, and ending in the middle of a write.
//!
//! A write is executed as a whole at the moment at which its time is up. If the node goes down
//! before, the operations of the write are executed up to one that is drawn; and if it was the
//! power that failed, what was not synced is kept, lost or torn as [`SimDisk::crash`] draws it.

use std::sync::Arc;

use super::Failure;
use super::check::Promised;
use super::durable::Durable;
use super::node::{Node, Running};
use super::trace::trace;
use super::world::{Event, TICK, World};
use raftkv::kv::Kv;
use raftkv::machine::StateMachine;
use raftkv::node::{Executor, Replica, restore, stored};
use raftkv::raft::{self, Index, Membership, NodeId, Raft, Write};
use raftkv::storage::{
    self, Disk, Identity, Recovered, SimDisk, SnapshotInfo, Snapshots, Storage, StorageError,
};

/// No write takes more operations than this.
const MAX_OPERATIONS: u64 = 14;

impl Node {
    pub fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            life: 0,
            running: None,
            damaged: false,
            retired: false,
            tick: TICK,
            was_up: false,
            has_one_vote: false,
            slow_disk: false,
            fail_next: None,
            durable: Durable::new(),
            promised: Promised::default(),
        }
    }
}

impl World {
    /// Starts a node from its disk. Sometimes it goes down again while it starts.
    pub(super) fn start(&mut self, n: usize) -> Result<(), Failure> {
        if self.nodes[n].running.is_some() || self.nodes[n].retired {
            return Ok(());
        }
        let machine = Kv::new(self.plan.limits.clone());
        let identity = Identity {
            cluster: "simulated".into(),
            node: n as NodeId + 1,
            machine: machine.identity(),
        };
        let disk = self.nodes[n].disk.clone();
        let interrupted = self.faults_go_on && self.random.chance(0.1);
        if interrupted {
            let operations = self.random.below(MAX_OPERATIONS);
            disk.stop_at(disk.operations() + operations);
        }
        let options = storage::Options {
            segment_bytes: self.plan.segment_bytes,
            allocate_bytes: 4 << 10,
            snapshot_piece_bytes: self.plan.snapshots.piece_bytes,
        };
        let opened = Storage::open(Arc::new(disk.clone()), &identity, options);
        disk.heal();
        match opened {
            Ok(opened) if !interrupted => self.started(n, opened, machine),
            Err(error @ StorageError::Damaged { .. }) if self.nodes[n].damaged => {
                trace!(self, "node {} refuses to start: {error}", n + 1);
                Ok(())
            }
            Ok(_) | Err(StorageError::Io { .. }) => {
                trace!(self, "node {} goes down while it starts", n + 1);
                if self.random.chance(0.5) {
                    self.nodes[n].disk = disk.crash();
                }
                self.restart_later(n);
                Ok(())
            }
            Err(error) => Err(Failure::new(
                "a node starts",
                format!("node {}: {error}", n + 1),
            )),
        }
    }

    fn started(
        &mut self,
        n: usize,
        (storage, recovered): (Storage, Recovered),
        machine: Kv,
    ) -> Result<(), Failure> {
        let node = &mut self.nodes[n];
        if node.damaged {
            let sentence = format!(
                "node {} starts from a disk with flipped bits, behind {} with {} entries; {}",
                n + 1,
                recovered.base,
                recovered.entries.len(),
                recovered.notes.join("; ")
            );
            return Err(Failure::new("damage is noticed", sentence));
        }
        node.durable.recovered(&recovered, &mut node.promised)?;
        node.promised.check(n, &recovered)?;
        node.life += 1;
        (node.was_up, node.has_one_vote) = (true, false);
        trace!(
            self,
            "node {} starts in term {} behind {} with {} entries; {}",
            n + 1,
            recovered.hard_state.term,
            recovered.base,
            recovered.entries.len(),
            recovered.notes.join("; ")
        );
        self.stats.went_back += u64::from(self.nodes[n].durable.went_back());
        let files = storage.snapshots();
        let (machine, executor) = self.revive(n, &files, recovered.snapshot.as_ref(), machine)?;
        let snapshot = recovered.snapshot.map(stored);
        let (hard_state, entries) = (recovered.hard_state, recovered.entries);
        let raft = Raft::restore(self.raft_config(n), hard_state, snapshot, entries);
        let due = self.plan.snapshots.log_bytes;
        let replica = Replica::new(raft, self.plan.max_waiting, due);
        let running = Running::new(replica, storage, machine, executor, self.now);
        self.nodes[n].running = Some(running);
        self.stats.starts += 1;
        self.set_off(n);
        Ok(())
    }

    /// The machine as the snapshot has it, which must be the state of that entry.
    fn revive(
        &mut self,
        n: usize,
        files: &Snapshots,
        snapshot: Option<&SnapshotInfo>,
        machine: Kv,
    ) -> Result<(Kv, Executor), Failure> {
        let Some(SnapshotInfo { meta, .. }) = snapshot else {
            return Ok((machine, Executor::behind(None)));
        };
        let machine = restore(&machine, files, meta).map_err(|error| {
            let sentence = format!("node {}: {error}", n + 1);
            Failure::new("a node starts", sentence)
        })?;
        self.checks.snapshot(n, meta.last, &machine)?;
        Ok((machine, Executor::behind(Some(meta))))
    }

    fn raft_config(&mut self, n: usize) -> raft::Config {
        let members = Membership::of_voters(1..=self.nodes.len() as NodeId);
        let mut config = raft::Config::new(n as NodeId + 1, members, self.random.number());
        config.max_append_bytes = self.plan.max_append_bytes;
        config.max_inflight_messages = self.plan.max_inflight_messages;
        config.max_uncommitted_bytes = self.plan.max_uncommitted_bytes;
        let snapshots = &self.plan.snapshots;
        config.trailing_bytes = snapshots.trailing_bytes;
        config.keeps_held = snapshots.keeps_held;
        config.snapshot_part_bytes = snapshots.part_bytes;
        config.snapshot_window_bytes = snapshots.window_bytes;
        config
    }

    /// If something on a disk is to fail next, it is what comes now.
    pub(super) fn let_disk_fail(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some(operation) = node.fail_next.take() {
            node.disk.fail_at(node.disk.operations() + operation);
        }
    }

    /// Executes a write. False if the disk failed: then the node has stopped.
    pub(super) fn store(&mut self, n: usize, write: Write) -> Result<bool, Failure> {
        self.let_disk_fail(n);
        let node = &mut self.nodes[n];
        let running = node.running.as_mut().expect("it runs");
        let result = running.storage.write(&write);
        node.disk.heal();
        match result {
            Ok(()) => {
                node.promised.replaced(node.durable.kept_by(&write));
                node.durable.apply(write);
                Ok(true)
            }
            Err(error) => {
                node.durable.unfinished = Some(write);
                self.disk_failed(n, error)
            }
        }
    }

    /// Removes from the log what is not needed any more. False as for [`store`](Self::store).
    pub(super) fn cut(&mut self, n: usize, up_to: Index) -> Result<bool, Failure> {
        self.let_disk_fail(n);
        let node = &mut self.nodes[n];
        node.durable.cut = node.durable.cut.max(up_to);
        let running = node.running.as_mut().expect("it runs");
        let result = running.storage.cut(up_to);
        node.disk.heal();
        match result {
            Ok(freed) => {
                self.stats.cuts += u64::from(freed > 0);
                Ok(true)
            }
            Err(error) => self.disk_failed(n, error),
        }
    }

    /// A node whose log cannot be written stops, and writes nothing more.
    fn disk_failed(&mut self, n: usize, error: StorageError) -> Result<bool, Failure> {
        trace!(self, "node {} stops: {error}", n + 1);
        let again = self.running(n).storage.write(&Write {
            id: 0,
            hard_state: None,
            entries: Vec::new(),
            restart: None,
        });
        if !matches!(again, Err(StorageError::Stopped { .. })) {
            let sentence = format!("node {} writes on after: {error}", n + 1);
            return Err(Failure::new("a failed sync is the last", sentence));
        }
        self.stats.disk_failures += 1;
        self.abandon(n)?;
        self.go_down(n);
        Ok(false)
    }

    /// A node that stops by itself tells those who wait.
    pub(super) fn abandon(&mut self, n: usize) -> Result<(), Failure> {
        self.input(n, |replica| replica.abandon())
    }

    /// The process of a node ends, in the middle of whatever it does; `power`: and what was not
    /// synced is lost, kept or torn.
    pub(super) fn crash(&mut self, n: usize, power: bool) {
        let node = &mut self.nodes[n];
        let Some(running) = &mut node.running else {
            if power {
                node.disk = node.disk.crash();
            }
            return;
        };
        let mut reached = || self.random.below(MAX_OPERATIONS);
        let disk = &node.disk;
        let mut stop = || disk.stop_at(disk.operations() + reached());
        // Whether it got to its end makes no difference: nobody hears of it.
        if let Some(write) = running.writing.take() {
            stop();
            let _ = running.storage.write(&write);
            node.durable.unfinished = Some(write);
        } else if let Some(up_to) = running.cutting.take() {
            stop();
            node.durable.cut = node.durable.cut.max(up_to);
            let _ = running.storage.cut(up_to);
        }
        stop();
        if let Some(last) = running.break_off_snapshots(self.plan.snapshots.piece_bytes) {
            node.durable.perhaps(last);
        }
        // What cleans up after itself when it is dropped does not get to it.
        disk.stop_at(0);
        node.running = None;
        node.disk.heal();
        self.stats.crashes += 1;
        self.go_down(n);
        if power {
            self.nodes[n].disk = self.nodes[n].disk.crash();
        }
    }

    fn go_down(&mut self, n: usize) {
        self.nodes[n].running = None;
        self.nodes[n].life += 1;
        self.connections_lost(n);
        self.restart_later(n);
    }

    fn restart_later(&mut self, n: usize) {
        if !self.nodes[n].damaged {
            let outage = 1000 + self.random.exponential(self.plan.mean_outage);
            self.queue.add(self.now + outage, Event::Start(n));
        }
    }

    /// How many bytes the files of a node have together.
    pub(super) fn disk_bytes(&self, n: usize) -> u64 {
        let disk = &self.nodes[n].disk;
        let names = disk.list().unwrap_or_default();
        let sizes = names.iter().filter_map(|name| disk.contents(name));
        sizes.map(|bytes| bytes.len() as u64).sum()
    }
}
