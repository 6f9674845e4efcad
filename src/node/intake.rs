//! What comes in from the network: requests of clients and messages of peers become inputs of the
//! replica.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::consequences::Wanted;
use super::hub::Hub;
use super::outcome::{Outcome, Waiter};
use super::stages::Acknowledged;
use super::sync;
use crate::machine::StateMachine;
use crate::raft::{Envelope, NodeId};
use crate::wire::client::Answer;

/// Gathers what one wake-up of the event loop brings in, and puts all of it into the replica under
/// one lock.
pub struct Intake<S: StateMachine> {
    hub: Arc<Hub<S>>,
    inputs: Vec<Input<S::Reply>>,
    /// The acknowledgements among the gathered messages, by which the stages `round` and
    /// `heartbeat` are measured.
    acknowledged: Vec<Acknowledged>,
}

enum Input<R> {
    Absent(NodeId),
    Message(Envelope),
    /// A command, how many ticks it may take, and the waiter for its reply.
    Submit(Bytes, u64, Waiter<R>),
    /// A query, how many ticks it may take, and the waiter for its answer.
    Query(Bytes, u64, Waiter<R>),
}

impl<S: StateMachine> Intake<S> {
    /// An intake for the node of this hub.
    pub fn new(hub: Arc<Hub<S>>) -> Self {
        Self {
            hub,
            inputs: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    /// No process listens at a peer's address; see [`Raft::absent`](crate::raft::Raft::absent).
    pub fn absent(&mut self, peer: NodeId) {
        self.inputs.push(Input::Absent(peer));
    }

    /// A peer has sent a message. If it holds a command that this node cannot execute, the core
    /// does not see the message and the node stops; see [`admissible`](super::admissible).
    pub fn message(&mut self, envelope: Envelope) {
        if !self.hub.takes(&envelope) {
            return;
        }
        self.acknowledged.extend(Acknowledged::by(&envelope));
        self.inputs.push(Input::Message(envelope));
    }

    /// A client wants a command executed. A command that the state machine cannot execute is
    /// refused here: once it is in the log, no replica can go on.
    pub fn submit(&mut self, command: Bytes, timeout: Duration, waiter: Waiter<S::Reply>) {
        match self.hub.admit(&command) {
            Ok(()) => {
                let ticks = self.hub.deadline(timeout);
                self.inputs.push(Input::Submit(command, ticks, waiter));
            }
            Err(sentence) => match waiter {
                Waiter::Remote(to) => to.send(Answer::Invalid(sentence)),
                Waiter::Local(tell) => tell(Outcome::Invalid(sentence)),
            },
        }
    }

    /// A client sends a query, which reads the state and changes nothing.
    pub fn query(&mut self, query: Bytes, timeout: Duration, waiter: Waiter<S::Reply>) {
        let ticks = self.hub.deadline(timeout);
        self.inputs.push(Input::Query(query, ticks, waiter));
    }

    /// Puts the gathered inputs into the replica, sends the messages that may leave, and executes
    /// the entries that have become committed.
    pub fn flush(&mut self) {
        if self.inputs.is_empty() {
            return;
        }
        let at = sync::now();
        self.hub.stages.acknowledged(&self.acknowledged, at);
        self.acknowledged.clear();
        let inputs = self.inputs.drain(..);
        self.hub
            .exchange_and_execute(at, Wanted::MESSAGES, |replica| {
                for input in inputs {
                    match input {
                        Input::Absent(peer) => replica.absent(peer),
                        Input::Message(envelope) => replica.step(envelope),
                        Input::Submit(command, ticks, waiter) => {
                            replica.submit(command, ticks, waiter);
                        }
                        Input::Query(query, ticks, waiter) => replica.query(query, ticks, waiter),
                    }
                }
            });
    }
}
