//! Executes the committed log once more on a fresh state machine. That tells what each command must
//! have answered, and whether the page of each scan was true as a whole after some entry.

use std::collections::BTreeMap;

use super::Checks;
use crate::sim::history::{Action, Record, number_of};
use crate::sim::{Failure, Time};
use raftkv::kv::{Kv, Limits, Op, Reply, SessionId};
use raftkv::machine::{At, StateMachine};
use raftkv::raft::{Index, Payload};

/// What became of one numbered operation in the log.
#[derive(Clone, Debug)]
pub struct Execution {
    pub index: Index,
    /// When its entry was first known to be committed.
    pub at: Time,
    pub reply: Reply,
}

/// The operations that the log executes.
pub struct Replay {
    executed: BTreeMap<(SessionId, u64), Execution>,
}

impl Replay {
    /// Executes the log, and finds for each scan a moment at which its page was true as a whole.
    pub fn of(checks: &Checks, records: &[Record], limits: &Limits) -> Result<Self, Failure> {
        let mut machine = Kv::new(limits.clone());
        let mut executed = BTreeMap::new();
        let mut scans = scans(checks, records);
        let mut true_at = |machine: &Kv, index: usize| {
            scans.retain(|scan| {
                let within = (scan.first..=scan.last).contains(&index);
                !(within && machine.query(&scan.query) == scan.reply)
            });
        };
        true_at(&machine, 0);
        for (index, committed) in (1..).zip(&checks.canonical) {
            if let Payload::Command(command) = &committed.entry.payload {
                let at = At {
                    index: committed.entry.id.index,
                    time_ms: committed.entry.time_ms,
                };
                let reply = machine.apply(at, command);
                if let Some(number) = number_of(command).filter(|_| was_executed(&reply)) {
                    let at = committed.at;
                    let index = committed.entry.id.index;
                    let execution = Execution { index, at, reply };
                    executed.entry(number).or_insert(execution);
                }
            }
            true_at(&machine, index);
        }
        match scans.first() {
            None => Ok(Self { executed }),
            Some(scan) => Err(Failure::new(
                "a scan is a moment of the log",
                format!(
                    "{:?} answered {:?}, which was not so after any of the entries {} to {}",
                    scan.record.action, scan.reply, scan.first, scan.last
                ),
            )),
        }
    }

    /// What became of an operation, if the log holds and executes it.
    pub fn execution(&self, record: &Record) -> Option<&Execution> {
        self.executed.get(&record.number?)
    }

    /// Compares what clients were told with what the log says.
    pub fn answers(&self, records: &[Record]) -> Result<(), Failure> {
        for record in records {
            let Action::Execute(op) = &record.action else {
                continue;
            };
            let execution = self.execution(record).map(|execution| &execution.reply);
            let wrong = match (record.reply(), execution) {
                (Some(told), Some(executed)) if told == executed => continue,
                (None, None) => continue,
                (None, Some(_)) if !record.was_refused() => continue,
                // A get changes nothing, so nobody tells whether it was executed in vain.
                (None, Some(_)) if matches!(op, Op::Get { .. }) => continue,
                (Some(told), said) => format!("was told {told:?}, and the log says {said:?}"),
                (None, _) => format!("was told {:?}, and the log executes it", record.end),
            };
            return Err(Failure::new(
                "answers are those of the log",
                format!("client {} did {op:?}, {wrong}", record.client),
            ));
        }
        Ok(())
    }
}

/// Whether the operation with this reply was executed, even if it had no effect.
fn was_executed(reply: &Reply) -> bool {
    !matches!(
        reply,
        Reply::NoSession(_) | Reply::AnswerDropped | Reply::TooManyInFlight | Reply::Refused(_)
    )
}

/// A scan with its answer, and the entries after one of which it must have been true: from the
/// last that was known to be committed when it began to the last that was when it ended.
struct Scanned<'a> {
    record: &'a Record,
    query: bytes::Bytes,
    reply: Reply,
    first: usize,
    last: usize,
}

fn scans<'a>(checks: &Checks, records: &'a [Record]) -> Vec<Scanned<'a>> {
    let committed_by = |time: Time| checks.canonical.partition_point(|entry| entry.at < time);
    let scan = |record: &'a Record| match (&record.action, record.reply(), &record.end) {
        (Action::Scan(_), Some(reply), Some((ended, _))) => Some(Scanned {
            record,
            query: record.action.query()?,
            reply: reply.clone(),
            first: committed_by(record.called),
            last: committed_by(ended + 1),
        }),
        _ => None,
    };
    records.iter().filter_map(scan).collect()
}
