//! The course's Raft tests, part B: agreement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use raftkv::raft::{Envelope, Message, RoleName};
use raftkv::wire::frame;

use super::lab::T;
use super::raft_commands::RaftLab;

#[test]
fn basic_agree() {
    let lab = RaftLab::new(3);
    for n in 1..=3 {
        assert_eq!(
            lab.executed(n),
            0,
            "command {n} is executed before it was submitted"
        );
        assert_eq!(lab.agree_at_once(3), n);
    }
}

/// Adds up what `measure` says of each message.
fn counter(lab: &RaftLab, measure: impl Fn(&Envelope) -> u64 + Send + 'static) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let sum = count.clone();
    lab.cluster.network().set_filter(move |envelope| {
        sum.fetch_add(measure(envelope), Ordering::Relaxed);
        true
    });
    count
}

/// All bytes in frames, answers included.
#[test]
fn rpc_bytes() {
    let lab = RaftLab::new(3);
    lab.check_one_leader();
    lab.agree_at_once(3);
    let bytes = counter(&lab, |envelope| {
        let mut bytes = Vec::new();
        frame::put(envelope, &mut bytes);
        bytes.len() as u64
    });
    for n in 0..10 {
        let random: Vec<u8> = (0..5000).map(|_| lab.below(256) as u8).collect();
        assert_eq!(lab.one(random.into(), 3, false), n + 2);
    }
    let (sent, bytes) = (10 * 5000, bytes.load(Ordering::Relaxed));
    // A leader and two followers: each entry once to each of these.
    assert!(bytes >= 2 * sent, "{bytes} bytes cannot be all");
    assert!(bytes <= 3 * sent + 50_000, "{bytes} bytes for {sent}");
}

#[test]
fn follower_failure() {
    let lab = RaftLab::new(3);
    assert_eq!(lab.agree_at_once(3), 1);
    let leader = lab.check_one_leader();
    lab.disconnect(lab.after(leader, 1));
    lab.agree_at_once(2);
    lab.let_time_pass(T);
    lab.agree_at_once(2);

    let leader = lab.check_one_leader();
    lab.disconnect(lab.after(leader, 1));
    lab.disconnect(lab.after(leader, 2));
    let place = lab.submit_in_vain(leader);
    assert_eq!(place, 4);
    lab.let_time_pass(2 * T);
    assert_eq!(lab.executed(place), 0);
}

#[test]
fn leader_failure() {
    let lab = RaftLab::new(3);
    lab.agree_at_once(3);
    lab.disconnect(lab.check_one_leader());
    // With retries: the new leader may be found before it is in office.
    lab.agree(2);
    lab.let_time_pass(T);
    lab.agree(2);

    lab.disconnect(lab.check_one_leader());
    let command = lab.fresh();
    let ids = lab.ids().into_iter();
    let taken: Vec<_> = ids
        .filter_map(|id| lab.submit(id, command.clone()))
        .collect();
    // Else nothing was there that a minority could have executed.
    assert!(!taken.is_empty(), "a leader cannot know that it is alone");
    lab.let_time_pass(2 * T);
    for entry in taken {
        assert_eq!(lab.executed_at(entry.index, &command), 0, "{entry}");
    }
}

#[test]
fn fail_agree() {
    let lab = RaftLab::new(3);
    lab.agree_at_once(3);
    let follower = lab.after(lab.check_one_leader(), 1);
    lab.disconnect(follower);
    lab.agree_at_once(2);
    lab.agree_at_once(2);
    lab.let_time_pass(T);
    lab.agree_at_once(2);
    lab.agree_at_once(2);

    lab.connect(follower);
    lab.agree(3);
    lab.let_time_pass(T);
    lab.agree(3);
}

#[test]
fn fail_no_agree() {
    let lab = RaftLab::new(5);
    lab.agree_at_once(5);
    let leader = lab.check_one_leader();
    let cut = [1, 2, 3].map(|distance| lab.after(leader, distance));
    cut.iter().for_each(|id| lab.disconnect(*id));
    assert_eq!(lab.submit_in_vain(leader), 2);
    lab.let_time_pass(2 * T);
    assert_eq!(lab.executed(2), 0);

    cut.iter().for_each(|id| lab.connect(*id));
    // The three may have chosen a leader among themselves, which never saw the second command.
    let place = lab.submit_in_vain(lab.check_one_leader());
    assert!((2..=3).contains(&place), "{place}");
    lab.agree(5);
}

