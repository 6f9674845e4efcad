//! The course's tests of a replicated state machine: a counter. Ours is the length of a value, and
//! to count is to append to it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use raftkv::kv::Reply;
use raftkv::wire::client::Doubt;

use super::clients::append;
use super::{Actor, Arena, Procedures, Scripted};
use crate::sim::Time;
use crate::sim::lab::{Ended, Every, Ticket};

const MS: Duration = Duration::from_millis(1);
/// How long a client tries one server after the other.
const LONG: Duration = Duration::from_secs(10);

const COUNTER: &str = "counter";
/// One more.
const INCREMENT: &str = "+";
/// What changes the counter in a way that cannot be mistaken for an increment.
const DECREMENT: &str = "----------------";

/// How a command ends that was under way when its leader lost the lead.
const LOST: Ended = Ended::Unknown(Doubt::LeadershipLost);
/// How a command ends that was under way when its server stopped.
const STOPPED: Ended = Ended::Unknown(Doubt::ShuttingDown);

/// So many commands that change the counter.
fn commands(arena: &mut impl Arena, n: usize, part: &str) -> Vec<Bytes> {
    (0..n)
        .map(|_| arena.command(append(COUNTER, part)))
        .collect()
}

/// Submits commands to the server, all at once.
///
/// # Panics
/// If the server does not take all of them.
fn start(arena: &mut impl Arena, server: usize, commands: Vec<Bytes>) -> Vec<Ticket> {
    let all = arena.submit_all(server, commands).into_iter();
    let taken = all.map(|submitted| submitted.expect("the leader takes it").ticket);
    taken.collect()
}

/// A command that is submitted to one connected server after the other until one executes it.
struct Submission {
    command: Bytes,
    give_up: Time,
    due: Time,
    ticket: Option<Ticket>,
    value: Option<u64>,
}

impl Submission {
    fn new(arena: &impl Arena, command: Bytes, ticket: Option<Ticket>) -> Self {
        Self {
            command,
            give_up: arena.after(LONG),
            due: arena.now(),
            ticket,
            value: None,
        }
    }

    /// A command that is submitted again has its number again, so it is executed once.
    fn submit(&mut self, arena: &mut impl Arena) {
        assert!(arena.now() < self.give_up, "{:?} is lost", self.command);
        let mut connected = arena.connected().into_iter();
        let taken = connected.find_map(|server| arena.submit(server, self.command.clone()));
        self.ticket = taken.map(|submitted| submitted.ticket);
        let pause = if self.ticket.is_some() { MS } else { 50 * MS };
        self.due = arena.after(pause);
    }
}

impl<A: Arena> Actor<A> for Submission {
    fn due(&self) -> Time {
        self.due
    }

    fn act(&mut self, arena: &mut A) {
        let Some(ticket) = self.ticket else {
            return self.submit(arena);
        };
        match arena.ended(ticket) {
            Some(Ended::Reply(Reply::Appended(value))) => {
                self.value = Some(value);
                self.due = Time::MAX;
            }
            Some(Ended::Reply(reply)) => panic!("an append is answered {reply:?}"),
            Some(Ended::Unknown(_) | Ended::Not(_)) => self.submit(arena),
            None => self.due = arena.after(MS),
        }
    }
}

/// Has one more counted by a connected server, and returns the counter after it.
fn increment(arena: &mut impl Arena) -> u64 {
    let command = commands(arena, 1, INCREMENT).remove(0);
    let submission = Submission::new(arena, command, None);
    await_all(arena, vec![submission])[0]
}

fn await_all(arena: &mut impl Arena, mut submissions: Vec<Submission>) -> Vec<u64> {
    while submissions.iter().any(|one| one.value.is_none()) {
        arena.run_with(MS, &mut submissions);
    }
    submissions.iter().filter_map(|one| one.value).collect()
}

/// Waits until so many servers have counted up to here.
fn check_value(arena: &mut impl Arena, servers: usize, value: u64) {
    let agree = arena.run_until(LONG, |arena| {
        let up = (0..arena.servers()).filter(|server| arena.is_up(*server));
        let counters = up.map(|server| arena.value_at(server, COUNTER.as_bytes()).len() as u64);
        counters.filter(|counter| *counter == value).count() >= servers
    });
    assert!(agree, "{servers} counters must come to {value}");
}

/// Each command is answered with its own result.
pub fn basic(arena: &mut impl Arena) {
    for n in 1..=10 {
        assert_eq!(increment(arena), n);
        check_value(arena, 3, n);
    }
}

/// As [`basic`], with commands that come at once.
pub fn concurrent(arena: &mut impl Arena) {
    let leader = arena.check_one_leader();
    let commands = commands(arena, 50, INCREMENT);
    let tickets = start(arena, leader, commands.clone());
    let all = commands.into_iter().zip(tickets);
    let all = all.map(|(command, ticket)| Submission::new(arena, command, Some(ticket)));
    let all = all.collect();
    let values: BTreeSet<u64> = await_all(arena, all).into_iter().collect();
    assert_eq!(values, (1..=50).collect());
    check_value(arena, 3, 50);
}

