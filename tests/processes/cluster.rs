//! A cluster of the `kvnode` under test, with clients for it.

use std::ops::{Deref, DerefMut};
use std::process::{Command, Output};
use std::time::Duration;

use raftkv::client::{Clerk, Options};
use raftkv::raft::NodeId;
use raftkv::testkit::{ProcessCluster, program};
use tempfile::TempDir;

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

    /// `kvcli` for this cluster.
    pub fn cli(&self) -> Command {
        let mut command = kvcli();
        command.args(["--cluster", &self.addresses().join(",")]);
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
