//! Execution exactly once, as a client sees it: first the known traps one by one, then random
//! sequences of commands.

mod expired;
mod model;
mod snapshots;

use super::*;
use crate::kv::{Command, Op, Scan};

#[test]
fn the_identity_of_a_store_names_all_that_its_gate_depends_on() {
    let limits = Limits {
        max_value_bytes: 10,
        session_ttl_ms: 7,
        ..Limits::default()
    };
    let store = Kv::new(limits);
    let same = Kv::of_identity(&store.identity()).expect("it is the identity of a store");
    assert_eq!(same.limits, store.limits);
    let identity = store.identity();
    for other in [
        String::new(),
        "recorder".into(),
        identity.replace("version 1", "version 2"),
        identity.replace(" max_in_flight=1024", ""),
        identity.replace("max_in_flight=1024", "max_in_flight=0"),
        identity.replace("max_in_flight=1024", "max_in_flight=many"),
        identity.replace("max_in_flight", "max_flight"),
    ] {
        assert!(Kv::of_identity(&other).is_none(), "{other}");
    }
}

/// A replica with its log position and clock.
struct Replica {
    kv: Kv,
    at: At,
}

impl Replica {
    fn new(limits: Limits) -> Self {
        let at = At {
            index: 0,
            time_ms: 0,
        };
        Self {
            kv: Kv::new(limits),
            at,
        }
    }

    fn apply(&mut self, command: &Command) -> Reply {
        self.at.index += 1;
        let bytes = command.to_bytes();
        assert_eq!(self.kv.gate()(&bytes), Ok(()));
        self.kv.apply(self.at, &bytes)
    }

    fn open(&mut self) -> u64 {
        match self.apply(&Command::OpenSession) {
            Reply::Opened(session) => session,
            other => panic!("a session must open: {other:?}"),
        }
    }

    fn gauge(&self, name: &str) -> u64 {
        let gauges = self.kv.gauges();
        gauges
            .iter()
            .find(|(gauge, _)| *gauge == name)
            .expect("a gauge of this name")
            .1
    }

    fn read(&self, key: &str) -> Option<Bytes> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        match self.kv.query(&Query::Get { key }.to_bytes()) {
            Reply::Value(value) => value,
            other => panic!("a query must read: {other:?}"),
        }
    }
}

fn numbered(session: u64, seq: u64, lowest_unanswered: u64, op: Op) -> Command {
    Command::Execute {
        session,
        seq,
        lowest_unanswered,
        op,
    }
}

fn append(value: &'static str) -> Op {
    Op::Append {
        key: "k".into(),
        value: value.into(),
    }
}

fn get() -> Op {
    Op::Get { key: "k".into() }
}

fn value(text: &'static str) -> Reply {
    Reply::Value(Some(text.into()))
}

#[test]
fn a_repeated_get_returns_its_first_answer_after_the_value_has_changed() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    replica.apply(&numbered(session, 1, 1, append("a")));
    assert_eq!(replica.apply(&numbered(session, 2, 1, get())), value("a"));
    replica.apply(&numbered(session, 3, 1, append("b")));
    assert_eq!(replica.apply(&numbered(session, 2, 1, get())), value("a"));
    assert_eq!(replica.apply(&numbered(session, 4, 1, get())), value("ab"));
}

#[test]
fn repeated_numbers_that_a_session_answers_are_counted_and_refusals_are_not() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    let first = numbered(session, 1, 1, append("a"));
    replica.apply(&first);
    assert_eq!(replica.gauge("duplicates"), 0);
    replica.apply(&first);
    replica.apply(&first);
    assert_eq!(replica.gauge("duplicates"), 2);
    replica.apply(&numbered(session, 2, 2, append("b")));
    assert_eq!(replica.apply(&first), Reply::AnswerDropped);
    replica.apply(&Command::CloseSession { session });
    assert_eq!(replica.gauge("duplicates"), 2);
}

#[test]
fn a_duplicate_of_an_older_number_that_arrives_late_is_not_executed() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    let first = numbered(session, 1, 1, append("a"));
    assert_eq!(replica.apply(&first), Reply::Appended(1));
    replica.apply(&numbered(session, 2, 2, append("b")));
    assert_eq!(replica.apply(&first), Reply::AnswerDropped);
    assert_eq!(replica.read("k"), Some("ab".into()));
    // The late copy carries the old bound 1. The session's bound must stay at 2, and the reply to
    // number 1 dropped.
    let reply = replica.apply(&numbered(session, 1, 1, append("a")));
    assert_eq!(reply, Reply::AnswerDropped);
}

