//! The course's tests of a replicated state machine: a counter. Ours is the length of a value, and
//! to count is to append to it.

use std::collections::BTreeSet;
use std::time::Duration;

use raftkv::kv::Reply;
use raftkv_verify::course::{Actor, Procedures, Scripted};
use raftkv_verify::sim::Time;
use raftkv_verify::sim::lab::{Ended, Every, Lab, Ticket, append};

use super::seeds::course_tests;

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(10);

course_tests! {
    basic: 3 servers;
    concurrent: 3 servers;
    leader_failure: 3 servers;
    leader_partition: 3 servers;
    restart_replay: 3 servers;
    shutdown: 3 servers;
    restart_submit: 3 servers;
    snapshot: 3 servers;
}

const COUNTER: &str = "counter";
/// One more.
const INCREMENT: &str = "+";
/// What changes the counter in a way that cannot be mistaken for an increment.
const DECREMENT: &str = "----------------";

/// A command that is submitted to one server after the other until one executes it.
struct Submission {
    part: &'static str,
    servers: Vec<usize>,
    next: usize,
    give_up: Time,
    due: Time,
    ticket: Option<Ticket>,
    value: Option<u64>,
}

impl Submission {
    fn new(lab: &Lab, part: &'static str) -> Self {
        Self {
            part,
            servers: lab.connected(),
            next: 0,
            give_up: lab.after(LONG),
            due: lab.now(),
            ticket: None,
            value: None,
        }
    }

    fn submit(&mut self, lab: &mut Lab) {
        assert!(lab.now() < self.give_up, "{} is not executed", self.part);
        for _ in 0..self.servers.len() {
            let server = self.servers[self.next];
            self.next = (self.next + 1) % self.servers.len();
            if let Some(ticket) = start(lab, server, self.part) {
                self.ticket = Some(ticket);
                self.due = lab.after(MS);
                return;
            }
        }
        self.due = lab.after(50 * MS);
    }
}

impl Actor<Lab> for Submission {
    fn due(&self) -> Time {
        self.due
    }

    fn act(&mut self, lab: &mut Lab) {
        match self.ticket.map(|ticket| lab.ended(ticket)) {
            Some(Some(Ended::Reply(Reply::Appended(value)))) => {
                self.value = Some(*value);
                self.due = Time::MAX;
            }
            Some(Some(Ended::Reply(reply))) => panic!("an append is answered {reply:?}"),
            Some(None) => self.due = lab.after(MS),
            Some(Some(Ended::Not(_))) | None => {
                self.ticket = None;
                self.submit(lab);
            }
        }
    }
}

fn start(lab: &mut Lab, server: usize, part: &str) -> Option<Ticket> {
    let command = lab.command(append(COUNTER, part));
    lab.submit(server, command)
        .map(|submitted| submitted.ticket)
}

/// Has a command executed by a connected server, and returns the counter after it.
fn submit(lab: &mut Lab, part: &'static str) -> u64 {
    await_all(lab, vec![Submission::new(lab, part)])[0]
}

fn await_all(lab: &mut Lab, mut submissions: Vec<Submission>) -> Vec<u64> {
    while submissions
        .iter()
        .any(|submission| submission.value.is_none())
    {
        lab.run_with(MS, &mut submissions);
    }
    submissions
        .iter()
        .filter_map(|submission| submission.value)
        .collect()
}

/// Waits until so many servers have counted up to here.
fn check_value(lab: &mut Lab, servers: usize, value: u64) {
    let agree = lab.run_until(LONG, |lab| {
        let up = (0..lab.servers()).filter(|server| lab.is_up(*server));
        let counters = up.map(|server| lab.value_at(server, COUNTER.as_bytes()).len() as u64);
        counters.filter(|counter| *counter == value).count() >= servers
    });
    assert!(agree, "{servers} counters must come to {value}");
}

pub fn basic(lab: &mut Lab) {
    for n in 1..=10 {
        assert_eq!(submit(lab, INCREMENT), n);
        check_value(lab, 3, n);
    }
}

