//! Whether a history holds: linearizable, appends exactly once, and enough of it.

use std::collections::BTreeMap;

use super::history::{Ask, Line, Outcome};
use super::workload::APPENDED;
use crate::sim::{Record, seen};

/// The fewest answers in a second, over a whole run with all its faults. A cluster that is dead
/// for most of the time must not pass.
const LEAST_ANSWERS: u64 = 10;

/// The smallest share of the reads, and of the writes, that must be answered, in percent. What is
/// not answered says nothing about the order of operations: a history in which nearly everything is
/// unknown is explained by any order.
const LEAST_ANSWERED_PERCENT: usize = 50;

/// Judges a history. The error is a sentence.
pub fn judge(lines: &[Line]) -> Result<(), String> {
    no_wrong_answer(lines)?;
    progress(lines)?;
    enough_is_known(lines)?;
    exactly_once(lines)?;
    let records: Vec<Record> = lines.iter().map(Line::record).collect();
    seen(&records).map_err(|failure| failure.to_string())
}

fn no_wrong_answer(lines: &[Line]) -> Result<(), String> {
    let wrong = lines.iter().find_map(|line| match &line.outcome {
        Outcome::Wrong(why) => Some((line, why)),
        _ => None,
    });
    match wrong {
        None => Ok(()),
        Some((Line { client, ask, .. }, why)) => {
            let kind = ask.kind();
            Err(format!(
                "client {client} asked for a {kind} of {}: {why}",
                ask.key()
            ))
        }
    }
}

fn enough_is_known(lines: &[Line]) -> Result<(), String> {
    for (what, is_read) in [("reads", true), ("writes", false)] {
        let all = lines.iter().filter(|line| line.ask.is_read() == is_read);
        let answered = all.clone().filter(|line| line.outcome.is_answer()).count();
        let all = all.count();
        if answered * 100 < all * LEAST_ANSWERED_PERCENT {
            return Err(format!(
                "only {answered} of {all} {what} were answered; {LEAST_ANSWERED_PERCENT} % are the \
                 least"
            ));
        }
    }
    Ok(())
}

fn progress(lines: &[Line]) -> Result<(), String> {
    let answers = lines.iter().filter(|line| line.outcome.is_answer());
    let answers = answers.count() as u64;
    let end = lines.iter().map(|line| line.returned_us).max();
    let seconds = end.unwrap_or(0) / 1_000_000;
    match answers >= LEAST_ANSWERS * seconds.max(1) {
        true => Ok(()),
        false => Err(format!(
            "only {answers} answers in {seconds} s; {LEAST_ANSWERS} a second are the least"
        )),
    }
}

/// In the last value that was read of each key that is only appended to: what was acknowledged is
/// there once, what is unknown at most once, what was not executed never, and nothing else.
fn exactly_once(lines: &[Line]) -> Result<(), String> {
    let mut found: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.ask.is_read()) {
        let key = line.ask.key();
        if let Outcome::Value(value) = &line.outcome
            && key.starts_with(APPENDED)
        {
            // Lines are in the order of their ends, and the last reads come after everything.
            found.insert(key, counted(value.as_deref().unwrap_or_default()));
        }
    }
    for line in lines {
        let Ask::Append { key, value } = &line.ask else {
            continue;
        };
        if !key.starts_with(APPENDED) {
            continue;
        }
        let parts = found.get_mut(&**key);
        let parts = parts.ok_or(format!("{key} was appended to and never read"))?;
        let times = parts.remove(&**value).unwrap_or(0);
        let may_be = match &line.outcome {
            Outcome::NotExecuted(_) => 0..=0,
            Outcome::Unknown(_) => 0..=1,
            _ => 1..=1,
        };
        if !may_be.contains(&times) {
            return Err(format!(
                "client {} appended {value} to {key} with the outcome {:?}, and it is there \
                 {times} times",
                line.client, line.outcome
            ));
        }
    }
    let invented = found.iter().find(|(_, parts)| !parts.is_empty());
    match invented {
        None => Ok(()),
        Some((key, parts)) => Err(format!("{key} has {parts:?}, which nobody appended")),
    }
}

