//! The course's Raft tests, part A: elections.

use std::time::Duration;

use super::{Arena, Procedures, Scripted};

/// A leader is elected, and without a failure it stays.
pub fn initial_election(arena: &mut impl Arena) {
    arena.check_one_leader();
    arena.run_for(Duration::from_millis(50));
    let term = arena.check_terms();
    assert!(term >= 1);
    // Without a failure the term remains; the course only warns if it does not.
    arena.run_for(2 * arena.nominal_timeout());
    assert_eq!(arena.check_terms(), term);
    arena.check_one_leader();
}

/// A leader that is cut off is replaced, and without a majority there is none.
pub fn re_election(arena: &mut impl Arena) {
    let first = arena.check_one_leader();
    arena.disconnect(first);
    let second = arena.check_one_leader();
    // One that led before deposes nobody when it comes back.
    arena.connect(first);
    assert_eq!(arena.check_one_leader(), second);
    // Without a majority there is none.
    let other = arena.behind(second, 1);
    arena.disconnect(second);
    arena.disconnect(other);
    for _ in 0..2 {
        arena.run_for(2 * arena.nominal_timeout());
        arena.check_no_leader();
    }
    arena.connect(other);
    arena.check_one_leader();
    arena.connect(second);
    arena.check_one_leader();
}

/// A majority elects a leader, whichever three of seven servers are cut off.
pub fn many_elections(arena: &mut impl Arena) {
    arena.check_one_leader();
    for _ in 0..9 {
        // Three servers at the most, so that four remain.
        let cut = [arena.any_server(), arena.any_server(), arena.any_server()];
        cut.iter().for_each(|server| arena.disconnect(*server));
        arena.check_one_leader();
        cut.iter().for_each(|server| arena.connect(*server));
    }
    arena.check_one_leader();
}
