//! Each write takes effect exactly once, over a network that loses, repeats and delays requests.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cluster::{ScriptedCluster, Trouble};
use crate::client::{CallError, CasOutcome, Error, Kind};
use crate::kv::{Op, Reply, Scan};

#[test]
fn two_thousand_appends_from_four_threads_over_a_bad_network_happen_once_each() {
    let trouble = Trouble {
        not_sent: 3,
        request_lost: 5,
        answer_lost: 10,
        in_doubt: 10,
        busy: 2,
        leader_moves: 2,
    };
    let cluster = ScriptedCluster::new(41, trouble);
    let clerk = cluster.clerk(Duration::from_secs(60));
    thread::scope(|scope| {
        for name in ["k", "l", "m", "n"] {
            let clerk = &clerk;
            scope.spawn(move || {
                for number in 0..500 {
                    clerk.append("log", format!("{name}{number} ")).unwrap();
                }
            });
        }
    });
    let stats = clerk.stats();
    drop(clerk);
    let mut inner = cluster.inner.lock();
    for late in std::mem::take(&mut inner.late) {
        inner.store.submit(&late);
    }
    let log = String::from_utf8(inner.store.values[&b"log"[..]].clone()).unwrap();
    for name in ["k", "l", "m", "n"] {
        let theirs: Vec<_> = log
            .split(' ')
            .filter(|word| word.starts_with(name))
            .collect();
        let expected: Vec<_> = (0..500).map(|number| format!("{name}{number}")).collect();
        assert_eq!(
            theirs, expected,
            "each append once, and those of a thread in order"
        );
    }
    assert_eq!(inner.store.executed, 2000);
    assert_eq!(stats.calls, 2001, "2000 appends and one session");
    // The network has made enough trouble for this test to mean something.
    assert!(inner.store.repeats > 100, "{} repeats", inner.store.repeats);
    assert!(
        stats.repeats_in_doubt > 100 && stats.leader_changes > 5,
        "{stats:?}"
    );
}

#[test]
fn every_operation_brings_its_own_result() {
    let clerk = ScriptedCluster::reliable().clerk(Duration::from_secs(5));
    assert_eq!(clerk.get("k"), Ok(None));
    assert_eq!(clerk.put("k", "one"), Ok(()));
    assert_eq!(clerk.append("k", [0xff]), Ok(4));
    assert_eq!(clerk.get("k").unwrap().unwrap(), &b"one\xff"[..]);
    let other = CasOutcome::Mismatch(Some(Bytes::from_static(b"one\xff")));
    assert_eq!(clerk.cas("k", None, "two"), Ok(other));
    assert_eq!(
        clerk.cas("k", Some(b"one\xff"), ""),
        Ok(CasOutcome::Swapped)
    );
    assert_eq!(clerk.get("k"), Ok(Some(Bytes::new())));
    assert_eq!(
        clerk.cas("nothing", Some(b""), "x"),
        Ok(CasOutcome::Mismatch(None))
    );
    assert_eq!(clerk.delete("k"), Ok(true));
    assert_eq!(clerk.delete("k"), Ok(false));
    let get = Op::Get { key: "k".into() };
    assert_eq!(clerk.execute(get), Ok(Reply::Value(None)));
    assert_eq!(clerk.transfer(None), Ok(()));
}

#[test]
fn pages_follow_each_other_to_the_end_of_the_range() {
    let clerk = ScriptedCluster::reliable().clerk(Duration::from_secs(5));
    for key in ["a", "b", "c", "d", "e"] {
        clerk.put(key, key).unwrap();
    }
    let scan = Scan {
        start: "b".into(),
        end: None,
        limit: 2,
        limit_bytes: 0,
        keys_only: false,
    };
    let pages: Vec<Vec<Bytes>> = clerk
        .pages(scan)
        .map(|page| {
            page.unwrap()
                .items
                .into_iter()
                .map(|item| item.key)
                .collect()
        })
        .collect();
    assert_eq!(pages, [vec!["b", "c"], vec!["d", "e"]]);
}

#[test]
fn threads_that_begin_together_share_one_session() {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    let barrier = std::sync::Barrier::new(8);
    thread::scope(|scope| {
        for number in 0..8 {
            let (clerk, barrier) = (&clerk, &barrier);
            scope.spawn(move || {
                barrier.wait();
                clerk.put(format!("k{number}"), "v").unwrap();
            });
        }
    });
    assert_eq!(clerk.stats().sessions, 1);
    assert_eq!(cluster.inner.lock().store.sessions.len(), 1);
}

#[test]
fn a_session_that_expired_while_nothing_was_open_is_replaced_unnoticed() {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    clerk.append("k", "one").unwrap();
    cluster.inner.lock().store.sessions.clear();
    assert_eq!(clerk.append("k", "two"), Ok(6));
    assert_eq!(clerk.stats().sessions, 2);
}

