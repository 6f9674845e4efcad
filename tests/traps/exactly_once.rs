//! Duplicates of every kind, a clerk that comes back with its counter at zero, a write that is
//! repeated to another leader, to a restarted cluster, or because its answer was lost.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use raftkv::client::Options;
use raftkv::kv::{Kv, Op, Reply, SessionId};
use raftkv::node::{Handle, Outcome};
use raftkv::testkit::{ClientLink, Cluster, Unreliable};

use super::support::{
    LONG, append, execute, get, hold_back_commits, open_session, others, submit,
    wait_for_leader_among,
};

/// A cluster, its leader's handle, and a session.
fn with_session() -> (Cluster, Arc<Handle<Kv>>, SessionId) {
    let cluster = Cluster::of_stores(3);
    let leader = cluster.node(cluster.wait_for_leader());
    let session = open_session(&leader);
    (cluster, leader, session)
}

fn leader(cluster: &Cluster) -> Arc<Handle<Kv>> {
    cluster.node(cluster.wait_for_leader())
}

fn value(node: &Handle<Kv>) -> Option<Bytes> {
    match node.query(get("key"), LONG) {
        Outcome::Reply(Reply::Value(value)) => value,
        other => panic!("{other:?} instead of a value"),
    }
}

#[test]
fn a_duplicate_that_arrives_while_the_first_copy_is_in_the_log_takes_no_effect() {
    let (cluster, leader, session) = with_session();
    let command = execute(session, 1, 1, append("key", "once"));
    hold_back_commits(&cluster);
    let copies: Vec<_> = (0..3)
        .map(|_| leader.start(command.clone(), LONG).ok().unwrap())
        .collect();
    // All of them are in the log now, and none is executed.
    assert!(copies.is_sorted_by(|a, b| a.id().index < b.id().index));
    assert_eq!(leader.with_machine(|m| gauge(m, "keys")), 0);
    cluster.network().clear_filter();
    for copy in copies {
        assert_eq!(copy.wait(LONG), Outcome::Reply(Reply::Appended(4)));
    }
    assert_eq!(value(&leader).as_deref(), Some(&b"once"[..]));
}

