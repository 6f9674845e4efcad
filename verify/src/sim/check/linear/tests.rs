//! Small histories of one key, some linearizable and some not, and whether the checker tells them
//! apart.

use super::*;
use crate::sim::history::End;

/// What a client asks for, and the reply.
type Done = (Action, Reply);

fn at(called: Time, returned: Time, (action, reply): Done) -> Record {
    Record {
        client: 0,
        action,
        called,
        number: None,
        end: Some((returned, End::Reply(reply))),
    }
}

/// An operation of whose end nobody knows.
fn unheard(called: Time, (action, _): Done) -> Record {
    Record {
        client: 0,
        action,
        called,
        number: None,
        end: None,
    }
}

fn key() -> Bytes {
    Bytes::from_static(b"key")
}

fn read(value: Option<&str>) -> Done {
    let value = value.map(|value| Bytes::from(value.to_string()));
    (Action::Get(key()), Reply::Value(value))
}

fn get(value: &str) -> Done {
    read(Some(value))
}

fn put(value: &str) -> Done {
    let (key, value) = (key(), value.to_string().into());
    (Action::Execute(Op::Put { key, value }), Reply::Done)
}

fn append(more: &str, len: u64) -> Done {
    let (key, value) = (key(), more.to_string().into());
    (
        Action::Execute(Op::Append { key, value }),
        Reply::Appended(len),
    )
}

/// A swap from one value to another.
fn swap(from: &str, to: &str, swapped: Result<(), &str>) -> Done {
    let (expected, value) = (Some(from.to_string().into()), to.to_string().into());
    let swapped = swapped.map_err(|seen| Some(seen.to_string().into()));
    let op = Op::Cas {
        key: key(),
        expected,
        value,
    };
    (Action::Execute(op), Reply::Swapped(swapped))
}

#[track_caller]
fn good(history: &[Record]) {
    assert_eq!(check(history, None), Ok(()));
}

#[track_caller]
fn bad(history: &[Record]) {
    let failure = check(history, None).expect_err("no order explains it");
    let sentence = failure.to_string();
    assert!(
        sentence.contains("no order of the operations"),
        "{sentence}"
    );
}

#[test]
fn one_after_the_other_each_sees_what_was_before() {
    good(&[]);
    good(&[
        at(0, 1, read(None)),
        at(2, 3, put("a")),
        at(4, 5, append("b", 2)),
        at(6, 7, get("ab")),
    ]);
}

#[test]
fn operations_that_overlap_may_come_in_either_order() {
    for (value, lens) in [("ab", (1, 2)), ("ba", (2, 1))] {
        good(&[
            at(0, 10, append("a", lens.0)),
            at(0, 10, append("b", lens.1)),
            at(11, 12, get(value)),
        ]);
    }
    good(&[
        at(0, 10, put("a")),
        at(1, 2, read(None)),
        at(3, 4, get("a")),
    ]);
}

#[test]
fn a_stale_read_is_noticed() {
    bad(&[at(0, 1, put("a")), at(2, 3, put("b")), at(4, 5, get("a"))]);
    bad(&[at(0, 1, put("a")), at(2, 3, read(None))]);
}

#[test]
fn reads_that_go_back_are_noticed() {
    // Both overlap the write, but the later one sees the earlier value.
    bad(&[
        at(0, 10, put("a")),
        at(1, 2, get("a")),
        at(3, 4, read(None)),
    ]);
}

#[test]
fn a_lost_a_doubled_and_a_reordered_append_are_noticed() {
    let appends = [at(0, 1, append("a", 1)), at(2, 3, append("b", 2))];
    for read in ["a", "b", "abb", "aab", "ba"] {
        bad(&[appends[0].clone(), appends[1].clone(), at(4, 5, get(read))]);
    }
}

#[test]
fn an_answer_that_tells_of_a_lost_append_is_noticed_without_a_read() {
    bad(&[at(0, 1, append("a", 1)), at(2, 3, append("b", 1))]);
    bad(&[at(0, 10, append("a", 1)), at(0, 10, append("b", 1))]);
}

#[test]
fn what_was_never_heard_of_may_happen_late_or_not_at_all_but_not_before_its_call() {
    let write = unheard(5, append("x", 0));
    good(&[at(0, 1, put("a")), write.clone(), at(6, 7, get("a"))]);
    good(&[at(0, 1, put("a")), write.clone(), at(60, 70, get("ax"))]);
    bad(&[at(0, 1, put("a")), write.clone(), at(2, 3, get("ax"))]);
    bad(&[
        at(0, 1, put("a")),
        write.clone(),
        at(6, 7, get("ax")),
        at(8, 9, get("a")),
    ]);
    bad(&[at(0, 1, put("a")), write, at(60, 70, get("axx"))]);
}

#[test]
fn a_search_that_takes_too_long_is_no_proof() {
    let history = (0..30).map(|n| at(0, 100, append(&format!("{n},"), 0)));
    let history = history.map(|record| Record {
        end: None,
        ..record
    });
    let impossible = at(101, 102, get("none of them"));
    let history: Vec<_> = history.chain([impossible]).collect();
    let sentence = check(&history, None).expect_err("no proof").to_string();
    assert!(sentence.contains("too many orders"), "{sentence}");
}

#[test]
fn many_operations_one_after_the_other_take_few_steps() {
    let appends = (0..1000).map(|n| at(10 * n, 10 * n + 15, append("x", n + 1)));
    good(&appends.collect::<Vec<_>>());
}

#[test]
fn a_swap_that_was_refused_without_a_reason_is_noticed() {
    good(&[at(0, 1, put("a")), at(2, 3, swap("b", "c", Err("a")))]);
    bad(&[at(0, 1, put("a")), at(2, 3, swap("b", "c", Err("d")))]);
    bad(&[at(0, 1, put("a")), at(2, 3, swap("a", "c", Err("a")))]);
}

#[test]
fn many_swaps_of_which_one_succeeds_take_few_steps() {
    let lost = (0..30).map(|n| at(2, 50 + n, swap("a", "c", Err("b"))));
    let one = [at(0, 1, put("a")), at(2, 100, swap("a", "b", Ok(())))];
    good(&lost.chain(one).collect::<Vec<_>>());
}