#[test]
fn a_session_that_expired_while_a_write_was_in_doubt_leaves_it_unknown() {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    clerk.append("k", "one").unwrap();
    {
        let mut inner = cluster.inner.lock();
        inner.store.sessions.clear();
        inner.script.push(Err(CallError::Lost("reset".into())));
    }
    let error = clerk.append("k", "two").unwrap_err();
    assert!(
        matches!(error, Error::SessionExpired { session: 1, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::Unknown);
    assert_eq!(
        clerk.append("k", "three"),
        Ok(8),
        "the next write has a session again"
    );
}

#[test]
fn a_write_given_up_does_not_hold_the_lowest_unanswered_down() {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_millis(100));
    clerk.append("k", "one").unwrap();
    cluster.inner.lock().trouble.request_lost = 100;
    let error = clerk.append("k", "two").unwrap_err();
    assert_eq!(error.kind(), Kind::Unknown, "{error}");
    cluster.inner.lock().trouble.request_lost = 0;
    assert_eq!(clerk.append("k", "three"), Ok(8));
    let inner = cluster.inner.lock();
    let (bound, replies) = &inner.store.sessions[&1];
    assert_eq!((*bound, replies.len()), (3, 1));
}

#[test]
fn a_late_copy_of_a_write_given_up_is_not_executed_after_the_next_write() {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_millis(100));
    clerk.put("k", "one").unwrap();
    cluster.inner.lock().trouble.answer_lost = 100;
    clerk.append("k", " two").unwrap_err();
    cluster.inner.lock().trouble.answer_lost = 0;
    clerk.put("k", "three").unwrap();
    let mut inner = cluster.inner.lock();
    let late = inner.store.commands[&(1, 2)].clone();
    assert_eq!(inner.store.submit(&late), Reply::AnswerDropped);
    assert_eq!(inner.store.value(&"k".into()).unwrap(), "three");
}

#[test]
fn the_session_is_closed_when_the_clerk_goes() {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    clerk.put("k", "v").unwrap();
    drop(clerk);
    assert_eq!(cluster.inner.lock().store.closed, [1]);
    drop(cluster.clerk(Duration::from_secs(5)));
    assert_eq!(
        cluster.inner.lock().store.closed,
        [1],
        "no session, nothing to close"
    );
}

#[test]
fn without_a_leader_a_write_ends_by_its_deadline_as_not_executed_and_says_who_said_what() {
    let cluster = ScriptedCluster::reliable();
    cluster.inner.lock().trouble.not_sent = 100;
    let clerk = cluster.clerk(Duration::from_millis(50));
    let begun = Instant::now();
    let error = clerk.put("k", "v").unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = error.to_string();
    for part in [
        "not executed",
        "a:1: not reached (refused)",
        "c:1",
        "None of 3 servers",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

#[test]
fn what_no_frame_can_hold_is_refused_before_it_is_sent() {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(5));
    let error = clerk.put("k", vec![0; 18 << 20]).unwrap_err();
    assert_eq!(error.kind(), Kind::No, "{error}");
    let error = clerk.get(vec![0; 18 << 20]).unwrap_err();
    assert_eq!(error.kind(), Kind::No, "{error}");
    assert_eq!(clerk.put("k", "v"), Ok(()));
}

/// Cancels a write after ten attempts. Returns how long the write then took to end.
fn cancel_in_trouble(trouble: Trouble, maybe_executed: bool) -> Duration {
    let cluster = ScriptedCluster::reliable();
    let clerk = cluster.clerk(Duration::from_secs(60));
    clerk.put("k", "v").unwrap();
    cluster.inner.lock().trouble = trouble;
    let tried = clerk.stats().attempts;
    let canceller = clerk.canceller();
    let took = thread::scope(|scope| {
        let call = scope.spawn(|| clerk.put("k", "w"));
        while clerk.stats().attempts < tried + 10 {
            thread::yield_now();
        }
        // The attempt ends at once, and the pause after it is much longer than this: cancel the
        // call within the pause.
        let tried_at = Instant::now();
        while tried_at.elapsed() < Duration::from_millis(5) {
            thread::yield_now();
        }
        let begun = Instant::now();
        canceller.cancel();
        let cancelled = Err(Error::Cancelled { maybe_executed });
        assert_eq!(call.join().unwrap(), cancelled);
        begun.elapsed()
    });
    cluster.inner.lock().trouble = Trouble::default();
    assert_eq!(clerk.put("k", "x"), Ok(()), "later calls are not affected");
    took
}

#[test]
fn a_cancelled_call_says_whether_the_write_is_in_doubt() {
    let trouble = Trouble {
        not_sent: 100,
        ..Trouble::default()
    };
    cancel_in_trouble(trouble, false);
    let trouble = Trouble {
        request_lost: 100,
        ..Trouble::default()
    };
    cancel_in_trouble(trouble, true);
}

#[test]
fn a_cancelled_pause_ends_at_once() {
    let trouble = Trouble {
        busy: 100,
        ..Trouble::default()
    };
    // By the tenth attempt, each pause lasts 50 to 100 ms. If a cancelled call waited for the end
    // of its pause, it would end that late each time.
    let fastest = (0..3).map(|_| cancel_in_trouble(trouble, false)).min();
    assert!(fastest.unwrap() < Duration::from_millis(30), "{fastest:?}");
}
