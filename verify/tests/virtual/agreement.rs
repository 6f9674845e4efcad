//! The course's Raft tests, part B: agreement.

use std::time::Duration;

use bytes::Bytes;
use raftkv::kv::Op;
use raftkv_verify::sim::lab::{Lab, Submitted, T};

use super::seeds::course_tests;

course_tests! {
    basic_agree: 3 servers;
    rpc_bytes: 3 servers;
    follower_failure: 3 servers;
    leader_failure: 3 servers;
    fail_agree: 3 servers;
    fail_no_agree: 5 servers;
    concurrent_starts: 3 servers;
    rejoin: 3 servers;
    backup: 5 servers;
    count: 3 servers;
}

/// Submits a fresh command to a leader, and returns the place that it has in that one's log.
fn submit_in_vain(lab: &mut Lab, leader: usize) -> u64 {
    let command = lab.fresh();
    let submitted = lab
        .submit(leader, command)
        .expect("a leader takes commands");
    lab.place_in_log(leader, submitted.entry.index)
}

/// Submits so many fresh commands to a server at once.
fn submit_many(lab: &mut Lab, server: usize, count: usize) -> Vec<Option<Submitted>> {
    let submit = |lab: &mut Lab| {
        let command = lab.fresh();
        lab.submit(server, command)
    };
    (0..count).map(|_| submit(lab)).collect()
}

pub fn basic_agree(lab: &mut Lab) {
    for n in 1..=3 {
        assert_eq!(lab.executed(n), 0, "command {n} before it was submitted");
        assert_eq!(lab.agree_at_once(3), n);
    }
}

/// All bytes in frames, answers included.
pub fn rpc_bytes(lab: &mut Lab) {
    lab.agree_at_once(3);
    let before = lab.bytes();
    for n in 0..10 {
        let random: Vec<u8> = (0..5000).map(|_| lab.below(256) as u8).collect();
        let command = lab.command(Op::Put {
            key: Bytes::from_static(b"random"),
            value: random.into(),
        });
        assert_eq!(lab.agree_on(command, 3, false), n + 2);
    }
    let (sent, bytes) = (10 * 5000, lab.bytes() - before);
    // A leader and two followers: each entry once to each of these.
    assert!(bytes >= 2 * sent, "{bytes} bytes cannot be all");
    assert!(bytes <= 3 * sent + 50_000, "{bytes} bytes for {sent}");
}

pub fn follower_failure(lab: &mut Lab) {
    lab.agree_at_once(3);
    let leader = lab.check_one_leader();
    lab.disconnect(lab.behind(leader, 1));
    lab.agree_at_once(2);
    lab.run_for(T);
    lab.agree_at_once(2);

    let leader = lab.check_one_leader();
    lab.disconnect(lab.behind(leader, 1));
    lab.disconnect(lab.behind(leader, 2));
    assert_eq!(submit_in_vain(lab, leader), 4);
    lab.run_for(2 * T);
    assert_eq!(lab.executed(4), 0);
}

pub fn leader_failure(lab: &mut Lab) {
    lab.agree_at_once(3);
    let first = lab.check_one_leader();
    lab.disconnect(first);
    lab.agree_at_once(2);
    lab.run_for(T);
    lab.agree_at_once(2);

    let second = lab.check_one_leader();
    lab.disconnect(second);
    let command = lab.fresh();
    let taken = (0..3).filter_map(|server| lab.submit(server, command.clone()));
    assert!(
        taken.count() >= 1,
        "the second leader cannot know that it is alone"
    );
    lab.run_for(2 * T);
    assert_eq!(lab.executed(4), 0);
}

pub fn fail_agree(lab: &mut Lab) {
    lab.agree_at_once(3);
    let leader = lab.check_one_leader();
    let follower = lab.behind(leader, 1);
    lab.disconnect(follower);
    lab.agree_at_once(2);
    lab.agree_at_once(2);
    lab.run_for(T);
    lab.agree_at_once(2);
    lab.agree_at_once(2);

    lab.connect(follower);
    lab.agree(3);
    lab.run_for(T);
    lab.agree(3);
}

pub fn fail_no_agree(lab: &mut Lab) {
    lab.agree_at_once(5);
    let leader = lab.check_one_leader();
    let cut = [1, 2, 3].map(|distance| lab.behind(leader, distance));
    cut.iter().for_each(|server| lab.disconnect(*server));
    assert_eq!(submit_in_vain(lab, leader), 2);
    lab.run_for(2 * T);
    assert_eq!(lab.executed(2), 0);

    cut.iter().for_each(|server| lab.connect(*server));
    // The three may have chosen a leader among themselves, which never saw the second command.
    let leader = lab.check_one_leader();
    let place = submit_in_vain(lab, leader);
    assert!((2..=3).contains(&place), "{place}");
    lab.agree_at_once(5);
}

