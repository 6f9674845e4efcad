//! Consensus and those who wait for it, as one pure unit.
//!
//! The threads of a node share a [`Replica`] behind one lock and only carry: inputs in, outputs
//! out. It owns no clock, thread, socket or file, and a simulator drives the same code. `W` is
//! whatever the caller needs to answer a request; the replica hands each back exactly once.

use bytes::Bytes;

use super::waiters::{Reads, Writes};
use crate::raft::{
    Entry, EntryId, Envelope, Event, Fault, Index, NodeId, ProposeError, Raft, ReadError, RoleName,
    Term, Write, WriteId,
};
use crate::wire::client::Doubt;

/// How a request ends without having been executed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Refused, not executed: this node does not lead.
    NotLeader {
        /// Its role.
        role: RoleName,
        /// Its term.
        term: Term,
        /// Whom it follows.
        leader: Option<NodeId>,
    },
    /// Refused, not executed: too much is under way.
    Busy,
    /// A write may still be executed; a read has no answer.
    Unknown(Doubt),
}

/// What the state machine has to do next, in this order.
#[derive(Debug)]
pub struct Work<W> {
    /// Committed entries, each with who waits for its reply.
    pub entries: Vec<(Entry, Option<W>)>,
    /// Queries to answer after that.
    pub reads: Vec<(Bytes, W)>,
}

impl<W> Work<W> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.reads.is_empty()
    }
}

/// A node's part of the cluster: its consensus, and the requests that wait for it.
#[derive(Debug)]
pub struct Replica<W> {
    raft: Raft,
    ticks: u64,
    writes: Writes<W>,
    reads: Reads<W>,
    ended: Vec<(W, End)>,
    max_waiting: usize,
    /// The index up to which entries have been handed to the state machine.
    applying: Index,
    /// The term that this node led after the last input.
    led: Option<Term>,
    #[cfg(feature = "sim")]
    canary: Option<Canary>,
}

/// Known-wrong variants of the replica, by which the simulator proves that its checkers see
/// anything.
#[cfg(feature = "sim")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Who waits for an index gets the reply of whatever is applied there.
    WaitsForIndexOnly,
    /// A write that is under way when leadership is lost is said to be refused.
    RefusesWhatIsUnderWay,
}

impl<W> Replica<W> {
    /// A replica around a core. At most `max_waiting` requests wait at a time; further ones end as
    /// [`End::Busy`].
    pub fn new(raft: Raft, max_waiting: usize) -> Self {
        Self {
            applying: raft.applied_index(),
            raft,
            ticks: 0,
            writes: Writes::new(),
            reads: Reads::new(),
            ended: Vec::new(),
            max_waiting,
            led: None,
            #[cfg(feature = "sim")]
            canary: None,
        }
    }

    /// The same replica, wrong on purpose.
    #[cfg(feature = "sim")]
    pub fn with_canary(mut self, canary: Option<Canary>) -> Self {
        self.writes.by_index_only = canary == Some(Canary::WaitsForIndexOnly);
        self.canary = canary;
        self
    }

