//! A handler that waits for an event which never comes. Every request ends within its deadline.

use std::thread;
use std::time::Duration;

use raftkv::client::{Kind, Options};
use raftkv::node::{End, Handle, Outcome, Pending};
use raftkv::raft::{Envelope, Message, NodeId};
use raftkv::testkit::{Cluster, Executed, Recorder};
use raftkv::wire::client::{Answer, Ask, Doubt};

use super::support::{LONG, hold_back_commits, others, recorders, wait_for_leader_among, within};

const SHORT: Duration = Duration::from_millis(400);

type Commands = Vec<Pending<Executed>>;

fn start(node: &Handle<Recorder>, count: usize, timeout: Duration) -> Commands {
    let commands = (0..count).map(|n| node.start(format!("{n}"), timeout));
    commands.map(|pending| pending.ok().unwrap()).collect()
}

/// Asserts that all of them end without a reply, and for this reason.
#[track_caller]
fn assert_all_end(commands: Commands, deadline: Duration, doubt: &[Doubt]) {
    within(deadline, || {
        for command in commands {
            match command.wait(LONG) {
                Outcome::Ended(End::Unknown(why)) if doubt.contains(&why) => {}
                other => panic!("{other:?} instead of {doubt:?}"),
            }
        }
    });
}

#[test]
fn a_request_ends_whose_entry_another_leader_overwrites() {
    let (cluster, journal) = recorders(3);
    let old = cluster.wait_for_leader();
    let rest = others(&cluster, old);
    cluster.isolate(old);
    let lost = start(&cluster.node(old), 20, LONG);
    let first = lost[0].id().index;
    let next = wait_for_leader_among(&cluster, &rest);
    let other = cluster.node(next).start("other", LONG).ok().unwrap();
    assert!(matches!(other.wait(LONG), Outcome::Reply(_)));
    cluster.heal();
    // Long before the twenty seconds that they asked for.
    assert_all_end(lost, Duration::from_secs(2), &[Doubt::LeadershipLost]);
    cluster.wait_for_agreement();
    assert!(other.id().index >= first, "the indexes were used again");
    assert_eq!(journal.executed(), [(other.id().index, "other".into())]);
}

#[test]
fn a_request_ends_when_its_node_steps_down() {
    let (cluster, _) = recorders(3);
    let leader = cluster.wait_for_leader();
    hold_back_commits(&cluster);
    let node = cluster.node(leader);
    let lost = start(&node, 20, LONG);
    let term = node.status().term + 1;
    let from = others(&cluster, leader)[0];
    let mut from_folder = 0;
    cluster.node(from).wait_until(Duration::ZERO, |raft| {
        from_folder = raft.member().folder;
        true
    });
    node.deliver([Envelope {
        from,
        from_folder,
        to: leader,
        to_folder: None,
        term,
        message: Message::Outdated,
    }]);
    assert_all_end(lost, Duration::ZERO, &[Doubt::LeadershipLost]);
}

#[test]
fn requests_and_questions_end_when_the_quorum_is_gone() {
    let (cluster, _) = recorders(3);
    let leader = cluster.wait_for_leader();
    for id in others(&cluster, leader) {
        cluster.crash(id);
    }
    let node = cluster.node(leader);
    // Some by their own deadline, some because the leader notices that it is alone.
    let lost = start(&node, 20, SHORT);
    let question = within(SHORT, || node.query("", SHORT));
    assert!(matches!(question, Outcome::Ended(_)), "{question:?}");
    let either = [Doubt::Timeout, Doubt::LeadershipLost];
    assert_all_end(lost, SHORT, &either);

    cluster.wait_for("the leader to step down", |_| {
        let refused = node.start("late", SHORT).err()?;
        assert!(matches!(refused, Outcome::Ended(End::NotLeader { .. })));
        Some(())
    });
}

#[test]
fn a_request_ends_by_its_deadline_while_the_leader_remains() {
    let (cluster, _) = recorders(3);
    let leader = cluster.wait_for_leader();
    cluster.wait_for_agreement();
    hold_back_commits(&cluster);
    let node = cluster.node(leader);
    assert_all_end(start(&node, 20, SHORT), SHORT, &[Doubt::Timeout]);
    let answer = within(SHORT, || node.ask(&Ask::Submit("command".into()), SHORT));
    assert_eq!(answer, Answer::Unknown(Doubt::Timeout));
    assert_eq!(cluster.wait_for_leader(), leader);
}

