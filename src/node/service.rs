//! What the event loop calls: requests of clients and messages of peers become inputs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::greeter::Greeter;
use super::hub::Hub;
use super::intake::Intake;
use super::outcome::Waiter;
use super::scheduling::Worker;
use crate::machine::StateMachine;
use crate::net::{Replies, ReplyTo, Service};
use crate::raft::{Envelope, NodeId, Raft};
use crate::wire::client::{Answer, Ask, Request};
use crate::wire::handshake::{Hello, PeerWelcome, Welcome};

/// The node as the event loop sees it.
pub(super) struct NodeService<S: StateMachine> {
    hub: Arc<Hub<S>>,
    /// Decides who is let in, and what to make of what others say.
    greeter: Greeter,
    /// Gathers the requests and messages of one wake-up of the event loop.
    intake: Intake<S>,
    /// The clients that have asked for a status in this wake-up of the loop. All of them get the
    /// same status, in [`flush`](Service::flush): to sum up what a status shows takes longer than
    /// to take in any other request, and hundreds of clients may ask at once.
    ask_for_status: Vec<ReplyTo>,
    /// The scheduling of the event loop's thread.
    worker: Worker,
}

impl<S: StateMachine> NodeService<S> {
    pub fn new(hub: Arc<Hub<S>>, greeter: Greeter) -> Self {
        hub.with_raft(|raft| greeter.notice(raft));
        Self {
            greeter,
            intake: Intake::new(hub.clone()),
            hub,
            ask_for_status: Vec::new(),
            worker: Worker::new(),
        }
    }
}

impl<S: StateMachine> NodeService<S> {
    fn answer_statuses(&mut self) {
        if self.ask_for_status.is_empty() {
            return;
        }
        let status = self.hub.status();
        let mut replies = Replies::new();
        for client in std::mem::take(&mut self.ask_for_status) {
            client.queue(Answer::Status(Box::new(status.clone())), &mut replies);
        }
    }
}

impl<S: StateMachine> Service for NodeService<S> {
    fn hello(&mut self, hello: &Hello, _: SocketAddr) -> Option<Welcome> {
        let greeter = &self.greeter;
        let judged = self.hub.with_raft(|raft| greeter.judge(hello, raft));
        greeter.answer(judged)
    }

    fn welcomed(&mut self, welcome: &PeerWelcome, address: &str) {
        let greeter = &self.greeter;
        let learned = |raft: &Raft| greeter.learn(welcome, raft);
        let learned = self.hub.with_raft(learned);
        // What follows is logged, which may take its time: the core is free again.
        greeter.conclude(learned, welcome, address);
    }

    fn absent(&mut self, peer: NodeId) {
        self.intake.absent(peer);
    }

    fn peer(&mut self, envelope: Envelope) {
        self.intake.message(envelope);
    }

    fn request(&mut self, request: Request, reply: ReplyTo) {
        let timeout = Duration::from_millis(request.timeout_ms.into());
        match request.ask {
            Ask::Submit(command) => self.intake.submit(command, timeout, Waiter::Remote(reply)),
            Ask::Query(query) => self.intake.query(query, timeout, Waiter::Remote(reply)),
            Ask::Status => self.ask_for_status.push(reply),
            Ask::Transfer(to) => reply.send(transfer(&self.hub, to)),
            Ask::Snapshot => reply.send(snapshot(&self.hub)),
            Ask::Members => {
                let report = Box::new(self.hub.members_report());
                reply.send(Answer::Members(report));
            }
            Ask::Change { change, force } => {
                let tell = Box::new(|answer| reply.send(answer));
                self.hub.change(change, force, tell);
            }
            Ask::Join(request) => {
                let tell = Box::new(|answer| reply.send(answer));
                self.hub.join(request, tell);
            }
        }
    }

    fn flush(&mut self) {
        self.worker.look(&self.hub.scheduling);
        self.intake.flush();
        self.answer_statuses();
    }
}

/// Begins to hand leadership over. Returns whether that could be begun, or why not.
pub fn transfer<S: StateMachine>(hub: &Hub<S>, to: Option<NodeId>) -> Answer {
    let begun = hub.exchange(|replica| match replica.transfer(to) {
        Some(_) => Ok(()),
        None => Err((replica.raft().leader(), replica.not_leader())),
    });
    match begun {
        Ok(()) => Answer::Transferring,
        // The wanted node leads already. The request may be the repeat of one whose answer was
        // lost.
        Err((Some(leader), _)) if to == Some(leader) && leader == hub.config.id => {
            Answer::Transferring
        }
        Err((Some(leader), _)) if leader == hub.config.id => Answer::Invalid(match to {
            Some(to) => format!("node {to} is not another voter of this cluster"),
            None => "there is no other voter to lead this cluster".to_string(),
        }),
        Err((_, not_leader)) => hub.answer_to_end(not_leader),
    }
}

/// Begins to take a snapshot, and answers before it is written. The client watches the status for
/// the end of it, because the event loop must not wait.
pub fn snapshot<S: StateMachine>(hub: &Hub<S>) -> Answer {
    hub.input(|replica| {
        let is_there = !replica.want_snapshot();
        let up_to = replica.applying();
        Answer::Snapshot { up_to, is_there }
    })
}
