//! What a node had made durable when it said what it said: worked out from its system calls alone.
//!
//! The calls say which bytes went to which file, when a sync of the file and of the folder began
//! and ended, and which bytes left on which socket. The bytes of the log and the vote, and those of
//! the sockets, are read in the formats of `docs/formats.md`. A write is durable when a sync of its
//! file has ended that began behind it, and findable when the folder was synced behind the last
//! change of the file's name.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use raftkv::raft::{Entry, Envelope, HardState, Index, Message, NodeId, Payload, Term};
use raftkv::wire::client::{Answer, Ask, Request, Response};
use raftkv::wire::handshake::{Caller, Hello, MAGIC};
use raftkv::wire::{codec, frame};

use super::strace::Call;

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

/// Where a rule was broken, in a sentence.
pub type Broken = (Rule, String);

/// A moment, in nanoseconds since 1970; `None` is never.
type When = Option<u64>;

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

/// Something in a file.
struct Stored<T> {
    what: T,
    written: u64,
    durable: When,
    findable: When,
}

/// A command by its length and its first bytes, which hold the session and the number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(usize, Vec<u8>);

/// The data folder.
#[derive(Default)]
struct Files {
    /// Each file by its present path.
    paths: HashMap<String, usize>,
    files: Vec<File>,
    /// When syncs of the folder began and ended.
    syncs: Vec<(u64, u64)>,
    changes: Vec<Change>,
}

#[derive(Default)]
struct File {
    writes: Vec<Write>,
    /// When syncs of it began and ended.
    syncs: Vec<(u64, u64)>,
    /// When its name was changed last, if that was seen.
    named: When,
}

struct Write {
    begin: u64,
    end: u64,
    path: String,
    /// When the file had got its name, if that was seen.
    named: When,
    /// It was created under that name, rather than renamed to it.
    new: bool,
}

/// A file was renamed, or removed.
pub struct Change {
    begin: u64,
    end: u64,
    file: usize,
    pub from: String,
    pub to: Option<String>,
}

/// When the first sync ended that began at that moment or later.
fn synced(syncs: &[(u64, u64)], behind: u64) -> When {
    let later = syncs.iter().filter(|(begin, _)| *begin >= behind);
    later.map(|(_, end)| *end).min()
}

fn by(when: When, moment: u64) -> bool {
    when.is_some_and(|when| when <= moment)
}

fn is_unfinished(path: &str) -> bool {
    path.ends_with(".new")
}

fn is_log(path: &str) -> bool {
    path.contains("/log-") && !is_unfinished(path)
}

impl Files {
    /// Takes a call into account that has to do with a file of the folder.
    fn note(&mut self, folder: &str, call: &Call) {
        let within =
            |path: &str| path.starts_with(&format!("{folder}/")) && !path.ends_with("lock");
        match &*call.name {
            _ if call.result < 0 => {}
            "openat" | "open" | "creat" => {
                let path = call.strings().pop().unwrap();
                if within(&path) && call.has("O_TRUNC") {
                    self.paths.insert(path, self.files.len());
                    self.files.push(File {
                        named: Some(call.end),
                        ..File::default()
                    });
                }
            }
            "rename" | "renameat" | "renameat2" => {
                if let [from, to] = &call.strings()[..]
                    && within(from)
                {
                    self.change(call, from, Some(to));
                }
            }
            "unlink" | "unlinkat" => {
                let path = call.strings().pop().unwrap();
                if within(&path) {
                    self.change(call, &path, None);
                }
            }
            "fsync" | "fdatasync" if call.target() == Some(folder) => {
                self.syncs.push((call.begin, call.end));
            }
            "fsync" | "fdatasync" => {
                if let Some(file) = call.target().and_then(|path| self.paths.get(path)) {
                    self.files[*file].syncs.push((call.begin, call.end));
                }
            }
            _ => self.note_write(call),
        }
    }

    fn change(&mut self, call: &Call, from: &str, to: Option<&str>) {
        let file = self.paths.remove(from).unwrap();
        if let Some(to) = to {
            self.paths.insert(to.to_string(), file);
            self.files[file].named = Some(call.end);
        }
        self.changes.push(Change {
            begin: call.begin,
            end: call.end,
            file,
            from: from.to_string(),
            to: to.map(String::from),
        });
    }

    fn note_write(&mut self, call: &Call) {
        let writes = ["write", "pwrite64", "writev", "pwritev", "pwritev2"];
        let path = call.target().filter(|_| writes.contains(&&*call.name));
        let Some((path, file)) = path.and_then(|path| Some((path, *self.paths.get(path)?))) else {
            return;
        };
        let renamed = |change: &Change| change.file == file && change.to.is_some();
        let new = !self.changes.iter().any(renamed);
        let file = &mut self.files[file];
        file.writes.push(Write {
            begin: call.begin,
            end: call.end,
            path: path.to_string(),
            named: file.named,
            new,
        });
    }

    /// What a call has written to this file, with when it became durable.
    fn stored<T>(&self, what: T, call: &Call) -> Stored<T> {
        let file = &self.files[self.paths[call.target().unwrap()]];
        let named = file.named.unwrap_or_default();
        Stored {
            what,
            written: call.end,
            // Filled in when all syncs are known.
            durable: None,
            findable: Some(named),
        }
    }

