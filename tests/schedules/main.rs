//! The threads of a node under a schedule explorer, which looks for lost wake-ups and deadlocks
//! instead of waiting for one.
//!
//! `cargo test --profile verify --no-default-features --features shuttle --test schedules`, a part
//! of `scripts/test.sh`; without the default features, so that no kvnode is built that waits for an
//! explorer. The feature puts shuttle's locks, condition variables, atomics and threads in the
//! stead of the real ones in `src/node/sync.rs`; everything else is what runs in production:
//! the hub and the tasks of a node, the replica, the log files on a simulated disk. Time stands
//! still, so no timeout hides a wake-up that was lost: its thread waits for ever, and shuttle
//! reports a deadlock with the schedule that leads there, for `shuttle::replay`.
//!
//! Each test runs many schedules, half of them drawn at random and half by PCT, which finds bugs
//! that need few changes of thread in the right places. The seeds are fixed;
//! `RAFTKV_SCHEDULES` sets how many schedules a test explores.
//!
//! What is not explored: the event loop of `net`, real time, and the order in which other threads
//! see relaxed atomics (shuttle takes all of them for sequentially consistent).

mod disk;
mod snapshots;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftkv::machine::{At, Gate, StateMachine};
use raftkv::node::{Config, End, Handle, Node, NodeError, Outcome, Pending, Transport};
use raftkv::raft::{Entry, EntryId, Envelope, Index, Message, NodeId, Payload, RoleName, Term};
use raftkv::testkit::HookedDisk;
use raftkv::wire::client::Doubt;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Runner, thread};

/// Never comes; see the module comment.
const A_WHILE: Duration = Duration::from_secs(1);

/// Counts the commands that it executes.
#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Reply = u64;
    type Snapshot = u64;

    // As the store that production runs.
    const QUICK: bool = true;

    fn identity(&self) -> String {
        "counter".into()
    }

    fn gate(&self) -> Gate {
        Arc::new(|_| Ok(()))
    }

    fn apply(&mut self, _: At, _: &Bytes) -> u64 {
        self.0 += 1;
        self.0
    }

    fn query(&self, _: &Bytes) -> u64 {
        self.0
    }

    fn encode_reply(reply: &u64, out: &mut Vec<u8>) {
        out.extend(reply.to_le_bytes());
    }

    fn snapshot(&self) -> u64 {
        self.0
    }

    fn write_snapshot(count: &u64, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&count.to_le_bytes())
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        // To restore a state takes long: of a node's threads, the apply thread alone has the time.
        // Before the threads start, the one that starts the node does it.
        let by = thread::current().name().map(str::to_string);
        let has_time = by
            .as_deref()
            .is_none_or(|by| by == "apply" || by == "main-thread");
        assert!(has_time, "thread {by:?} restores a snapshot");
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    fn digest(&self) -> u64 {
        self.0
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("count", self.0)]
    }
}

/// Keeps what was sent, and lets a test wait for it.
#[derive(Default)]
struct Outgoing {
    sent: Mutex<Vec<Envelope>>,
    more: Condvar,
}

impl Transport for Outgoing {
    fn send(&self, messages: Vec<Envelope>) {
        self.sent.lock().unwrap().extend(messages);
        self.more.notify_all();
    }
}

impl Outgoing {
    fn wait_for(&self, message: &Message) {
        self.wait_until(|sent| sent == message);
    }

    fn wait_until(&self, is_it: impl Fn(&Message) -> bool) {
        let sent = self.sent.lock().unwrap();
        let missing = |sent: &mut Vec<Envelope>| !sent.iter().any(|sent| is_it(&sent.message));
        drop(self.more.wait_while(sent, missing).unwrap());
    }
}

/// Node 1 of a cluster of this size, on a new disk.
fn node(size: u64) -> (Arc<Handle<Counter>>, Arc<Outgoing>) {
    node_on(Arc::new(disk::quick()), size)
}

fn node_on(disk: Arc<HookedDisk>, size: u64) -> (Arc<Handle<Counter>>, Arc<Outgoing>) {
    node_with(disk, size, None)
}

fn node_with(
    disk: Arc<HookedDisk>,
    size: u64,
    snapshot_log_bytes: Option<u64>,
) -> (Arc<Handle<Counter>>, Arc<Outgoing>) {
    let members = (1..=size).map(|id| (id, format!("node-{id}:1")));
    let mut config = Config::new(1, members, "in memory");
    config.snapshot_log_bytes = snapshot_log_bytes;
    config.scrub = None;
    config.timing.heartbeat = config.timing.tick;
    config.timing.election = 3 * config.timing.tick;
    let outgoing = Arc::new(Outgoing::default());
    let node = Node::start_on(config, Counter::default(), disk, outgoing.clone());
    (Arc::new(node.expect("the node starts")), outgoing)
}