#[test]
fn a_session_that_has_expired_was_closed_or_never_was_executes_nothing() {
    let mut replica = Replica::new(Limits::default());
    let ttl_ms = Limits::default().session_ttl_ms;
    let (expires, closed) = (replica.open(), replica.open());
    assert_eq!(
        replica.apply(&Command::CloseSession { session: closed }),
        Reply::Done
    );
    replica.at.time_ms = ttl_ms;
    assert_eq!(
        replica.apply(&numbered(expires, 1, 1, append("a"))),
        Reply::Appended(1)
    );
    replica.at.time_ms += ttl_ms + 1;
    for session in [expires, closed, 0, 99] {
        let gone = Reply::NoSession(session);
        assert_eq!(replica.apply(&numbered(session, 1, 1, append("b"))), gone);
        assert_eq!(replica.apply(&numbered(session, 2, 1, append("c"))), gone);
        let keep_alive = Command::KeepAlive {
            session,
            lowest_unanswered: 1,
        };
        assert_eq!(replica.apply(&keep_alive), gone);
        assert_eq!(replica.apply(&Command::CloseSession { session }), gone);
    }
    assert_eq!(replica.read("k"), Some("a".into()));
    assert_eq!(
        (replica.gauge("sessions"), replica.gauge("reply_bytes")),
        (0, 0)
    );
}

#[test]
fn a_question_is_answered_within_as_much_room_as_its_answer_weighs_and_not_within_less() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    for (seq, len) in (1..).zip([0, 1, 100, 5000, 100_000]) {
        let key = Bytes::from(format!("key-{seq}"));
        let value = vec![b'x'; len].into();
        replica.apply(&numbered(session, seq, seq, Op::Put { key, value }));
    }
    let get = |key: &'static str| Query::Get { key: key.into() };
    for query in [
        get("none"),
        get("key-1"),
        get("key-3"),
        get("key-5"),
        Query::Scan(Scan::all()),
        Query::Scan(Scan::all().with_limit(3)),
        Query::Scan(Scan::all().keys_only()),
        Query::Scan(Scan::range("b", Some("a".into()))),
    ] {
        let bytes = query.to_bytes();
        let answer = replica.kv.query(&bytes);
        let weight = Kv::weight(&answer);
        let within = |room| replica.kv.query_within(&bytes, room);
        assert_eq!(within(weight), Some(answer), "{query:?}");
        if weight > REPLY_OVERHEAD {
            assert_eq!(within(weight - 1), None, "{query:?}");
        }
    }
}

#[test]
fn a_session_that_is_kept_alive_does_not_expire() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    replica.apply(&numbered(session, 1, 1, append("a")));
    for _ in 0..5 {
        replica.at.time_ms += Limits::default().session_ttl_ms;
        let keep_alive = Command::KeepAlive {
            session,
            lowest_unanswered: 2,
        };
        assert_eq!(replica.apply(&keep_alive), Reply::Done);
    }
    assert_eq!(replica.gauge("replies"), 0);
    let late = replica.apply(&numbered(session, 1, 1, append("a")));
    assert_eq!(late, Reply::AnswerDropped);
    assert_eq!(
        replica.apply(&numbered(session, 2, 2, append("b"))),
        Reply::Appended(2)
    );
}

#[test]
fn an_operation_beyond_the_window_is_not_remembered_and_may_be_tried_again() {
    let mut replica = Replica::new(Limits {
        max_in_flight: 2,
        ..Limits::default()
    });
    let session = replica.open();
    let third = numbered(session, 3, 1, append("c"));
    assert_eq!(replica.apply(&third), Reply::TooManyInFlight);
    assert_eq!(replica.read("k"), None);
    replica.apply(&numbered(session, 1, 1, append("a")));
    replica.apply(&numbered(session, 2, 1, append("b")));
    assert_eq!(replica.apply(&third), Reply::TooManyInFlight);
    let third = numbered(session, 3, 2, append("c"));
    assert_eq!(replica.apply(&third), Reply::Appended(3));
    assert_eq!(replica.read("k"), Some("abc".into()));
}

#[test]
fn one_session_too_many_displaces_the_one_not_used_for_longest() {
    let mut replica = Replica::new(Limits {
        max_sessions: 2,
        ..Limits::default()
    });
    let (first, second) = (replica.open(), replica.open());
    replica.apply(&numbered(first, 1, 1, append("a")));
    let third = replica.open();
    assert_eq!(replica.gauge("sessions"), 2);
    let reply = replica.apply(&numbered(second, 1, 1, append("b")));
    assert_eq!(reply, Reply::NoSession(second));
    for session in [first, third] {
        let reply = replica.apply(&numbered(session, 2, 1, append("c")));
        assert!(matches!(reply, Reply::Appended(_)), "{reply:?}");
    }
}

#[test]
fn too_many_kept_bytes_displace_the_sessions_not_used_for_longest() {
    let mut replica = Replica::new(Limits {
        max_session_reply_bytes: 1000,
        max_reply_bytes: 1000,
        ..Limits::default()
    });
    let value = Bytes::from(vec![b'x'; 400]);
    let put = Op::Put {
        key: "k".into(),
        value,
    };
    let (first, second) = (replica.open(), replica.open());
    replica.apply(&numbered(first, 1, 1, put));
    replica.apply(&numbered(first, 2, 2, get()));
    replica.apply(&numbered(second, 1, 1, get()));
    assert_eq!(replica.gauge("sessions"), 2);
    replica.apply(&numbered(second, 2, 1, get()));
    assert_eq!(replica.gauge("sessions"), 1);
    assert!(replica.gauge("reply_bytes") <= 1000);
    let reply = replica.apply(&numbered(first, 2, 2, get()));
    assert_eq!(reply, Reply::NoSession(first));
}

