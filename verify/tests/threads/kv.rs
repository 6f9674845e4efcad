//! The course's tests of a key/value service, but for those of snapshots.

use std::thread;
use std::time::{Duration, Instant};

use raftkv::client::{Clerk, Error};
use raftkv::kv::{Op, Query, Reply};
use raftkv::machine::StateMachine;
use raftkv_verify::sim::{self, Action, End, Record};

use super::kv_generic::{Generic, KvLab};
use super::lab::T;

const FIVE: Generic = Generic {
    clients: 5,
    servers: 5,
    unreliable: false,
    crash: false,
    partitions: false,
    random_keys: false,
    snapshots: false,
};

const ONE: Generic = Generic { clients: 1, ..FIVE };

#[test]
fn basic() {
    ONE.run();
}

#[test]
fn concurrent() {
    FIVE.run();
}

#[test]
fn unreliable() {
    Generic {
        unreliable: true,
        ..FIVE
    }
    .run();
}

#[test]
fn many_partitions_one_client() {
    Generic {
        partitions: true,
        ..ONE
    }
    .run();
}

#[test]
fn many_partitions_many_clients() {
    Generic {
        partitions: true,
        ..FIVE
    }
    .run();
}

#[test]
fn persist_one_client() {
    Generic { crash: true, ..ONE }.run();
}

#[test]
fn persist_concurrent() {
    Generic {
        crash: true,
        ..FIVE
    }
    .run();
}

#[test]
fn persist_concurrent_unreliable() {
    Generic {
        unreliable: true,
        crash: true,
        ..FIVE
    }
    .run();
}

#[test]
fn persist_partition() {
    Generic {
        crash: true,
        partitions: true,
        ..FIVE
    }
    .run();
}

#[test]
fn persist_partition_unreliable() {
    Generic {
        unreliable: true,
        crash: true,
        partitions: true,
        ..FIVE
    }
    .run();
}

#[test]
fn persist_partition_unreliable_linearizable() {
    Generic {
        clients: 15,
        servers: 7,
        unreliable: true,
        crash: true,
        partitions: true,
        random_keys: true,
        snapshots: false,
    }
    .run();
}

/// With the product's own heartbeat of 50 ms, and the course's limit, which is for one of 100 ms.
#[test]
fn speed() {
    let kv = KvLab::new(3, false);
    let clerk = kv.clerk();
    clerk.get("x").unwrap();
    let started = Instant::now();
    let mut expected = String::new();
    for n in 0..1000 {
        let part = format!("x 0 {n} y");
        clerk.append("x", &part).unwrap();
        expected.push_str(&part);
    }
    let took = started.elapsed();
    assert!(took < Duration::from_millis(33_300), "{took:?}");
    assert_eq!(clerk.get("x").unwrap().unwrap(), expected.as_bytes());
}

#[test]
fn unreliable_one_key() {
    let kv = KvLab::new(3, true);
    let clerks: Vec<Clerk> = (0..5).map(|_| kv.clerk()).collect();
    thread::scope(|scope| {
        for (id, clerk) in clerks.iter().enumerate() {
            let append = move |n| clerk.append("key", format!("x {id} {n} y")).unwrap();
            scope.spawn(move || {
                for n in 0..10 {
                    append(n);
                }
            });
        }
    });
    let value = clerks[0].get("key").unwrap().unwrap();
    let value = String::from_utf8(value.to_vec()).unwrap();
    let mut len = 0;
    for id in 0..clerks.len() {
        let parts = (0..10).map(|n| format!("x {id} {n} y"));
        let places: Vec<_> = parts
            .map(|part| {
                len += part.len();
                let mut found = value.match_indices(&part);
                let place = found.next().expect("nothing is lost").0;
                assert_eq!(found.next(), None, "{part} twice");
                place
            })
            .collect();
        assert!(places.is_sorted(), "client {id} out of order");
    }
    assert_eq!(value.len(), len, "and nothing else");
}

/// The course waits for a second to see that the minority does not answer.
#[test]
fn one_partition() {
    let kv = KvLab::new(5, false);
    let lab = &kv.lab;
    let all = kv.clerk();
    all.put("1", "13").unwrap();

    let leader = lab.check_one_leader();
    let minority = vec![leader, lab.after(leader, 1)];
    let majority: Vec<_> = [2, 3, 4].map(|distance| lab.after(leader, distance)).into();
    let within = kv.clerk_of(majority);
    let cut_off = kv.clerk_of(minority.clone());
    cut_off.put("other", "for a session").unwrap();
    lab.split(&minority);

    within.put("1", "14").unwrap();
    assert_eq!(read(&within), "14");
    thread::scope(|scope| {
        let put = scope.spawn(|| cut_off.put("1", "15"));
        let get = scope.spawn(|| cut_off.get("1"));
        let answered = |_: &_| put.is_finished() || get.is_finished();
        let answered = lab.cluster.wait_until(Duration::from_secs(1), answered);
        assert!(!answered, "a minority answers");
        assert_eq!(read(&within), "14");
        within.put("1", "16").unwrap();
        assert_eq!(read(&within), "16");

        lab.split(&[]);
        let both = |_: &_| put.is_finished() && get.is_finished();
        let healed = lab.cluster.wait_until(T + Duration::from_secs(3), both);
        assert!(healed, "the minority does not answer after all");
        let result: Result<(), Error> = put.join().unwrap();
        result.unwrap();
        let value = get.join().unwrap().unwrap().unwrap();
        assert!(
            [&b"15"[..], b"16"].contains(&&value[..]),
            "{value:?} is out of date"
        );
    });
    assert_eq!(read(&all), "15");
}

/// What the checker is for: the very history that a server makes which answers from its own state.
#[test]
fn a_get_from_local_state_is_not_linearizable() {
    let kv = KvLab::new(3, false);
    let clerk = kv.clerk();
    clerk.put("1", "old").unwrap();
    kv.lab.cluster.wait_for_agreement();
    let behind = kv.lab.after(kv.lab.check_one_leader(), 1);
    kv.lab.disconnect(behind);
    clerk.put("1", "new").unwrap();
    let query = Query::Get { key: "1".into() }.to_bytes();
    let local = kv.lab.cluster.node(behind);
    let local = local.with_machine(|machine| machine.query(&query));
    let put = |value: &'static str| {
        let (key, value) = ("1".into(), value.into());
        (Action::Execute(Op::Put { key, value }), Reply::Done)
    };
    let is_linearizable = |read: Reply| {
        let read = (Action::Get("1".into()), read);
        let record = |(at, (action, reply)): (u64, (Action, Reply))| Record {
            client: 0,
            action,
            called: 2 * at,
            number: None,
            end: Some((2 * at + 1, End::Reply(reply))),
        };
        let history = (0..).zip([put("old"), put("new"), read]).map(record);
        sim::seen(&history.collect::<Vec<_>>()).is_ok()
    };
    assert!(!is_linearizable(local));
    let answer = Reply::Value(clerk.get("1").unwrap());
    assert!(is_linearizable(answer));
}

fn read(clerk: &Clerk) -> String {
    let value = clerk.get("1").unwrap().unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}
