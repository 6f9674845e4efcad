//! Ticks: how long one is for the cluster's clock, how many are made up for, and when requests end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{after, bounded};
use raftkv::kv::{Command, Kv, Limits, Op, Reply, SessionId};
use raftkv::node::{End, Handle, Outcome};
use raftkv::storage::SimDisk;
use raftkv::wire::client::Doubt;

use super::probe::{PATIENCE, Probe, config, execute, leader, start, wait_for};

/// Has commands executed until cluster time has moved so many times; the times in between.
fn times(node: &Handle<Probe>, moves: usize) -> Vec<u64> {
    let mut times = vec![execute(node, "now")];
    let begun = Instant::now();
    while times.len() <= moves {
        assert!(begun.elapsed() < PATIENCE, "cluster time stands still");
        times.push(execute(node, "now"));
        times.dedup();
    }
    times
}

#[test]
fn cluster_time_moves_in_ticks_of_the_configured_length() {
    let mut config = config(1);
    let tick = Duration::from_millis(40);
    config.timing.tick = tick;
    config.timing.heartbeat = tick;
    config.timing.election = 3 * tick;
    let node = leader(config, Probe::new(|_| ()), Arc::new(SimDisk::new(1)));
    let times = times(&node, 3);
    let in_ticks = times.windows(2).all(|pair| (pair[1] - pair[0]) % 40 == 0);
    assert!(
        in_ticks,
        "cluster time moves by other steps than ticks of 40 ms: {times:?}"
    );
}

fn open_session(node: &Handle<Kv>) -> SessionId {
    match execute(node, Command::OpenSession.to_bytes()) {
        Reply::Opened(session) => session,
        other => panic!("{other:?} instead of a session"),
    }
}

#[test]
fn a_session_expires_by_the_clock_of_a_running_leader() {
    let limits = Limits {
        session_ttl_ms: 300,
        ..Limits::default()
    };
    let node = leader(config(1), Kv::new(limits), Arc::new(SimDisk::new(1)));
    let unused = open_session(&node);
    let put = |session, seq| {
        let op = Op::Put {
            key: "key".into(),
            value: "value".into(),
        };
        let command = Command::Execute {
            session,
            seq,
            lowest_unanswered: seq,
            op,
        };
        execute(&node, command.to_bytes())
    };
    // Each command that is executed looks for sessions that have expired.
    let mut others = open_session(&node);
    let mut seq = 0;
    let number_of_sessions = || {
        let gauges = node.status().gauges;
        let sessions = gauges.iter().find(|(name, _)| name == "sessions");
        sessions.map(|(_, sessions)| *sessions)
    };
    wait_for(
        || "the session that nobody uses does not expire".to_string(),
        || {
            seq += 1;
            // On a very slow machine the other one may expire, too.
            if put(others, seq) != Reply::Done {
                (others, seq) = (open_session(&node), 0);
            }
            number_of_sessions() == Some(1)
        },
    );
    assert_eq!(put(unused, 1), Reply::NoSession(unused));
}

#[test]
fn after_a_pause_no_more_ticks_are_made_up_for_than_a_heartbeat_has() {
    let config = config(1);
    let timing = config.timing;
    let node = leader(config, Probe::new(|_| ()), Arc::new(SimDisk::new(1)));
    let begun = Instant::now();
    let before = execute(&node, "now");
    let pause = Duration::from_secs(1);
    // Under the lock that every thread of the node needs: none goes on before the pause is over.
    node.wait_until(PATIENCE, |_| after(pause).recv().is_ok());
    // The tick that waited for the lock, the ones that are made up for, and one more.
    let now = times(&node, 3).pop().expect("several times");
    let ran = begun.elapsed() - pause;
    // Rounded up at both ends, twice a heartbeat's ticks are more than enough.
    let most = ran + 2 * timing.heartbeat + 4 * timing.tick;
    let passed = Duration::from_millis(now - before);
    assert!(
        passed <= most,
        "the pause of {pause:?} was made up for: {passed:?} of ticks in {ran:?} of running"
    );
}

#[test]
fn a_request_ends_within_the_longest_time_that_the_node_allows_whatever_it_asks_for() {
    let (go, held) = bounded::<()>(0);
    let (begins, begun) = bounded(1);
    let machine = Probe::new(move |_| {
        let _ = begins.try_send(());
        let _ = held.recv_timeout(PATIENCE);
    });
    let mut config = config(1);
    config.max_request_time = Duration::from_millis(100);
    let node = leader(config, machine, Arc::new(SimDisk::new(1)));
    let executing = start(&node, "takes long");
    begun.recv_timeout(PATIENCE).expect("it is executed");
    let greedy = node.start("asks for an hour", Duration::from_secs(3600));
    let greedy = greedy.expect("it is accepted");
    let ends_as = |doubt| Outcome::Ended(End::Unknown(doubt));
    // What is asked for after it, and for no longer than the node allows, ends no earlier; and
    // when the second of two such has ended, the end of the first has been told for certain.
    for _ in 0..2 {
        let modest = node.start("asks for little", Duration::from_millis(100));
        let modest = modest.expect("it is accepted");
        assert_eq!(modest.wait(PATIENCE), ends_as(Doubt::Timeout));
    }
    drop(go);
    node.shutdown();
    drop(executing);
    // Had it still been under way, the end of the node would have ended it, or it would have been
    // executed by now.
    let end = greedy.wait(Duration::ZERO);
    let in_time = ends_as(Doubt::Timeout);
    assert_eq!(end, in_time, "a request outlives the longest time allowed");
}
