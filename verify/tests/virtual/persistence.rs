//! The course's Raft tests, part C: crashes, in fixed orders.

use raftkv_verify::sim::lab::{Lab, T};

use super::seeds::course_tests;

course_tests! {
    persist_1: 3 servers;
    persist_2: 5 servers;
    persist_3: 3 servers;
}

pub fn persist_1(lab: &mut Lab) {
    lab.agree(3);
    lab.restart_all();
    lab.agree(3);

    let leader = lab.check_one_leader();
    lab.restart(leader);
    lab.agree(3);

    let second = lab.check_one_leader();
    lab.disconnect(second);
    let place = lab.agree(2);
    lab.restart(second);
    let all = lab.run_until(10 * T, |lab| lab.executed(place) == 3);
    assert!(all, "the server that was restarted must catch up");

    let leader = lab.check_one_leader();
    let follower = lab.behind(leader, 1);
    lab.disconnect(follower);
    lab.agree(2);
    lab.restart(follower);
    lab.agree(3);
}

pub fn persist_2(lab: &mut Lab) {
    for _ in 0..5 {
        lab.agree(5);
        let leader = lab.check_one_leader();
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|distance| lab.behind(leader, distance));
        [a, b].iter().for_each(|server| lab.disconnect(*server));
        lab.agree(3);
        [c, d, e].iter().for_each(|server| lab.disconnect(*server));
        // Two without the last command, then one with it: only that one can be elected.
        [a, b].iter().for_each(|server| lab.restart(*server));
        lab.run_for(T);
        lab.restart(c);
        lab.agree(3);
        [d, e].iter().for_each(|server| lab.connect(*server));
    }
    lab.agree(5);
}

pub fn persist_3(lab: &mut Lab) {
    lab.agree(3);
    let leader = lab.check_one_leader();
    let (cut, other) = (lab.behind(leader, 2), lab.behind(leader, 1));
    lab.disconnect(cut);
    lab.agree(2);
    lab.crash(leader);
    lab.crash(other);
    lab.connect(cut);
    lab.start(leader);
    lab.agree(2);
    lab.start(other);
    lab.agree(3);
}
