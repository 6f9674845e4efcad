//! A running node, as the program that started it sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::changing::Tell;
use super::hub::Hub;
use super::outcome::{Outcome, Pending, channel, receive};
#[cfg(feature = "shuttle")]
use super::replica::Replica;
use super::signals::Sleepers;
use super::stages::Acknowledged;
use super::steps::Parts;
use super::sync::{Receiver, bounded};
use super::threads::Threads;
use super::{NodeError, StartError, service, sync};
use crate::machine::StateMachine;
use crate::raft::{Envelope, Index, Raft, RoleName};
use crate::wire::client::{Answer, Ask, Doubt, Status};
use crate::wire::handshake::{PeerWelcome, Standing};
use crate::wire::members::{MemberList, MembersReport};

/// A running node. Dropping it stops the node.
pub struct Handle<S: StateMachine> {
    pub(super) hub: Arc<Hub<S>>,
    pub(super) threads: Threads,
    pub(super) address: Option<SocketAddr>,
}

impl<S: StateMachine> Handle<S> {
    /// Starts a thread for each task.
    pub(super) fn start_threads(parts: Parts<S>, sleepers: Sleepers) -> Result<Self, StartError> {
        let Parts {
            hub,
            replicator,
            courier,
            taker,
            ticker,
            scrubber,
        } = parts;
        // If a thread cannot be started, the handle is dropped, which ends those that run already.
        let mut handle = Self {
            hub: hub.clone(),
            threads: Threads::default(),
            address: None,
        };
        let threads = &mut handle.threads;
        let Sleepers {
            apply,
            replicate,
            carry,
            take_snapshot,
            tick,
            scrub,
        } = sleepers;
        threads.start("apply", &hub, move |hub| hub.run_apply(&apply))?;
        threads.start("replicator", &hub, move |hub| {
            replicator.run(hub, &replicate)
        })?;
        threads.start("courier", &hub, move |hub| courier.run(hub, &carry))?;
        threads.start("snapshot", &hub, move |hub| taker.run(hub, &take_snapshot))?;
        threads.start("scrub", &hub, move |hub| scrubber.run(hub, &scrub))?;
        threads.start("ticker", &hub, move |hub| ticker.run(hub, &tick))?;
        Ok(handle)
    }

