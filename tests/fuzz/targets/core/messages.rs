//! What peers may send: anything, likelier about what the node has.

use raftkv::raft::{
    Configuration, Conflict, Entry, EntryId, Envelope, Message, NodeId, Payload, SnapshotMeta,
};

use super::super::bits::Bits;
use super::{ID, Node};

impl Node {
    /// A message from anybody about anything, likelier about what the node has.
    pub fn envelope(&self, input: &mut Bits<'_>) -> Envelope {
        let (from, to) = match input.byte() {
            255 => (input.near(0), input.near(0)),
            from => (NodeId::from(2 + from % 4), ID),
        };
        let term = input.near(self.raft.term());
        Envelope {
            from,
            from_folder: from.into(),
            to,
            to_folder: Some(to.into()),
            term,
            message: self.message(input),
        }
    }

    fn message(&self, input: &mut Bits<'_>) -> Message {
        let term = self.raft.term();
        let kind = match input.byte() {
            kind @ 0..=239 => kind % 11,
            240..=247 => 11,
            248.. => 12,
        };
        match kind {
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
                    term: Some(input.near(term)).filter(|term| *term != 0),
                    first_index: input.near(self.raft.last().index),
                },
            },
            7 => Message::Heartbeat {
                commit: input.near(self.raft.commit()),
                matched_by_all: input.near(self.raft.commit()),
                round: input.near(0),
            },
            8 => Message::HeartbeatReply {
                round: input.near(0),
            },
            9 => Message::TimeoutNow,
            10 => Message::Outdated,
            11 => self.snapshot_part(input),
            _ => Message::SnapshotReply {
                last: self.id(input),
                received: input.near(0),
            },
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
                payload: match input.byte() {
                    0..=119 => Payload::Command(input.string().to_vec().into()),
                    120..=239 => Payload::Empty,
                    least => Payload::Configuration(Box::new(configuration(least))),
                },
            }
        });
        entries.collect()
    }

    fn snapshot_part(&self, input: &mut Bits<'_>) -> Message {
        let mut configuration = self.raft.configuration().clone();
        if input.flag() {
            configuration.configuration = Configuration::of_voters(2..=4);
            configuration.index = 1;
        }
        let meta = SnapshotMeta {
            last: self.id(input),
            time_ms: input.near(0),
            configuration,
        };
        Message::Snapshot {
            meta,
            bytes: input.near(1),
            offset: input.near(0),
            data: input.string().to_vec().into(),
        }
    }
}

/// Some members, of whom this node may be one; or nobody, which no leader would log.
fn configuration(byte: u8) -> Configuration {
    match byte % 5 {
        0 => Configuration::of_voters(1..=3),
        1 => Configuration::of_voters(2..=4),
        2 => Configuration::default(),
        3 => super::learner(),
        _ => {
            let [members, outgoing] = [1..=2, 2..=4].map(Configuration::of_voters);
            let outgoing = outgoing.members().to_vec();
            Configuration::of(1, members.members().to_vec(), outgoing)
        }
    }
}
