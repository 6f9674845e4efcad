//! How a simulated node uses its disk: it starts from the disk, writes to it, and may go down in
//! the middle of a write.
//!
//! A write takes virtual time, and is carried out as a whole when that time is over. If the node
//! goes down earlier, only the first operations of the write are carried out; how many is drawn. If
//! the node lost its power, [`SimDisk::crash`] also draws which unsynced data is kept, lost or
//! torn.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use super::check::{Promised, member};
use super::clock::{self, Board};
use super::durable::{Damage, Durable};
use super::faults::snapshot_of;
use super::greeting::Greeter;
use super::node::{Node, Running};
use super::outside::{Outside, Watched};
use super::trace::trace;
use super::world::{Event, TICK, World};
use raftkv::kv::Kv;
use raftkv::machine::StateMachine;
use raftkv::node::steps::{self, Clock, Surroundings};
use raftkv::node::{self, NodeError, Share, Shares, Takes};
use raftkv::raft::{self, EntryId, NodeId, Write};
use raftkv::storage::{self, Identity, Recovered, SimDisk, Storage, StorageError};

/// No write takes more operations than this.
const MAX_OPERATIONS: u64 = 14;
/// How much a node executes at a time: less than in production, so that it happens that a batch
/// ends in the middle, and that answers are large.
const SHARES: Shares = Shares {
    own: Share {
        log_bytes: 1 << 10,
        reply_bytes: 1 << 10,
        large_from: 100,
        takes: Takes::All,
    },
    here: Share {
        log_bytes: 512,
        reply_bytes: 512,
        large_from: 100,
        takes: Takes::Short,
    },
};
/// The name of the simulated cluster.
pub(super) const CLUSTER: &str = "simulated";

impl Node {
    pub fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            folder: None,
            life: 0,
            running: None,
            damaged: false,
            at_risk: false,
            retired: false,
            admitted: false,
            has_first_folder: true,
            tick: TICK,
            was_up: false,
            has_one_vote: false,
            joins: None,
            leads_since: 0,
            slowness: 1,
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
        if self.judge(n) == Damage::Unclear {
            // It got an empty folder, and starts later.
            return Ok(());
        }
        let machine = Kv::new(self.plan.limits.clone());
        let machine = Watched::new(machine, self.plan.compare_every);
        let identity = Identity {
            cluster: CLUSTER.into(),
            node: n as NodeId + 1,
            machine: machine.identity(),
        };
        let disk = self.nodes[n].disk.clone();
        self.failed_reads(n);
        let interrupted = self.faults_go_on && self.random.chance(0.1);
        if interrupted {
            let operations = self.random.below(MAX_OPERATIONS);
            disk.stop_at(disk.operations() + operations);
        }
        let options = storage::Options {
            segment_bytes: self.plan.segment_bytes,
            allocate_bytes: 4 << 10,
            snapshot_piece_bytes: self.plan.snapshots.piece_bytes,
            snapshot_sync_bytes: self.plan.snapshots.sync_bytes,
        };
        let opened = Storage::open(Arc::new(disk.clone()), &identity, options);
        disk.heal();
        let unread = self.failed_reads(n);
        match opened {
            Ok(opened) if !interrupted => self.started(n, opened, machine, &unread),
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
        machine: Watched,
        unread: &BTreeSet<String>,
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
        let unread: Vec<EntryId> = unread.iter().filter_map(|name| snapshot_of(name)).collect();
        let (durable, promised) = (&mut node.durable, &mut node.promised);
        durable.recovered(&recovered, promised, &unread)?;
        node.promised.check(n, &recovered)?;
        node.life += 1;
        (node.was_up, node.has_one_vote, node.at_risk) = (true, false, false);
        node.folder = Some(storage.own_folder());
        if let Some(snapshot) = &recovered.snapshot {
            let meta = &snapshot.meta;
            let members = &self.checks.members;
            members.snapshot(n, meta.last, &meta.configuration)?;
        }
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
        self.put_together(n, (storage, recovered), machine)
    }