pub fn concurrent(lab: &mut Lab) {
    let all: Vec<_> = (0..50).map(|_| Submission::new(lab, INCREMENT)).collect();
    let values: BTreeSet<u64> = await_all(lab, all).into_iter().collect();
    assert_eq!(values, (1..=50).collect());
    check_value(lab, 3, 50);
}

pub fn leader_failure(lab: &mut Lab) {
    assert_eq!(submit(lab, INCREMENT), 1);
    check_value(lab, 3, 1);
    let leader = lab.check_one_leader();
    lab.disconnect(leader);
    assert_eq!(submit(lab, INCREMENT), 2);
    check_value(lab, 2, 2);
    lab.connect(leader);
    check_value(lab, 3, 2);
}

/// In the course the leader that is cut off cannot know, and its commands must wait for more than a
/// second. Ours steps down once no majority answers, and says then that their end is unknown.
pub fn leader_partition(lab: &mut Lab) {
    assert_eq!(submit(lab, INCREMENT), 1);
    let leader = lab.check_one_leader();
    lab.disconnect(leader);
    let lost: Vec<_> = (0..100)
        .filter_map(|_| start(lab, leader, DECREMENT))
        .collect();
    assert_eq!(lost.len(), 100, "the leader cannot know that it is alone");
    lab.run_for(10 * MS);
    let some_ended = lost.iter().any(|ticket| lab.ended(*ticket).is_some());
    assert!(!some_ended, "nobody has had the time to notice anything");
    assert_eq!(submit(lab, INCREMENT), 2);
    lab.run_for(1000 * MS);
    lab.connect(leader);
    lab.run_for(1000 * MS);
    for ticket in lost {
        let ended = lab.ended(ticket);
        assert!(matches!(ended, Some(Ended::Not(_))), "{ended:?}");
    }
    check_value(lab, 3, 2);
    assert_eq!(submit(lab, INCREMENT), 3);
}

fn count_through_a_restart(lab: &mut Lab) {
    for n in 1..=100 {
        assert_eq!(submit(lab, INCREMENT), n);
    }
    (0..3).for_each(|server| lab.crash(server));
    lab.run_for(1000 * MS);
    (0..3).for_each(|server| lab.start(server));
    assert_eq!(submit(lab, INCREMENT), 101);
    check_value(lab, 3, 101);
}

/// Stops all servers with a hundred commands under way, and returns how many of these are known
/// to have been executed.
fn shut_down(lab: &mut Lab) -> u64 {
    let leader = lab.check_one_leader();
    // The servers that do not lead refuse, as they do in the course.
    let all: Vec<_> = (0..100)
        .filter_map(|_| start(lab, leader, INCREMENT))
        .collect();
    assert_eq!(all.len(), 100);
    let time = lab.below(20_000);
    lab.run_for(Duration::from_micros(time));
    (0..3).for_each(|server| lab.stop(server));
    // The course gives each submit 11 seconds to return.
    let ends = all.iter().map(|ticket| lab.ended(*ticket));
    let ends: Vec<&Ended> = ends
        .map(|end| end.expect("a server that stops says so"))
        .collect();
    let executed = ends.iter().filter(|end| matches!(end, Ended::Reply(_)));
    executed.count() as u64
}

pub fn restart_replay(lab: &mut Lab) {
    count_through_a_restart(lab);
    lab.check_snapshots(false);
}

pub fn snapshot(lab: &mut Lab) {
    lab.snapshot(Every::Bytes(1000));
    count_through_a_restart(lab);
    lab.check_log_bytes(&[0, 1, 2], 2000);
    lab.check_snapshots(true);
}

/// Of the course's 20 ms up to the end, any number: all may be executed before they are over.
pub fn shutdown(lab: &mut Lab) {
    submit(lab, INCREMENT);
    shut_down(lab);
}

pub fn restart_submit(lab: &mut Lab) {
    count_through_a_restart(lab);
    let executed = shut_down(lab);
    (0..3).for_each(|server| lab.start(server));
    let value = submit(lab, INCREMENT);
    // Of the hundred those that were not answered may be executed as well, but none twice.
    let possible = 102 + executed..=202;
    assert!(possible.contains(&value), "{value}, {executed} answered");
    check_value(lab, 3, value);
}
