//! How a request ends, and the way back to the client that sent it.

use std::time::Duration;

use super::replica::End;
use super::sync::{Receiver, bounded};
use crate::machine::StateMachine;
use crate::net::{Replies, ReplyTo};
use crate::raft::EntryId;
use crate::storage::Shortage;
use crate::wire::client::{Answer, Doubt, NotLeader};

/// How a command or a query ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// Executed; this is the state machine's reply.
    Reply(R),
    /// Refused, not executed: the state machine's gate does not admit it.
    Invalid(String),
    /// Not executed here, and perhaps never.
    Ended(End),
}

/// Whoever waits for a request's end, and hears of it exactly once. If a waiter is dropped instead,
/// a client in this process takes its request to have ended because the node stopped, and a client
/// on a connection waits until its time is up or the connection closes.
pub enum Waiter<R> {
    /// A client on a connection.
    Remote(ReplyTo),
    /// A client in this process. The function must not block: the thread that calls it has other
    /// requests to answer, and may hold the machine's lock.
    Local(Box<dyn FnOnce(Outcome<R>) + Send>),
}

/// A command that has entered the log and has not ended yet; see
/// [`Handle::start`](super::Handle::start).
pub struct Pending<R> {
    pub(super) id: EntryId,
    pub(super) outcome: Receiver<Outcome<R>>,
}

impl<R> Pending<R> {
    /// The entry that the command became. If another entry is committed at its index, the command
    /// was not executed.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// Waits for the command's end. The command ends by its own deadline at the latest; `timeout`
    /// is how long to wait for it here.
    pub fn wait(&self, timeout: Duration) -> Outcome<R> {
        receive(&self.outcome, timeout)
    }
}

/// A channel for one outcome, and the waiter that sends it there.
pub(super) fn channel<R: Send + 'static>() -> (Waiter<R>, Receiver<Outcome<R>>) {
    let (sender, outcome) = bounded(1);
    // If the receiver has given up, sending fails, and no one waits for the outcome.
    let tell = move |outcome| drop(sender.try_send(outcome));
    (Waiter::Local(Box::new(tell)), outcome)
}

pub(super) fn receive<R>(outcome: &Receiver<Outcome<R>>, timeout: Duration) -> Outcome<R> {
    use crossbeam::channel::RecvTimeoutError::{Disconnected, Timeout};
    outcome.recv_timeout(timeout).unwrap_or_else(|error| {
        Outcome::Ended(End::Unknown(match error {
            Timeout => Doubt::Timeout,
            // The waiter was dropped without hearing of an end: the node stopped.
            Disconnected => Doubt::ShuttingDown,
        }))
    })
}

/// Ends the request with a reply.
pub(super) fn reply<S: StateMachine>(
    waiter: Waiter<S::Reply>,
    reply: S::Reply,
    replies: &mut Replies,
) {
    match waiter {
        Waiter::Remote(to) => to.queue(encode::<S>(&reply), replies),
        Waiter::Local(tell) => tell(Outcome::Reply(reply)),
    }
}

pub(super) fn encode<S: StateMachine>(reply: &S::Reply) -> Answer {
    // A page of a scan has megabytes: a buffer that grew step by step would copy them several
    // times.
    let mut bytes = Vec::with_capacity(S::weight(reply));
    S::encode_reply(reply, &mut bytes);
    Answer::Reply(bytes.into())
}

/// The answer that tells a client how its request ended. `shortage` is why the disk is full, and
/// `address_of` gives a node's address.
pub(super) fn answer(
    end: End,
    id: crate::raft::NodeId,
    shortage: Option<Shortage>,
    address_of: impl Fn(crate::raft::NodeId) -> Option<String>,
) -> Answer {
    match end {
        End::NotLeader { role, term, leader } => Answer::NotLeader(NotLeader {
            id,
            role,
            term,
            leader: leader.and_then(|leader| Some((leader, address_of(leader)?))),
        }),
        End::Busy => Answer::Busy,
        End::NoSpace => Answer::NoSpace(match shortage {
            Some(shortage) => format!("on node {id} {}", shortage.reason),
            // It has ended since the request was refused.
            None => format!("the disk of node {id} was full until now"),
        }),
        End::Unknown(doubt) => Answer::Unknown(doubt),
    }
}