#[test]
fn a_refused_append_is_remembered_like_any_other_reply() {
    let mut replica = Replica::new(Limits {
        max_value_bytes: 3,
        ..Limits::default()
    });
    let session = replica.open();
    replica.apply(&numbered(session, 1, 1, append("abc")));
    let over = numbered(session, 2, 1, append("d"));
    let refused = replica.apply(&over);
    assert!(matches!(&refused, Reply::Refused(reason) if reason.contains("4 bytes")));
    let delete = Op::Delete { key: "k".into() };
    assert_eq!(
        replica.apply(&numbered(session, 3, 1, delete)),
        Reply::Deleted(true)
    );
    assert_eq!(replica.apply(&over), refused);
    assert_eq!(replica.read("k"), None);
}

#[test]
fn the_digest_tells_states_apart_that_differ_in_sessions_replies_or_clocks_only() {
    let mut base = Replica::new(Limits::default());
    let session = base.open();
    let digest_after = |time_ms, commands: &[Command]| {
        let mut replica = Replica {
            kv: base.kv.clone(),
            at: base.at,
        };
        replica.at.time_ms = time_ms;
        commands.iter().for_each(|command| {
            replica.apply(command);
        });
        replica.kv.digest()
    };
    let keep_alive = |session| Command::KeepAlive {
        session,
        lowest_unanswered: 1,
    };
    let delete = |key: &'static str| Op::Delete { key: key.into() };
    let digests = [
        digest_after(0, &[]),
        digest_after(0, &[keep_alive(session)]),
        digest_after(1, &[keep_alive(session)]),
        digest_after(0, &[keep_alive(99)]),
        digest_after(0, &[Command::OpenSession]),
        digest_after(0, &[Command::CloseSession { session }]),
        digest_after(0, &[numbered(session, 1, 1, get())]),
        digest_after(0, &[numbered(session, 2, 1, get())]),
        digest_after(0, &[numbered(session, 2, 2, get())]),
        digest_after(0, &[numbered(session, 1, 1, delete("k"))]),
        digest_after(0, &[numbered(session, 1, 1, append(""))]),
    ];
    let distinct: std::collections::BTreeSet<u64> = digests.into_iter().collect();
    assert_eq!(distinct.len(), digests.len());
    let other = [numbered(session, 1, 1, delete("other"))];
    assert_eq!(digest_after(0, &other), digests[9]);
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut replica = Replica::new(Limits::default());
    let session = replica.open();
    replica.apply(&numbered(session, 1, 1, append("a")));
    let clone = replica.kv.clone();
    let digest = clone.digest();
    replica.apply(&numbered(session, 2, 2, append("b")));
    replica.open();
    assert_eq!(clone.digest(), digest);
    assert_ne!(replica.kv.digest(), digest);
}

#[test]
fn a_query_that_makes_no_sense_is_answered_with_a_reason() {
    let kv = Kv::new(Limits::default());
    for (query, reason) in [
        (Bytes::from_static(b"\xff"), "not a query"),
        (Bytes::new(), "not a query"),
        (
            Query::Get { key: Bytes::new() }.to_bytes(),
            "the key is empty",
        ),
    ] {
        let reply = kv.query(&query);
        assert!(
            matches!(&reply, Reply::Refused(text) if text.contains(reason)),
            "{reply:?}"
        );
    }
    let scan = Query::Scan(Scan::all()).to_bytes();
    assert_eq!(kv.query(&scan), Reply::Page(Default::default()));
}

#[test]
fn a_reply_travels_and_comes_back() {
    let mut bytes = Vec::new();
    let reply = Reply::Swapped(Err(Some("present".into())));
    Kv::encode_reply(&reply, &mut bytes);
    assert_eq!(Reply::decode(&bytes), Ok(reply));
}

#[test]
fn the_identity_tells_machines_with_other_limits_apart() {
    let identity = |limits| Kv::new(limits).identity();
    let other = Limits {
        max_sessions: 5,
        ..Limits::default()
    };
    assert_ne!(identity(Limits::default()), identity(other));
    assert!(identity(Limits::default()).contains("max_key_bytes=65536"));
}

#[test]
#[should_panic(expected = "the log holds a command at index 1 that its gate refuses")]
fn a_command_in_the_log_that_does_not_decode_stops_the_machine() {
    let at = At {
        index: 1,
        time_ms: 0,
    };
    Kv::new(Limits::default()).apply(at, &Bytes::from_static(b"\xff"));
}

#[test]
#[should_panic(expected = "index and time must not go back")]
fn a_command_that_is_applied_twice_stops_the_machine() {
    let mut replica = Replica::new(Limits::default());
    replica.open();
    replica
        .kv
        .apply(replica.at, &Command::OpenSession.to_bytes());
}
