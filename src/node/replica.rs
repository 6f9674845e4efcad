//! The consensus core and the requests that wait for it, as one pure unit.
//!
//! The threads of a node share a [`Replica`] under one lock. They put inputs in and carry outputs
//! out, and decide nothing. A replica owns no clock, thread, socket or file, and a simulator drives
//! the same code. `W` is the waiter of a request: what the caller needs to answer the request. The
//! replica hands each waiter back exactly once, however the request ends.

use bytes::Bytes;

use super::consequences::{Consequences, Errands, Left, Wanted};
use super::own_disk::{DiskState, OwnDisk};
use super::snapshot_due::SnapshotDue;
use super::waiters::{Reads, Writes};
use super::work::{ReadyReads, Share, Takes, Work};
use crate::raft::{
    Change, ChangeError, Changed, DecidedReads, Entry, EntryId, Envelope, Index, NodeId,
    ProposeError, Raft, ReadError, RoleName, Room, SnapshotMeta, StoredSnapshot, Term, WriteId,
};
use crate::wire::client::Doubt;

/// How a request ends without having been executed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Refused, not executed: this node does not lead.
    NotLeader {
        /// The role of this node.
        role: RoleName,
        /// The term of this node.
        term: Term,
        /// The leader that this node follows, if it knows one.
        leader: Option<NodeId>,
    },
    /// Refused, not executed: too many requests wait already, too much of the leader's log is not
    /// committed yet, or leadership is being transferred.
    Busy,
    /// Refused, not executed: the disk of this node, which leads, is full.
    NoSpace,
    /// Not known: a write may still be executed; a read has no answer.
    Unknown(Doubt),
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
    /// The term that this node led after the last input; `None` if it did not lead.
    led: Option<Term>,
    due: SnapshotDue,
    /// How many news of the members were handed out.
    news: u64,
    own_disk: OwnDisk,
    /// The node has stopped: every request ends at once.
    stopped: bool,
}

impl<W> Replica<W> {
    /// A replica around a core. At most `max_waiting` requests wait at a time; further ones end as
    /// [`End::Busy`].
    ///
    /// A snapshot is due when `snapshot_log_bytes` of entries have been applied since the last one,
    /// or as many bytes as the last one has, if that is more. With `None` a snapshot is due only
    /// when somebody asks for one.
    pub fn new(raft: Raft, max_waiting: usize, snapshot_log_bytes: Option<u64>) -> Self {
        Self {
            due: SnapshotDue::new(snapshot_log_bytes),
            applying: raft.applied_index(),
            raft,
            ticks: 0,
            writes: Writes::new(),
            reads: Reads::new(),
            ended: Vec::new(),
            max_waiting,
            led: None,
            news: 0,
            own_disk: OwnDisk::default(),
            stopped: false,
        }
    }

    /// The consensus core, for reading.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// This node's folder is admitted; see [`Raft::admit`].
    pub fn admit(&mut self) {
        self.raft.admit();
    }

    /// How the disk of this node is. To be called before each tick, for what does not return is
    /// measured in ticks.
    pub fn note_disk(&mut self, state: DiskState) {
        self.own_disk.note(state);
    }

    /// For how many ticks the present write of the log has been under way.
    pub fn write_ticks(&self) -> u64 {
        self.own_disk.write_ticks()
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.raft.tick();
        if let Some(to) = self.own_disk.tick(&self.raft) {
            self.raft.transfer(Some(to));
        }
        let late = self.writes.expired(self.ticks).into_iter();
        let late = late.chain(self.reads.expired(self.ticks));
        let ends = late.map(|waiter| (waiter, End::Unknown(Doubt::Timeout)));
        self.ended.extend(ends);
        self.settle();
    }

    /// A message of a peer has arrived.
    pub fn step(&mut self, envelope: Envelope) {
        if !self.own_disk.admits(&envelope.message, &self.raft) {
            return;
        }
        self.raft.step(envelope);
        self.settle();
    }

    /// Nobody listens at a peer's address; see [`Raft::absent`].
    pub fn absent(&mut self, peer: NodeId) {
        self.raft.absent(peer);
    }

