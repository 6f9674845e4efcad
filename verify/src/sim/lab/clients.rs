//! Clients that execute the operations of a test's script, and the checks of what they have seen.

use std::time::Duration;

use bytes::Bytes;

use super::Lab;
use crate::sim::Time;
use crate::sim::check;
use crate::sim::history::{Action, End};
use raftkv::kv::{Op, Reply};
use raftkv::machine::StateMachine;
use raftkv::raft::Raft;

/// How long the servers may take to come to the same state once all is well.
const SETTLING: Duration = Duration::from_secs(10);

/// No call may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// An operation that a client has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(usize);

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

    /// A client begins a write, which goes through the log in its session.
    pub fn begin(&mut self, client: usize, op: Op) -> Call {
        Call(self.world.begin(client, Action::Execute(op)))
    }

    /// A client begins a read, which the leader has confirmed.
    pub fn begin_get(&mut self, client: usize, key: &str) -> Call {
        let key = Bytes::copy_from_slice(key.as_bytes());
        Call(self.world.begin(client, Action::Get(key)))
    }

    /// Whether a client has nothing under way.
    pub fn is_idle(&self, client: usize) -> bool {
        self.world.clients[client].is_idle()
    }

    /// The reply to a call, once it has one.
    ///
    /// # Panics
    /// If the call failed: none may.
    pub fn reply(&self, call: Call) -> Option<&Reply> {
        let record = &self.world.history[call.0];
        match &record.end {
            None => None,
            Some((_, End::Reply(reply))) => Some(reply),
            Some((_, end)) => panic!("{:?} ended {end:?}", record.action),
        }
    }

    /// Waits for the reply to a call.
    ///
    /// # Panics
    /// If there is none for long, or the call fails.
    pub fn await_reply(&mut self, call: Call) -> Reply {
        let ended = self.run_until(PATIENCE, |lab| lab.reply(call).is_some());
        assert!(ended, "no reply to {:?}", self.world.history[call.0].action);
        self.reply(call).expect("there is one").clone()
    }

    /// Sets a value and waits for it.
    pub fn put(&mut self, client: usize, key: &str, value: &str) {
        let call = self.begin(client, put(key, value));
        assert_eq!(self.await_reply(call), Reply::Done);
    }

    /// Appends to a value and waits for it.
    pub fn append(&mut self, client: usize, key: &str, value: &str) {
        let call = self.begin(client, append(key, value));
        let reply = self.await_reply(call);
        assert!(matches!(reply, Reply::Appended(_)), "{reply:?}");
    }

    /// Reads a value; a missing one is empty.
    pub fn get(&mut self, client: usize, key: &str) -> String {
        let call = self.begin_get(client, key);
        let reply = self.await_reply(call);
        value_in(&reply)
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

/// The operation that sets a value.
pub fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// The operation that appends to a value.
pub fn append(key: &str, value: &str) -> Op {
    Op::Append {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// The value that a reply to a get shows; a missing one is empty.
pub fn value_in(reply: &Reply) -> String {
    match reply {
        Reply::Value(value) => {
            String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
        }
        other => panic!("a get is answered {other:?}"),
    }
}
