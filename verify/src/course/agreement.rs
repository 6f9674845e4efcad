//! The course's Raft tests, part B: agreement.

use std::time::Duration;

use super::{Arena, Procedures, Scripted};
use crate::sim::lab::Submitted;
use bytes::Bytes;
use raftkv::kv::Op;

/// Submits a fresh command to a leader, and returns the place that it has in that one's log.
fn submit_in_vain(arena: &mut impl Arena, leader: usize) -> u64 {
    let command = arena.fresh();
    let submitted = arena
        .submit(leader, command)
        .expect("a leader takes commands");
    arena.place_in_log(leader, submitted.entry.index)
}

/// Submits so many fresh commands to a server at once.
fn submit_many(arena: &mut impl Arena, server: usize, count: usize) -> Vec<Option<Submitted>> {
    let commands = (0..count).map(|_| arena.fresh()).collect();
    arena.submit_all(server, commands)
}

/// Each command takes the next place, and no command is executed before it is submitted.
pub fn basic_agree(arena: &mut impl Arena) {
    for n in 1..=3 {
        assert_eq!(arena.executed(n), 0, "command {n} before it was submitted");
        assert_eq!(arena.agree_at_once(3), n);
    }
}

/// Each entry travels to each follower once. All bytes in frames count, answers included.
pub fn rpc_bytes(arena: &mut impl Arena) {
    arena.agree_at_once(3);
    let before = arena.bytes();
    for n in 0..10 {
        let random: Vec<u8> = (0..5000).map(|_| arena.below(256) as u8).collect();
        let command = arena.command(Op::Put {
            key: Bytes::from_static(b"random"),
            value: random.into(),
        });
        assert_eq!(arena.agree_on(command, 3, false), n + 2);
    }
    let (sent, bytes) = (10 * 5000, arena.bytes() - before);
    // A leader and two followers: each entry once to each of these.
    assert!(bytes >= 2 * sent, "{bytes} bytes cannot be all");
    assert!(bytes <= 3 * sent + 50_000, "{bytes} bytes for {sent}");
}

/// A majority goes on without one follower; a leader alone executes nothing.
pub fn follower_failure(arena: &mut impl Arena) {
    arena.agree_at_once(3);
    let leader = arena.check_one_leader();
    arena.disconnect(arena.behind(leader, 1));
    arena.agree_at_once(2);
    arena.run_for(arena.nominal_timeout());
    arena.agree_at_once(2);

    let leader = arena.check_one_leader();
    arena.disconnect(arena.behind(leader, 1));
    arena.disconnect(arena.behind(leader, 2));
    assert_eq!(submit_in_vain(arena, leader), 4);
    arena.run_for(2 * arena.nominal_timeout());
    assert_eq!(arena.executed(4), 0);
}

/// A majority goes on without its leader; the next leader alone executes nothing.
pub fn leader_failure(arena: &mut impl Arena) {
    arena.agree_at_once(3);
    let first = arena.check_one_leader();
    arena.disconnect(first);
    arena.agree_at_once(2);
    arena.run_for(arena.nominal_timeout());
    arena.agree_at_once(2);

    let second = arena.check_one_leader();
    arena.disconnect(second);
    let command = arena.fresh();
    let taken = (0..3).filter_map(|server| arena.submit(server, command.clone()));
    assert!(
        taken.count() >= 1,
        "the second leader cannot know that it is alone"
    );
    arena.run_for(2 * arena.nominal_timeout());
    assert_eq!(arena.executed(4), 0);
}

/// A follower that was cut off for a while executes what it missed.
pub fn fail_agree(arena: &mut impl Arena) {
    arena.agree_at_once(3);
    let leader = arena.check_one_leader();
    let follower = arena.behind(leader, 1);
    arena.disconnect(follower);
    arena.agree_at_once(2);
    arena.agree_at_once(2);
    arena.run_for(arena.nominal_timeout());
    arena.agree_at_once(2);
    arena.agree_at_once(2);

    arena.connect(follower);
    arena.agree(3);
    arena.run_for(arena.nominal_timeout());
    arena.agree(3);
}

/// A minority executes nothing, and the cluster goes on once a majority is back.
pub fn fail_no_agree(arena: &mut impl Arena) {
    arena.agree_at_once(5);
    let leader = arena.check_one_leader();
    let cut = [1, 2, 3].map(|distance| arena.behind(leader, distance));
    cut.iter().for_each(|server| arena.disconnect(*server));
    assert_eq!(submit_in_vain(arena, leader), 2);
    arena.run_for(2 * arena.nominal_timeout());
    assert_eq!(arena.executed(2), 0);

    cut.iter().for_each(|server| arena.connect(*server));
    // The three may have chosen a leader among themselves, which never saw the second command.
    let leader = arena.check_one_leader();
    let place = submit_in_vain(arena, leader);
    assert!((2..=3).contains(&place), "{place}");
    arena.agree_at_once(5);
}

