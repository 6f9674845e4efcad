//! Stories with their exact trace: each file under `golden/` makes one claim.
//!
//! A script is lines of `> command` and, below each command, its trace. `UPDATE_GOLDEN=1 cargo test
//! --lib raft::tests::golden` writes the traces anew; read the difference before you keep it.
//!
//! | command | what happens |
//! | --- | --- |
//! | `cluster N` | N nodes, always the first command |
//! | `tick ID N` | N ticks pass at one node |
//! | `elect ID` | ticks pass at this node until it stands for election; all is delivered |
//! | `lead ID` | the same, without the trace: for stories that begin after it |
//! | `propose ID TEXT`, `read ID N`, `transfer ID TO` | what a client or an operator wants |
//! | `deliver`, `deliver N` | delivers all messages and what follows from them, or the first N |
//! | `drop N` | loses the first N messages |
//! | `wait N` | N ticks pass at all nodes and all is delivered, without the trace |
//! | `new ID`, `wipe ID` | a node comes up that is no member; one loses its folder and comes back |
//! | `change ID WHAT NODE` | the node is asked to `add`, `promote`, `demote`, `remove` or `replace` |
//! | `cut A B`, `heal` | loses what A sends to B; ends all cuts |
//! | `hold ID`, `sync ID` | the disk stops, and does all that it was given |
//! | `crash ID`, `restart ID` | loses what is not on disk; comes up with what is |
//! | `status` | where every node stands |
//!
//! A trace line is a message (`1>2 t3 append after 4@2 [5@3] commit 4`), a change of role or of
//! members, a commit, or a decided read.

use std::fmt::Write as _;
use std::path::Path;

use super::harness::Cluster;
use super::told::describe;
use crate::raft::{Change, Member, MemberRole, NodeId};

struct Story {
    cluster: Cluster,
    trace: String,
    /// The commit index of each node when it was last looked at; a change of it is traced.
    commits: Vec<u64>,
}

impl Story {
    fn line(&mut self, text: impl std::fmt::Display) {
        writeln!(self.trace, "{text}").expect("writing to a string");
    }

    fn command(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        let number = |at: usize| {
            rest.get(at)
                .and_then(|word: &&str| word.parse::<u64>().ok())
        };
        let id = number(0).unwrap_or(0);
        let second = number(1).unwrap_or(0);
        match name {
            "cluster" => {
                self.cluster = Cluster::new(id);
                self.commits = vec![0; id as usize + 1];
            }
            "tick" => (0..second).for_each(|_| self.cluster.node(id).tick()),
            "elect" => self.elect(id),
            "lead" => self.untold(|story| story.elect(id)),
            "wait" => self.untold(|story| {
                for _ in 0..id {
                    story.cluster.tick();
                    story.look();
                }
            }),
            "new" => {
                self.cluster.add(id);
                self.commits.resize(id as usize + 1, 0);
            }
            "wipe" => {
                self.crash(id);
                self.cluster.wipe(id);
            }
            "change" => self.change(id, rest[1], number(2).unwrap_or(0)),
            "propose" => self.propose(id, rest[1]),
            "read" => {
                let answer = self.cluster.node(id).read(second);
                self.refused(answer);
            }
            "transfer" => {
                let to = self.cluster.node(id).transfer(Some(second));
                let text = to.map_or("no hand-over".into(), |to| format!("hand-over to {to}"));
                self.line(text);
            }
            "deliver" => self.deliver(number(0).unwrap_or(u64::MAX)),
            "drop" => {
                self.cluster.queue.drain(..id as usize);
            }
            "cut" => {
                self.cluster.cut.insert((id, second));
            }
            "heal" => self.cluster.heal(),
            "hold" => self.cluster.hold(id, true),
            "sync" => self.cluster.hold(id, false),
            "crash" => self.crash(id),
            "restart" => self.cluster.restart(id),
            "status" => self.status(),
            other => panic!("no such command: {other}"),
        }
        self.look();
    }

    /// Goes on without the trace.
    fn untold(&mut self, act: impl FnOnce(&mut Self)) {
        let told = self.trace.len();
        act(self);
        self.trace.truncate(told);
    }

    fn change(&mut self, at: NodeId, what: &str, id: NodeId) {
        let (folder, address) = (self.cluster.folder(id), format!("node-{id}"));
        let change = match what {
            "add" => Change::Add(Member {
                id,
                folder: Some(folder),
                address,
                role: MemberRole::Joining,
            }),
            "promote" => Change::Promote(id),
            "demote" => Change::Demote(id),
            "remove" => Change::Remove(id),
            "replace" => Change::Replace {
                id,
                folder,
                address,
            },
            other => panic!("no such change: {other}"),
        };
        match self.cluster.node(at).change(&change, false) {
            Ok(changed) => self.line(format_args!("taken up at {}", changed.index)),
            Err(refused) => self.line(format_args!("refused: {refused}")),
        }
    }

