//! The course's Raft tests, part A: elections.

use super::lab::T;
use super::raft_commands::RaftLab;

#[test]
fn initial_election() {
    let lab = RaftLab::new(3);
    let leader = lab.check_one_leader();
    let term = lab.check_terms();
    assert!(term >= 1);
    // Without a failure, the leader and the term remain.
    lab.let_time_pass(2 * T);
    assert_eq!(lab.check_terms(), term);
    assert_eq!(lab.check_one_leader(), leader);
}

#[test]
fn re_election() {
    let lab = RaftLab::new(3);
    let first = lab.check_one_leader();
    lab.disconnect(first);
    let second = lab.check_one_leader();

    // A leader that comes back deposes nobody.
    lab.connect(first);
    assert_eq!(lab.check_one_leader(), second);

    // Without a majority there is none.
    lab.disconnect(second);
    lab.disconnect(lab.after(second, 1));
    lab.check_no_leader();

    lab.connect(lab.after(second, 1));
    lab.check_one_leader();
    lab.connect(second);
    lab.check_one_leader();
}

#[test]
fn many_elections() {
    let lab = RaftLab::new(7);
    lab.check_one_leader();
    for _ in 0..9 {
        // Three servers at the most, so that four remain.
        let cut = [lab.random_id(), lab.random_id(), lab.random_id()];
        cut.iter().for_each(|id| lab.disconnect(*id));
        lab.check_one_leader();
        cut.iter().for_each(|id| lab.connect(*id));
    }
    lab.check_one_leader();
}
