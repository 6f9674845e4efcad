//! What a node had made durable when it said what it said: worked out from its system calls alone.
//!
//! The calls say which bytes went to which file, when a sync of the file and of the folder began
//! and ended, and which bytes left on which socket. The bytes of the log and the vote, and those of
//! the sockets, are read in the formats of `docs/formats.md`. A write is durable when a sync of its
//! file has ended that began behind it, and findable when the folder was synced behind the last
//! change of the file's name.

mod files;
mod sockets;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use raftkv::raft::{Entry, Envelope, HardState, Index, Message, NodeId, Payload, Term};
use raftkv::wire::codec;

use super::strace::Call;
use files::{Change, Files, Stored, by, is_log};
use sockets::Socket;

/// What must hold between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Nothing is said before the bytes are durable that it relies on.
    BytesBeforeWords,
    /// Nothing is said before the file's name is durable that holds what it relies on.
    NamesBeforeWords,
    /// A file gets the name under which it counts only when its bytes are durable.
    BytesBeforeNames,
    /// A file that got a name is written to again only when the name is durable.
    NamesBeforeWrites,
    /// The start of the log goes only when the snapshot that covers it has a durable name, and what
    /// went before it is durably gone.
    NamesBeforeRemovals,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::BytesBeforeWords => {
                "something was said before the bytes were synced that it relies on"
            }
            Rule::NamesBeforeWords => {
                "something was said that relies on a file, or a folder, before the folder was \
                 synced that holds its name"
            }
            Rule::BytesBeforeNames => "a file got its name before its bytes were synced",
            Rule::NamesBeforeWrites => {
                "a file was written to under a new name before the folder was synced"
            }
            Rule::NamesBeforeRemovals => {
                "a part of the log was taken away before the folder was synced after what must \
                 come before that: the name of a snapshot, and the removal of older parts"
            }
        })
    }
}

/// Where a rule was broken, in a sentence.
pub type Broken = (Rule, String);

/// What a node did, by its calls.
pub struct Trace {
    pub id: NodeId,
    /// What it wrote to its log, in that order.
    log: Vec<Stored<Entry>>,
    /// What it wrote to its vote file.
    votes: Vec<Stored<HardState>>,
    /// What it sent to other nodes.
    pub sent: Vec<(u64, Envelope)>,
    /// The commands that it told clients of as executed.
    pub answered: Vec<(u64, Command)>,
    files: Files,
}

/// A command by its length and its first bytes, which hold the session and the number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(usize, Vec<u8>);

impl Trace {
    /// Of a node that began with no data folder, which is this one.
    pub fn new(id: NodeId, folder: &Path, calls: &[Call]) -> Self {
        let folder = folder.to_str().unwrap();
        let mut trace = Self {
            id,
            log: Vec::new(),
            votes: Vec::new(),
            sent: Vec::new(),
            answered: Vec::new(),
            files: Files::default(),
        };
        let mut sockets: BTreeMap<&str, Socket> = BTreeMap::new();
        for call in calls {
            trace.files.note(folder, call);
            let Some(target) = call.target().filter(|_| call.result > 0) else {
                continue;
            };
            if target.starts_with("socket:") {
                sockets.entry(target).or_default().note(call);
            } else if trace.files.has(target) {
                trace.note_contents(target, call);
            }
        }
        trace.files.settle(&mut trace.log);
        trace.files.settle(&mut trace.votes);
        for socket in sockets.into_values() {
            socket.say(&mut trace);
        }
        trace
    }

    fn note_contents(&mut self, path: &str, call: &Call) {
        if !call.name.contains("write") || !call.carries("rkv") {
            return;
        }
        let data = call.data();
        if is_log(path) && (data.starts_with(b"rkvR") || data.starts_with(b"rkvS")) {
            for entry in entries(&data) {
                self.log.push(self.files.stored(entry, call));
            }
        } else if path.ends_with("/vote") && data.starts_with(b"rkvvote\n") {
            self.votes.push(self.files.stored(vote(&data), call));
        }
    }

    /// The changes of names in the folder.
    pub fn changes(&self) -> &[Change] {
        &self.files.changes
    }