/// The parts of a value, each of which begins with `<`.
fn counted(value: &str) -> BTreeMap<&str, u32> {
    let mut starts: Vec<usize> = value.match_indices('<').map(|(at, _)| at).collect();
    starts.push(value.len());
    let mut parts = BTreeMap::new();
    if starts[0] > 0 {
        parts.insert(&value[..starts[0]], 1);
    }
    for pair in starts.windows(2) {
        *parts.entry(&value[pair[0]..pair[1]]).or_default() += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(number: u32, outcome: Outcome) -> Line {
        Line {
            client: 1,
            called_us: u64::from(number) * 10,
            returned_us: u64::from(number) * 10 + 5,
            ask: Ask::Append {
                key: "a-1".into(),
                value: format!("<{number}>"),
            },
            outcome,
        }
    }

    fn read(value: &str) -> Line {
        Line {
            client: 1,
            called_us: 1000,
            returned_us: 1001,
            ask: Ask::Get { key: "a-1".into() },
            outcome: Outcome::Value(Some(value.into())),
        }
    }

    /// Two that were acknowledged, one whose end is unknown, one that was refused.
    fn judged(value: &str) -> Result<(), String> {
        let mut lines = vec![
            append(1, Outcome::Appended(3)),
            append(2, Outcome::Appended(6)),
            append(3, Outcome::Unknown("late".into())),
            append(4, Outcome::NotExecuted("busy".into())),
        ];
        lines.extend((0..10).map(|_| read(value)));
        judge(&lines)
    }

    #[test]
    fn what_is_unknown_may_be_there_or_not() {
        assert_eq!(judged("<1><2>"), Ok(()));
        assert_eq!(judged("<1><2><3>"), Ok(()));
    }

    #[test]
    fn what_is_lost_doubled_refused_or_invented_is_noticed() {
        for value in ["<1>", "<1><2><2>", "<1><2><3><3>", "<1><2><4>", "<1><2><9>"] {
            assert!(judged(value).is_err(), "{value}");
        }
    }

    #[test]
    fn an_order_that_nothing_explains_is_noticed() {
        assert!(judged("<2><1>").unwrap_err().contains("linearizable"));
        assert!(judged("<3><1><2>").unwrap_err().contains("linearizable"));
    }

    #[test]
    fn a_dead_cluster_does_not_pass() {
        let mut lines = vec![append(1, Outcome::Appended(3)), read("<1>")];
        lines[1].returned_us = 60_000_000;
        assert!(judge(&lines).unwrap_err().contains("only 2 answers"));
    }

    #[test]
    fn a_run_of_which_little_is_known_does_not_pass() {
        let unknown = |number| append(number, Outcome::Unknown("late".into()));
        let reads = || (0..20).map(|_| read("<1>"));
        let mut lines = vec![append(1, Outcome::Appended(3)), unknown(2)];
        lines.extend(reads());
        assert_eq!(judge(&lines), Ok(()));
        lines.push(unknown(3));
        assert!(judge(&lines).unwrap_err().contains("1 of 3 writes"));

        let unread = |_| Line {
            outcome: Outcome::Unread("nobody answers".into()),
            ..read("")
        };
        let mut lines: Vec<_> = reads().chain((0..20).map(unread)).collect();
        lines.push(append(1, Outcome::Appended(3)));
        assert_eq!(judge(&lines), Ok(()));
        lines.push(unread(0));
        assert!(judge(&lines).unwrap_err().contains("20 of 41 reads"));
    }

    #[test]
    fn an_answer_to_another_question_does_not_pass() {
        let mut lines: Vec<_> = (0..20).map(|_| read("")).collect();
        lines.push(append(1, Outcome::Wrong("answered Done".into())));
        assert!(judge(&lines).unwrap_err().contains("answered Done"));
    }

    #[test]
    fn a_write_that_ended_unknown_may_take_effect_late_but_only_once_and_not_before_its_call() {
        let put = |called_us, value: &str, outcome| Line {
            client: 1,
            called_us,
            returned_us: called_us + 1,
            ask: Ask::Put {
                key: "m".into(),
                value: value.into(),
            },
            outcome,
        };
        let get = |called_us, value: &str| Line {
            client: 2,
            called_us,
            returned_us: called_us + 1,
            ask: Ask::Get { key: "m".into() },
            outcome: Outcome::Value(Some(value.into())),
        };
        let unknown = || Outcome::Unknown("late".into());
        let judged = |rest: &[Line]| {
            let records: Vec<_> = rest.iter().map(Line::record).collect();
            seen(&records)
        };
        let late = [put(1, "<1>", unknown()), put(5, "<2>", Outcome::Done)];
        let with = |reads: &[Line]| judged(&[&late[..], reads].concat());
        assert!(with(&[get(9, "<2>"), get(20, "<1>")]).is_ok());
        assert!(with(&[get(9, "<1>"), get(20, "<1>")]).is_ok());
        assert!(with(&[get(9, "<1>"), get(20, "<2>"), get(30, "<1>")]).is_err());
        assert!(judged(&[get(1, "<1>"), put(5, "<1>", unknown())]).is_err());
    }
}