    fn judge(&self, broken: &mut Vec<Broken>) {
        for file in &self.files {
            for write in file.writes.iter().filter(|write| !write.new) {
                let findable = write.named.and_then(|named| synced(&self.syncs, named));
                if !by(findable, write.begin) {
                    let what = format!("{} was written to", write.path);
                    broken.push((Rule::NamesBeforeWrites, what));
                }
            }
        }
        for (number, change) in self.changes.iter().enumerate() {
            let from = &change.from;
            if let Some(to) = change.to.as_ref().filter(|to| !is_unfinished(to)) {
                let file = &self.files[change.file];
                let mut before = file.writes.iter().filter(|write| write.end <= change.begin);
                if !before.all(|write| by(synced(&file.syncs, write.end), change.begin)) {
                    let what = format!("{from} was renamed to {to}");
                    broken.push((Rule::BytesBeforeNames, what));
                }
            }
            let earlier = self.changes[..number].iter().filter(|earlier| {
                is_log(&earlier.from)
                    || (earlier.to.as_ref()).is_some_and(|to| to.contains("/snapshot-"))
            });
            let pending = |at: &Change| !by(synced(&self.syncs, at.end), change.begin);
            if is_log(from) && earlier.into_iter().any(pending) {
                broken.push((Rule::NamesBeforeRemovals, format!("{from} was taken away")));
            }
        }
    }
}

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
        let mut places = (Vec::new(), Vec::new());
        let mut sockets: BTreeMap<&str, Socket> = BTreeMap::new();
        for call in calls {
            trace.files.note(folder, call);
            let Some(target) = call.target().filter(|_| call.result > 0) else {
                continue;
            };
            if target.starts_with("socket:") {
                sockets.entry(target).or_default().note(call);
            } else if let Some(file) = trace.files.paths.get(target).copied() {
                trace.note_contents(target, call);
                places.0.resize(trace.log.len(), file);
                places.1.resize(trace.votes.len(), file);
            }
        }
        trace.files.settle(&mut trace.log, &places.0);
        trace.files.settle(&mut trace.votes, &places.1);
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
            let vote_for =
                |to: NodeId| move |state: &HardState| state.term == *term && state.vote == Some(to);
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
            Payload::Empty => false,
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

impl Files {
    /// Enters when each was durable and findable, now that all syncs are known.
    fn settle<T>(&self, stored: &mut [Stored<T>], files: &[usize]) {
        for (stored, file) in stored.iter_mut().zip(files) {
            stored.durable = synced(&self.files[*file].syncs, stored.written);
            stored.findable = stored.findable.and_then(|named| synced(&self.syncs, named));
        }
    }
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

/// The bytes of a connection, each way.
#[derive(Default)]
struct Socket {
    sent: Stream,
    received: Stream,
}

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// Where the bytes of each call begin, and when the call began.
    calls: Vec<(usize, u64)>,
}

impl Socket {
    fn note(&mut self, call: &Call) {
        let stream = match &*call.name {
            "sendto" | "sendmsg" | "write" | "writev" => &mut self.sent,
            _ => &mut self.received,
        };
        stream.calls.push((stream.bytes.len(), call.begin));
        stream.bytes.extend(call.data());
    }

    /// Enters what the node has said here.
    fn say(&self, trace: &mut Trace) {
        if let Some(frames) = self.sent.frames(MAGIC.len())
            && self.sent.bytes.starts_with(&MAGIC)
        {
            let envelopes = frames.into_iter().skip(1);
            let envelopes = envelopes.map(|(at, bytes)| (at, codec::decode(bytes).unwrap()));
            trace.sent.extend(envelopes);
            return;
        }
        let Some(asked) = self.received.frames(MAGIC.len()) else {
            return;
        };
        let is_client = |hello: &[u8]| {
            let hello: Hello = codec::decode(hello).unwrap();
            hello.caller == Caller::Client
        };
        if !self.received.bytes.starts_with(&MAGIC) || !is_client(asked[0].1) {
            return;
        }
        let asked = asked.iter().skip(1).map(|(_, bytes)| {
            let request: Request = codec::decode(bytes).unwrap();
            (request.id, request.ask)
        });
        let asked: HashMap<u64, Ask> = asked.collect();
        for (at, bytes) in self.sent.frames(0).into_iter().flatten().skip(1) {
            let response: Response = codec::decode(bytes).unwrap();
            if let (Answer::Reply(_), Ask::Submit(command)) =
                (response.answer, &asked[&response.id])
            {
                trace.answered.push((at, Command::new(command)));
            }
        }
    }
}

impl Stream {
    /// The payloads of the frames from an offset on, each with when the first of its bytes may have
    /// been on its way; `None` if there is none.
    fn frames(&self, mut at: usize) -> Option<Vec<(u64, &[u8])>> {
        let mut frames = Vec::new();
        while let Some(header) = self.bytes.get(at..at + frame::HEADER_LEN) {
            let len = u32::from_le_bytes(*header.first_chunk().unwrap()) as usize;
            let payload = self.bytes[at + frame::HEADER_LEN..].get(..len);
            let Some(payload) = payload else {
                break;
            };
            let call = self.calls.partition_point(|(start, _)| *start <= at) - 1;
            frames.push((self.calls[call].1, payload));
            at += frame::HEADER_LEN + len;
        }
        (!frames.is_empty()).then_some(frames)
    }
}
