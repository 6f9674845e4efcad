//! Logs that have grown apart: how many round trips it takes to find where they agree.

use super::harness::Cluster;
use crate::raft::{Entry, EntryId, HardState, Message, NodeId, Payload, RoleName, Term};

fn log(terms: &[Term]) -> Vec<Entry> {
    let entry = |(index, term): (u64, &Term)| Entry {
        id: EntryId { term: *term, index },
        time_ms: 0,
        payload: Payload::Command(format!("{index}@{term}").into()),
    };
    (1..).zip(terms).map(entry).collect()
}

/// Elects node 1 with the log `leader`, and counts the appends to node 2 that it takes to repair
/// the log `follower`.
fn questions(leader: &[Term], follower: &[Term]) -> usize {
    let mut cluster = Cluster::new(3);
    let hard_state = HardState {
        term: 100,
        vote: None,
    };
    for (id, terms) in [(1, leader), (2, follower), (3, leader)] {
        cluster.restart_with(id, hard_state, log(terms));
    }
    // Only node 1 stands for election.
    while cluster.node(1).role() == RoleName::Follower {
        cluster.node(1).tick();
    }
    let mut asked = 0;
    cluster.settle_for(|envelope| {
        let question = matches!(&envelope.message, Message::Append { .. });
        asked += usize::from(question && (envelope.from, envelope.to) == (1, 2));
        true
    });
    let last = cluster.node(1).last();
    assert_eq!(cluster.leader(), Some(1 as NodeId));
    assert_eq!(cluster.node(2).last(), last);
    let held = |cluster: &mut Cluster, id| -> Vec<_> {
        (1..=last.index)
            .map(|i| cluster.node(id).entry(i).cloned())
            .collect()
    };
    assert_eq!(held(&mut cluster, 1), held(&mut cluster, 2));
    asked
}

/// Fifty entries of two minorities, as in the course's "backup" test. The last of the three appends
/// carries the entries.
#[test]
fn fifty_divergent_entries_are_repaired_in_three_round_trips() {
    let agreed = [1; 10];
    let leader = [&agreed[..], &[4; 50]].concat();
    let follower = [&agreed[..], &[3; 50]].concat();
    assert_eq!(questions(&leader, &follower), 3);
}

#[test]
fn fifty_entries_of_fifty_terms_are_no_harder() {
    let agreed = [1; 10];
    let many: Vec<Term> = (2..52).collect();
    let later = [&agreed[..], &[60; 50]].concat();
    assert_eq!(questions(&later, &[&agreed[..], &many].concat()), 3);
    let one = [&agreed[..], &[2; 50]].concat();
    assert_eq!(questions(&[&agreed[..], &many].concat(), &one), 3);
}

#[test]
fn a_follower_that_is_only_behind_needs_two_round_trips() {
    assert_eq!(questions(&[1; 1000], &[1; 3]), 3);
    assert_eq!(questions(&[1; 10], &[1; 10]), 2);
    assert_eq!(questions(&[1; 10], &[]), 3);
}

#[test]
fn a_follower_that_is_ahead_is_cut_back_to_the_leaders_log() {
    assert_eq!(questions(&[1, 1, 5], &[1, 1, 2, 2, 2, 2]), 3);
}

/// The worst case: each side's terms fall between the other's, so that each refusal rules out one
/// term only.
#[test]
fn interleaved_terms_take_one_round_trip_for_each_two() {
    let odd: Vec<Term> = (0..20).map(|n| 3 + 2 * n).collect();
    let even: Vec<Term> = (0..20).map(|n| 2 + 2 * n).collect();
    assert!(questions(&odd, &even) <= 22);
}
