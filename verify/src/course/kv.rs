//! The course's tests of a key/value service, but for those of snapshots.

use std::time::Duration;

use raftkv::kv::{Op, Reply};

use super::clients::{append, get, put, value_in};
use super::generic::PLAIN;
use super::{Calls, Procedures, Scripted, Service};
use crate::sim::lab::Call;
use crate::sim::{self, Action, End, Record};

const SECOND: Duration = Duration::from_secs(1);

/// One client, and no faults.
pub fn basic(service: &mut impl Service) {
    PLAIN.run(service);
}

/// As [`basic`], with many clients.
pub fn concurrent(service: &mut impl Service) {
    PLAIN.run(service);
}

/// Messages are lost and late, between servers and between clients and servers.
pub fn unreliable(service: &mut impl Service) {
    PLAIN.unreliable().run(service);
}

/// Servers are split into two groups again and again.
pub fn many_partitions_one_client(service: &mut impl Service) {
    PLAIN.partitions().run(service);
}

/// As [`many_partitions_one_client`], with many clients.
pub fn many_partitions_many_clients(service: &mut impl Service) {
    PLAIN.partitions().run(service);
}

/// All servers crash and start again.
pub fn persist_one_client(service: &mut impl Service) {
    PLAIN.crashes().run(service);
}

/// As [`persist_one_client`], with many clients.
pub fn persist_concurrent(service: &mut impl Service) {
    PLAIN.crashes().run(service);
}

/// As [`persist_concurrent`], with messages that are lost and late.
pub fn persist_concurrent_unreliable(service: &mut impl Service) {
    PLAIN.unreliable().crashes().run(service);
}

/// As [`persist_concurrent`], with servers that are split.
pub fn persist_partition(service: &mut impl Service) {
    PLAIN.crashes().partitions().run(service);
}

/// As [`persist_partition`], with messages that are lost and late.
pub fn persist_partition_unreliable(service: &mut impl Service) {
    PLAIN.unreliable().crashes().partitions().run(service);
}

/// As [`persist_partition_unreliable`], with keys that all clients share.
pub fn persist_partition_unreliable_linearizable(service: &mut impl Service) {
    let generic = PLAIN.unreliable().crashes().partitions();
    generic.random_keys().run(service);
}

/// Many clients of a single server. The course has this in its lab without replication.
pub fn put_concurrent_reliable(service: &mut impl Service) {
    PLAIN.run(service);
}

/// A client of a single server loses requests and answers. The course counts an answer "maybe" as
/// done, for nobody else writes. Here a swap that is repeated must not be refused because of
/// itself. The course has this in its lab without replication.
pub fn unreliable_net(service: &mut impl Service) {
    service.set_unreliable(true);
    service.put(0, "x", "0");
    let before = service.attempts();
    for n in 0..100 {
        let op = Op::Cas {
            key: "x".into(),
            expected: Some(n.to_string().into()),
            value: (n + 1).to_string().into(),
        };
        let reply = service.execute(0, op);
        assert_eq!(reply, Reply::Swapped(Ok(())), "from {n}");
    }
    let attempts = service.attempts() - before;
    assert!(attempts > 100, "no request and no answer was lost");
    assert_eq!(service.get(0, "x"), "100");
    service.check_history();
}

/// Writes one after the other are fast enough: appends in the course of 2024, puts in that of 2025.
/// With the product's own heartbeat of 50 ms, and the course's limit, which is for one of 100 ms.
pub fn speed(service: &mut impl Service) {
    service.get(0, "x");
    let mut expected = String::new();
    for is_append in [true, false] {
        let start = service.now();
        for n in 0..1000 {
            let part = format!("x 0 {n} y");
            match is_append {
                true => {
                    service.append(0, "x", &part);
                    expected.push_str(&part);
                }
                false => {
                    service.put(0, "x", &part);
                    expected = part;
                }
            }
        }
        let took = Duration::from_micros(service.now() - start);
        assert!(took < Duration::from_millis(33_300), "{took:?}");
        assert_eq!(service.get(0, "x"), expected);
    }
    service.check_history();
}

/// Appends of several clients to one key are there once each, and those of a client in order.
pub fn unreliable_one_key(service: &mut impl Service) {
    service.set_unreliable(true);
    service.put(0, "a", "");
    let part = |client, n| format!("x {client} {n} y");
    let mut calls: [Vec<Call>; 5] = Default::default();
    let ended = service.run_until(60 * SECOND, |service| {
        for (client, calls) in calls.iter_mut().enumerate() {
            if calls.len() < 10 && are_done(service, calls) {
                let action = Action::Execute(append("a", &part(client, calls.len())));
                calls.push(service.begin(client, action));
            }
        }
        let mut all = calls.iter();
        all.all(|calls| calls.len() == 10 && are_done(service, calls))
    });
    assert!(ended, "clients do not come to their end");
    let value = service.get(0, "a");
    let mut len = 0;
    for client in 0..5 {
        let parts: Vec<String> = (0..10).map(|n| part(client, n)).collect();
        len += parts.iter().map(String::len).sum::<usize>();
        let places = parts.iter().map(|part| value.find(part));
        let places: Vec<usize> = places
            .map(|place| place.expect("nothing is lost"))
            .collect();
        assert!(places.is_sorted(), "client {client} out of order");
    }
    assert_eq!(value.len(), len, "nothing twice, and nothing else");
    service.check_history();
}