#[test]
fn requests_end_when_their_node_stops_and_later_ones_end_at_once() {
    let (cluster, _) = recorders(3);
    let leader = cluster.wait_for_leader();
    hold_back_commits(&cluster);
    let node = cluster.node(leader);
    let lost = start(&node, 20, LONG);
    cluster.crash(leader);
    assert_all_end(lost, Duration::ZERO, &[Doubt::ShuttingDown]);

    let end = Outcome::Ended(End::Unknown(Doubt::ShuttingDown));
    assert_eq!(node.start("late", LONG).err(), Some(end.clone()));
    assert_eq!(within(Duration::ZERO, || node.query("", LONG)), end);
}

/// What a Clerk says of a write and a get in a cluster that cannot serve them, each with a
/// deadline of a second.
fn kinds(cluster: &Cluster) -> (Kind, Kind) {
    let second = Duration::from_secs(1);
    let clerk = cluster.clerk_with(Options {
        deadline: second,
        attempt_timeout: Duration::from_millis(300),
        ..Options::default()
    });
    let write = within(second, || clerk.put("key", "value"));
    let read = within(second, || clerk.get("key"));
    (write.unwrap_err().kind(), read.unwrap_err().kind())
}

#[test]
fn a_clerk_ends_within_its_deadline_without_a_quorum_or_without_anybody() {
    let cluster = Cluster::of_stores(3);
    let leader = cluster.wait_for_leader();
    let rest: Vec<NodeId> = others(&cluster, leader);
    rest.iter().for_each(|id| cluster.crash(*id));
    // The session that the write needs is never opened, so it is known not to be executed.
    let unavailable = (Kind::Unavailable, Kind::Unavailable);
    assert_eq!(kinds(&cluster), unavailable);
    cluster.crash(leader);
    assert_eq!(kinds(&cluster), unavailable);
}

#[test]
fn a_clerk_with_a_write_under_way_says_unknown_when_the_quorum_goes() {
    let cluster = Cluster::of_stores(3);
    let second = Duration::from_secs(1);
    let clerk = cluster.clerk_with(Options {
        deadline: second,
        ..Options::default()
    });
    clerk.put("key", "value").unwrap();
    cluster.partition(&[]);
    thread::scope(|scope| {
        let writes: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| within(second, || clerk.append("key", "more"))))
            .collect();
        let errors = writes.into_iter();
        let errors: Vec<_> = errors
            .map(|write| write.join().unwrap().unwrap_err())
            .collect();
        for error in &errors {
            // Those that came when the leader had stepped down never left the client.
            let kind = error.kind();
            assert!(matches!(kind, Kind::Unknown | Kind::Unavailable), "{error}");
        }
        let unknown = errors.iter().filter(|error| error.kind() == Kind::Unknown);
        assert!(unknown.count() > 0, "no write was under way: {errors:?}");
    });
    // Each of them took effect once or never, and none half.
    cluster.heal();
    let value = cluster.clerk().get("key").unwrap().unwrap();
    let more = value.strip_prefix(b"value").unwrap();
    let times = more.len() / 4;
    assert!(times <= 8);
    assert_eq!(more, b"more".repeat(times));
}

/// The leader stays, and its followers hold the write, but for a while nobody hears that they do.
#[test]
fn a_write_that_is_committed_after_its_time_was_up_was_unknown_and_takes_effect_once() {
    let cluster = Cluster::of_stores(3);
    let second = Duration::from_secs(1);
    let clerk = cluster.clerk_with(Options {
        deadline: second,
        ..Options::default()
    });
    clerk.put("key", "value").unwrap();
    cluster.wait_for_agreement();
    let leader = cluster.wait_for_leader();
    hold_back_commits(&cluster);
    let error = within(second, || clerk.append("key", "more")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unknown, "{error}");
    assert_eq!(cluster.wait_for_leader(), leader);

    cluster.network().clear_filter();
    let other = cluster.clerk();
    let read = || other.get("key").unwrap().unwrap();
    cluster.wait_for("the write to take effect", |_| {
        (read() != "value").then_some(())
    });
    // Each attempt is an entry of its own, and they are all committed before this one.
    other.put("other", "value").unwrap();
    assert_eq!(read(), "valuemore");
}
