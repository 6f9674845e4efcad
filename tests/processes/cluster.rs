//! A cluster of the `kvnode` under test, with clients for it.

use std::ops::{Deref, DerefMut};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crossbeam::channel::after;
use raftkv::client::{Clerk, Options};
use raftkv::raft::{Configuration, FolderId, Member, NodeId};
use raftkv::testkit::{ProcessCluster, program};
use raftkv::wire::client::{Answer, Ask, Response};
use raftkv::wire::members::MembersReport;
use tempfile::TempDir;

use super::raw::Raw;

/// How long anything may take for which a test waits. Far longer than it ever needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster(ProcessCluster);

pub fn kvnode() -> Command {
    program(env!("CARGO_BIN_EXE_kvnode"))
}

pub fn kvcli() -> Command {
    program(env!("CARGO_BIN_EXE_kvcli"))
}

impl Cluster {
    /// Starts a cluster of so many nodes.
    pub fn start(size: u64) -> Self {
        Self::start_with(size, &[])
    }

    /// Starts a cluster whose nodes get these options as well.
    pub fn start_with(size: u64, options: &[&str]) -> Self {
        Self::start_as(size, |cluster| {
            (1..=size).for_each(|id| cluster.give(id, options));
        })
    }

    /// Starts a cluster that is prepared first.
    pub fn start_as(size: u64, prepare: impl FnOnce(&mut Self)) -> Self {
        let (kvnode, folder) = (env!("CARGO_BIN_EXE_kvnode"), TempDir::new().unwrap());
        let mut cluster = Self(ProcessCluster::new(kvnode, folder, size).unwrap());
        prepare(&mut cluster);
        cluster.restart(1..=size).unwrap();
        cluster
    }

    /// A client that is as patient as the tests.
    pub fn clerk(&self) -> Clerk {
        self.clerk_for(PATIENCE)
    }

    /// A client whose calls end within `deadline`.
    pub fn clerk_for(&self, deadline: Duration) -> Clerk {
        clerk_at(self.addresses(), deadline)
    }

    /// The leader, once there is one that a quorum confirms.
    pub fn leader(&self) -> NodeId {
        let clerk = self.clerk();
        clerk.get("any").unwrap();
        clerk.status_of(&clerk.leader().unwrap()).unwrap().id
    }

    /// Starts a cluster of so many nodes, and waits until each of them knows that the log names the
    /// members with their folders.
    pub fn start_settled(size: u64) -> Self {
        let cluster = Self::start(size);
        cluster.settle();
        cluster
    }

    /// Waits until each node knows that the log names the members with their folders.
    pub fn settle(&self) {
        let is_full = |member: &Member| member.folder.is_some();
        for id in self.ids() {
            self.await_members(id, |now| {
                !now.is_founding() && now.members().iter().all(is_full)
            });
        }
    }

    /// What a node knows of the members.
    pub fn members(&self, id: NodeId) -> MembersReport {
        let mut raw = Raw::open(self.address(id));
        raw.send(Ask::Members);
        match raw.receive::<Response>().answer {
            Answer::Members(report) => *report,
            other => panic!("node {id} answers {other:?}"),
        }
    }

    /// Waits until a node knows that members are committed for which this holds.
    pub fn await_members(&self, id: NodeId, holds: impl Fn(&Configuration) -> bool) {
        self.await_report(id, |report| {
            let now = &report.configuration;
            let is_done = report.committed == now.index && !now.configuration.is_joint();
            is_done && holds(&now.configuration)
        });
    }

    /// Waits until this holds of what a node knows of the members.
    pub fn await_report(&self, id: NodeId, holds: impl Fn(&MembersReport) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.members(id);
            if holds(&report) {
                return;
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "node {id}: {report:#?}\n{}", self.last_words());
            let _ = after(Duration::from_millis(10)).recv();
        }
    }

    /// The end of each node's log, for a test that fails.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for id in self.ids() {
            let log = std::fs::read_to_string(self.log(id)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            words += &format!("node {id}:\n{last}\n");
        }
        words
    }

    /// Waits until the leader has not heard a node for far longer than two election timeouts.
    pub fn await_silence(&self, id: NodeId) {
        let leader = self.leader();
        self.await_report(leader, |report| {
            let mut others = report.members.iter();
            others.any(|other| other.id == id && other.silent_ms > 1500)
        });
    }

    /// The folder of a member as a node knows it.
    pub fn folder_of(&self, member: NodeId, by: NodeId) -> Option<FolderId> {
        let known = self.members(by).configuration.configuration;
        known.contact(member).and_then(|member| member.folder)
    }

    /// Has `kvcli member` change the members, and waits until it says that this is done.
    pub fn change(&self, words: &[&str]) {
        let output = self.cli().arg("member").args(words).output().unwrap();
        let code = output.status.code();
        assert_eq!(code, Some(0), "member {words:?}: {output:?}");
    }

    /// `kvcli` for this cluster.
    pub fn cli(&self) -> Command {
        self.cli_by(&self.ids())
    }

    /// `kvcli` that knows only these nodes at first.
    pub fn cli_by(&self, ids: &[NodeId]) -> Command {
        let addresses: Vec<_> = ids.iter().map(|id| self.address(*id).to_string()).collect();
        let mut command = kvcli();
        command.args(["--cluster", &addresses.join(",")]);
        command.env("RAFTKV_TIMEOUT", "60s");
        command
    }

    /// Runs `kvcli` with these words.
    pub fn run(&self, words: &[&str]) -> Output {
        self.cli().args(words).output().unwrap()
    }
}

impl Deref for Cluster {
    type Target = ProcessCluster;

    fn deref(&self) -> &ProcessCluster {
        &self.0
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut ProcessCluster {
        &mut self.0
    }
}

/// A client of the nodes at these addresses.
pub fn clerk_at(addresses: Vec<String>, deadline: Duration) -> Clerk {
    let options = Options {
        deadline,
        ..Options::default()
    };
    Clerk::with_options(addresses, options).unwrap()
}

/// Text of a program's output.
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
