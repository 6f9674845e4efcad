//! One node of the algorithm, and everything that can be put into it, in any order.
//!
//! The input plays the network, the disk, the state machine and the clock. Peers may send what no
//! correct node sends; the disk and the state machine keep to their contract. What must hold: no
//! panic; nothing leaves before what it speaks of is durable; what was committed stays.

mod messages;
mod snapshots;

use std::collections::{BTreeSet, VecDeque};

use raftkv::raft::{
    Config, Configuration, DecidedReads, Entry, EntryId, Envelope, HardState, Index, MemberRole,
    Message, NodeId, Output, Part, PartRequest, Payload, Raft, RoleName, Room, StoredSnapshot,
    Term, Write,
};
use raftkv::wire::codec;

use super::bits::Bits;
use super::depth::reached;
use super::wire::entry;
use snapshots::Incoming;

/// The node that is driven.
const ID: NodeId = 1;

struct Node {
    config: Config,
    raft: Raft,
    /// The term after the last input.
    term: Term,
    /// What is on disk.
    hard_state: HardState,
    log: Vec<Entry>,
    /// The entry that the log on disk follows.
    log_base: EntryId,
    newest: Option<StoredSnapshot>,
    incoming: Option<Incoming>,
    /// Handed out by the core, not stored or read yet.
    to_store: VecDeque<Part>,
    to_send: VecDeque<PartRequest>,
    /// Up to where the disk ever held everything.
    longest: Index,
    /// Handed to the disk, not done yet.
    writes: VecDeque<Write>,
    /// Sent, not answered yet.
    sent: Vec<Envelope>,
    /// The last entry of the snapshot that execution began with, and its time.
    base: EntryId,
    base_time_ms: u64,
    /// Handed out for execution since.
    committed: Vec<Entry>,
    applied: Index,
    reads: BTreeSet<u64>,
    next_read: u64,
}

/// Feeds the node until the input is used up, or the node has found that it must stop.
pub fn inputs(data: &[u8]) {
    let mut input = Bits::new(data);
    let mut node = Node::new(&mut input);
    while !input.is_empty() && node.raft.fault().is_none() {
        node.act(&mut input);
        assert!(node.raft.term() >= node.term, "a term went back");
        node.term = node.raft.term();
        drop(node.output(Room::NOTHING));
        let _ = (node.raft.role(), node.raft.leader(), node.raft.active());
    }
    if let Some(fault) = node.raft.fault() {
        assert!(!fault.to_string().is_empty());
    }
}

/// Three voters, and this node, which learns.
fn learner() -> Configuration {
    let mut members = Configuration::of_voters(1..=4).members().to_vec();
    members[0].role = MemberRole::Learner;
    Configuration::of(1, members, Vec::new())
}

impl Node {
    /// Of a cluster of one, three or five, or a learner, with or without a log.
    fn new(input: &mut Bits<'_>) -> Self {
        let shape = input.byte();
        let members = 1..=[1, 3, 5][usize::from(shape % 3)];
        let founding = match shape {
            0..=239 => Configuration::of_voters(members),
            _ => learner(),
        };
        let mut config = Config::new(ID, founding, input.byte().into());
        config.election_ticks = 4;
        config.heartbeat_ticks = 1;
        config.max_append_bytes = 100;
        config.max_inflight_bytes = 200;
        config.max_inflight_messages = 2;
        config.max_uncommitted_bytes = 300;
        config.max_pending_reads = 3;
        config.trailing_bytes = 50;
        config.snapshot_part_bytes = 4;
        config.snapshot_window_bytes = 8;
        let mut hard_state = HardState::default();
        let mut log = Vec::new();
        for index in 1..=(input.byte() % 8).into() {
            hard_state.term += Term::from(input.byte() % 2);
            log.push(entry(hard_state.term, index, Payload::Empty));
        }
        Self {
            raft: Raft::new(config.clone(), hard_state, log.clone()),
            config,
            term: hard_state.term,
            hard_state,
            longest: log.len() as Index,
            log,
            log_base: EntryId::ZERO,
            newest: None,
            incoming: None,
            to_store: VecDeque::new(),
            to_send: VecDeque::new(),
            writes: VecDeque::new(),
            sent: Vec::new(),
            base: EntryId::ZERO,
            base_time_ms: 0,
            committed: Vec::new(),
            applied: 0,
            reads: BTreeSet::new(),
            next_read: 1,
        }
    }