/// Tries up to five times until the term does not move meanwhile.
fn in_one_term(lab: &mut Lab, attempt: fn(&mut Lab) -> bool) {
    for attempts in 0..5 {
        if attempts > 0 {
            lab.run_for(3 * T);
        }
        if attempt(lab) {
            return;
        }
    }
    panic!("the term moved each time");
}

pub fn concurrent_starts(lab: &mut Lab) {
    in_one_term(lab, |lab| {
        let leader = lab.check_one_leader();
        let first = submit_many(lab, leader, 1);
        let Some(Some(Submitted { entry: first, .. })) = first.first() else {
            return false;
        };
        let all = submit_many(lab, leader, 5);
        all.into_iter().all(|submitted| {
            let submitted = submitted.filter(|s| s.entry.term == first.term);
            submitted.is_some_and(|s| lab.wait_in_term(s, 3, first.term))
        })
    });
}

pub fn rejoin(lab: &mut Lab) {
    lab.agree(3);
    let first = lab.check_one_leader();
    lab.disconnect(first);
    let in_vain = submit_many(lab, first, 3);
    assert!(
        in_vain.iter().all(Option::is_some),
        "it cannot know that it is alone"
    );
    lab.agree(2);

    let second = lab.check_one_leader();
    lab.disconnect(second);
    lab.connect(first);
    lab.agree(2);
    lab.connect(second);
    lab.agree(3);
}

/// Has 50 commands agreed upon, one after the other, within the ten seconds that the course
/// allows for each.
fn agree_50(lab: &mut Lab) {
    for _ in 0..50 {
        lab.agree(3);
    }
}

pub fn backup(lab: &mut Lab) {
    lab.agree(5);
    // A leader with one follower, and 50 commands that cannot be committed.
    let first = lab.check_one_leader();
    let companion = lab.behind(first, 1);
    let rest = [2, 3, 4].map(|distance| lab.behind(first, distance));
    rest.iter().for_each(|server| lab.disconnect(*server));
    submit_many(lab, first, 50);
    lab.run_for(T / 2);

    // The other three agree on 50, then one of them is cut off and 50 more cannot be committed.
    lab.disconnect(first);
    lab.disconnect(companion);
    rest.iter().for_each(|server| lab.connect(*server));
    agree_50(lab);
    let second = lab.check_one_leader();
    let other = rest.into_iter().find(|server| *server != second);
    let other = other.expect("there are three");
    lab.disconnect(other);
    submit_many(lab, second, 50);
    lab.run_for(T / 2);

    // The first leader and its companion with the one that was cut off.
    (0..5).for_each(|server| lab.disconnect(server));
    let three = [first, companion, other];
    three.iter().for_each(|server| lab.connect(*server));
    let requests = lab.requests();
    agree_50(lab);
    let took = lab.requests() - requests;
    // Each of two followers hears of 50 commands, gets rid of 50 others, and hears of the leader.
    assert!(
        took <= 800,
        "{took} requests: was each entry taken back by itself?"
    );
    lab.connect_all();
    lab.agree(5);
}

pub fn count(lab: &mut Lab) {
    lab.check_one_leader();
    for server in 0..3 {
        let requests = lab.requests_to(server);
        assert!(
            requests <= 30,
            "{requests} to one server for the first leader"
        );
    }
    let requests = lab.requests();
    assert!(
        (1..=30).contains(&requests),
        "{requests} for the first leader"
    );
    lab.agree(3);

    in_one_term(lab, |lab| {
        let leader = lab.check_one_leader();
        let before = lab.requests();
        let first = submit_many(lab, leader, 1);
        let Some(Some(Submitted { entry: first, .. })) = first.first() else {
            return false;
        };
        let all = submit_many(lab, leader, 11);
        let agreed = all.into_iter().all(|submitted| {
            let submitted = submitted.filter(|s| s.entry.term == first.term);
            submitted.is_some_and(|s| lab.wait_in_term(s, 3, first.term))
        });
        let took = lab.requests() - before;
        assert!(
            !agreed || took <= (10 + 1 + 3) * 3,
            "{took} for 10 commands"
        );
        agreed
    });

    let before = lab.requests();
    lab.run_for(Duration::from_secs(1));
    let idle = lab.requests() - before;
    assert!(idle <= 3 * 20, "{idle} in a second of idleness");
}