/// The others go on without the leader, which catches up.
pub fn leader_failure(arena: &mut impl Arena) {
    assert_eq!(increment(arena), 1);
    check_value(arena, 3, 1);
    let leader = arena.check_one_leader();
    arena.disconnect(leader);
    assert_eq!(increment(arena), 2);
    check_value(arena, 2, 2);
    arena.connect(leader);
    check_value(arena, 3, 2);
}

/// In the course the leader that is cut off cannot know, and its commands must wait for more than a
/// second. Ours steps down once no majority answers, and says then that their end is unknown.
pub fn leader_partition(arena: &mut impl Arena) {
    assert_eq!(increment(arena), 1);
    let leader = arena.check_one_leader();
    let decrements = commands(arena, 100, DECREMENT);
    arena.disconnect(leader);
    let cut_at = arena.now();
    // It cannot know that it is alone.
    let lost = start(arena, leader, decrements);
    arena.run_for(10 * MS);
    let some_ended = lost.iter().any(|ticket| arena.ended(*ticket).is_some());
    // In real time so much may have passed that it knows.
    let is_early = Duration::from_micros(arena.now() - cut_at) < 100 * MS;
    assert!(!some_ended || !is_early, "nobody has noticed anything yet");
    assert_eq!(increment(arena), 2);
    // The leader hears of the new one, or has stepped down by itself long before.
    if arena.chance(50) {
        arena.run_for(arena.nominal_timeout());
    }
    arena.connect(leader);
    let ended = arena.run_until(1000 * MS, |arena| {
        lost.iter().all(|ticket| arena.ended(*ticket).is_some())
    });
    assert!(ended, "a command does not end");
    for ticket in lost {
        assert_eq!(arena.ended(ticket), Some(LOST));
    }
    check_value(arena, 3, 2);
    assert_eq!(increment(arena), 3);
}

fn count_through_a_restart(arena: &mut impl Arena) {
    for n in 1..=100 {
        assert_eq!(increment(arena), n);
    }
    (0..3).for_each(|server| arena.crash(server));
    arena.run_for(arena.nominal_timeout());
    (0..3).for_each(|server| arena.start(server));
    assert_eq!(increment(arena), 101);
    check_value(arena, 3, 101);
}

/// Stops all servers with a hundred commands under way, and returns how many of these are known
/// to have been executed. `cut_off`: the leader reaches nobody from before the first command on, so
/// that all hundred are under way when it stops. Else the end comes at any of the course's 20 ms,
/// before which all may be executed.
fn shut_down(arena: &mut impl Arena, cut_off: bool) -> u64 {
    let leader = arena.check_one_leader();
    let commands = commands(arena, 100, INCREMENT);
    if cut_off {
        arena.disconnect(leader);
    }
    let tickets = start(arena, leader, commands);
    let time = Duration::from_micros(arena.below(20_000));
    arena.run_for(time);
    (0..3).for_each(|server| arena.stop(server));
    let ended = arena.run_until(11_000 * MS, |arena| {
        tickets.iter().all(|ticket| arena.ended(*ticket).is_some())
    });
    assert!(ended, "a server that stops says so");
    let ends = tickets.iter().filter_map(|ticket| arena.ended(*ticket));
    let (executed, others): (Vec<_>, Vec<_>) = ends.partition(|end| matches!(end, Ended::Reply(_)));
    for end in others {
        assert!(end == STOPPED || end == LOST, "{end:?}");
    }
    assert!(!cut_off || executed.is_empty(), "by whom?");
    executed.len() as u64
}

/// All that was counted is counted again from the log.
pub fn restart_replay(arena: &mut impl Arena) {
    count_through_a_restart(arena);
    arena.check_snapshots(false);
}

/// A log is cut behind the snapshots from which servers start.
pub fn snapshot(arena: &mut impl Arena) {
    arena.snapshot(Every::Bytes(1000));
    count_through_a_restart(arena);
    arena.check_log_bytes(&[0, 1, 2], 2000);
    arena.check_snapshots(true);
}

/// Every command that is under way when the servers stop ends.
pub fn shutdown(arena: &mut impl Arena) {
    increment(arena);
    for cut_off in [false, true] {
        shut_down(arena, cut_off);
        (0..3).for_each(|server| arena.start(server));
    }
}

/// Commands that were under way when the servers stopped are not confused with later ones.
pub fn restart_submit(arena: &mut impl Arena) {
    count_through_a_restart(arena);
    let executed = shut_down(arena, false);
    (0..3).for_each(|server| arena.start(server));
    let value = increment(arena);
    // Of the hundred those that were not answered may be executed as well, but none twice.
    let possible = 102 + executed..=202;
    assert!(possible.contains(&value), "{value}, {executed} answered");
    check_value(arena, 3, value);
}
