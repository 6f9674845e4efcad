//! Clients that execute the operations of a test's script, and the checks of what they have seen.

use std::time::Duration;

use super::Lab;
use crate::sim::Time;
use crate::sim::check;
use crate::sim::history::{Action, Record};
use raftkv::machine::StateMachine;
use raftkv::raft::Raft;

/// How long the servers may take to come to the same state once all is well.
const SETTLING: Duration = Duration::from_secs(10);

/// An operation that a client has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(pub(crate) usize);

impl Lab {
    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.world.clients.len()
    }

    /// Lets a client reach these servers and no others.
    pub fn connect_client(&mut self, client: usize, servers: &[usize]) {
        let place = self.servers() + client;
        for server in 0..self.servers() {
            for (from, to) in [(place, server), (server, place)] {
                match servers.contains(&server) {
                    true => self.world.network.mend(from, to),
                    false => self.world.network.cut(from, to, Time::MAX),
                }
            }
        }
    }

    /// A client begins an operation: a write goes through the log in its session, a read is
    /// confirmed by the leader.
    pub fn begin(&mut self, client: usize, action: Action) -> Call {
        Call(self.world.begin(client, action))
    }

    /// What is known of an operation.
    pub fn record(&self, call: Call) -> &Record {
        &self.world.history[call.0]
    }

    /// All servers, which are connected by now, come to the same state, and the history of all
    /// clients is what the log makes of it: every answer, every append once, each key
    /// linearizable.
    ///
    /// # Panics
    /// If not.
    pub fn check_history(&mut self) {
        let settled = self.run_until(SETTLING, |lab| {
            let last = lab.world.checks.last().index;
            let all = 0..lab.servers();
            let mut applied = all.map(|server| lab.with_raft(server, Raft::applied_index));
            applied.all(|applied| applied == Some(last))
        });
        assert!(settled, "the servers do not come to the same state");
        for server in 1..self.servers() {
            let (digest, first) = (self.machine(server).digest(), self.machine(0).digest());
            assert_eq!(digest, first, "servers 0 and {server} differ");
        }
        let world = &self.world;
        let limits = &world.plan.limits;
        let checked = check::history(&world.checks, &world.history, &self.machine(0), limits);
        if let Err(failure) = checked {
            panic!("{failure}");
        }
    }
}
