//! How much memory clients take, in a process of its own so that nothing else moves.

use std::fs;

use bytes::Bytes;
use raftkv::kv::{Command, Kv, Limits, Op, Reply};
use raftkv::machine::{At, StateMachine};

const CLIENTS: u64 = 100_000;

/// As in the course.
const VALUE: usize = 1000;

/// What a client may leave behind in memory beyond its session, in bytes.
const MOST: u64 = 200;

/// The memory that this process has, in bytes, as the system counts it.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

/// Each client has a session, and puts a value of its own to the same key. That key's value, and
/// what has to be known of each client so that its last write is not executed twice, is all that
/// may be left.
#[test]
fn a_hundred_thousand_clients_leave_little_more_than_their_sessions() {
    let mut store = Kv::new(Limits {
        max_sessions: 2 * CLIENTS as usize,
        ..Limits::default()
    });
    let mut index = 0;
    let mut apply = |store: &mut Kv, command: &Command| {
        index += 1;
        let at = At {
            index,
            time_ms: index,
        };
        store.apply(at, &command.to_bytes())
    };
    let empty = resident();
    for client in 1..=CLIENTS {
        assert_eq!(
            apply(&mut store, &Command::OpenSession),
            Reply::Opened(client)
        );
    }
    let opened = resident();
    for session in 1..=CLIENTS {
        let put = Command::Execute {
            session,
            seq: 1,
            lowest_unanswered: 1,
            op: Op::Put {
                key: "key".into(),
                value: Bytes::from(vec![session as u8; VALUE]),
            },
        };
        assert_eq!(apply(&mut store, &put), Reply::Done);
    }
    let written = resident();
    let [session, more] = [opened - empty, written.saturating_sub(opened)].map(|b| b / CLIENTS);
    println!("{session} bytes for each session, {more} for each client's last write");
    assert!(
        more <= MOST,
        "{more} bytes for each client beyond its session"
    );
    let gauges = store.gauges();
    assert!(gauges.contains(&("sessions", CLIENTS)) && gauges.contains(&("keys", 1)));
}