/// Time passes until the node stands for election; alone it then wins as soon as its vote is
/// durable.
fn stand(node: &Handle<Counter>) {
    while node.status().role == RoleName::Follower {
        node.tick();
    }
}

/// The leader of a cluster of one.
fn leader() -> Arc<Handle<Counter>> {
    let (node, _) = node(1);
    lead(&node);
    node
}

/// Has the node of a cluster of one lead.
fn lead(node: &Handle<Counter>) {
    stand(node);
    assert!(node.wait_until(A_WHILE, |raft| raft.role() == RoleName::Leader));
}

fn start(node: &Handle<Counter>) -> Pending<u64> {
    node.start("command", A_WHILE)
        .unwrap_or_else(|end| panic!("refused: {end:?}"))
}

fn schedules() -> usize {
    let number = std::env::var("RAFTKV_SCHEDULES").ok();
    number.map_or(2000, |number| {
        number.parse().expect("RAFTKV_SCHEDULES is a number")
    })
}

fn run(scheduler: impl Scheduler + 'static, test: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(test);
}

fn explore(test: fn()) {
    let half = schedules() / 2;
    run(RandomScheduler::new_from_seed(1, half), test);
    run(PctScheduler::new_from_seed(1, 3, half), test);
}

fn two_threads_start_commands() {
    let node = leader();
    let starts = [(); 2].map(|()| {
        let node = node.clone();
        thread::spawn(move || start(&node).wait(A_WHILE))
    });
    let mut outcomes = starts.map(|thread| thread.join().unwrap());
    outcomes.sort_by_key(|outcome| match outcome {
        Outcome::Reply(count) => *count,
        _ => 0,
    });
    assert_eq!(outcomes, [Outcome::Reply(1), Outcome::Reply(2)]);
    node.shutdown();
}

#[test]
fn commands_started_by_two_threads_both_get_their_reply() {
    explore(two_threads_start_commands);
}

/// Whether a request may end so when its node is shut down meanwhile.
fn is_an_end(outcome: &Outcome<u64>) -> bool {
    let unknown = Outcome::Ended(End::Unknown(Doubt::ShuttingDown));
    matches!(outcome, Outcome::Reply(_)) || *outcome == unknown
}

#[test]
fn a_shutdown_at_any_moment_ends_every_request_and_every_thread() {
    explore(|| {
        let node = leader();
        let writer = node.clone();
        let writer = thread::spawn(move || match writer.start("command", A_WHILE) {
            Ok(pending) => pending.wait(A_WHILE),
            Err(outcome) => outcome,
        });
        let reader = node.clone();
        let reader = thread::spawn(move || reader.query("question", A_WHILE));
        node.shutdown();
        for outcome in [writer, reader].map(|thread| thread.join().unwrap()) {
            assert!(is_an_end(&outcome), "{outcome:?}");
        }
    });
}

#[test]
fn a_disk_that_fails_stops_the_node_and_ends_every_request() {
    explore(|| {
        let disk = Arc::new(disk::quick());
        let (node, _) = node_on(disk.clone(), 1);
        lead(&node);
        disk.disk().stop_at(disk.disk().operations());
        let starts = [(); 2].map(|()| {
            let node = node.clone();
            thread::spawn(move || match node.start("command", A_WHILE) {
                Ok(pending) => pending.wait(A_WHILE),
                Err(outcome) => outcome,
            })
        });
        let end = node.wait();
        assert!(matches!(end, Err(NodeError::Storage(_))), "{end:?}");
        for outcome in starts.map(|thread| thread.join().unwrap()) {
            let unknown = Outcome::Ended(End::Unknown(Doubt::ShuttingDown));
            assert_eq!(outcome, unknown, "nothing was durable");
        }
    });
}

#[test]
fn proof_of_two_leaders_stops_the_node_whichever_comes_first() {
    explore(|| {
        let (node, _) = node(3);
        let heartbeat = Envelope {
            from: 3,
            from_folder: 3,
            ..from_leader(Message::Heartbeat {
                commit: 0,
                matched_by_all: 0,
                round: 0,
            })
        };
        let deliveries = [append(0, 2), heartbeat].map(|message| {
            let node = node.clone();
            thread::spawn(move || node.deliver([message]))
        });
        let end = node.wait();
        assert!(matches!(end, Err(NodeError::Fault(_))), "{end:?}");
        for delivery in deliveries {
            delivery.join().unwrap();
        }
    });
}

