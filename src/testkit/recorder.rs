//! A state machine that only remembers its commands, and a journal that compares what all replicas
//! remember.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::machine::{At, Gate, StateMachine};
use crate::raft::Index;
use crate::wire::codec;

/// A command with the index at which it was executed.
pub type Executed = (Index, Bytes);

/// The history of commands that the replicas of one cluster have executed. All clones are the same
/// history.
///
/// The first replica that executes an `n`-th command writes it down. Every other replica, and every
/// replica that starts again, must execute the same command at the same index as its `n`-th one.
#[derive(Clone, Default)]
pub struct Journal {
    shared: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    executed: Vec<Executed>,
    contradiction: Option<String>,
}

impl Journal {
    /// A replica without a history, which is compared with this journal.
    pub fn machine(&self) -> Recorder {
        Recorder {
            journal: self.clone(),
            executed: Vec::new(),
        }
    }

    /// All commands that were executed so far, in order.
    pub fn executed(&self) -> Vec<Executed> {
        self.shared.lock().executed.clone()
    }

    /// A sentence that names the first difference between two replicas, if there was ever one.
    pub fn contradiction(&self) -> Option<String> {
        self.shared.lock().contradiction.clone()
    }

    fn note(&self, place: usize, executed: &Executed) {
        let mut entries = self.shared.lock();
        match entries.executed.get(place) {
            None => entries.executed.push(executed.clone()),
            Some(first) if first == executed => {}
            Some(first) => {
                let contradiction = format!(
                    "command number {place} is {executed:?} on one replica and {first:?} on another"
                );
                entries.contradiction.get_or_insert(contradiction);
            }
        }
    }
}

/// A state machine that executes a command by remembering it, and answers with the command and its
/// index.
pub struct Recorder {
    journal: Journal,
    executed: Vec<Executed>,
}

impl Recorder {
    /// The commands that this replica has executed since it started, in order.
    pub fn executed(&self) -> &[Executed] {
        &self.executed
    }

    /// The command that this replica executed at an index.
    pub fn at(&self, index: Index) -> Option<&Bytes> {
        let place = self.executed.binary_search_by_key(&index, |(at, _)| *at);
        place.ok().map(|place| &self.executed[place].1)
    }
}

impl StateMachine for Recorder {
    type Reply = Executed;
    type Snapshot = Vec<Executed>;

    fn identity(&self) -> String {
        "recorder".to_string()
    }

    fn gate(&self) -> Gate {
        Arc::new(|_| Ok(()))
    }

    fn apply(&mut self, at: At, command: &Bytes) -> Executed {
        let executed = (at.index, command.clone());
        self.journal.note(self.executed.len(), &executed);
        self.executed.push(executed.clone());
        executed
    }

    /// Answers every query with the last command that was executed.
    fn query(&self, _: &Bytes) -> Executed {
        self.executed.last().cloned().unwrap_or_default()
    }

    fn encode_reply((_, command): &Executed, out: &mut Vec<u8>) {
        out.extend_from_slice(command);
    }

    fn snapshot(&self) -> Vec<Executed> {
        self.executed.clone()
    }

    fn write_snapshot(executed: &Vec<Executed>, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&codec::to_bytes(executed))
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        let executed: Vec<Executed> = codec::decode(&bytes).map_err(io::Error::other)?;
        // The snapshot may come from another replica. Its commands count as executed by this one.
        for (place, executed) in executed.iter().enumerate() {
            self.journal.note(place, executed);
        }
        Ok(Self {
            journal: self.journal.clone(),
            executed,
        })
    }

    fn digest(&self) -> u64 {
        let bytes = codec::to_bytes(&self.executed);
        u64::from(crc32c::crc32c(&bytes))
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("executed", self.executed.len() as u64)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: Index) -> At {
        At { index, time_ms: 0 }
    }

    #[test]
    fn replicas_that_execute_the_same_do_not_contradict_each_other() {
        let journal = Journal::default();
        for _ in 0..2 {
            let mut machine = journal.machine();
            machine.apply(at(2), &"a".into());
            machine.apply(at(4), &"b".into());
            assert_eq!(machine.at(4), Some(&"b".into()));
            assert_eq!(machine.at(3), None);
        }
        assert_eq!(journal.executed().len(), 2);
        assert_eq!(journal.contradiction(), None);
    }

    #[test]
    fn another_command_or_index_or_a_gap_is_a_contradiction() {
        for (index, command) in [(2, "b"), (3, "a"), (4, "c")] {
            let journal = Journal::default();
            let mut first = journal.machine();
            first.apply(at(2), &"a".into());
            first.apply(at(4), &"c".into());
            journal.machine().apply(at(index), &command.into());
            assert!(journal.contradiction().is_some(), "{command} at {index}");
        }
    }
}
