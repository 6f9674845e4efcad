//! Checks that what the clients saw is linearizable, one key at a time.
//!
//! The algorithm is that of Wing and Gong, in the just-in-time form of Lowe ("Testing for
//! Linearizability"). It takes calls and returns in the order of time, and keeps the set of all
//! configurations that explain the past. A configuration is a state, and which of the operations
//! under way have taken effect in it. When an operation returns, each configuration in which it has
//! not taken effect is extended by all orders of operations under way that end with that operation.
//! If no configuration is left, nothing explains the history. Equal configurations are kept once,
//! which keeps the search small.
//!
//! A value is represented by its length and a hash that an append can continue. The probability
//! that a run confuses two values is about 2^-60.
//!
//! The committed log decides about a write whose outcome the client does not know: if the log
//! executes the write, it took effect before its entry was known to be committed; otherwise it
//! never took effect. Without a log, such a write may take effect at any time after its call, or
//! never.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::replay::Replay;
use crate::sim::client::text;
use crate::sim::history::{Action, Record};
use crate::sim::{Failure, Time};
use raftkv::kv::{Item, Op, Reply, Scan};
use raftkv::raft::Index;

/// More configurations than this at a time are not searched; the check fails instead.
const BUDGET: usize = 200_000;

/// When an operation returns that nobody heard of again: never.
const NEVER: Time = Time::MAX;

/// A value: missing, or its length and hash.
type State = Option<(u64, u64)>;

const MISSING: State = None;

/// Which of the operations under way have taken effect: a bit for each. A client that gives up and
/// asks something else leaves another one under way, until the log executes it.
type Marks = u128;

const PRIME: u128 = (1 << 61) - 1;
const BASE: u128 = 0x0123_4567_89ab_cdef;

fn extend(state: State, bytes: &[u8]) -> State {
    let (len, hash) = state.unwrap_or((0, 0));
    let hash = bytes.iter().fold(u128::from(hash), |hash, byte| {
        reduce(hash * BASE + u128::from(*byte) + 1)
    });
    Some((len + bytes.len() as u64, hash as u64))
}

/// The rest modulo [`PRIME`], of what is less than 2^121: a division would take most of the
/// check's time.
fn reduce(number: u128) -> u128 {
    let folded = (number & PRIME) + (number >> 61);
    if folded >= PRIME {
        folded - PRIME
    } else {
        folded
    }
}

fn hashed(value: Option<&Bytes>) -> State {
    value.map_or(MISSING, |value| extend(MISSING, value))
}

/// What an operation does to one key, and what it answered; `None` if that is not known.
enum Effect {
    Read(State),
    Put(Bytes),
    Append(Bytes, Option<u64>),
    Delete(Option<bool>),
    Cas(State, Bytes, Option<Result<(), State>>),
}

impl Effect {
    /// The state after the operation, if it can have its answer in this one.
    fn apply(&self, state: State) -> Option<State> {
        match self {
            Effect::Read(seen) => (*seen == state).then_some(state),
            Effect::Put(value) => Some(extend(MISSING, value)),
            Effect::Append(value, len) => {
                let after = extend(state, value);
                let fits = len.is_none_or(|len| after.is_some_and(|(found, _)| found == len));
                fits.then_some(after)
            }
            Effect::Delete(was_there) => {
                let fits = was_there.is_none_or(|was_there| was_there == state.is_some());
                fits.then_some(MISSING)
            }
            Effect::Cas(expected, value, swapped) => {
                let matches = *expected == state;
                let fits = match swapped {
                    None => true,
                    Some(Ok(())) => matches,
                    Some(Err(seen)) => !matches && *seen == state,
                };
                let after = if matches {
                    extend(MISSING, value)
                } else {
                    state
                };
                fits.then_some(after)
            }
        }
    }

    /// Whether it leaves every state as it is in which it can have its answer.
    fn changes_nothing(&self) -> bool {
        matches!(self, Effect::Read(_) | Effect::Cas(_, _, Some(Err(_))))
    }
}

/// An operation on one key.
struct Operation<'a> {
    record: &'a Record,
    /// Its place in the log, if it is a write.
    index: Option<Index>,
    effect: Effect,
    called: Time,
    returned: Time,
}

