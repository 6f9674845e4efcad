//! The course's Raft tests, part C: crashes, in fixed orders.

use super::{Arena, Procedures, Scripted};

/// Commands outlive a crash of all servers, of the leader, and of servers that were cut off.
pub fn persist_1(arena: &mut impl Arena) {
    arena.agree(3);
    arena.restart_all();
    arena.agree(3);

    let leader = arena.check_one_leader();
    arena.restart(leader);
    arena.agree(3);

    let second = arena.check_one_leader();
    arena.disconnect(second);
    let place = arena.agree(2);
    arena.restart(second);
    let all = arena.run_until(10 * arena.nominal_timeout(), |arena| {
        arena.executed(place) == 3
    });
    assert!(all, "the server that was restarted must catch up");

    let leader = arena.check_one_leader();
    let follower = arena.behind(leader, 1);
    arena.disconnect(follower);
    arena.agree(2);
    arena.restart(follower);
    arena.agree(3);
}

/// Of three servers that come back only the one with the last command can be elected.
pub fn persist_2(arena: &mut impl Arena) {
    for _ in 0..5 {
        arena.agree(5);
        let leader = arena.check_one_leader();
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|distance| arena.behind(leader, distance));
        [a, b].iter().for_each(|server| arena.disconnect(*server));
        arena.agree(3);
        [c, d, e]
            .iter()
            .for_each(|server| arena.disconnect(*server));
        // Two without the last command, then one with it: only that one can be elected.
        [a, b].iter().for_each(|server| arena.restart(*server));
        arena.run_for(arena.nominal_timeout());
        arena.restart(c);
        arena.agree(3);
        [d, e].iter().for_each(|server| arena.connect(*server));
    }
    arena.agree(5);
}

/// A leader that crashed comes back to a server that missed a command.
pub fn persist_3(arena: &mut impl Arena) {
    arena.agree(3);
    let leader = arena.check_one_leader();
    let (cut, other) = (arena.behind(leader, 2), arena.behind(leader, 1));
    arena.disconnect(cut);
    arena.agree(2);
    arena.crash(leader);
    arena.crash(other);
    arena.connect(cut);
    arena.start(leader);
    arena.agree(2);
    arena.start(other);
    arena.agree(3);
}