#[test]
fn a_shutdown_during_an_election_ends_every_thread() {
    explore(|| {
        let (node, _) = node(1);
        let clock = node.clone();
        let clock = thread::spawn(move || (0..8).for_each(|_| clock.tick()));
        let waiter = node.clone();
        let waiter = thread::spawn(move || {
            waiter.wait_until(A_WHILE, |raft| raft.role() == RoleName::Leader)
        });
        node.shutdown();
        clock.join().unwrap();
        waiter.join().unwrap();
        assert!(node.wait().is_ok());
    });
}

#[test]
fn two_shutdowns_at_once_both_wait_for_the_threads() {
    explore(|| {
        let disk = Arc::new(disk::quick());
        let storage = Arc::downgrade(&disk);
        let (node, _) = node_on(disk, 1);
        let shutdown = move |node: &Handle<Counter>| {
            node.shutdown();
            // The list of snapshots, what makes segments and the address book are the node's: all
            // of them know the disk.
            assert_eq!(storage.strong_count(), 3, "the replicator still runs");
        };
        let (other, as_well) = (node.clone(), shutdown.clone());
        let other = thread::spawn(move || as_well(&other));
        shutdown(&node);
        other.join().unwrap();
    });
}

#[test]
fn a_read_sees_every_write_that_was_answered_before_it_began() {
    explore(|| {
        let node = leader();
        let writer = node.clone();
        let writer = thread::spawn(move || {
            let pending = [start(&writer), start(&writer)];
            let [_, last] = pending.map(|pending| pending.wait(A_WHILE));
            assert_eq!(last, Outcome::Reply(2));
            assert_eq!(writer.query("question", A_WHILE), Outcome::Reply(2));
        });
        let values = [(); 2].map(|()| match node.query("question", A_WHILE) {
            Outcome::Reply(value) => value,
            end => panic!("no answer: {end:?}"),
        });
        assert!(values.is_sorted(), "reads went back: {values:?}");
        writer.join().unwrap();
        node.shutdown();
    });
}

fn from(from: NodeId, term: Term, message: Message) -> Envelope {
    Envelope {
        from,
        from_folder: from.into(),
        to: 1,
        to_folder: None,
        term,
        message,
    }
}

fn from_leader(message: Message) -> Envelope {
    from(2, 1, message)
}

/// Has the node of a cluster of three elected in this term, which is to be its next, by node 2.
fn be_elected(node: &Handle<Counter>, term: Term) {
    stand(node);
    let pre_vote = Message::PreVoteReply {
        next_term: term,
        granted: true,
    };
    node.deliver([from(2, term - 1, pre_vote)]);
    node.deliver([from(2, term, Message::VoteReply { granted: true })]);
    assert!(node.wait_until(A_WHILE, |raft| raft.role() == RoleName::Leader));
}

fn append(after: Index, count: Index) -> Envelope {
    let entry = |index| Entry {
        id: EntryId { term: 1, index },
        time_ms: 0,
        payload: Payload::Command("command".into()),
    };
    let prev = EntryId {
        term: after.min(1),
        index: after,
    };
    from_leader(Message::Append {
        prev,
        entries: (after + 1..=after + count).map(entry).collect(),
        commit: after + count,
    })
}

#[test]
fn messages_delivered_by_several_threads_are_written_acknowledged_and_executed() {
    explore(|| {
        let (node, outgoing) = node(3);
        let deliveries = [append(0, 2), append(2, 1), append(0, 1)].map(|message| {
            let node = node.clone();
            thread::spawn(move || node.deliver([message]))
        });
        for delivery in deliveries {
            delivery.join().unwrap();
        }
        // The one that needs another first may have been refused.
        node.deliver([append(2, 1)]);
        outgoing.wait_for(&Message::Accepted { matched: 3 });
        assert!(node.wait_until(A_WHILE, |raft| raft.applied_index() == 3));
        assert_eq!(node.with_machine(|counter| counter.0), 3);
        node.shutdown();
    });
}

#[test]
fn a_leader_that_is_deposed_ends_what_it_had_accepted() {
    explore(|| {
        let (node, _) = node(3);
        be_elected(&node, 1);
        let writer = node.clone();
        let writer = thread::spawn(move || match writer.start("command", A_WHILE) {
            Ok(pending) => pending.wait(A_WHILE),
            Err(outcome) => outcome,
        });
        let reader = node.clone();
        let reader = thread::spawn(move || reader.query("question", A_WHILE));
        node.deliver([from(2, 2, Message::Outdated)]);
        for outcome in [writer, reader].map(|thread| thread.join().unwrap()) {
            let lost = Outcome::Ended(End::Unknown(Doubt::LeadershipLost));
            let refused = matches!(outcome, Outcome::Ended(End::NotLeader { .. }));
            assert!(refused || outcome == lost, "{outcome:?}");
        }
        node.shutdown();
    });
}