/// Checks the history of every key. What became of writes whose end is unknown is left open if
/// there is no log that says it; then there may be few of them for a key, at most some ten.
pub fn check(records: &[Record], replay: Option<&Replay>) -> Result<(), Failure> {
    let keys: BTreeSet<Bytes> = records.iter().filter_map(|r| r.action.key()).collect();
    let mut by_key: BTreeMap<Bytes, Vec<Operation>> = BTreeMap::new();
    for record in records {
        for (key, effect, returned) in effects(record, replay, &keys) {
            by_key.entry(key).or_default().push(Operation {
                record,
                index: replay.and_then(|replay| Some(replay.execution(record)?.index)),
                effect,
                called: record.called,
                returned,
            });
        }
    }
    by_key.iter().try_for_each(|(key, operations)| {
        match one_key(operations, Order::Any) {
            // A history that the order of the log explains is explained.
            Err(None) => one_key(operations, Order::Log),
            result => result,
        }
        .map_err(|sentence| {
            let sentence = sentence.unwrap_or("there are too many orders to try".into());
            let sentence = format!("the history of {}: {sentence}", text(key));
            Failure::new("the history is linearizable", sentence)
        })
    })
}

impl Action {
    fn key(&self) -> Option<Bytes> {
        match self {
            Action::Get(key) => Some(key.clone()),
            Action::Scan(_) => None,
            Action::Execute(
                Op::Get { key }
                | Op::Put { key, .. }
                | Op::Append { key, .. }
                | Op::Delete { key }
                | Op::Cas { key, .. },
            ) => Some(key.clone()),
        }
    }
}

/// What an operation means for each key that it touches. What nobody saw and the log does not hold
/// means nothing.
fn effects(
    record: &Record,
    replay: Option<&Replay>,
    keys: &BTreeSet<Bytes>,
) -> Vec<(Bytes, Effect, Time)> {
    let op = match &record.action {
        Action::Execute(op) => op,
        Action::Get(key) => return read(record, key),
        Action::Scan(scan) => return scanned(record, scan, keys),
    };
    let execution = replay.and_then(|replay| replay.execution(record));
    let (reply, returned) = match (record.reply(), &record.end, execution) {
        // What is committed has taken effect, even if its reply took its time.
        (Some(reply), Some((returned, _)), Some(execution)) => {
            (Some(reply), execution.at.min(*returned))
        }
        (_, _, Some(execution)) => (Some(&execution.reply), execution.at),
        _ if replay.is_some() || record.was_refused() => return Vec::new(),
        (Some(reply), Some((returned, _)), None) => (Some(reply), *returned),
        _ => (None, NEVER),
    };
    let (key, effect) = match op {
        Op::Get { key } => match reply {
            Some(Reply::Value(value)) => (key, Effect::Read(hashed(value.as_ref()))),
            _ => return Vec::new(),
        },
        Op::Put { key, value } => (key, Effect::Put(value.clone())),
        Op::Append { key, value } => {
            let len = match reply {
                Some(Reply::Appended(len)) => Some(*len),
                _ => None,
            };
            (key, Effect::Append(value.clone(), len))
        }
        Op::Delete { key } => {
            let was_there = match reply {
                Some(Reply::Deleted(was_there)) => Some(*was_there),
                _ => None,
            };
            (key, Effect::Delete(was_there))
        }
        Op::Cas {
            key,
            expected,
            value,
        } => {
            let swapped = match reply {
                Some(Reply::Swapped(Ok(()))) => Some(Ok(())),
                Some(Reply::Swapped(Err(seen))) => Some(Err(hashed(seen.as_ref()))),
                _ => None,
            };
            (
                key,
                Effect::Cas(hashed(expected.as_ref()), value.clone(), swapped),
            )
        }
    };
    vec![(key.clone(), effect, returned)]
}

fn read(record: &Record, key: &Bytes) -> Vec<(Bytes, Effect, Time)> {
    match (record.reply(), &record.end) {
        (Some(Reply::Value(value)), Some((returned, _))) => {
            vec![(key.clone(), Effect::Read(hashed(value.as_ref())), *returned)]
        }
        _ => Vec::new(),
    }
}

/// A page is a read of every key that it covers, those included that it shows to be missing.
fn scanned(record: &Record, scan: &Scan, keys: &BTreeSet<Bytes>) -> Vec<(Bytes, Effect, Time)> {
    let (Some(Reply::Page(page)), Some((returned, _))) = (record.reply(), &record.end) else {
        return Vec::new();
    };
    let covered = |key: &&Bytes| {
        let on_page = page.next.as_ref().is_none_or(|next| *key < next);
        scan.contains(key) && on_page
    };
    let read = |key: &Bytes| {
        let is_key = |item: &&Item| item.key == *key;
        let value = page.items.iter().find(is_key).map(|item| &item.value);
        (key.clone(), Effect::Read(hashed(value)), *returned)
    };
    keys.iter().filter(covered).map(read).collect()
}

