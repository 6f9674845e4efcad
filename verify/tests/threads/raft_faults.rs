//! The course's Raft tests, part C: crashes and losses at random.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use raftkv::raft::{EntryId, NodeId, Term};
use raftkv::testkit::Link;

use super::lab::{T, UNRELIABLE};
use super::raft_commands::RaftLab;

const MS: Duration = Duration::from_millis(1);

/// A command that a leader has taken.
struct Taken {
    by: NodeId,
    command: Bytes,
    entry: EntryId,
}

/// Submits a command to every server that is up, and returns what the last of them made of it that
/// took it.
fn submit_to_all(lab: &RaftLab) -> Option<Taken> {
    let take = |by| {
        let command = lab.fresh();
        let entry = lab.submit(by, command.clone())?;
        Some(Taken { by, command, entry })
    };
    lab.ids().into_iter().filter_map(take).last()
}

/// Asserts that leaders of so many terms took commands, and that some of these were executed, by
/// all servers or by none. Without them the rounds would show nothing.
fn assert_progress(lab: &RaftLab, taken: &[Taken], least_terms: usize) {
    let terms: BTreeSet<Term> = taken.iter().map(|taken| taken.entry.term).collect();
    let servers = |taken: &Taken| lab.executed_at(taken.entry.index, &taken.command);
    let executed = taken.iter().map(servers).filter(|servers| *servers > 0);
    let executed: Vec<usize> = executed.collect();
    assert!(
        terms.len() >= least_terms,
        "commands were taken in {terms:?} only"
    );
    assert!(!executed.is_empty(), "nothing was executed");
    assert!(executed.iter().all(|servers| *servers == lab.ids().len()));
}

/// Lets up to half an election timeout pass now and then, else next to no time.
fn let_some_time_pass(lab: &RaftLab) {
    let most = if lab.chance(10) {
        T.as_millis() as u64 / 2
    } else {
        13
    };
    lab.let_time_pass(MS * lab.below(most) as u32);
}

/// 200 rounds; the course has 1,000.
#[test]
fn figure_8() {
    let lab = RaftLab::new(5);
    lab.agree(1);
    let mut all = Vec::new();
    for _ in 0..200 {
        let taken = submit_to_all(&lab);
        let_some_time_pass(&lab);
        if let Some(taken) = taken {
            lab.crash(taken.by);
            all.push(taken);
        }
        let up = lab.ids().into_iter().filter(|id| lab.cluster.is_up(*id));
        if up.count() < 3 {
            let id = lab.random_id();
            if !lab.cluster.is_up(id) {
                lab.start(id);
            }
        }
    }
    let down = lab.ids().into_iter().filter(|id| !lab.cluster.is_up(*id));
    down.for_each(|id| lab.start(id));
    lab.agree(5);
    assert_progress(&lab, &all, 3);
}

/// 20 rounds; the course has 49.
#[test]
fn unreliable_agree() {
    let lab = RaftLab::new(5);
    lab.set_links(UNRELIABLE);
    thread::scope(|scope| {
        for _ in 0..20 {
            (0..4).for_each(|_| drop(scope.spawn(|| lab.agree(1))));
            lab.agree(1);
        }
    });
    lab.set_links(Link::default());
    lab.agree(5);
}

/// 200 rounds, messages being late from round 40 on; the course has 1,000 and 200. It has two
/// thirds of the answers come late, by 200 to 2,200 ms; here it is a third of all messages, by half
/// as much.
#[test]
fn figure_8_unreliable() {
    let lab = RaftLab::new(5);
    lab.set_links(UNRELIABLE);
    lab.agree(1);
    let mut all = Vec::new();
    for round in 0..200 {
        if round == 40 {
            lab.set_links(Link {
                late_permille: 333,
                late_delay: 1100 * MS,
                ..UNRELIABLE
            });
        }
        let taken = submit_to_all(&lab);
        let_some_time_pass(&lab);
        if let Some(taken) = taken {
            if lab.chance(50) {
                lab.disconnect(taken.by);
            }
            all.push(taken);
        }
        if lab.connected().len() < 3 {
            lab.connect(lab.random_id());
        }
    }
    lab.connect_all();
    lab.agree(5);
    assert_progress(&lab, &all, 2);
}

#[test]
fn reliable_churn() {
    churn(Link::default());
}

#[test]
fn unreliable_churn() {
    churn(UNRELIABLE);
}

fn churn(link: Link) {
    let lab = RaftLab::new(5);
    lab.set_links(link);
    let stop = AtomicBool::new(false);
    let noted: Vec<Bytes> = thread::scope(|scope| {
        let client = |id| client_of_churn(&lab, &stop, id);
        let clients: Vec<_> = (0..3).map(|id| scope.spawn(move || client(id))).collect();
        for _ in 0..20 {
            if lab.chance(20) {
                lab.disconnect(lab.random_id());
            }
            if lab.chance(50) {
                let id = lab.random_id();
                match lab.cluster.is_up(id) {
                    true => lab.connect(id),
                    false => lab.start(id),
                }
            }
            if lab.chance(20) {
                let id = lab.random_id();
                if lab.cluster.is_up(id) {
                    lab.crash(id);
                }
            }
            lab.let_time_pass(T * 7 / 10);
        }
        lab.let_time_pass(T);
        lab.set_links(Link::default());
        let down = lab.ids().into_iter().filter(|id| !lab.cluster.is_up(*id));
        down.for_each(|id| lab.start(id));
        lab.connect_all();
        stop.store(true, Ordering::Relaxed);
        let noted = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        noted.collect()
    });
    lab.let_time_pass(T);
    lab.agree(5);
    assert!(!noted.is_empty(), "no command got through");
    for id in lab.ids() {
        let log = lab.log_of(id);
        let lost: Vec<_> = noted
            .iter()
            .filter(|command| !log.contains(command))
            .collect();
        assert!(lost.is_empty(), "node {id} lost {lost:?}");
    }
}

/// Submits commands and returns those that it saw executed.
fn client_of_churn(lab: &RaftLab, stop: &AtomicBool, id: u32) -> Vec<Bytes> {
    let mut noted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let command = lab.fresh();
        let submit = |id: NodeId| lab.submit(id, command.clone());
        let Some(entry) = lab.ids().into_iter().filter_map(submit).last() else {
            lab.let_time_pass(MS * (79 + 17 * id));
            continue;
        };
        // As long as the course looks for it: 10, 20, 50, 100 and 200 ms.
        let executed = |_: &_| lab.executed_at(entry.index, &command) > 0;
        if lab.cluster.wait_until(380 * MS, executed) {
            noted.push(command);
        }
    }
    noted
}