    /// Puts a node together on what was found on its disk.
    fn put_together(
        &mut self,
        n: usize,
        opened: (Storage, Recovered),
        machine: Watched,
    ) -> Result<(), Failure> {
        let snapshot = opened.1.snapshot.as_ref().map(|info| info.meta.last);
        let outside = Arc::new(Outside::default());
        let woken = outside.clone();
        let surroundings = Surroundings {
            transport: outside.clone(),
            wake: Box::new(move |task| woken.wake(task)),
            on_stop: Box::new(|| {}),
            clock: Clock {
                now: clock::now,
                rest: clock::rest,
            },
            shares: SHARES,
        };
        let board = Board::new(self.now, TICK);
        let config = self.node_config(n);
        let mut core = self.raft_config(&config);
        let mut greeter = None;
        if self.plan.greets {
            let peers = match opened.0.peers() {
                Ok(peers) => peers,
                Err(error) => return self.does_not_start(n, &error),
            };
            let founders: Vec<NodeId> = config.members.keys().copied().collect();
            let told = (n, &founders[..]);
            let machine = machine.identity();
            let knows = greeter.insert(Greeter::new(peers, told, &machine, &outside));
            core.admitted = knows.is_admitted();
        }
        self.nodes[n].admitted = core.admitted;
        if core.admitted {
            let who = member(n, &self.nodes[n]);
            who.into_iter()
                .for_each(|who| self.checks.members.admitted(who));
        }
        let now = board.at(self.now);
        let parts = steps::assemble(config, core, machine, opened, surroundings, now);
        let parts = match parts {
            Ok(parts) => parts,
            Err(error) => return self.does_not_start(n, &error),
        };
        if let Some(last) = snapshot {
            let machine = parts.hub.with_machine(|machine| machine.kv.clone());
            self.checks.snapshot(n, last, &machine)?;
            parts.hub.with_machine(Watched::take_states);
        }
        self.nodes[n].running = Some(Running::new(parts, greeter, outside, board));
        self.begin_to_join(n);
        self.stats.starts += 1;
        self.set_off(n)
    }

    /// A node whose folder was found in order does not start: that is right only if its disk cannot
    /// be read any more.
    fn does_not_start(&mut self, n: usize, error: &dyn std::error::Error) -> Result<(), Failure> {
        if self.failed_reads(n).is_empty() {
            let sentence = format!("node {}: {error}", n + 1);
            return Err(Failure::new("a node starts", sentence));
        }
        trace!(self, "node {} does not start: {error}", n + 1);
        self.restart_later(n);
        Ok(())
    }

    /// The settings of a node, as a user of the library makes them.
    fn node_config(&self, n: usize) -> node::Config {
        // Who was no founder was told of nobody.
        let members = self.founders().filter(|_| n < self.plan.nodes);
        node::Config {
            cluster: CLUSTER.into(),
            snapshot_log_bytes: self.plan.snapshots.log_bytes,
            max_waiting: self.plan.max_waiting,
            // A step each 20 ms at most: a folder is read within a second or two.
            scrub: Some(Duration::from_secs(20)),
            ..node::Config::new(n as NodeId + 1, members, "simulated")
        }
    }