    fn act(&mut self, input: &mut Bits<'_>) {
        match input.byte() % 16 {
            0 => (0..1 + input.byte() % 16).for_each(|_| self.raft.tick()),
            1..=3 => {
                let envelope = self.envelope(input);
                self.raft.step(envelope);
            }
            4 => {
                if let Ok(envelope) = codec::decode(input.string()) {
                    self.raft.step(envelope);
                }
            }
            5 => {
                let command = input.string().to_vec();
                let last = self.raft.last();
                if let Ok(id) = self.raft.propose(command.into()) {
                    assert_eq!((id.term, id.index), (self.raft.term(), last.index + 1));
                }
            }
            6 => self.read(),
            7 => self.take_write(),
            8 => self.write_done(input.byte().into()),
            9 => self.collect(),
            10 => self.commit(input.string().len()),
            11 => {
                let most = self.base.index + self.committed.len() as Index;
                self.applied = most.min(self.applied + Index::from(input.byte()));
                self.raft.applied(self.applied);
            }
            12 => drop(self.raft.transfer(match input.byte() {
                0 => None,
                to => Some(NodeId::from(to % 8)),
            })),
            13 => self.answer(),
            14 => match input.byte() {
                255 => self.restart(),
                254 => self.snapshot_taken(input.byte().into()),
                253 => self.send_part(input.byte() > 224),
                252 => self.store_parts(),
                _ => self.all_at_once(),
            },
            _ => self.all_at_once(),
        }
    }

    /// What the node hands out. What there is always room for is looked at here.
    pub fn output(&mut self, room: Room) -> Output {
        let mut output = self.raft.output(room);
        for event in output.events.drain(..) {
            assert!(!event.to_string().is_empty());
            if event.role == RoleName::Leader {
                reached("the node leads");
            }
        }
        self.decided_reads(std::mem::take(&mut output.reads));
        output
    }

    fn take_write(&mut self) {
        let room = Room {
            write: true,
            ..Room::NOTHING
        };
        let write = self.output(room).write;
        self.writes.extend(write);
    }

    /// So that a short input gets far.
    fn all_at_once(&mut self) {
        self.take_write();
        self.write_done(usize::MAX);
        self.send_part(false);
        self.collect();
        self.answer();
        self.store_parts();
        self.commit(usize::MAX);
    }

    fn read(&mut self) {
        self.next_read += 1;
        if self.raft.read(self.next_read).is_ok() {
            self.reads.insert(self.next_read);
        }
    }

    fn decided_reads(&mut self, decided: DecidedReads) {
        if !decided.ready.is_empty() {
            reached("a read is decided");
        }
        for (id, index) in decided.ready {
            assert!(self.reads.remove(&id), "read {id} is decided twice");
            assert!(index <= self.raft.commit(), "a read of what may never be");
        }
        for id in decided.failed {
            assert!(self.reads.remove(&id), "read {id} is decided twice");
        }
    }

    fn write_done(&mut self, count: usize) {
        let newest = self.newest_index();
        let count = count.min(self.writes.len());
        let Some(last) = count.checked_sub(1).map(|last| self.writes[last].id) else {
            return;
        };
        for write in self.writes.drain(..count) {
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            if let Some(base) = write.restart {
                let stood_for = base.index <= newest;
                assert!(stood_for, "what nothing stands for is thrown away");
                self.log.clear();
                self.log_base = base;
            }
            if let Some(first) = write.entries.first() {
                let kept = first.id.index - 1 - self.log_base.index;
                assert!(
                    kept <= self.log.len() as Index,
                    "the log on disk has a hole"
                );
                self.log.truncate(kept as usize);
            }
            self.log.extend(write.entries);
        }
        let end = self.log_base.index + self.log.len() as Index;
        self.longest = self.longest.max(end);
        self.raft.durable(last);
    }

    /// Takes the messages, and checks that they may leave.
    fn collect(&mut self) {
        for envelope in self.output(Room::MESSAGES).messages {
            let Envelope { from, to, term, .. } = envelope;
            assert!(from == ID && to != ID, "from {from} to {to}");
            assert!(term <= self.hard_state.term, "a term that is not durable");
            match envelope.message {
                Message::VoteReply { granted: true } if term == self.hard_state.term => {
                    let vote = self.hard_state.vote.map(|vote| vote.id);
                    assert_eq!(vote, Some(to), "a vote that is not durable");
                }
                Message::Accepted { matched } => {
                    let durable = matched <= self.longest.max(self.newest_index());
                    assert!(durable, "an entry that is not durable");
                    reached("a follower acknowledges");
                }
                _ => {}
            }
            self.sent.push(envelope);
        }
        let surplus = self.sent.len().saturating_sub(64);
        self.sent.drain(..surplus);
    }