#[test]
fn concurrent_starts() {
    let lab = RaftLab::new(3);
    let in_one_term = (0..5).any(|_| {
        let leader = lab.check_one_leader();
        let Some(first) = lab.submit(leader, lab.fresh()) else {
            return false;
        };
        let commands: Vec<_> = (0..5).map(|_| lab.fresh()).collect();
        let entries: Vec<_> = thread::scope(|scope| {
            let submit = |command: &bytes::Bytes| lab.submit(leader, command.clone());
            let threads = commands
                .iter()
                .map(|command| scope.spawn(move || submit(command)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let all = entries.into_iter().zip(&commands);
        let mut agreed = all.map(|(entry, command)| {
            let entry = entry.filter(|entry| entry.term == first.term);
            entry.is_some_and(|entry| lab.wait_in_term(entry, command, first.term))
        });
        agreed.all(|agreed| agreed)
    });
    assert!(in_one_term, "the term moved each time");
}

#[test]
fn rejoin() {
    let lab = RaftLab::new(3);
    lab.agree(3);
    let first = lab.check_one_leader();
    lab.disconnect(first);
    for _ in 0..3 {
        lab.submit_in_vain(first);
    }
    lab.agree(2);

    let second = lab.check_one_leader();
    lab.disconnect(second);
    lab.connect(first);
    lab.agree(2);
    lab.connect(second);
    lab.agree(3);
}

#[test]
fn backup() {
    let lab = RaftLab::new(5);
    lab.agree(5);
    let submit_50 = |leader| {
        for _ in 0..50 {
            lab.submit(leader, lab.fresh());
        }
    };
    let agree_50 = || {
        for _ in 0..50 {
            lab.agree(3);
        }
    };

    // A leader with one follower, and 50 commands that cannot be committed.
    let first = lab.check_one_leader();
    let companion = lab.after(first, 1);
    let rest = [2, 3, 4].map(|distance| lab.after(first, distance));
    rest.iter().for_each(|id| lab.disconnect(*id));
    submit_50(first);
    lab.let_time_pass(T / 2);

    // The other three agree on 50, then one of them is cut off and 50 more cannot be committed.
    lab.disconnect(first);
    lab.disconnect(companion);
    rest.iter().for_each(|id| lab.connect(*id));
    agree_50();
    let second = lab.check_one_leader();
    let other = rest.into_iter().find(|id| *id != second).unwrap();
    lab.disconnect(other);
    submit_50(second);
    lab.let_time_pass(T / 2);

    // The first leader and its companion with the one that was cut off.
    lab.ids().into_iter().for_each(|id| lab.disconnect(id));
    [first, companion, other]
        .iter()
        .for_each(|id| lab.connect(*id));
    agree_50();
    lab.connect_all();
    lab.agree(5);
}

/// What the course counts: calls, not their answers.
fn is_request(envelope: &Envelope) -> u64 {
    u64::from(matches!(
        envelope.message,
        Message::PreVote { .. }
            | Message::Vote { .. }
            | Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::TimeoutNow
    ))
}

#[test]
fn count() {
    let lab = RaftLab::new(3);
    let requests = counter(&lab, is_request);
    let total = || requests.load(Ordering::Relaxed);
    lab.check_one_leader();
    // It cannot have counted from the very start, but an election takes a quarter of a second.
    assert!(
        (1..=30).contains(&total()),
        "{} for the first leader",
        total()
    );

    let in_one_term = (0..5).any(|_| {
        let leader = lab.check_one_leader();
        let term = lab.cluster.node(leader).status().term;
        let before = total();
        let commands: Vec<_> = (0..10).map(|_| lab.fresh()).collect();
        let entries: Vec<_> = commands
            .iter()
            .map(|c| lab.submit(leader, c.clone()))
            .collect();
        let all = entries.into_iter().zip(&commands);
        let agreed = all.map(|(entry, command)| {
            entry.is_some_and(|entry| lab.wait_in_term(entry, command, term))
        });
        let agreed: Vec<bool> = agreed.collect();
        let took = total() - before;
        let in_one_term = agreed.iter().all(|agreed| *agreed);
        assert!(
            !in_one_term || took <= (10 + 1 + 3) * 3,
            "{took} for 10 commands"
        );
        in_one_term
    });
    assert!(in_one_term, "the term moved each time");

    let leader = lab.check_one_leader();
    let before = total();
    lab.let_time_pass(Duration::from_secs(1));
    assert_eq!(lab.cluster.node(leader).status().role, RoleName::Leader);
    let idle = total() - before;
    assert!(idle <= 3 * 20, "{idle} in a second of idleness");
}