fn gauge(machine: &Kv, name: &str) -> u64 {
    use raftkv::machine::StateMachine;
    let gauges = machine.gauges();
    gauges.iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn a_duplicate_of_an_older_number_that_arrives_late_takes_no_effect() {
    let (cluster, leader, session) = with_session();
    let numbered = |seq, lowest| execute(session, seq, lowest, append("key", "x"));
    assert_eq!(submit(&leader, &numbered(1, 1)), Reply::Appended(1));
    assert_eq!(submit(&leader, &numbered(2, 1)), Reply::Appended(2));
    // While its answer is kept, a late copy gets it again.
    assert_eq!(submit(&leader, &numbered(1, 1)), Reply::Appended(1));
    assert_eq!(submit(&leader, &numbered(3, 3)), Reply::Appended(3));
    // Once the client has said that it has the answer, there is none, but no effect either.
    assert_eq!(submit(&leader, &numbered(1, 1)), Reply::AnswerDropped);
    assert_eq!(submit(&leader, &numbered(2, 1)), Reply::AnswerDropped);
    assert_eq!(value(&leader).as_deref(), Some(&b"xxx"[..]));
    cluster.wait_for_agreement();
}

#[test]
fn a_clerk_that_starts_again_from_zero_is_not_taken_for_its_predecessor() {
    let cluster = Cluster::of_stores(3);
    let mut expected = String::new();
    for life in 0..4 {
        let clerk = cluster.clerk();
        for n in 0..3 {
            let part = format!("{life}.{n} ");
            expected.push_str(&part);
            let len = clerk.append("key", &part).unwrap();
            assert_eq!(len as usize, expected.len(), "write {n} of life {life}");
        }
        assert_eq!(clerk.stats().sessions, 1);
        // A clerk that crashes says no good-bye.
        if life % 2 == 0 {
            std::mem::forget(clerk);
        }
    }
    let value = cluster.clerk().get("key").unwrap().unwrap();
    assert_eq!(value, expected.as_bytes());
}

#[test]
fn a_repeated_get_returns_its_first_answer() {
    let (cluster, leader, session) = with_session();
    let other = open_session(&leader);
    let key = || Bytes::from("key");
    let get = execute(session, 2, 1, Op::Get { key: key() });
    submit(&leader, &execute(session, 1, 1, append("key", "first")));
    let first = Reply::Value(Some("first".into()));
    assert_eq!(submit(&leader, &get), first);
    submit(&leader, &execute(other, 1, 1, append("key", ", second")));
    assert_eq!(submit(&leader, &get), first);
    assert_eq!(value(&leader).as_deref(), Some(&b"first, second"[..]));
    // Every replica keeps it.
    cluster.crash(cluster.wait_for_leader());
    assert_eq!(submit(&self::leader(&cluster), &get), first);
}

#[test]
fn a_write_repeated_to_a_new_leader_takes_effect_once() {
    let (cluster, old, session) = with_session();
    let command = execute(session, 1, 1, append("key", "once"));
    assert_eq!(submit(&old, &command), Reply::Appended(4));
    let id = old.status().id;
    cluster.isolate(id);
    let next = cluster.node(wait_for_leader_among(&cluster, &others(&cluster, id)));
    assert_eq!(submit(&next, &command), Reply::Appended(4));
    assert_eq!(value(&next).as_deref(), Some(&b"once"[..]));
    cluster.heal();
    cluster.wait_for_agreement();
}

#[test]
fn a_write_whose_leader_fell_before_it_could_answer_takes_effect_once() {
    let (cluster, old, session) = with_session();
    let command = execute(session, 1, 1, append("key", "once"));
    hold_back_commits(&cluster);
    let pending = old.start(command.clone(), LONG).ok().unwrap();
    let index = pending.id().index;
    let id = old.status().id;
    let rest = others(&cluster, id);
    cluster.wait_for("the followers to hold the entry", |cluster| {
        let holds = |id: &u64| cluster.node(*id).status().last_index >= index;
        rest.iter().all(holds).then_some(())
    });
    cluster.crash(id);
    assert!(matches!(pending.wait(LONG), Outcome::Ended(_)));
    cluster.network().clear_filter();
    // The first copy is in the new leader's log, and the second comes behind it.
    assert_eq!(submit(&leader(&cluster), &command), Reply::Appended(4));
    assert_eq!(value(&leader(&cluster)).as_deref(), Some(&b"once"[..]));
}

#[test]
fn a_write_repeated_to_a_restarted_cluster_takes_effect_once() {
    let (cluster, old, session) = with_session();
    let command = execute(session, 1, 1, append("key", "once"));
    assert_eq!(submit(&old, &command), Reply::Appended(4));
    for _ in 0..2 {
        cluster.ids().for_each(|id| cluster.crash(id));
        cluster.ids().for_each(|id| cluster.restart(id));
        let leader = leader(&cluster);
        assert_eq!(submit(&leader, &command), Reply::Appended(4));
        assert_eq!(value(&leader).as_deref(), Some(&b"once"[..]));
    }
    cluster.wait_for_agreement();
}

#[test]
fn writes_whose_answers_get_lost_take_effect_once() {
    let cluster = Cluster::of_stores(3);
    let link = ClientLink {
        lost_answers_permille: 500,
        ..ClientLink::default()
    };
    let way = Arc::new(Unreliable::new(cluster.transport(), link, 7));
    let clerk = cluster.clerk_over(way, cluster.ids(), Options::default());
    thread::scope(|scope| {
        for thread in 0..4 {
            let clerk = &clerk;
            scope.spawn(move || {
                for n in 0..10 {
                    clerk.append(format!("{thread}"), format!("{n} ")).unwrap();
                }
            });
        }
    });
    let repeated = clerk.stats().repeats_in_doubt;
    assert!(repeated > 5, "only {repeated} writes were repeated");
    for thread in 0..4 {
        let value = cluster.clerk().get(format!("{thread}")).unwrap().unwrap();
        assert_eq!(&value[..], b"0 1 2 3 4 5 6 7 8 9 ");
    }
}