    /// Proposes a command, for whose reply `waiter` waits up to `timeout` ticks. Returns the entry
    /// that the command became; `None` if it was refused, and then `waiter` is among
    /// [`Consequences::ended`].
    pub fn submit(&mut self, command: Bytes, timeout: u64, waiter: W) -> Option<EntryId> {
        if self.stopped {
            return self.refuse(waiter, End::Unknown(Doubt::ShuttingDown));
        }
        if self.own_disk.is_full() && self.raft.role() == RoleName::Leader {
            return self.refuse(waiter, End::NoSpace);
        }
        let accepted = match self.is_overloaded() {
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
        if self.stopped {
            self.refuse(waiter, End::Unknown(Doubt::ShuttingDown));
            return;
        }
        let id = self.reads.fresh_id();
        let accepted = match self.is_overloaded() {
            true => Err(ReadError::Busy),
            false => self.raft.read(id),
        };
        match accepted {
            Ok(()) => self.reads.add(id, query, self.ticks + timeout, waiter),
            Err(ReadError::Busy) => drop(self.refuse(waiter, End::Busy)),
            Err(ReadError::NotLeader) => drop(self.refuse(waiter, self.not_leader())),
        }
    }

    /// Only a leader is ever busy. A client that hears "busy" tries the same node again, so a node
    /// that does not lead must answer that it does not.
    fn is_overloaded(&self) -> bool {
        let waiting = self.writes.len() + self.reads.len();
        self.raft.role() == RoleName::Leader && waiting >= self.max_waiting
    }

    fn refuse(&mut self, waiter: W, end: End) -> Option<EntryId> {
        self.ended.push((waiter, end));
        None
    }

    /// The end of a request at a node that does not lead: names the role, the term and the leader.
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

    /// Changes the members; see [`Raft::change`].
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was changed.
    pub fn change(&mut self, change: &Change, force: bool) -> Result<Changed, ChangeError> {
        self.raft.change(change, force)
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

    /// A part of a snapshot has been stored; see [`Raft::part_stored`].
    pub fn part_stored(&mut self, last: EntryId, received: u64) {
        self.raft.part_stored(last, received);
    }

    /// A part that was to be sent cannot be read; see [`Raft::snapshot_gone`].
    pub fn snapshot_gone(&mut self, to: NodeId, gone: &StoredSnapshot) {
        self.raft.snapshot_gone(to, gone);
    }

    /// A snapshot on this node's disk was found damaged; see [`Raft::snapshot_lost`].
    pub fn snapshot_lost(&mut self, lost: &StoredSnapshot) {
        self.raft.snapshot_lost(lost);
    }

    /// A snapshot from the leader is durable; see [`Raft::install`].
    pub fn install(&mut self, snapshot: StoredSnapshot) -> bool {
        self.due.installed(snapshot.bytes);
        self.raft.install(snapshot)
    }

    /// A client, or the core for a follower, wants a snapshot now, whether one is due or not.
    /// Returns whether one is to come: none is, if the newest one covers everything up to
    /// [`applying`](Self::applying).
    pub fn want_snapshot(&mut self) -> bool {
        let newest = self.raft.newest_snapshot();
        let newest = newest.map_or(0, |newest| newest.meta.last.index);
        let is_new = self.applying > newest;
        if is_new {
            self.due.want();
        }
        is_new
    }

    /// The index up to which entries have been handed to the state machine: no request has a reply
    /// from an entry past it. The core learns that entries were executed only after their replies
    /// have left.
    pub fn applying(&self) -> Index {
        self.applying
    }

    /// Whether a snapshot is being taken, or is about to be.
    pub fn snapshot_pending(&self) -> bool {
        self.due.is_pending()
    }

    /// Whether the log has grown so much since the present snapshot was begun that its writing
    /// should be hurried.
    pub fn snapshot_is_late(&self) -> bool {
        self.due.is_late()
    }

    /// Whether the state machine, which has executed everything up to `applied`, is to be copied
    /// for a snapshot now. If so, what the snapshot stands for; no other one is due until
    /// [`snapshot_taken`](Self::snapshot_taken) or [`snapshot_failed`](Self::snapshot_failed).
    pub fn begin_snapshot(&mut self, applied: EntryId, time_ms: u64) -> Option<SnapshotMeta> {
        if !self.due.is_due() {
            return None;
        }
        self.due.begun();
        let newest = self.raft.newest_snapshot();
        if applied.index <= newest.map_or(0, |newest| newest.meta.last.index) {
            // Nothing was executed since the newest snapshot.
            self.due.failed();
            return None;
        }
        // As of that entry, and not the newest one: that may be taken back.
        let known = self.raft.configuration_at(applied.index);
        let known = known.filter(|known| !known.configuration.is_empty());
        let Some(configuration) = known.cloned() else {
            // A snapshot of the leader's is about to take the place of this state. Or this node was
            // told of no member, and has not come in the log to where the first ones stand.
            self.due.failed();
            return None;
        };
        Some(SnapshotMeta {
            last: applied,
            time_ms,
            configuration,
        })
    }

    /// The snapshot that was being written is durable; see [`Raft::snapshot_taken`].
    pub fn snapshot_taken(&mut self, snapshot: StoredSnapshot) {
        self.due.taken(snapshot.bytes);
        self.raft.snapshot_taken(snapshot);
    }

    /// The snapshot that was being written has failed. The next one is due as if it had been
    /// written.
    pub fn snapshot_failed(&mut self) {
        self.due.failed();
    }

    /// What the inputs since the last call lead to, as far as it is `wanted` by the thread that
    /// asks. To be called after each input, before the lock that guards the replica is released.
    pub fn output(&mut self, wanted: Wanted) -> Consequences<W> {
        let output = self.raft.output(Room {
            messages: wanted.messages,
            write: wanted.write,
            parts: wanted.errands,
            install: wanted.work.is_some_and(|share| share.takes == Takes::All),
            entry_bytes: wanted.work.map_or(0, |share| share.log_bytes),
        });
        self.decided(output.reads);
        if output.wants_snapshot && !self.due.is_pending() {
            self.want_snapshot();
        }
        let (left, is_faulty) = (output.left, output.fault.is_some());
        // A thread that does not install snapshots gets no work while one is to be installed. To
        // look for a snapshot and to hand out work is one step, under one lock. In two steps, a
        // snapshot that came in between would be installed by a thread that has no time for it.
        let work = match wanted.work {
            Some(share) if !left.install && !is_faulty => {
                self.work(share, output.install, output.entries)
            }
            _ => Work::default(),
        };
        let reads_wait = self.reads.has_ready(self.applying);
        self.news += u64::from(output.news.is_some());
        Consequences {
            fault: output.fault,
            messages: output.messages,
            write: output.write,
            errands: Errands {
                to_store: output.to_store,
                to_send: output.to_send,
            },
            work,
            ended: std::mem::take(&mut self.ended),
            news: output.news.map(|news| (self.news, news)),
            events: output.events,
            configuration_events: output.configuration_events,
            disk_notices: self.own_disk.take_notices(),
            removed: output.removed,
            left: Left {
                write: left.write,
                errands: left.parts,
                work: !is_faulty
                    && (left.install || left.entries || reads_wait || self.due.is_due()),
            },
        }
    }

    /// What the state machine does next: the entries, each with its waiter, and a share of the
    /// reads that may be answered after them.
    fn work(
        &mut self,
        share: Share,
        install: Option<SnapshotMeta>,
        entries: Vec<Entry>,
    ) -> Work<W> {
        let lost = End::Unknown(Doubt::LeadershipLost);
        if let Some(meta) = &install {
            let covered = self.writes.take_up_to(meta.last.index);
            self.ended.extend(covered.map(|waiter| (waiter, lost)));
            self.applying = meta.last.index;
        }
        if let Some(last) = entries.last() {
            self.applying = last.id.index;
        }
        self.due.applied(entries.iter().map(Entry::weight).sum());
        let entries = entries.into_iter().map(|entry| {
            let waiter = match self.writes.take(entry.id) {
                None => None,
                Some(Ok(waiter)) => Some(waiter),
                Some(Err(waiter)) => {
                    self.ended.push((waiter, lost));
                    None
                }
            };
            (entry, waiter)
        });
        Work {
            install,
            entries: entries.collect(),
            reads: self.reads.take_ready(self.applying, share),
        }
    }

    /// Takes back the reads that [`output`](Self::output) handed out and the state machine left
    /// unanswered, because its share was used up. Each waits for a later batch, up to its deadline.
    /// If the node has stopped there is no later batch, so they end as unknown.
    pub fn give_back(&mut self, reads: ReadyReads<W>) {
        match self.stopped {
            false => self.reads.give_back(reads),
            true => {
                let unknown = End::Unknown(Doubt::ShuttingDown);
                let ends = reads.into_waiters().map(|waiter| (waiter, unknown));
                self.ended.extend(ends);
            }
        }
    }

    /// The node stops: all waiting requests end, and each later request ends at once, because there
    /// are no more ticks that would end it at its deadline.
    pub fn abandon(&mut self) {
        self.stopped = true;
        let all = self.writes.take_all().chain(self.reads.take_all());
        let ends = all.map(|waiter| (waiter, End::Unknown(Doubt::ShuttingDown)));
        self.ended.extend(ends);
    }

    /// Ends the writes that a loss of leadership leaves in doubt: those whose entries are not
    /// committed.
    fn settle(&mut self) {
        let leads = (self.raft.role() == RoleName::Leader).then(|| self.raft.term());
        if self.led.is_some() && self.led != leads {
            let lost = End::Unknown(Doubt::LeadershipLost);
            let waiters = self.writes.take_uncommitted(self.raft.commit());
            self.ended.extend(waiters.map(|waiter| (waiter, lost)));
        }
        self.led = leads;
    }

    fn decided(&mut self, reads: DecidedReads) {
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

#[cfg(test)]
mod tests;
