//! The course's tests of a key/value service, but for those of snapshots.

use std::time::Duration;

use raftkv_verify::course::{Procedures, Scripted};
use raftkv_verify::sim::lab::{Lab, T, append, put, value_in};

use super::kv_generic::Generic;
use super::seeds::course_tests;

course_tests! {
    basic: 5 servers, 1 clients;
    speed: 3 servers, 1 clients;
    concurrent: 5 servers, 5 clients;
    unreliable: 5 servers, 5 clients;
    unreliable_one_key: 3 servers, 5 clients;
    one_partition: 5 servers, 3 clients;
    many_partitions_one_client: 5 servers, 1 clients;
    many_partitions_many_clients: 5 servers, 5 clients;
    long_delays: 5 servers, 5 clients;
    persist_one_client: 5 servers, 1 clients;
    persist_concurrent: 5 servers, 5 clients;
    persist_concurrent_unreliable: 5 servers, 5 clients;
    persist_partition: 5 servers, 5 clients;
    persist_partition_unreliable: 5 servers, 5 clients;
    persist_partition_unreliable_linearizable: 7 servers, 15 clients;
}

pub const PLAIN: Generic = Generic {
    unreliable: false,
    crash: false,
    partitions: false,
    random_keys: false,
    threshold: None,
};

pub fn basic(lab: &mut Lab) {
    PLAIN.run(lab);
}

pub fn concurrent(lab: &mut Lab) {
    PLAIN.run(lab);
}

pub fn unreliable(lab: &mut Lab) {
    let unreliable = true;
    Generic {
        unreliable,
        ..PLAIN
    }
    .run(lab);
}

pub fn many_partitions_one_client(lab: &mut Lab) {
    let partitions = true;
    Generic {
        partitions,
        ..PLAIN
    }
    .run(lab);
}

pub fn many_partitions_many_clients(lab: &mut Lab) {
    many_partitions_one_client(lab);
}

/// The course's Raft tests have long delays: who calls a server that is cut off or down hears of
/// that after up to seven seconds, and must not keep others waiting, nor give up its own work until
/// then. Calls between our nodes are messages, for which nobody waits, so here it is clients that
/// call.
pub fn long_delays(lab: &mut Lab) {
    lab.set_long_delays(true);
    for client in 0..5 {
        lab.append(client, &client.to_string(), "<0>");
    }
    let mut longest = 0;
    for round in 1..=10 {
        // Every client knows this leader, and some ask the others first when it is gone.
        let leader = lab.check_one_leader();
        let down = [leader, lab.behind(leader, round % 4 + 1)];
        down.iter().for_each(|server| lab.crash(*server));
        let begun = lab.now();
        let part = format!("<{round}>");
        let begin =
            |client: usize, lab: &mut Lab| lab.begin(client, append(&client.to_string(), &part));
        let calls: Vec<_> = (0..5).map(|client| begin(client, lab)).collect();
        for call in calls {
            lab.await_reply(call);
        }
        longest = longest.max(lab.now() - begun);
        down.iter().for_each(|server| lab.start(*server));
    }
    for client in 0..5 {
        let expected: String = (0..=10).map(|round| format!("<{round}>")).collect();
        assert_eq!(lab.get(client, &client.to_string()), expected);
    }
    let longest = Duration::from_micros(longest);
    assert!(
        longest < Duration::from_secs(5),
        "{longest:?} with two servers down"
    );
    lab.check_history();
}

pub fn persist_one_client(lab: &mut Lab) {
    let crash = true;
    Generic { crash, ..PLAIN }.run(lab);
}

pub fn persist_concurrent(lab: &mut Lab) {
    persist_one_client(lab);
}

pub fn persist_concurrent_unreliable(lab: &mut Lab) {
    let (unreliable, crash) = (true, true);
    Generic {
        unreliable,
        crash,
        ..PLAIN
    }
    .run(lab);
}

pub fn persist_partition(lab: &mut Lab) {
    let (crash, partitions) = (true, true);
    Generic {
        crash,
        partitions,
        ..PLAIN
    }
    .run(lab);
}

pub fn persist_partition_unreliable(lab: &mut Lab) {
    Generic {
        unreliable: true,
        crash: true,
        partitions: true,
        ..PLAIN
    }
    .run(lab);
}

pub fn persist_partition_unreliable_linearizable(lab: &mut Lab) {
    Generic {
        unreliable: true,
        crash: true,
        partitions: true,
        random_keys: true,
        ..PLAIN
    }
    .run(lab);
}

/// With the product's own heartbeat of 50 ms, and the course's limit, which is for one of 100 ms.
pub fn speed(lab: &mut Lab) {
    lab.get(0, "x");
    let start = lab.now();
    let mut expected = String::new();
    for n in 0..1000 {
        let part = format!("x 0 {n} y");
        lab.append(0, "x", &part);
        expected.push_str(&part);
    }
    let took = Duration::from_micros(lab.now() - start);
    assert!(took < Duration::from_millis(33_300), "{took:?}");
    assert_eq!(lab.get(0, "x"), expected);
    lab.check_history();
}

pub fn unreliable_one_key(lab: &mut Lab) {
    lab.set_unreliable(true);
    lab.put(0, "a", "");
    let part = |client, n| format!("x {client} {n} y");
    let mut next = [0; 5];
    let ended = lab.run_until(60 * T, |lab| {
        for (client, n) in next.iter_mut().enumerate() {
            if *n < 10 && lab.is_idle(client) {
                lab.begin(client, append("a", &part(client, *n)));
                *n += 1;
            }
        }
        next == [10; 5] && (0..5).all(|client| lab.is_idle(client))
    });
    assert!(ended, "clients do not come to their end");
    let value = lab.get(0, "a");
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
    lab.check_history();
}

/// On an unreliable network, as in the course of 2025.
pub fn one_partition(lab: &mut Lab) {
    lab.set_unreliable(true);
    let (all, within, cut_off) = (0, 1, 2);
    lab.put(all, "1", "13");

    let leader = lab.check_one_leader();
    let minority = [leader, lab.behind(leader, 1)];
    let majority = [2, 3, 4].map(|distance| lab.behind(leader, distance));
    lab.connect_client(cut_off, &minority);
    lab.put(cut_off, "other", "for a session");
    lab.connect_client(within, &majority);
    lab.split(&minority);

    lab.put(within, "1", "14");
    assert_eq!(lab.get(within, "1"), "14");
    let put_15 = lab.begin(cut_off, put("1", "15"));
    let get = lab.begin_get(cut_off, "1");
    let answered = lab.run_until(T, |lab| {
        lab.reply(put_15).is_some() || lab.reply(get).is_some()
    });
    assert!(!answered, "a minority answers");
    assert_eq!(lab.get(within, "1"), "14");
    lab.put(within, "1", "16");
    assert_eq!(lab.get(within, "1"), "16");

    lab.connect_all();
    lab.connect_client(cut_off, &[0, 1, 2, 3, 4]);
    lab.connect_client(within, &[0, 1, 2, 3, 4]);
    lab.run_for(T);
    let healed = lab.run_until(3 * T, |lab| {
        lab.reply(put_15).is_some() && lab.reply(get).is_some()
    });
    assert!(healed, "the minority does not answer after all");
    let value = value_in(&lab.await_reply(get));
    assert!(["15", "16"].contains(&&*value), "{value} is out of date");
    assert_eq!(lab.get(all, "1"), "15");
    lab.check_history();
}
