//! The course's tests of a replicated state machine: a counter.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftkv::machine::{At, Gate, StateMachine};
use raftkv::node::{End, Outcome, Pending};
use raftkv::raft::NodeId;
use raftkv::wire::client::Doubt;

use super::lab::Lab;

const LONG: Duration = Duration::from_secs(10);

struct Counter(i64);

impl StateMachine for Counter {
    type Reply = i64;
    type Snapshot = i64;

    fn identity(&self) -> String {
        "counter".to_string()
    }

    fn gate(&self) -> Gate {
        Arc::new(|command| match command {
            b"inc" | b"dec" => Ok(()),
            _ => Err("a counter knows \"inc\" and \"dec\"".to_string()),
        })
    }

    fn apply(&mut self, _: At, command: &Bytes) -> i64 {
        self.0 += if &command[..] == b"inc" { 1 } else { -1 };
        self.0
    }

    fn query(&self, _: &Bytes) -> i64 {
        self.0
    }

    fn encode_reply(reply: &i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&reply.to_le_bytes());
    }

    fn snapshot(&self) -> i64 {
        self.0
    }

    fn write_snapshot(value: &i64, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&value.to_le_bytes())
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        Ok(Self(i64::from_le_bytes(bytes)))
    }

    fn digest(&self) -> u64 {
        self.0 as u64
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

fn counters() -> Lab<Counter> {
    Lab::new(3, || Counter(0))
}

/// Submits to one server after the other until one executes the command, for ten seconds.
fn submit(lab: &Lab<Counter>, command: &'static str, servers: &[NodeId]) -> i64 {
    let deadline = Instant::now() + LONG;
    while Instant::now() < deadline {
        for id in servers {
            if let Ok(pending) = start(lab, *id, command)
                && let Outcome::Reply(value) = pending.wait(LONG)
            {
                return value;
            }
        }
        lab.let_time_pass(Duration::from_millis(20));
    }
    panic!("{command} is not executed by {servers:?}")
}

fn start(
    lab: &Lab<Counter>,
    id: NodeId,
    command: &'static str,
) -> Result<Pending<i64>, Outcome<i64>> {
    lab.cluster.node(id).start(command, LONG)
}

/// Waits until so many servers have this value.
fn check_value(lab: &Lab<Counter>, servers: usize, value: i64) {
    let agree = lab.cluster.wait_until(LONG, |cluster| {
        let has = |id: &NodeId| cluster.node(*id).with_machine(|counter| counter.0 == value);
        lab.ids().iter().filter(|id| has(id)).count() >= servers
    });
    assert!(agree, "{servers} counters must come to {value}");
}

#[test]
fn basic() {
    let lab = counters();
    for n in 1..=10 {
        assert_eq!(submit(&lab, "inc", &lab.ids()), n);
        check_value(&lab, 3, n);
    }
}

#[test]
fn concurrent() {
    let lab = counters();
    let mut values: Vec<i64> = thread::scope(|scope| {
        let one = || submit(&lab, "inc", &lab.ids());
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    values.sort_unstable();
    assert_eq!(values, (1..=50).collect::<Vec<i64>>());
    check_value(&lab, 3, 50);
}

#[test]
fn leader_failure() {
    let lab = counters();
    assert_eq!(submit(&lab, "inc", &lab.ids()), 1);
    check_value(&lab, 3, 1);
    let leader = lab.check_one_leader();
    lab.disconnect(leader);
    assert_eq!(submit(&lab, "inc", &lab.connected()), 2);
    check_value(&lab, 2, 2);
    lab.connect(leader);
    check_value(&lab, 3, 2);
}

/// How a command ends that was under way when its leader lost the lead: its end is unknown, and
/// the node says so before the command's own time is up.
const LOST: Outcome<i64> = Outcome::Ended(End::Unknown(Doubt::LeadershipLost));

/// In the course the cut-off leader cannot know, so its commands wait until it is connected
/// again. Ours steps down once no majority answers, and they end by then.
#[test]
fn leader_partition() {
    let lab = counters();
    assert_eq!(submit(&lab, "inc", &lab.ids()), 1);
    let leader = lab.check_one_leader();
    lab.disconnect(leader);
    let lost: Vec<_> = thread::scope(|scope| {
        let one = || start(&lab, leader, "dec");
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let taken = lost.iter().filter(|start| start.is_ok()).count();
    assert_eq!(taken, 100, "the leader cannot know that it is alone");
    lab.let_time_pass(Duration::from_millis(10));
    assert_eq!(submit(&lab, "inc", &lab.connected()), 2);
    lab.connect(leader);
    let deadline = Instant::now() + Duration::from_secs(1);
    for pending in lost.into_iter().flatten() {
        let left = deadline.saturating_duration_since(Instant::now());
        // A wait that ends without a word from the node ends otherwise: as a timeout.
        assert_eq!(pending.wait(left), LOST);
    }
    check_value(&lab, 3, 2);
    assert_eq!(submit(&lab, "inc", &lab.ids()), 3);
}

fn count_through_a_restart(lab: &Lab<Counter>) {
    for n in 1..=100 {
        assert_eq!(submit(lab, "inc", &lab.ids()), n);
    }
    lab.ids().into_iter().for_each(|id| lab.crash(id));
    lab.ids().into_iter().for_each(|id| lab.start(id));
    assert_eq!(submit(lab, "inc", &lab.ids()), 101);
    check_value(lab, 3, 101);
}

/// Stops all servers with a hundred commands under way, and returns how many of these are known
/// to have been executed. `cut_off`: the leader reaches nobody from before the first command on, so
/// that all hundred are under way when it stops.
fn shut_down(lab: &Lab<Counter>, cut_off: bool) -> usize {
    let id = lab.check_one_leader();
    let leader = lab.cluster.node(id);
    if cut_off {
        lab.disconnect(id);
    }
    let last = leader.status().last_index;
    thread::scope(|scope| {
        let one = || {
            let pending = leader.start("inc", LONG)?;
            Ok(pending.wait(LONG))
        };
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(one)).collect();
        if cut_off {
            let taken = |_: &_| leader.status().last_index == last + 100;
            let taken = lab.cluster.wait_until(LONG, taken);
            assert!(taken, "the leader cannot know that it is alone");
        } else {
            lab.let_time_pass(Duration::from_millis(20));
        }
        lab.ids().into_iter().for_each(|id| lab.crash(id));
        let ends = threads.into_iter().map(|t| t.join().unwrap());
        let ends: Vec<Result<Outcome<i64>, Outcome<i64>>> = ends.collect();
        let is_executed = |end: &&Result<_, _>| matches!(end, Ok(Outcome::Reply(_)));
        let executed = ends.iter().filter(is_executed).count();
        assert!(!cut_off || executed == 0, "by whom?");
        for end in ends.into_iter().filter(|end| !is_executed(&end)) {
            assert_stopped(end, cut_off);
        }
        executed
    })
}

/// Asserts that a command ended because its server stopped, or because that one had lost the lead
/// on the way there, and not because its own time was up.
fn assert_stopped(end: Result<Outcome<i64>, Outcome<i64>>, was_taken: bool) {
    let stopped = Outcome::Ended(End::Unknown(Doubt::ShuttingDown));
    match end {
        Ok(end) => assert!(end == stopped || end == LOST, "{end:?}"),
        // A thread may come to run only when the server is down.
        Err(end) => {
            let refused = matches!(end, Outcome::Ended(End::NotLeader { .. }));
            let is_right = end == stopped || refused;
            assert!(is_right && !was_taken, "{end:?}");
        }
    }
}

#[test]
fn restart_replay() {
    let lab = counters();
    count_through_a_restart(&lab);
    lab.check_snapshots(false);
}

#[test]
fn shutdown() {
    let lab = counters();
    submit(&lab, "inc", &lab.ids());
    shut_down(&lab, true);
}

#[test]
fn restart_submit() {
    let lab = counters();
    count_through_a_restart(&lab);
    let executed = shut_down(&lab, false) as i64;
    lab.ids().into_iter().for_each(|id| lab.start(id));
    let value = submit(&lab, "inc", &lab.ids());
    // Of the hundred those that were not answered may be executed as well, but none twice.
    assert!(
        (102 + executed..=202).contains(&value),
        "{value}, {executed} answered"
    );
    check_value(&lab, 3, value);
}

/// The course's threshold of 1,000 bytes and its limit of 2,000 are 28 and 57 entries of 35 bytes.
#[test]
fn snapshot() {
    let lab = Lab::with_snapshots(3, Some(1000), || Counter(0));
    lab.cluster.while_taking_snapshots(28, || {
        count_through_a_restart(&lab);
        lab.check_log_size(57);
    });
    lab.check_snapshots(true);
}
