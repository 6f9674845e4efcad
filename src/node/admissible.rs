//! Commands that this node's state machine cannot execute, and how they are kept out.
//!
//! A command passes the leader's [gate](crate::machine::StateMachine::gate) before the leader
//! appends it. So a correct leader of the same version sends no command that a follower's gate
//! refuses; a leader that does is faulty, or runs another version. If such an entry were committed,
//! every replica would have to execute it, at each start again, and none could. Therefore a node
//! checks every command that enters its log from outside:
//!
//! - the commands that a leader sends, before the core sees the message, and so before they are
//!   written ([`in_message`]);
//! - the commands in the log on disk, before the node starts ([`in_log`]).
//!
//! A node that finds such a command stops, with the index and the advice, and has changed nothing
//! on its disk. What reaches [`apply`](crate::machine::StateMachine::apply) has passed the gate of
//! this very process: there a command that does not decode is a bug of our own, and panics.
//!
//! The cost: a follower decodes each command once more. The gate reads the command in place,
//! without a copy and without a lock, in a fraction of a microsecond.

use std::path::{Path, PathBuf};

use crate::machine::Gate;
use crate::raft::{Entry, EntryId, Envelope, Index, Message, NodeId, Payload, Term};

/// A leader has sent a command that this node's state machine cannot execute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {leader}, the leader of term {term}, has sent a command that this node cannot execute, \
     at index {index}: {reason}. It was not taken into this node's log. Node {leader} runs another \
     version, or is faulty: stop it, look at its log (kvnode inspect), and run the same version on \
     all nodes before this one is started again"
)]
pub struct InadmissibleFromLeader {
    /// The node that sent the command.
    pub leader: NodeId,
    /// The term in which the command was sent.
    pub term: Term,
    /// The index of the command's entry.
    pub index: Index,
    /// What is wrong with the command, in the words of the state machine's gate.
    pub reason: String,
}

/// The log on disk holds a command that this node's state machine cannot execute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log in {} holds a command that this node cannot execute, at index {} of term {}: \
     {reason}. Nothing was changed. `kvnode inspect {}` shows the entry. Run the version that \
     wrote it, on all nodes; if there is none, make a new cluster of a backup (kvnode backup, \
     kvnode restore), which lacks what came after its snapshot",
    folder.display(), id.index, id.term, folder.display()
)]
pub struct InadmissibleInLog {
    /// The data folder that holds the log.
    pub folder: PathBuf,
    /// The entry that holds the command.
    pub id: EntryId,
    /// What is wrong with the command, in the words of the state machine's gate.
    pub reason: String,
}

/// Returns, as an error, the first entry in a peer's message whose command the gate refuses.
pub(super) fn in_message(gate: &Gate, envelope: &Envelope) -> Option<InadmissibleFromLeader> {
    let Message::Append { entries, .. } = &envelope.message else {
        return None;
    };
    let (id, reason) = first_refused(gate, entries)?;
    Some(InadmissibleFromLeader {
        leader: envelope.from,
        term: envelope.term,
        index: id.index,
        reason,
    })
}

/// Checks that the gate admits every command of the log that was found in a data folder.
pub(super) fn in_log(
    gate: &Gate,
    folder: &Path,
    entries: &[Entry],
) -> Result<(), InadmissibleInLog> {
    match first_refused(gate, entries) {
        None => Ok(()),
        Some((id, reason)) => Err(InadmissibleInLog {
            folder: folder.to_path_buf(),
            id,
            reason,
        }),
    }
}

fn first_refused(gate: &Gate, entries: &[Entry]) -> Option<(EntryId, String)> {
    entries.iter().find_map(|entry| match &entry.payload {
        Payload::Command(command) => Some((entry.id, gate(command).err()?)),
        Payload::Empty | Payload::Configuration(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Entries of term 3 from index 4 on, one of which holds a bad command.
    fn entries() -> Vec<Entry> {
        let payloads = [
            Payload::Empty,
            Payload::Command("good".into()),
            Payload::Command("bad".into()),
            Payload::Command("worse".into()),
        ];
        let entry = |(index, payload)| Entry {
            id: EntryId { term: 3, index },
            time_ms: 0,
            payload,
        };
        (4..).zip(payloads).map(entry).collect()
    }

    fn gate() -> Gate {
        Arc::new(|command| match command {
            b"good" => Ok(()),
            _ => Err("it is not good".into()),
        })
    }

    #[test]
    fn the_first_command_that_the_gate_refuses_is_named_with_who_sent_it_or_where_it_is() {
        let append = |entries| Envelope {
            from: 2,
            from_folder: 2,
            to: 1,
            to_folder: Some(1),
            term: 7,
            message: Message::Append {
                prev: EntryId { term: 3, index: 3 },
                entries,
                commit: 3,
            },
        };
        let found = in_message(&gate(), &append(entries())).expect("one is bad");
        assert_eq!((found.leader, found.term, found.index), (2, 7, 6));
        let found = in_log(&gate(), Path::new("data"), &entries()).expect_err("one is bad");
        assert_eq!(found.id, EntryId { term: 3, index: 6 });
        let sentence = found.to_string();
        assert!(sentence.contains("at index 6 of term 3: it is not good. Nothing was changed"));
        assert!(sentence.contains("`kvnode inspect data`"), "{sentence}");

        let good = entries()[..2].to_vec();
        assert_eq!(in_log(&gate(), Path::new("data"), &good), Ok(()));
        assert_eq!(in_message(&gate(), &append(good)), None);
    }
}
