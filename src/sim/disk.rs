//! A node and its disk: starting from it, writing to it, and ending in the middle of a write.
//!
//! A write is executed as a whole at the moment at which its time is up. If the node goes down
//! before, the operations of the write are executed up to one that is drawn; and if it was the
//! power that failed, what was not synced is kept, lost or torn as [`SimDisk::crash`] draws it.

use super::Failure;
use super::canary::Canary;
use super::check::Promised;
use super::node::{Node, Running};
use super::trace::trace;
use super::world::{Event, TICK, World};
use crate::kv::Kv;
use crate::machine::StateMachine;
use crate::node::Replica;
use crate::raft::{self, Entry, HardState, Membership, NodeId, Raft, Write};
use crate::storage::{self, Disk, Identity, Recovered, SimDisk, Storage, StorageError};

/// No write takes more operations than this.
const MAX_OPERATIONS: u64 = 14;

/// What a disk must hold: what was reported durable, and at most what was begun behind it.
#[derive(Default)]
pub(super) struct Durable {
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    /// The write that was not reported: it may be there, or only its term and vote, or nothing.
    pub unfinished: Option<Write>,
}

impl Durable {
    fn apply(&mut self, write: Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            self.entries.truncate(first.id.index as usize - 1);
        }
        self.entries.extend(write.entries);
    }

    /// Compares what a node found on its disk, which is durable from now on.
    fn recovered(&mut self, found: &Recovered, promised: &mut Promised) -> Result<(), Failure> {
        let same =
            |this: &Self| this.hard_state == found.hard_state && this.entries == found.entries;
        if let Some(write) = self.unfinished.take()
            && !same(self)
        {
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            if !same(self) {
                promised.overwritten(&write, &self.entries);
                self.apply(write);
            }
        }
        if same(self) {
            return Ok(());
        }
        let last = |entries: &[Entry]| entries.last().map_or(raft::EntryId::ZERO, |e| e.id);
        Err(Failure::new(
            "what is durable comes back",
            format!(
                "the disk was left with {:?} and a log up to {}, or before the last write; found \
                 were {:?} and a log up to {}",
                self.hard_state,
                last(&self.entries),
                found.hard_state,
                last(&found.entries)
            ),
        ))
    }
}

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
            durable: Durable::default(),
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
        let canary = self.canary;
        let machine = Kv::new(self.plan.limits.clone());
        let machine = machine.with_canary(canary.and_then(Canary::kv));
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
            canary: canary.and_then(Canary::storage),
        };
        let opened = Storage::open(std::sync::Arc::new(disk.clone()), &identity, options);
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
            let sentence = format!("node {} starts from a disk with flipped bits", n + 1);
            return Err(Failure::new("damage is noticed", sentence));
        }
        node.durable.recovered(&recovered, &mut node.promised)?;
        node.promised.check(n, &recovered)?;
        node.life += 1;
        (node.was_up, node.has_one_vote) = (true, false);
        let Recovered {
            hard_state,
            entries,
            notes,
            ..
        } = recovered;
        trace!(
            self,
            "node {} starts in term {} with {} entries; {}",
            n + 1,
            hard_state.term,
            entries.len(),
            notes.join("; ")
        );
        // Once there are snapshots, the machine starts from the one found on the disk.
        let raft = Raft::new(self.raft_config(n), hard_state, entries);
        let replica = Replica::new(raft, self.plan.max_waiting, None)
            .with_canary(self.canary.and_then(Canary::replica));
        let running = Running::new(replica, storage, machine, self.now);
        self.nodes[n].running = Some(running);
        self.stats.starts += 1;
        self.set_off(n);
        Ok(())
    }

    fn raft_config(&mut self, n: usize) -> raft::Config {
        let members = Membership::of_voters(1..=self.nodes.len() as NodeId);
        let mut config = raft::Config::new(n as NodeId + 1, members, self.random.number());
        config.max_append_bytes = self.plan.max_append_bytes;
        config.max_inflight_messages = self.plan.max_inflight_messages;
        config.max_uncommitted_bytes = self.plan.max_uncommitted_bytes;
        config.without = self.canary.and_then(Canary::rule);
        config
    }

    /// Executes a write. False if the disk failed: then the node has stopped.
    pub(super) fn store(&mut self, n: usize, write: Write) -> Result<bool, Failure> {
        let node = &mut self.nodes[n];
        if let Some(operation) = node.fail_next.take() {
            node.disk.fail_at(node.disk.operations() + operation);
        }
        let running = node.running.as_mut().expect("it runs");
        let result = running.storage.write(&write);
        node.disk.heal();
        match result {
            Ok(()) => {
                node.promised.overwritten(&write, &node.durable.entries);
                node.durable.apply(write);
                Ok(true)
            }
            Err(error) => {
                trace!(self, "node {} stops: {error}", n + 1);
                let again = running.storage.write(&write);
                if !matches!(again, Err(StorageError::Stopped { .. })) {
                    let sentence = format!("node {} writes on after: {error}", n + 1);
                    return Err(Failure::new("a failed sync is the last", sentence));
                }
                node.durable.unfinished = Some(write);
                self.stats.disk_failures += 1;
                self.abandon(n)?;
                self.go_down(n);
                Ok(false)
            }
        }
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
        if let Some(write) = running.writing.take() {
            let reached = self.random.below(MAX_OPERATIONS);
            node.disk.stop_at(node.disk.operations() + reached);
            // Whether it got to its end makes no difference: nobody hears of it.
            let _ = running.storage.write(&write);
            node.disk.heal();
            node.durable.unfinished = Some(write);
        }
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