    /// Where the node listens; `None` if it was started on another transport.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Appends a command to the log and returns its entry at once. The command ends within
    /// `timeout`, with a reply or without.
    ///
    /// # Errors
    /// How the command ended at once: it was refused, and is never executed.
    pub fn start(
        &self,
        command: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Pending<S::Reply>, Outcome<S::Reply>> {
        let command = command.into();
        self.hub.admit(&command).map_err(Outcome::Invalid)?;
        let (waiter, outcome) = channel();
        let ticks = self.hub.deadline(timeout);
        // The replicator is woken. It sends the entry to the followers and writes it.
        let id = self
            .hub
            .input(|replica| replica.submit(command, ticks, waiter));
        match id {
            Some(id) => Ok(Pending { id, outcome }),
            None => Err(receive(&outcome, Duration::ZERO)),
        }
    }

    /// Answers a query by a linearizable read.
    pub fn query(&self, query: impl Into<Bytes>, timeout: Duration) -> Outcome<S::Reply> {
        let (waiter, outcome) = channel();
        let ticks = self.hub.deadline(timeout);
        let query = query.into();
        self.hub
            .exchange(|replica| replica.query(query, ticks, waiter));
        receive(&outcome, timeout)
    }

    /// Serves one request as the node would serve it on a connection, and waits for its end.
    pub fn ask(&self, ask: &Ask, timeout: Duration) -> Answer {
        let outcome = match ask {
            Ask::Submit(command) => match self.start(command.clone(), timeout) {
                Ok(pending) => pending.wait(timeout),
                Err(outcome) => outcome,
            },
            Ask::Query(query) => self.query(query.clone(), timeout),
            Ask::Status => return Answer::Status(Box::new(self.status())),
            Ask::Transfer(to) => return service::transfer(&self.hub, *to),
            Ask::Snapshot => return service::snapshot(&self.hub),
            Ask::Members => return Answer::Members(Box::new(self.members())),
            Ask::Change { change, force } => {
                let (tell, answer) = answer_channel();
                self.hub.change(change.clone(), *force, tell);
                return received(&answer, timeout);
            }
            Ask::Join(request) => {
                let (tell, answer) = answer_channel();
                self.hub.join(request.clone(), tell);
                return received(&answer, timeout);
            }
        };
        self.hub.answer(outcome)
    }

    /// What the node knows of the members.
    pub fn members(&self) -> MembersReport {
        self.hub.members_report()
    }

    /// The committed list of members, if it is newer than the one with this index: what a client
    /// is told with an answer.
    pub fn members_after(&self, known: Index) -> Option<Box<MemberList>> {
        self.hub.members_after(known)
    }

    /// What the node says of itself to whoever probes its address.
    pub fn introduction(&self) -> PeerWelcome {
        self.hub.introduction(Standing::Member)
    }

    /// Hands over messages that have reached this node by another way than its own sockets.
    pub fn deliver(&self, messages: impl IntoIterator<Item = Envelope>) {
        let messages = messages.into_iter();
        let messages: Vec<Envelope> = messages.filter(|m| self.hub.takes(m)).collect();
        let acknowledged = messages.iter().filter_map(Acknowledged::by);
        let acknowledged: Vec<Acknowledged> = acknowledged.collect();
        self.hub.stages.acknowledged(&acknowledged, sync::now());
        let messages = messages.into_iter();
        self.hub
            .exchange(|replica| messages.for_each(|message| replica.step(message)));
    }

    /// Begins to take a snapshot, or notes that one is to be taken when the present one is done.
    /// Returns whether one is to come: none is, if nothing was executed since the last one.
    pub fn take_snapshot(&self) -> bool {
        self.hub.input(|replica| replica.want_snapshot())
    }

    /// Lets one tick pass, for a test in which time stands still.
    #[cfg(feature = "shuttle")]
    pub fn tick(&self) {
        self.hub.exchange(Replica::tick);
    }

    /// The node's status, as clients get it.
    pub fn status(&self) -> Status {
        self.hub.status()
    }

    /// Calls `look` with the state machine, between two commands.
    pub fn with_machine<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        self.hub.with_machine(look)
    }

    /// Waits until the node's core satisfies a condition that a change of role or of the applied
    /// index can bring about. Returns whether it does before the time is up.
    pub fn wait_until(&self, timeout: Duration, mut holds: impl FnMut(&Raft) -> bool) -> bool {
        self.hub
            .wait_until(timeout, |replica| holds(replica.raft()))
    }

    /// Hands leadership over, if this node leads and another voter can take over. Returns whether
    /// this node does not lead any more when `timeout` has passed.
    pub fn resign(&self, timeout: Duration) -> bool {
        let successor = self.hub.exchange(|replica| replica.transfer(None));
        // There is no other voter to lead, so nothing is to be waited for.
        let timeout = successor.map_or(Duration::ZERO, |_| timeout);
        self.wait_until(timeout, |raft| raft.role() != RoleName::Leader)
    }

    /// Stops the node and waits until its threads have ended, unless one of them is the caller.
    /// Requests that are under way end as unknown; later requests end as unknown at once.
    pub fn shutdown(&self) {
        self.hub.stop(None);
        self.join();
    }

    /// Waits until the node stops.
    ///
    /// # Errors
    /// [`NodeError`] if it stopped for another reason than [`shutdown`](Self::shutdown).
    pub fn wait(&self) -> Result<(), NodeError> {
        self.hub.wait_for_end();
        self.join();
        self.hub.failure().map_or(Ok(()), Err)
    }

    fn join(&self) {
        self.threads.join();
    }
}

/// A channel for one answer.
fn answer_channel() -> (Tell, Receiver<Answer>) {
    let (sender, answer) = bounded(1);
    // If the receiver has given up, sending fails, and no one waits for the answer.
    let tell = move |answer| drop(sender.try_send(answer));
    (Box::new(tell), answer)
}

fn received(answer: &Receiver<Answer>, timeout: Duration) -> Answer {
    let answer = answer.recv_timeout(timeout);
    answer.unwrap_or(Answer::Unknown(Doubt::Timeout))
}

impl<S: StateMachine> Drop for Handle<S> {
    fn drop(&mut self) {
        self.shutdown();
    }
}
