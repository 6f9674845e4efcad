//! Commands that a test's script submits to a server directly, without a network between them, and
//! counters of the messages between nodes.

use std::collections::BTreeMap;

use crate::sim::network::{Kind, Place};
use raftkv::client::CallError;
use raftkv::kv::Reply;
use raftkv::raft::NodeId;
use raftkv::wire::client::{Answer, Doubt};
use raftkv::wire::frame;

/// The place of the script among the clients.
pub(in crate::sim) const DESK: usize = usize::MAX;

/// A command that was submitted to a server directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// How such a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Executed by this server, with this reply.
    Reply(Reply),
    /// Without one: whether it was executed is not known.
    Unknown(Doubt),
    /// Without one, in any other way. Says how.
    Not(String),
}

/// What came of the requests of a script, and the traffic between the nodes.
#[derive(Default)]
pub(in crate::sim) struct Desk {
    answers: BTreeMap<u64, Ended>,
    pub traffic: Traffic,
}

impl Desk {
    pub fn answered(&mut self, attempt: u64, result: Result<Answer, CallError>) {
        let ended = match result {
            Ok(Answer::Reply(bytes)) => match Reply::decode(&bytes) {
                Ok(reply) => Ended::Reply(reply),
                Err(error) => panic!("a reply that is none: {error}"),
            },
            Ok(Answer::Unknown(doubt)) => Ended::Unknown(doubt),
            other => Ended::Not(format!("{other:?}")),
        };
        let earlier = self.answers.insert(attempt, ended);
        assert!(earlier.is_none(), "a request was answered twice");
    }

    pub fn answer(&self, ticket: Ticket) -> Option<&Ended> {
        self.answers.get(&ticket.0)
    }
}

/// Messages between nodes, counted as the course does.
#[derive(Debug, Default)]
pub(in crate::sim) struct Traffic {
    /// By receiver; those that are lost included.
    requests: BTreeMap<NodeId, u64>,
    /// Of all requests, and of the answers that arrive.
    bytes: u64,
}

impl Traffic {
    pub fn note(&mut self, (_, to, kind): (Place, Place, Kind), len: usize, arrivals: usize) {
        if kind == Kind::Request {
            *self.requests.entry(to as NodeId).or_insert(0) += 1;
        }
        if kind == Kind::Request || arrivals > 0 {
            self.bytes += (len + frame::HEADER_LEN) as u64;
        }
    }

    pub fn requests(&self) -> u64 {
        self.requests.values().sum()
    }

    pub fn requests_to(&self, n: usize) -> u64 {
        self.requests.get(&(n as NodeId)).copied().unwrap_or(0)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