/// Tries up to five times until the term does not move meanwhile.
fn in_one_term<A: Arena>(arena: &mut A, attempt: fn(&mut A) -> bool) {
    for attempts in 0..5 {
        if attempts > 0 {
            arena.run_for(3 * arena.nominal_timeout());
        }
        if attempt(arena) {
            return;
        }
    }
    panic!("the term moved each time");
}

/// Commands that are submitted at the same time are all executed.
pub fn concurrent_starts(arena: &mut impl Arena) {
    in_one_term(arena, |arena| {
        let leader = arena.check_one_leader();
        let first = submit_many(arena, leader, 1);
        let Some(Some(Submitted { entry: first, .. })) = first.first() else {
            return false;
        };
        let all = submit_many(arena, leader, 5);
        all.into_iter().all(|submitted| {
            let submitted = submitted.filter(|s| s.entry.term == first.term);
            submitted.is_some_and(|s| arena.wait_in_term(s, 3, first.term))
        })
    });
}

/// A leader that was cut off gives up what only its own log holds.
pub fn rejoin(arena: &mut impl Arena) {
    arena.agree(3);
    let first = arena.check_one_leader();
    arena.disconnect(first);
    let in_vain = submit_many(arena, first, 3);
    assert!(
        in_vain.iter().all(Option::is_some),
        "it cannot know that it is alone"
    );
    arena.agree(2);

    let second = arena.check_one_leader();
    arena.disconnect(second);
    arena.connect(first);
    arena.agree(2);
    arena.connect(second);
    arena.agree(3);
}

/// Has 50 commands agreed upon, one after the other, within the ten seconds that the course
/// allows for each.
fn agree_50(arena: &mut impl Arena) {
    for _ in 0..50 {
        arena.agree(3);
    }
}

/// A log that diverges by many entries is repaired in few requests.
pub fn backup(arena: &mut impl Arena) {
    arena.agree(5);
    // A leader with one follower, and 50 commands that cannot be committed.
    let first = arena.check_one_leader();
    let companion = arena.behind(first, 1);
    let rest = [2, 3, 4].map(|distance| arena.behind(first, distance));
    rest.iter().for_each(|server| arena.disconnect(*server));
    submit_many(arena, first, 50);
    arena.run_for(arena.nominal_timeout() / 2);

    // The other three agree on 50, then one of them is cut off and 50 more cannot be committed.
    arena.disconnect(first);
    arena.disconnect(companion);
    rest.iter().for_each(|server| arena.connect(*server));
    agree_50(arena);
    let second = arena.check_one_leader();
    let other = rest.into_iter().find(|server| *server != second);
    let other = other.expect("there are three");
    arena.disconnect(other);
    submit_many(arena, second, 50);
    arena.run_for(arena.nominal_timeout() / 2);

    // The first leader and its companion with the one that was cut off.
    (0..5).for_each(|server| arena.disconnect(server));
    let three = [first, companion, other];
    three.iter().for_each(|server| arena.connect(*server));
    let requests = arena.requests();
    agree_50(arena);
    let took = arena.requests() - requests;
    // Each of two followers hears of 50 commands, gets rid of 50 others, and hears of the leader.
    assert!(
        took <= 800,
        "{took} requests: was each entry taken back by itself?"
    );
    arena.connect_all();
    arena.agree(5);
}

/// An election, ten commands and a second of idleness take few requests.
pub fn count(arena: &mut impl Arena) {
    arena.check_one_leader();
    for server in 0..3 {
        let requests = arena.requests_to(server);
        assert!(
            requests <= 30,
            "{requests} to one server for the first leader"
        );
    }
    let requests = arena.requests();
    assert!(
        (1..=30).contains(&requests),
        "{requests} for the first leader"
    );
    arena.agree(3);

    in_one_term(arena, |arena| {
        let leader = arena.check_one_leader();
        let before = arena.requests();
        let first = submit_many(arena, leader, 1);
        let Some(Some(Submitted { entry: first, .. })) = first.first() else {
            return false;
        };
        let all = submit_many(arena, leader, 11);
        let agreed = all.into_iter().all(|submitted| {
            let submitted = submitted.filter(|s| s.entry.term == first.term);
            submitted.is_some_and(|s| arena.wait_in_term(s, 3, first.term))
        });
        let took = arena.requests() - before;
        assert!(
            !agreed || took <= (10 + 1 + 3) * 3,
            "{took} for 10 commands"
        );
        agreed
    });

    let before = arena.requests();
    arena.run_for(Duration::from_secs(1));
    let idle = arena.requests() - before;
    assert!(idle <= 3 * 20, "{idle} in a second of idleness");
}
