//! A store that says what it executes, so that a scenario can compare its replicas all the time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raftkv::kv::{CommandOf, Kv, Limits, Reply};
use raftkv::machine::{At, Gate, StateMachine};
use raftkv::raft::Index;

/// What the replicas of a cluster have executed. Clones share it.
///
/// The first replica that executes a command at an index writes it down. Every other replica, and
/// every replica that starts anew, must execute the same command there and leave none out.
#[derive(Clone, Default)]
pub struct Executions {
    shared: Arc<Mutex<SharedExecutions>>,
}

#[derive(Default)]
struct SharedExecutions {
    by_index: BTreeMap<Index, Bytes>,
    contradiction: Option<String>,
}

impl Executions {
    /// An empty replica that writes down here what it executes.
    pub fn machine(&self) -> Watched {
        Watched {
            kv: Kv::new(Limits::default()),
            executions: self.clone(),
            last: None,
        }
    }

    /// The command that was executed at an index.
    pub fn at(&self, index: Index) -> Option<Bytes> {
        self.shared.lock().by_index.get(&index).cloned()
    }

    /// The indexes of the scenario's commands up to this one, which is included.
    pub fn up_to(&self, index: Index) -> Vec<Index> {
        let shared = self.shared.lock();
        let executed = shared.by_index.range(..=index);
        let commands = executed.filter(|(_, command)| is_command(command));
        commands.map(|(index, _)| *index).collect()
    }

    /// What is wrong, if two replicas have ever executed different commands.
    pub fn contradiction(&self) -> Option<String> {
        self.shared.lock().contradiction.clone()
    }

    fn note(&self, last: Option<Index>, index: Index, command: &Bytes) {
        let mut shared = self.shared.lock();
        let first = shared.by_index.entry(index);
        let first = first.or_insert_with(|| command.clone());
        let mut contradiction = (first != command)
            .then(|| format!("at {index} one replica executes {command:?}, another {first:?}"));
        // What a replica has executed before its start it need not execute again.
        if let Some(last) = last
            && let Some((left_out, _)) = shared.by_index.range(last + 1..index).next()
        {
            let sentence = format!("after {last} a replica goes on at {index}, without {left_out}");
            contradiction.get_or_insert(sentence);
        }
        if shared.contradiction.is_none() {
            shared.contradiction = contradiction;
        }
    }
}

/// Whether a command is one of the scenario's operations, and not the opening of a session.
pub fn is_command(command: &[u8]) -> bool {
    matches!(CommandOf::decode(command), Ok(CommandOf::Execute { .. }))
}

/// The store, and what it has executed last since its start.
pub struct Watched {
    pub kv: Kv,
    executions: Executions,
    last: Option<Index>,
}

impl StateMachine for Watched {
    type Reply = Reply;
    type Snapshot = <Kv as StateMachine>::Snapshot;

    const QUICK: bool = Kv::QUICK;

    fn identity(&self) -> String {
        self.kv.identity()
    }

    fn gate(&self) -> Gate {
        self.kv.gate()
    }

    fn apply(&mut self, at: At, command: &Bytes) -> Reply {
        let last = self.last.replace(at.index);
        self.executions.note(last, at.index, command);
        self.kv.apply(at, command)
    }

    fn query(&self, query: &Bytes) -> Reply {
        self.kv.query(query)
    }

    fn query_within(&self, query: &Bytes, room: usize) -> Option<Reply> {
        self.kv.query_within(query, room)
    }

    fn weight(reply: &Reply) -> usize {
        Kv::weight(reply)
    }

    fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
        Kv::encode_reply(reply, out);
    }

    fn snapshot(&self) -> Self::Snapshot {
        self.kv.snapshot()
    }

    fn write_snapshot(snapshot: &Self::Snapshot, out: &mut dyn io::Write) -> io::Result<()> {
        Kv::write_snapshot(snapshot, out)
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        Ok(Self {
            kv: self.kv.restore(input)?,
            executions: self.executions.clone(),
            last: None,
        })
    }

    fn digest(&self) -> u64 {
        self.kv.digest()
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        self.kv.gauges()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(all: &[(Option<Index>, Index, &'static str)]) -> Option<String> {
        let executions = Executions::default();
        for (last, index, command) in all {
            executions.note(*last, *index, &Bytes::from_static(command.as_bytes()));
        }
        executions.contradiction()
    }

    #[test]
    fn replicas_that_execute_the_same_do_not_contradict_each_other() {
        let first = [(None, 2, "a"), (Some(2), 4, "b")];
        assert_eq!(noted(&[first, first].concat()), None);
        // One that starts from a snapshot begins anywhere.
        assert_eq!(noted(&[first[0], first[1], (None, 4, "b")]), None);
    }

    #[test]
    fn another_command_and_a_gap_are_contradictions() {
        let first = [(None, 2, "a"), (Some(2), 4, "b"), (Some(4), 5, "c")];
        for other in [(None, 2, "b"), (Some(2), 5, "c"), (Some(4), 5, "a")] {
            let all = [first.as_slice(), &[other]].concat();
            assert!(noted(&all).is_some(), "{other:?}");
        }
    }
}
