//! One node of the algorithm, and everything that can be put into it, in any order.
//!
//! The input plays the network, the disk, the state machine and the clock. Peers may send what no
//! correct node sends; the disk and the state machine keep to their contract. What must hold: no
//! panic; nothing leaves before what it speaks of is durable; what was committed stays.

use std::collections::{BTreeSet, VecDeque};

use raftkv::raft::{
    Config, Conflict, Entry, EntryId, Envelope, HardState, Index, Membership, Message, NodeId,
    Payload, Raft, Term, Write,
};
use raftkv::wire::codec;

use super::bits::Bits;
use super::wire::entry;

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
    /// How long the log on disk ever was.
    longest: usize,
    /// Handed to the disk, not done yet.
    writes: VecDeque<Write>,
    /// Sent, not answered yet.
    sent: Vec<Envelope>,
    /// Handed out for execution.
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
        for event in node.raft.take_events() {
            assert!(!event.to_string().is_empty());
        }
        let _ = (node.raft.role(), node.raft.leader(), node.raft.active());
    }
    if let Some(fault) = node.raft.fault() {
        assert!(!fault.to_string().is_empty());
    }
}

impl Node {
    /// Of a cluster of one, three or five, or a learner, with or without a log.
    fn new(input: &mut Bits<'_>) -> Self {
        let shape = input.byte();
        let members = 1..=[1, 3, 5][usize::from(shape % 3)];
        let membership = match shape {
            0..=239 => Membership::of_voters(members),
            _ => Membership::joint(2..=4, [], [ID]),
        };
        let mut config = Config::new(ID, membership, input.byte().into());
        config.election_ticks = 4;
        config.heartbeat_ticks = 1;
        config.max_append_bytes = 100;
        config.max_inflight_bytes = 200;
        config.max_inflight_messages = 2;
        config.max_uncommitted_bytes = 300;
        config.max_pending_reads = 3;
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
            longest: log.len(),
            log,
            writes: VecDeque::new(),
            sent: Vec::new(),
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
            7 => self.writes.extend(self.raft.take_write()),
            8 => self.write_done(input.byte().into()),
            9 => self.collect(),
            10 => self.commit(input.string().len()),
            11 => {
                let most = self.committed.len() as Index;
                self.applied = most.min(self.applied + Index::from(input.byte()));
                self.raft.applied(self.applied);
            }
            12 => drop(self.raft.transfer(match input.byte() {
                0 => None,
                to => Some(NodeId::from(to % 8)),
            })),
            13 => self.answer(),
            14 if input.byte() == 255 => self.restart(),
            // All at once, so that a short input gets far.
            _ => {
                self.writes.extend(self.raft.take_write());
                self.write_done(usize::MAX);
                self.collect();
                self.answer();
                self.commit(usize::MAX);
            }
        }
        self.decided_reads();
    }

    fn read(&mut self) {
        self.next_read += 1;
        if self.raft.read(self.next_read).is_ok() {
            self.reads.insert(self.next_read);
        }
    }

    fn decided_reads(&mut self) {
        let decided = self.raft.take_reads();
        for (id, index) in decided.ready {
            assert!(self.reads.remove(&id), "read {id} is decided twice");
            assert!(index <= self.raft.commit(), "a read of what may never be");
        }
        for id in decided.failed {
            assert!(self.reads.remove(&id), "read {id} is decided twice");
        }
    }

    fn write_done(&mut self, count: usize) {
        let count = count.min(self.writes.len());
        let Some(last) = count.checked_sub(1).map(|last| self.writes[last].id) else {
            return;
        };
        for write in self.writes.drain(..count) {
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
            if let Some(first) = write.entries.first() {
                let kept = first.id.index - 1;
                assert!(
                    kept <= self.log.len() as Index,
                    "the log on disk has a hole"
                );
                self.log.truncate(kept as usize);
            }
            self.log.extend(write.entries);
        }
        self.longest = self.longest.max(self.log.len());
        self.raft.durable(last);
    }

    /// Takes the messages, and checks that they may leave.
    fn collect(&mut self) {
        for envelope in self.raft.take_messages() {
            let Envelope { from, to, term, .. } = envelope;
            assert!(from == ID && to != ID, "from {from} to {to}");
            assert!(self.config.membership.contains(to));
            assert!(term <= self.hard_state.term, "a term that is not durable");
            match envelope.message {
                Message::VoteReply { granted: true } if term == self.hard_state.term => {
                    assert_eq!(self.hard_state.vote, Some(to), "a vote that is not durable");
                }
                Message::Accepted { matched } => {
                    let durable = matched <= self.longest as Index;
                    assert!(durable, "an entry that is not durable");
                }
                _ => {}
            }
            self.sent.push(envelope);
        }
        let surplus = self.sent.len().saturating_sub(64);
        self.sent.drain(..surplus);
    }

    fn commit(&mut self, max_bytes: usize) {
        for entry in self.raft.take_committed(max_bytes) {
            let last = self.committed.last();
            let (index, time_ms) = last.map_or((0, 0), |last| (last.id.index, last.time_ms));
            assert_eq!(entry.id.index, index + 1, "a committed entry is left out");
            assert!(entry.time_ms >= time_ms, "cluster time went back");
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
                to: ID,
                term,
                message,
            });
        }
    }

    /// Loses all that is not on disk.
    fn restart(&mut self) {
        let (config, log) = (self.config.clone(), self.log.clone());
        self.raft = Raft::new(config, self.hard_state, log);
        self.term = self.hard_state.term;
        self.writes.clear();
        self.sent.clear();
        self.committed.clear();
        self.reads.clear();
        self.applied = 0;
    }

    /// A message from anybody about anything, likelier about what the node has.
    fn envelope(&self, input: &mut Bits<'_>) -> Envelope {
        let (from, to) = match input.byte() {
            255 => (input.near(0), input.near(0)),
            from => (NodeId::from(2 + from % 4), ID),
        };
        let term = input.near(self.raft.term());
        Envelope {
            from,
            to,
            term,
            message: self.message(input),
        }
    }

    fn message(&self, input: &mut Bits<'_>) -> Message {
        let term = self.raft.term();
        match input.byte() % 11 {
            0 => Message::PreVote {
                next_term: input.near(term + 1),
                last: self.id(input),
            },
            1 => Message::PreVoteReply {
                next_term: input.near(term + 1),
                granted: input.flag(),
            },
            2 => Message::Vote {
                last: self.id(input),
                transfer: input.flag(),
            },
            3 => Message::VoteReply {
                granted: input.flag(),
            },
            4 => Message::Append {
                prev: self.id(input),
                entries: self.entries(input),
                commit: input.near(self.raft.commit()),
            },
            5 => Message::Accepted {
                matched: input.near(self.raft.commit()),
            },
            6 => Message::Rejected {
                prev: input.near(self.raft.last().index),
                conflict: Conflict {
                    term: input.near(term),
                    first_index: input.near(self.raft.last().index),
                },
            },
            7 => Message::Heartbeat {
                commit: input.near(self.raft.commit()),
                held: input.near(self.raft.commit()),
                round: input.near(0),
            },
            8 => Message::HeartbeatReply {
                round: input.near(0),
            },
            9 => Message::TimeoutNow,
            _ => Message::Outdated,
        }
    }

    /// An entry of the log, or next to one, or none at all.
    fn id(&self, input: &mut Bits<'_>) -> EntryId {
        let index = input.near(self.raft.commit());
        let known = self.raft.entry(index).map(|entry| entry.id);
        match known {
            Some(id) if input.byte() < 192 => id,
            _ => EntryId {
                term: input.near(0),
                index,
            },
        }
    }

    fn entries(&self, input: &mut Bits<'_>) -> Vec<Entry> {
        let mut id = self.id(input);
        let count = input.byte() % 5;
        let mut time_ms = input.near(0);
        let entries = (0..count).map(|_| {
            id.index = id.index.wrapping_add(1);
            if input.byte() > 224 {
                id = EntryId {
                    term: input.near(id.term),
                    index: input.near(id.index),
                };
                time_ms = input.near(time_ms);
            }
            Entry {
                id,
                time_ms,
                payload: match input.flag() {
                    true => Payload::Command(input.string().to_vec().into()),
                    false => Payload::Empty,
                },
            }
        });
        entries.collect()
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
    seeds
}
