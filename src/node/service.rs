//! What the event loop calls: requests of clients and messages of peers become inputs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::outcome::Waiter;
use super::shared::Shared;
use crate::machine::StateMachine;
use crate::net::{ReplyTo, Service};
use crate::raft::{Envelope, NodeId};
use crate::wire::client::{Answer, Ask, Request};
use crate::wire::handshake::{Caller, Hello, Welcome};

/// The node as the event loop sees it.
pub(super) struct NodeService<S: StateMachine> {
    shared: Arc<Shared<S>>,
    machine: String,
    /// What one wake-up of the loop has brought in: put in under one lock.
    inputs: Vec<Input>,
}

enum Input {
    Message(Envelope),
    Submit(Bytes, u64, ReplyTo),
    Query(Bytes, u64, ReplyTo),
}

impl<S: StateMachine> NodeService<S> {
    pub fn new(shared: Arc<Shared<S>>, machine: String) -> Self {
        Self {
            shared,
            machine,
            inputs: Vec::new(),
        }
    }

    /// Why this node does not talk to a caller, if it does not.
    fn objection(&self, hello: &Hello) -> Option<String> {
        let config = &self.shared.config;
        let (id, cluster) = (config.id, &config.cluster);
        let any_cluster = hello.cluster.is_empty() && hello.caller == Caller::Client;
        if !any_cluster && hello.cluster != *cluster {
            return Some(format!(
                "this is node {id} of cluster \"{cluster}\", not of \"{}\": check the address and \
                 the cluster's name",
                hello.cluster
            ));
        }
        let Caller::Peer { from, to, machine } = &hello.caller else {
            return None;
        };
        if *to != id {
            return Some(format!(
                "this is node {id}, not node {to}: check the addresses in the cluster list of \
                 node {from}"
            ));
        }
        if *from == id || !config.members.contains_key(from) {
            return Some(format!(
                "node {from} is not another node in the cluster list of node {id}: give all nodes \
                 the same list"
            ));
        }
        if *machine != self.machine {
            return Some(format!(
                "node {from} runs \"{machine}\" and node {id} \"{}\": give all nodes the same \
                 limits",
                self.machine
            ));
        }
        None
    }
}

impl<S: StateMachine> Service for NodeService<S> {
    fn hello(&mut self, hello: &Hello, _: SocketAddr) -> Welcome {
        match self.objection(hello) {
            Some(sentence) => Welcome::Refused(sentence),
            None => Welcome::Accepted {
                cluster: self.shared.config.cluster.clone(),
                id: self.shared.config.id,
            },
        }
    }

    fn peer(&mut self, envelope: Envelope) {
        self.inputs.push(Input::Message(envelope));
    }

    fn request(&mut self, request: Request, reply: ReplyTo) {
        let timeout = Duration::from_millis(request.timeout_ms.into());
        let ticks = self.shared.deadline(timeout);
        match request.ask {
            Ask::Submit(command) => match self.shared.admit(&command) {
                Ok(()) => self.inputs.push(Input::Submit(command, ticks, reply)),
                Err(sentence) => reply.send(Answer::Invalid(sentence)),
            },
            Ask::Query(query) => self.inputs.push(Input::Query(query, ticks, reply)),
            Ask::Status => reply.send(Answer::Status(Box::new(self.shared.status()))),
            Ask::Transfer(to) => reply.send(transfer(&self.shared, to)),
            Ask::Snapshot => reply.send(snapshot(&self.shared)),
        }
    }

    fn flush(&mut self) {
        if self.inputs.is_empty() {
            return;
        }
        let inputs = self.inputs.drain(..);
        self.shared.input(|replica| {
            for input in inputs {
                match input {
                    Input::Message(envelope) => replica.step(envelope),
                    Input::Submit(command, ticks, to) => {
                        replica.submit(command, ticks, Waiter::Remote(to));
                    }
                    Input::Query(query, ticks, to) => {
                        replica.query(query, ticks, Waiter::Remote(to));
                    }
                }
            }
        });
        self.shared.send();
    }
}

/// Begins to hand leadership over, and says what came of the attempt to begin.
pub(super) fn transfer<S: StateMachine>(shared: &Shared<S>, to: Option<NodeId>) -> Answer {
    let begun = shared.input(|replica| match replica.transfer(to) {
        Some(_) => Ok(()),
        None => Err((replica.raft().leader(), replica.not_leader())),
    });
    shared.send();
    match begun {
        Ok(()) => Answer::Transferring,
        // Done already; the request may well be the repeat of one whose answer got lost.
        Err((Some(leader), _)) if to == Some(leader) && leader == shared.config.id => {
            Answer::Transferring
        }
        Err((Some(leader), _)) if leader == shared.config.id => Answer::Invalid(match to {
            Some(to) => format!("node {to} is not another voter of this cluster"),
            None => "there is no other voter to lead this cluster".to_string(),
        }),
        Err((_, not_leader)) => shared.answer(not_leader),
    }
}

/// Has a snapshot taken. Whoever asks watches the status for its end: nobody waits here.
pub(super) fn snapshot<S: StateMachine>(shared: &Shared<S>) -> Answer {
    shared.input(|replica| {
        let is_there = !replica.want_snapshot();
        let up_to = replica.raft().applied_index();
        Answer::Snapshot { up_to, is_there }
    })
}
