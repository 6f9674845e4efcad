//! The course's Raft tests, part C: crashes, in fixed orders.

use super::lab::{Lab, T};
use super::raft_commands::RaftLab;
use raftkv::raft::NodeId;
use raftkv::testkit::Recorder;

fn restart(lab: &Lab<Recorder>, id: NodeId) {
    lab.crash(id);
    lab.start(id);
}

#[test]
fn persist_1() {
    let lab = RaftLab::new(3);
    lab.agree(3);
    lab.restart_all();
    lab.agree(3);

    restart(&lab, lab.check_one_leader());
    lab.agree(3);

    let second = lab.check_one_leader();
    lab.disconnect(second);
    lab.agree(2);
    restart(&lab, second);
    let all = lab.cluster.wait_until(10 * T, |_| lab.executed(4) == 3);
    assert!(all, "the server that was restarted must catch up");

    let follower = lab.after(lab.check_one_leader(), 1);
    lab.disconnect(follower);
    lab.agree(2);
    restart(&lab, follower);
    lab.agree(3);
}

#[test]
fn persist_2() {
    let lab = RaftLab::new(5);
    for _ in 0..5 {
        lab.agree(5);
        let leader = lab.check_one_leader();
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|distance| lab.after(leader, distance));
        [a, b].iter().for_each(|id| lab.disconnect(*id));
        lab.agree(3);
        [c, d, e].iter().for_each(|id| lab.disconnect(*id));
        // Two without the last command, then one with it: only that one can be elected.
        [a, b].iter().for_each(|id| restart(&lab, *id));
        lab.let_time_pass(T);
        restart(&lab, c);
        lab.agree(3);
        [d, e].iter().for_each(|id| lab.connect(*id));
    }
    lab.agree(5);
}

#[test]
fn persist_3() {
    let lab = RaftLab::new(3);
    lab.agree(3);
    let leader = lab.check_one_leader();
    let (cut, other) = (lab.after(leader, 2), lab.after(leader, 1));
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
