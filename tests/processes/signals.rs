//! A leader that freezes and wakes up again, and one that is told to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv::kv::{Query, Reply};
use raftkv::wire::client::{Answer, Ask, Response};

use super::cluster::Cluster;
use super::load::Load;
use super::raw::Raw;

/// A key that only grows, and what every reader of it must see.
#[derive(Default)]
struct Counter {
    started: AtomicU64,
    acknowledged: AtomicU64,
    enough: AtomicBool,
}

impl Counter {
    fn write(&self, cluster: &Cluster) {
        let clerk = cluster.clerk();
        while !self.enough.load(Ordering::SeqCst) {
            let number = 1 + self.started.fetch_add(1, Ordering::SeqCst);
            clerk.put("counter", number.to_string()).unwrap();
            self.acknowledged.store(number, Ordering::SeqCst);
        }
    }

    fn read(&self, cluster: &Cluster) -> u64 {
        let clerk = cluster.clerk();
        let mut reads = 0;
        while !self.enough.load(Ordering::SeqCst) {
            let floor = self.acknowledged.load(Ordering::SeqCst);
            let value = number(clerk.get("counter").unwrap());
            let ceiling = self.started.load(Ordering::SeqCst);
            assert!(
                (floor..=ceiling).contains(&value),
                "{floor} {value} {ceiling}"
            );
            reads += 1;
        }
        reads
    }
}

fn number(value: Option<bytes::Bytes>) -> u64 {
    let value = value.unwrap_or_else(|| "0".into());
    std::str::from_utf8(&value).unwrap().parse().unwrap()
}

#[test]
fn a_leader_that_was_frozen_wakes_up_without_a_stale_answer() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let counter = Counter::default();
    thread::scope(|scope| {
        scope.spawn(|| counter.write(&cluster));
        let readers = [0; 3].map(|_| scope.spawn(|| counter.read(&cluster)));
        let load = Load::start(&cluster, 1);
        load.await_more(20);
        // These connections are served by the leader, and nobody sends them elsewhere.
        let mut raw = [0; 5].map(|_| Raw::open(cluster.address(leader)));
        cluster.node(leader).signal("STOP").unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            load.await_more(5);
        }
        let floor = counter.acknowledged.load(Ordering::SeqCst);
        let key = "counter".into();
        let query = Query::Get { key }.to_bytes();
        raw.iter_mut()
            .for_each(|raw| raw.send(Ask::Query(query.clone())));
        cluster.node(leader).signal("CONT").unwrap();
        for raw in &mut raw {
            match raw.receive::<Response>().answer {
                Answer::Reply(reply) => match Reply::decode(&reply).unwrap() {
                    Reply::Value(value) => assert!(number(value) >= floor, "stale"),
                    other => panic!("{other:?}"),
                },
                Answer::NotLeader(_) | Answer::Unknown(_) => {}
                other => panic!("{other:?}"),
            }
        }
        load.await_more(50);
        counter.enough.store(true, Ordering::SeqCst);
        load.stop().check(&cluster.clerk());
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    // It follows again, whoever leads.
    cluster.node(leader).line("follower in term");
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first_and_no_client_notices() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let load = Load::start(&cluster, 4);
    load.await_more(100);
    let end = cluster.stop(leader).unwrap();
    assert_eq!(end.status.code(), Some(0), "{:#?}", end.lines);
    load.await_more(100);
    let expected = load.stop();
    expected.check(&cluster.clerk());
    let asked = cluster.ids().into_iter().filter(|id| *id != leader);
    let took_over = asked.filter(|id| {
        let lines = cluster.node(*id).lines();
        lines
            .iter()
            .any(|line| line.contains("asked this node to take over"))
    });
    assert_eq!(took_over.count(), 1, "{:#?}", end.lines);
    let gap = expected.longest_gap();
    println!("{} writes, longest gap {gap:?}", expected.count());
    assert!(gap < Duration::from_secs(5), "{gap:?}");
}

#[test]
fn a_node_stops_cleanly_on_either_signal_and_keeps_what_it_has() {
    for signal in ["TERM", "INT"] {
        let mut cluster = Cluster::start(1);
        cluster.clerk().put("key", signal).unwrap();
        cluster.node(1).signal(signal).unwrap();
        let end = cluster.end(1).unwrap();
        assert_eq!(end.status.code(), Some(0), "{:#?}", end.lines);
        cluster.restart([1]).unwrap();
        assert_eq!(cluster.clerk().get("key"), Ok(Some(signal.into())));
    }
}

#[test]
fn a_node_that_is_told_to_stop_while_it_starts_stops_cleanly() {
    let mut cluster = Cluster::start(1);
    for _ in 0..3 {
        assert!(cluster.stop(1).unwrap().status.success());
        // The line that this waits for is written before the node has all its threads.
        cluster.restart([1]).unwrap();
    }
}

#[test]
fn a_leader_that_was_killed_is_replaced_before_an_election_timeout_has_passed() {
    let mut cluster = Cluster::start_with(3, &["--election-ms", "4000"]);
    cluster.clerk().put("key", "before").unwrap();
    let leader = cluster.leader();
    cluster.kill([leader]).unwrap();
    let clerk = cluster.clerk_for(Duration::from_millis(3500));
    clerk.put("key", "after").unwrap();
    let gone = "nobody listens at the address of the leader";
    let survivors = cluster.ids().into_iter().filter(|id| *id != leader);
    let told = |id| cluster.node(id).lines().iter().any(|l| l.contains(gone));
    assert!(survivors.into_iter().any(told));
}
