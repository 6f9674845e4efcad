//! Commands and agreement about them, on servers that record what they execute.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftkv::raft::{EntryId, Index, NodeId};
use raftkv::testkit::{Journal, Recorder};

use super::lab::Lab;

/// How long the course tries to reach agreement.
const AGREEMENT: Duration = Duration::from_secs(10);

/// How long it waits for one command before it submits another.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longer than any test: what waits here for a reply is not what these tests are about.
const LONG: Duration = Duration::from_secs(30);

/// Servers that record, and the journal that compares them all the time.
pub struct RaftLab {
    pub lab: Lab<Recorder>,
    journal: Journal,
    commands: AtomicU64,
}

impl std::ops::Deref for RaftLab {
    type Target = Lab<Recorder>;

    fn deref(&self) -> &Lab<Recorder> {
        &self.lab
    }
}

/// The course's check of what is applied, at the end of every test.
impl Drop for RaftLab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.journal.contradiction(), None);
        }
    }
}

impl RaftLab {
    /// Servers that take a snapshot after so many bytes of log.
    pub fn with_snapshots(size: u64, log_bytes: Option<u64>) -> Self {
        let journal = Journal::default();
        let machines = journal.clone();
        Self {
            lab: Lab::with_snapshots(size, log_bytes, move || machines.machine()),
            journal,
            commands: AtomicU64::new(0),
        }
    }

    /// A command that was never used before.
    pub fn fresh(&self) -> Bytes {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        format!("command {number}").into()
    }

    /// Submits a command to one server. `None` if it does not lead.
    pub fn submit(&self, id: NodeId, command: Bytes) -> Option<EntryId> {
        let node = self.cluster.node_if_up(id)?;
        let pending = node.start(command, LONG).ok()?;
        Some(pending.id())
    }

    /// How many servers have executed this command at this index.
    pub fn executed_at(&self, index: Index, command: &Bytes) -> usize {
        self.count(|machine| machine.at(index) == Some(command))
    }

    fn count(&self, holds: impl Fn(&Recorder) -> bool) -> usize {
        let nodes = self.ids().into_iter();
        let nodes = nodes.filter_map(|id| self.cluster.node_if_up(id));
        nodes.filter(|node| node.with_machine(&holds)).count()
    }

    /// Has a fresh command executed by at least so many servers, and returns its place among all
    /// commands. Submits it again if that takes long.
    pub fn agree(&self, servers: usize) -> u64 {
        self.one(self.fresh(), servers, true)
    }

    /// As the course's function of this name.
    pub fn one(&self, command: Bytes, servers: usize, retry: bool) -> u64 {
        let deadline = Instant::now() + AGREEMENT;
        while Instant::now() < deadline {
            let mut connected = self.connected().into_iter();
            let Some(entry) = connected.find_map(|id| self.submit(id, command.clone())) else {
                self.let_time_pass(Duration::from_millis(10));
                continue;
            };
            let agreed = self.cluster.wait_until(PATIENCE, |_| {
                self.executed_at(entry.index, &command) >= servers
            });
            if agreed {
                return self.place(entry.index);
            }
            assert!(retry, "{command:?} at {entry} did not reach agreement");
        }
        panic!("{command:?} did not reach agreement: {:?}", self.statuses());
    }

    /// The place of the command at an index, the first one being 1.
    fn place(&self, index: Index) -> u64 {
        let executed = self.journal.executed();
        let place = executed.binary_search_by_key(&index, |(at, _)| *at);
        place.expect("it was executed") as u64 + 1
    }
}