    /// The core, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.raft.tick();
        let late = self.writes.expired(self.ticks).into_iter();
        let late = late.chain(self.reads.expired(self.ticks));
        let ends = late.map(|waiter| (waiter, End::Unknown(Doubt::Timeout)));
        self.ended.extend(ends);
        self.settle();
    }

    /// A message of a peer has arrived.
    pub fn step(&mut self, envelope: Envelope) {
        self.raft.step(envelope);
        self.settle();
    }

    /// Proposes a command, for whose reply `waiter` waits up to `timeout` ticks. Returns the entry
    /// that it became; `None` if it was refused, and then `waiter` has [`ended`](Self::take_ended).
    pub fn submit(&mut self, command: Bytes, timeout: u64, waiter: W) -> Option<EntryId> {
        let accepted = match self.is_full() {
            true => Err(ProposeError::Busy),
            false => self.raft.propose(command),
        };
        match accepted {
            Ok(id) => {
                let replaced = self.writes.add(id, self.ticks + timeout, waiter);
                let lost = End::Unknown(Doubt::LeadershipLost);
                self.ended.extend(replaced.map(|waiter| (waiter, lost)));
                Some(id)
            }
            Err(ProposeError::Busy) => self.refuse(waiter, End::Busy),
            Err(ProposeError::NotLeader) => self.refuse(waiter, self.not_leader()),
        }
    }

    /// Asks for a linearizable read, for whose answer `waiter` waits up to `timeout` ticks.
    pub fn query(&mut self, query: Bytes, timeout: u64, waiter: W) {
        let id = self.reads.fresh_id();
        let accepted = match self.is_full() {
            true => Err(ReadError::Busy),
            false => self.raft.read(id),
        };
        match accepted {
            Ok(()) => self.reads.add(id, query, self.ticks + timeout, waiter),
            Err(ReadError::Busy) => drop(self.refuse(waiter, End::Busy)),
            Err(ReadError::NotLeader) => drop(self.refuse(waiter, self.not_leader())),
        }
    }

    fn is_full(&self) -> bool {
        self.writes.len() + self.reads.len() >= self.max_waiting
    }

    fn refuse(&mut self, waiter: W, end: End) -> Option<EntryId> {
        self.ended.push((waiter, end));
        None
    }

    /// What a node that does not lead answers.
    pub fn not_leader(&self) -> End {
        End::NotLeader {
            role: self.raft.role(),
            term: self.raft.term(),
            leader: self.raft.leader(),
        }
    }

    /// Hands leadership over; see [`Raft::transfer`].
    pub fn transfer(&mut self, to: Option<NodeId>) -> Option<NodeId> {
        self.raft.transfer(to)
    }

    /// The disk has done all writes up to this one.
    pub fn durable(&mut self, write: WriteId) {
        self.raft.durable(write);
        self.settle();
    }

    /// The state machine has executed all entries up to `index`.
    pub fn applied(&mut self, index: Index) {
        self.raft.applied(index);
    }

    /// Messages that may leave now.
    pub fn take_messages(&mut self) -> Vec<Envelope> {
        let messages = self.raft.take_messages();
        // Collecting begins rounds of reads, and a single voter confirms its own at once.
        self.collect_reads();
        messages
    }

    /// What has to be written next.
    pub fn take_write(&mut self) -> Option<Write> {
        self.raft.take_write()
    }

    /// Whether there is something to write.
    pub fn has_write(&self) -> bool {
        self.raft.has_write()
    }

    /// What the state machine has to do next: about `max_bytes` of entries, and the queries that
    /// may be answered after them.
    pub fn take_work(&mut self, max_bytes: usize) -> Work<W> {
        let entries = self.raft.take_committed(max_bytes);
        if let Some(last) = entries.last() {
            self.applying = last.id.index;
        }
        let entries = entries.into_iter().map(|entry| {
            let waiter = match self.writes.take(entry.id) {
                None => None,
                Some(Ok(waiter)) => Some(waiter),
                Some(Err(waiter)) => {
                    let lost = End::Unknown(Doubt::LeadershipLost);
                    self.ended.push((waiter, lost));
                    None
                }
            };
            (entry, waiter)
        });
        Work {
            entries: entries.collect(),
            reads: self.reads.take_ready(self.applying),
        }
    }

    /// Whether there is something for the state machine to do.
    pub fn has_work(&self) -> bool {
        self.raft.has_committed() || self.reads.has_ready(self.applying)
    }

    /// The requests that have ended without being executed here.
    pub fn take_ended(&mut self) -> Vec<(W, End)> {
        std::mem::take(&mut self.ended)
    }

    /// What happened, for people.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.raft.take_events()
    }

    /// Why this node must stop, if it must.
    pub fn fault(&self) -> Option<Fault> {
        self.raft.fault()
    }

    /// The node stops: everything that waits ends.
    pub fn abandon(&mut self) {
        let all = self.writes.take_all().chain(self.reads.take_all());
        let ends = all.map(|waiter| (waiter, End::Unknown(Doubt::ShuttingDown)));
        self.ended.extend(ends);
    }

    /// Draws the consequences of an input for those who wait.
    fn settle(&mut self) {
        self.collect_reads();
        let leads = (self.raft.role() == RoleName::Leader).then(|| self.raft.term());
        if self.led.is_some() && self.led != leads {
            let lost = self.leadership_lost();
            let waiters = self.writes.take_uncommitted(self.raft.commit());
            self.ended.extend(waiters.map(|waiter| (waiter, lost)));
        }
        self.led = leads;
    }

    /// How a write ends that is under way when leadership is lost.
    fn leadership_lost(&self) -> End {
        #[cfg(feature = "sim")]
        if self.canary == Some(Canary::RefusesWhatIsUnderWay) {
            return self.not_leader();
        }
        End::Unknown(Doubt::LeadershipLost)
    }

    fn collect_reads(&mut self) {
        let reads = self.raft.take_reads();
        for (id, index) in reads.ready {
            self.reads.confirm(id, index);
        }
        for id in reads.failed {
            let lost = End::Unknown(Doubt::LeadershipLost);
            let waiter = self.reads.fail(id);
            self.ended.extend(waiter.map(|waiter| (waiter, lost)));
        }
    }
}