/// Calls before returns at the same moment: those operations overlap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Call,
    Return,
}

/// In which orders writes may take effect that overlap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Any,
    /// That of the log only: much quicker to search.
    Log,
}

/// The error is what cannot be explained, or nothing if the search takes too long.
fn one_key(operations: &[Operation], order: Order) -> Result<(), Option<String>> {
    let mut events = Vec::with_capacity(2 * operations.len());
    for (i, operation) in operations.iter().enumerate() {
        events.push((operation.called, Kind::Call, i));
        if operation.returned != NEVER {
            events.push((operation.returned.max(operation.called), Kind::Return, i));
        }
    }
    events.sort_unstable();
    let mut open: Vec<Option<usize>> = vec![None; Marks::BITS as usize];
    let mut configurations = BTreeSet::from([(MISSING, Marks::MIN)]);
    for (_, kind, i) in events {
        let slot = open.iter().position(|held| match kind {
            Kind::Call => held.is_none(),
            Kind::Return => *held == Some(i),
        });
        let Some(slot) = slot else {
            return Err(None);
        };
        match kind {
            Kind::Call => open[slot] = Some(i),
            Kind::Return => {
                let before = std::mem::take(&mut configurations);
                configurations =
                    after_return(operations, (&open, order), slot, &before).ok_or(None)?;
                if configurations.is_empty() {
                    return Err(Some(not_linear(&operations[i], operations, &open)));
                }
                open[slot] = None;
            }
        }
    }
    Ok(())
}

/// All configurations in which the operation of `slot` has taken effect, without its mark. `None`
/// if there are more than the budget.
fn after_return(
    operations: &[Operation],
    (open, order): (&[Option<usize>], Order),
    slot: usize,
    before: &BTreeSet<(State, Marks)>,
) -> Option<BTreeSet<(State, Marks)>> {
    let mut seen = BTreeSet::new();
    let mut after = BTreeSet::new();
    let mut to_do: Vec<(State, Marks)> = before.iter().copied().collect();
    while let Some((state, mut done)) = to_do.pop() {
        // A read that can take effect now does, and so does a swap that was refused: later it can
        // at best do the same.
        for (other, held) in open.iter().enumerate() {
            if let Some(i) = held
                && operations[*i].effect.changes_nothing()
                && operations[*i].effect.apply(state).is_some()
            {
                done |= 1 << other;
            }
        }
        if done & (1 << slot) != 0 {
            after.insert((state, done & !(1 << slot)));
            continue;
        }
        if !seen.insert((state, done)) {
            continue;
        }
        if seen.len() > BUDGET {
            return None;
        }
        for (other, held) in open.iter().enumerate() {
            if let Some(i) = held
                && done & (1 << other) == 0
                && (order == Order::Any || !waits_for_another(operations, open, done, *i))
                && let Some(state) = operations[*i].effect.apply(state)
            {
                to_do.push((state, done | 1 << other));
            }
        }
    }
    Some(after)
}

/// Whether a write under way comes before this one in the log and has not taken effect.
fn waits_for_another(
    operations: &[Operation],
    open: &[Option<usize>],
    done: Marks,
    i: usize,
) -> bool {
    let this = operations[i].index;
    let waits_for =
        |other: &Operation| this.is_some() && other.index.is_some_and(|o| Some(o) < this);
    open.iter().enumerate().any(|(slot, held)| {
        held.is_some_and(|i| done & (1 << slot) == 0 && waits_for(&operations[i]))
    })
}

fn not_linear(operation: &Operation, operations: &[Operation], open: &[Option<usize>]) -> String {
    let line = |operation: &Operation| {
        let Record {
            client,
            action,
            end,
            ..
        } = operation.record;
        let (called, returned) = (operation.called, operation.returned);
        format!("\n  client {client}, {called} to {returned} us: {action:?} -> {end:?}")
    };
    let others = open.iter().flatten().map(|i| line(&operations[*i]));
    let last = operations.iter().filter(|o| o.returned < operation.called);
    let last = last.max_by_key(|o| o.returned).map(line);
    format!(
        "no order of the operations explains{}\nunder way at its return:{}\nthe last to return \
         before it was called:{}",
        line(operation),
        others.collect::<String>(),
        last.unwrap_or_default()
    )
}