    fn commit(&mut self, max_bytes: usize) {
        let output = self.output(Room {
            install: true,
            entry_bytes: max_bytes.max(1),
            ..Room::NOTHING
        });
        self.install(output.install);
        for entry in output.entries {
            let (index, time_ms) = match self.committed.last() {
                Some(last) => (last.id.index, last.time_ms),
                None => (self.base.index, self.base_time_ms),
            };
            assert_eq!(entry.id.index, index + 1, "a committed entry is left out");
            assert!(entry.time_ms >= time_ms, "cluster time went back");
            if self.raft.role() == RoleName::Leader {
                reached("a leader commits");
            }
            self.committed.push(entry);
        }
        for entry in &self.committed {
            let index = entry.id.index;
            let let_go = index < self.raft.first_index();
            let held = self.raft.entry(index);
            let holds = held == Some(entry) || (let_go && held.is_none());
            assert!(holds, "a committed entry changed");
        }
    }

    /// What correct peers would say to all that was sent.
    fn answer(&mut self) {
        for sent in std::mem::take(&mut self.sent) {
            let mut term = sent.term;
            let message = match sent.message {
                Message::PreVote { next_term, .. } => Message::PreVoteReply {
                    next_term,
                    granted: true,
                },
                Message::Vote { .. } => Message::VoteReply { granted: true },
                Message::Append { prev, entries, .. } => Message::Accepted {
                    matched: prev.index + entries.len() as Index,
                },
                Message::Heartbeat { round, .. } => Message::HeartbeatReply { round },
                Message::Snapshot {
                    meta,
                    bytes,
                    offset,
                    data,
                } => match offset + data.len() as u64 {
                    received if received < bytes => Message::SnapshotReply {
                        last: meta.last,
                        received,
                    },
                    _ => Message::Accepted {
                        matched: meta.last.index,
                    },
                },
                Message::TimeoutNow => {
                    term += 1;
                    let last = self.raft.last();
                    Message::Vote {
                        last,
                        transfer: true,
                    }
                }
                _ => continue,
            };
            self.raft.step(Envelope {
                from: sent.to,
                from_folder: sent.to.into(),
                to: ID,
                to_folder: Some(ID.into()),
                term,
                message,
            });
        }
    }

    /// Loses all that is not on disk. A log that does not go on behind the snapshot is not needed.
    fn restart(&mut self) {
        let (config, newest) = (self.config.clone(), self.newest.clone());
        let last = newest
            .as_ref()
            .map_or(self.log_base, |newest| newest.meta.last);
        if last != self.log_base {
            let last = self.log.iter().position(|entry| entry.id == last);
            self.log
                .drain(..last.map_or(self.log.len(), |last| last + 1));
        }
        self.log_base = last;
        self.raft = Raft::restore(config, self.hard_state, newest, self.log.clone());
        self.term = self.hard_state.term;
        reached("the node restarts");
        self.writes.clear();
        self.sent.clear();
        self.incoming = None;
        self.to_store.clear();
        self.to_send.clear();
        self.reads.clear();
        let time_ms = self.newest.as_ref().map_or(0, |newest| newest.meta.time_ms);
        self.begin_behind(last, time_ms);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let leader = |shape: u8| [&[shape, 1, 0, 0, 15][..], &[15; 6]].concat();
    let work = [
        5, 3, b'a', b'b', b'c', 6, 15, 0, 15, 5, 200, 7, 8, 1, 9, 13, 10, 0, 11, 9,
    ];
    let mut seeds = vec![vec![1, 7, 5, 1, 0, 1, 0, 1]];
    for shape in [0, 1, 2] {
        seeds.push([&leader(shape)[..], &work].concat());
        seeds.push([&leader(shape)[..], &[12, 0, 15, 0, 15]].concat());
        seeds.push([&leader(shape)[..], &[14, 255, 0, 15]].concat());
    }
    // A follower: an append of term 1 with three entries, then its disk and its answers.
    let append = [1, 0, 1, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
    seeds.push([&[1, 1, 0][..], &append, &[7, 8, 1, 9], &append, &[15, 15]].concat());
    // A leader that takes a snapshot, and a follower that has nothing.
    let taken = [5, 60, 15, 5, 60, 15, 11, 255, 14, 254, 9];
    let rejection = [1, 0, 0, 6, 0, 250, 239];
    let sent = [14, 253, 0, 9, 13, 14, 253, 255, 15, 15];
    seeds.push([&leader(1)[..], &taken, &rejection, &sent, &[14, 255]].concat());
    // A follower that gets one in two parts, the first one twice, and starts again.
    let part = |offset: u8| [1, 0, 1, 240, 1, 5, 1, 9, 1, offset, 1, 7];
    let stored = [7, 8, 1, 9, 14, 252, 10, 0, 15, 14, 255, 15];
    seeds.push([&[1, 1, 0][..], &part(0), &part(0), &part(1), &stored].concat());
    seeds
}
