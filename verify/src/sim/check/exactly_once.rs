//! Checks that appends take effect exactly once, on keys that are only appended to and read. An
//! acknowledged append is in the final value once; an append whose outcome is unknown is there once
//! if the committed log executes it, else never; a refused append is never there.

use bytes::Bytes;

use super::replay::Replay;
use crate::sim::Failure;
use crate::sim::client::{APPEND_KEYS, text};
use crate::sim::history::{Action, Record};
use raftkv::kv::{Kv, Op, Query, Reply};
use raftkv::machine::StateMachine;

/// Counts every append in what the machine holds in the end.
pub fn check(records: &[Record], machine: &Kv, replay: &Replay) -> Result<(), Failure> {
    for record in records {
        let Action::Execute(Op::Append { key, value }) = &record.action else {
            continue;
        };
        if !key.starts_with(APPEND_KEYS) {
            continue;
        }
        let found = count(&value_of(machine, key), value);
        let may_be = match record.reply() {
            Some(Reply::Appended(_)) => 1..=1,
            // Refused by a limit when it was executed.
            Some(_) => 0..=0,
            None if record.was_refused() => 0..=0,
            None => match replay.execution(record).map(|execution| &execution.reply) {
                Some(Reply::Appended(_)) => 1..=1,
                _ => 0..=0,
            },
        };
        if !may_be.contains(&found) {
            return Err(Failure::new(
                "exactly once",
                format!(
                    "client {} appended {} to {} with the result {:?}; it is there {found} times",
                    record.client,
                    text(value),
                    text(key),
                    record.end
                ),
            ));
        }
    }
    Ok(())
}

fn value_of(machine: &Kv, key: &Bytes) -> Bytes {
    match machine.query(&Query::Get { key: key.clone() }.to_bytes()) {
        Reply::Value(value) => value.unwrap_or_default(),
        other => panic!("a get is answered {other:?}"),
    }
}

/// How often a part occurs. No part of a run lies within another one.
fn count(value: &[u8], part: &[u8]) -> usize {
    value
        .windows(part.len())
        .filter(|window| *window == part)
        .count()
}