    /// Whether this node relied on more than it had made durable, by what it said to other nodes.
    fn judge(&self, broken: &mut Vec<Broken>) {
        self.files.judge(broken);
        for (
            at,
            Envelope {
                to, term, message, ..
            },
        ) in &self.sent
        {
            let says = || format!("node {} sent {message:?} in term {term}", self.id);
            let vote_for = |to: NodeId| {
                move |state: &HardState| {
                    state.term == *term && state.vote.is_some_and(|vote| vote.id == to)
                }
            };
            match message {
                Message::VoteReply { granted: true } => {
                    rely(&self.votes, *at, vote_for(*to), says, broken);
                }
                Message::Vote { .. } => rely(&self.votes, *at, vote_for(self.id), says, broken),
                Message::Accepted { matched } => {
                    for index in 1..=*matched {
                        self.rely_on_entry(index, *at, says, broken);
                    }
                }
                _ => {}
            }
            let known = |state: &HardState| state.term >= *term;
            if *term > 0 {
                rely(&self.votes, *at, known, says, broken);
            }
        }
    }

    /// The entry that was written last at an index is the one that an acknowledgement means.
    fn rely_on_entry(
        &self,
        index: Index,
        at: u64,
        says: impl Fn() -> String,
        broken: &mut Vec<Broken>,
    ) {
        let here = |stored: &&Stored<Entry>| stored.what.id.index == index && stored.written <= at;
        let term: Option<Term> = (self.log.iter().rev())
            .find(here)
            .map(|stored| stored.what.id.term);
        let meant = |entry: &Entry| entry.id.index == index && Some(entry.id.term) == term;
        rely(&self.log, at, meant, says, broken);
    }

    fn holds(&self, command: &Command, at: u64) -> (bool, bool) {
        let of_it = self.log.iter().filter(|stored| match &stored.what.payload {
            Payload::Command(bytes) => Command::new(bytes) == *command,
            Payload::Empty | Payload::Configuration(_) => false,
        });
        of_it.fold((false, false), |(durable, findable), stored| {
            let this = by(stored.durable, at);
            (
                durable || this,
                findable || (this && by(stored.findable, at)),
            )
        })
    }
}

/// Something that fits must be durable and findable.
fn rely<T>(
    all: &[Stored<T>],
    at: u64,
    fits: impl Fn(&T) -> bool,
    says: impl Fn() -> String,
    broken: &mut Vec<Broken>,
) {
    let durable = |stored: &&Stored<T>| fits(&stored.what) && by(stored.durable, at);
    if !all.iter().any(|stored| durable(&stored)) {
        broken.push((Rule::BytesBeforeWords, says()));
    } else if !all
        .iter()
        .filter(durable)
        .any(|stored| by(stored.findable, at))
    {
        broken.push((Rule::NamesBeforeWords, says()));
    }
}

/// All rules for all nodes of a cluster: where they were broken, each rule's places together.
pub fn judge(nodes: &[Trace]) -> Vec<Broken> {
    let mut broken = Vec::new();
    for node in nodes {
        node.judge(&mut broken);
        for (at, command) in &node.answered {
            let held = nodes.iter().map(|node| node.holds(command, *at));
            let held: Vec<_> = held.collect();
            let majority = |count: usize| count > nodes.len() / 2;
            let says = || format!("node {} told a client that {command:?} is done", node.id);
            if !majority(held.iter().filter(|(durable, _)| *durable).count()) {
                broken.push((Rule::BytesBeforeWords, says()));
            } else if !majority(held.iter().filter(|(_, findable)| *findable).count()) {
                broken.push((Rule::NamesBeforeWords, says()));
            }
        }
    }
    broken.sort_by_key(|(rule, _)| *rule);
    broken
}

impl Command {
    fn new(bytes: &[u8]) -> Self {
        Self(bytes.len(), bytes[..bytes.len().min(48)].to_vec())
    }
}

/// The entries of a record, from its sectors: 504 bytes of each 512 are the record's.
fn entries(sectors: &[u8]) -> Vec<Entry> {
    let record = sectors.chunks(512).flat_map(|sector| &sector[..504]);
    let record: Vec<u8> = record.copied().collect();
    let number = |bytes: &[u8]| u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut rest = &record[32..][..number(&record[4..])];
    if record.starts_with(b"rkvS") {
        rest = &rest[16..];
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, behind) = rest[4..].split_at(number(rest));
        entries.push(codec::decode(entry).unwrap());
        rest = behind;
    }
    entries
}

/// The term and vote in a block: owner, sequence number, state.
fn vote(block: &[u8]) -> HardState {
    let len = u32::from_le_bytes(*block[12..].first_chunk().unwrap()) as usize;
    type Ballot = ((String, NodeId, u128), u64, HardState);
    let ballot: Ballot = codec::decode(&block[16..][..len]).unwrap();
    ballot.2
}