fn are_done(service: &impl Service, calls: &[Call]) -> bool {
    calls.iter().all(|call| service.reply(*call).is_some())
}

/// The leader and another server are cut off from the other three: their clients get no answer
/// until all is well. On an unreliable network, as in the course of 2025. The course's clients ask
/// when the majority has executed something, and our leader has stepped down by then; so one more
/// reads at once.
pub fn one_partition(service: &mut impl Service) {
    service.set_unreliable(true);
    let (all, within, writer, reader, early) = (0, 1, 2, 3, 4);
    service.put(all, "1", "13");

    let leader = service.check_one_leader();
    let minority = [leader, service.behind(leader, 1)];
    let majority = [2, 3, 4].map(|distance| service.behind(leader, distance));
    for client in [writer, reader, early] {
        service.connect_client(client, &minority);
    }
    service.put(writer, "other", "for a session");
    assert_eq!(service.get(early, "1"), "13");
    service.connect_client(within, &majority);
    service.split(&minority);
    let early_read = service.begin(early, get("1"));

    service.put(within, "1", "14");
    assert_eq!(service.get(within, "1"), "14");
    let write = service.begin(writer, Action::Execute(put("1", "15")));
    let read = service.begin(reader, get("1"));
    let calls = [write, read, early_read];
    let answered = service.run_until(SECOND, |service| {
        calls.iter().any(|call| service.reply(*call).is_some())
    });
    assert!(!answered, "a minority answers");
    assert_eq!(service.get(within, "1"), "14");
    service.put(within, "1", "16");
    assert_eq!(service.get(within, "1"), "16");

    service.connect_all();
    for client in [writer, reader, early, within] {
        service.connect_client(client, &[0, 1, 2, 3, 4]);
    }
    service.run_for(service.nominal_timeout());
    let healed = service.run_until(3 * SECOND, |service| are_done(service, &calls));
    assert!(healed, "the minority does not answer after all");
    for read in [read, early_read] {
        let value = value_in(&service.await_reply(read));
        assert!(["15", "16"].contains(&&*value), "{value} is out of date");
    }
    assert_eq!(service.get(all, "1"), "15");
    service.check_history();
}

/// The course's Raft tests have long delays: who calls a server that is cut off or down hears of
/// that after up to seven seconds, and must not keep others waiting, nor give up its own work until
/// then. Calls between our nodes are messages, for which nobody waits, so here it is clients that
/// call.
pub fn long_delays(service: &mut impl Service) {
    service.set_long_delays(true);
    for client in 0..5 {
        service.append(client, &client.to_string(), "<0>");
    }
    let mut longest = 0;
    let rounds = service.rounds(10);
    for round in 1..=rounds {
        // Every client knows this leader, and some ask the others first when it is gone.
        let leader = service.check_one_leader();
        let down = [leader, service.behind(leader, round as usize % 4 + 1)];
        down.iter().for_each(|server| service.crash(*server));
        let begun = service.now();
        let part = format!("<{round}>");
        let begin = |client: usize| {
            let action = Action::Execute(append(&client.to_string(), &part));
            service.begin(client, action)
        };
        let calls: Vec<Call> = (0..5).map(begin).collect();
        for call in calls {
            service.await_reply(call);
        }
        longest = longest.max(service.now() - begun);
        down.iter().for_each(|server| service.start(*server));
    }
    for client in 0..5 {
        let expected: String = (0..=rounds).map(|round| format!("<{round}>")).collect();
        assert_eq!(service.get(client, &client.to_string()), expected);
    }
    let longest = Duration::from_micros(longest);
    assert!(
        longest < Duration::from_secs(5),
        "{longest:?} with two servers down"
    );
    service.check_history();
}

/// What the checker is for: the very history that a server makes which answers from its own state.
pub fn a_get_from_local_state_is_not_linearizable(service: &mut impl Service) {
    service.put(0, "1", "old");
    let everywhere = service.run_until(10 * SECOND, |service| {
        (0..3).all(|server| service.value_at(server, b"1") == "old")
    });
    assert!(everywhere, "a server does not execute the put");
    let leader = service.check_one_leader();
    let behind = service.behind(leader, 1);
    service.disconnect(behind);
    service.put(0, "1", "new");
    let local = service.value_at(behind, b"1");
    let answer = service.get(0, "1");
    let is_linearizable = |read: &str| {
        let put = |value| (Action::Execute(put("1", value)), Reply::Done);
        let read = Reply::Value(Some(read.to_string().into()));
        let record = |(at, (action, reply)): (u64, (Action, Reply))| Record {
            client: 0,
            action,
            called: 2 * at,
            number: None,
            end: Some((2 * at + 1, End::Reply(reply))),
        };
        let history = (0..).zip([put("old"), put("new"), (get("1"), read)]);
        sim::seen(&history.map(record).collect::<Vec<_>>()).is_ok()
    };
    assert!(!is_linearizable(&String::from_utf8_lossy(&local)));
    assert!(is_linearizable(&answer));
    service.connect_all();
    service.check_history();
}