    /// The settings of its core: those that follow from the node's, but for limits that are drawn.
    fn raft_config(&mut self, config: &node::Config) -> raft::Config {
        let config = config.raft(self.random.number());
        let mut config = config.expect("the settings can work");
        config.max_append_bytes = self.plan.max_append_bytes;
        config.max_inflight_messages = self.plan.max_inflight_messages;
        config.max_uncommitted_bytes = self.plan.max_uncommitted_bytes;
        let snapshots = &self.plan.snapshots;
        config.trailing_bytes = snapshots.trailing_bytes;
        config.keeps_matched = snapshots.keeps_matched;
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

    /// The replicator ends a write and takes the next one. Whether there is one.
    pub(super) fn replicate(&mut self, n: usize) -> Result<Result<bool, NodeError>, Failure> {
        let node = &mut self.nodes[n];
        let running = node.running.as_mut().expect("it runs");
        let write = running.replicator.under_way().cloned();
        node.durable.cut = node.durable.cut.max(running.hub.cut_to());
        let stepped = running.replicator.step(&running.hub);
        if let Some(write) = write {
            if running.replicator.waits_for_space() {
                // Its term and vote are there, and no entry.
                node.durable.unfinished = Some(write);
                self.stats.waits_for_space += 1;
            } else if stepped.is_ok() {
                node.durable.unfinished = None;
                node.promised.replaced(node.durable.kept_by(&write));
                node.durable.apply(write);
            } else {
                node.durable.unfinished = Some(write);
            }
        }
        if let Err(error) = &stepped {
            self.writes_no_more(n, error)?;
        }
        Ok(stepped)
    }

    /// After a write has failed, the next one must, too, though the disk is well again.
    fn writes_no_more(&mut self, n: usize, error: &NodeError) -> Result<(), Failure> {
        self.nodes[n].disk.heal();
        let again = self.running(n).replicator.storage().write(&Write {
            id: 0,
            hard_state: None,
            entries: Vec::new(),
            restart: None,
        });
        if matches!(again, Err(StorageError::Stopped { .. })) {
            return Ok(());
        }
        let sentence = format!("node {} writes on after: {error}", n + 1);
        Err(Failure::new("a failed sync is the last", sentence))
    }

    /// A node has stopped because its disk failed.
    pub(super) fn disk_failed(&mut self, n: usize, error: &StorageError) {
        trace!(self, "node {} stops: {error}", n + 1);
        self.stats.disk_failures += 1;
        self.go_down(n);
    }

    /// A node is told to stop: those who wait are told so.
    pub(super) fn abandon(&mut self, n: usize) -> Result<(), Failure> {
        self.input(n, |hub, _| hub.stop(None))
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
        // Each task that uses the disk gets to some operation of the step that it is in. Whether it
        // got to its end makes no difference: nobody hears of it.
        if let Some(write) = running.replicator.under_way().cloned() {
            stop();
            let _ = running.replicator.step(&running.hub);
            node.durable.unfinished = Some(write);
        }
        let (own, received) = (running.taker.placing(), running.courier.placing());
        if running.taker.is_busy() {
            stop();
            running.taker.step(&running.hub);
        }
        // Two snapshots cannot be put in their places at once: the second waits for the first.
        let waits = own.is_some() && received.is_some();
        if running.courier.is_busy() && !waits {
            stop();
            let _ = running.courier.step(&running.hub);
        }
        let operation = self.random.below(MAX_OPERATIONS);
        self.interrupt_registrar(n, operation);
        let node = &mut self.nodes[n];
        let placed = own.or(received);
        if let Some(last) = placed {
            node.durable.perhaps(last);
        }
        // What cleans up after itself when it is dropped does not get to it.
        node.disk.stop_at(0);
        node.running = None;
        node.disk.heal();
        self.stats.crashes += 1;
        self.go_down(n);
        if power {
            self.nodes[n].disk = self.nodes[n].disk.crash();
        }
    }

    pub(super) fn go_down(&mut self, n: usize) {
        self.nodes[n].running = None;
        self.nodes[n].life += 1;
        self.connections_lost(n);
        self.restart_later(n);
    }

    pub(super) fn restart_later(&mut self, n: usize) {
        if !self.nodes[n].damaged {
            let outage = 1000 + self.random.exponential(self.plan.mean_outage);
            self.queue.add(self.now + outage, Event::Start(n));
        }
    }

    /// How many bytes the files of a node have together.
    pub(super) fn disk_bytes(&self, n: usize) -> u64 {
        let disk = &self.nodes[n].disk;
        let names = self.names(n);
        let sizes = names.iter().filter_map(|name| disk.contents(name));
        sizes.map(|bytes| bytes.len() as u64).sum()
    }
}
