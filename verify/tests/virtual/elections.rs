//! The course's Raft tests, part A: elections.

use std::time::Duration;

use raftkv_verify::sim::lab::{Lab, T};

use super::seeds::course_tests;

course_tests! {
    initial_election: 3 servers;
    re_election: 3 servers;
    many_elections: 7 servers;
}

pub fn initial_election(lab: &mut Lab) {
    lab.check_one_leader();
    lab.run_for(Duration::from_millis(50));
    let term = lab.check_terms();
    assert!(term >= 1);
    // Without a failure the term remains; the course only warns if it does not.
    lab.run_for(2 * T);
    assert_eq!(lab.check_terms(), term);
    lab.check_one_leader();
}

pub fn re_election(lab: &mut Lab) {
    let first = lab.check_one_leader();
    lab.disconnect(first);
    lab.check_one_leader();
    // One that led before deposes nobody when it comes back.
    lab.connect(first);
    let second = lab.check_one_leader();
    // Without a majority there is none.
    let other = lab.behind(second, 1);
    lab.disconnect(second);
    lab.disconnect(other);
    lab.run_for(2 * T);
    lab.check_no_leader();
    lab.connect(other);
    lab.check_one_leader();
    lab.connect(second);
    lab.check_one_leader();
}

pub fn many_elections(lab: &mut Lab) {
    lab.check_one_leader();
    for _ in 0..9 {
        // Three servers at the most, so that four remain.
        let cut = [lab.any_server(), lab.any_server(), lab.any_server()];
        cut.iter().for_each(|server| lab.disconnect(*server));
        lab.check_one_leader();
        cut.iter().for_each(|server| lab.connect(*server));
    }
    lab.check_one_leader();
}