    /// Ticks the node alone until it asks for votes, and lets the answers come.
    fn elect(&mut self, id: NodeId) {
        let term = self.cluster.node(id).term();
        for _ in 0..200 {
            if self.cluster.node(id).term() > term {
                break;
            }
            self.cluster.node(id).tick();
            self.look();
            self.deliver(u64::MAX);
        }
    }

    fn propose(&mut self, id: NodeId, text: &str) {
        match self.cluster.node(id).propose(text.to_string().into()) {
            Ok(entry) => self.line(format_args!("{text} is {entry}")),
            refused => self.refused(refused.map(|_| ())),
        }
    }

    fn refused<E: std::fmt::Display>(&mut self, answer: Result<(), E>) {
        if let Err(error) = answer {
            self.line(format_args!("refused: {error}"));
        }
    }

    fn crash(&mut self, id: NodeId) {
        self.cluster.crash(id);
        self.commits[id as usize] = 0;
        self.cluster.queue.retain(|envelope| envelope.from != id);
    }

    fn deliver(&mut self, most: u64) {
        for _ in 0..most {
            let Some(first) = self.cluster.queue.front() else {
                return;
            };
            let (to, lost) = (first.to, self.cluster.loses(first));
            let text = describe(first);
            let fate = if lost { " (lost)" } else { "" };
            self.line(format_args!("{text}{fate}"));
            self.cluster.deliver();
            if !lost {
                self.look_at(to);
            }
            self.cluster.collect();
        }
    }

    fn look(&mut self) {
        self.cluster.collect();
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for id in ids {
            if !self.cluster.down.contains(&id) {
                self.look_at(id);
            }
        }
    }

    /// Adds to the trace what has changed at the node: role, decided reads, commit index.
    fn look_at(&mut self, id: NodeId) {
        self.cluster.collect();
        let node = self.cluster.nodes.get_mut(&id).expect("a node");
        let events = std::mem::take(&mut node.events);
        let reads = std::mem::take(&mut node.decided);
        let changes = std::mem::take(&mut node.configuration_events);
        for event in events {
            self.line(format_args!("  {id} is {event}"));
        }
        for event in changes {
            self.line(format_args!("  {id}: {event}"));
        }
        let commit = self.cluster.node(id).commit();
        if commit > std::mem::replace(&mut self.commits[id as usize], commit) {
            self.line(format_args!("  {id} knows {commit} committed"));
        }
        for (read, index) in reads.ready {
            self.line(format_args!("  {id} may answer read {read} at {index}"));
        }
        for read in reads.failed {
            self.line(format_args!("  {id} cannot answer read {read}"));
        }
    }

    fn status(&mut self) {
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for id in ids {
            if self.cluster.down.contains(&id) {
                self.line(format_args!("{id}: down"));
                continue;
            }
            let executed = self.cluster.executed(id).join(" ");
            let raft = self.cluster.node(id);
            let (role, term, last) = (raft.role(), raft.term(), raft.last());
            let line = format!("{id}: {role} t{term}, last {last}, executed [{executed}]");
            self.line(line);
        }
    }
}

/// The script with the trace that the core makes now. Comments and empty lines stay.
fn play(script: &str) -> String {
    let mut story = Story {
        cluster: Cluster::new(1),
        trace: String::new(),
        commits: vec![0; 2],
    };
    for line in script.lines() {
        if line.starts_with('#') || line.is_empty() {
            story.line(line);
        } else if let Some(command) = line.strip_prefix("> ") {
            story.line(line);
            story.command(command);
        }
    }
    story.trace
}

#[test]
fn every_story_goes_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/tests/golden");
    let files = std::fs::read_dir(&folder).expect("the stories");
    let mut paths: Vec<_> = files.map(|file| file.expect("a story").path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "only {} stories", paths.len());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for path in paths {
        let told = std::fs::read_to_string(&path).expect("a story is text");
        let played = play(&told);
        assert_eq!(
            played,
            play(&told),
            "{} goes differently each time",
            path.display()
        );
        if update {
            std::fs::write(&path, played).expect("the story can be written");
        } else {
            assert!(
                told == played,
                "{} goes otherwise; look at the difference after UPDATE_GOLDEN=1 cargo test --lib \
                 raft::tests::golden\n{played}",
                path.display()
            );
        }
    }
}
