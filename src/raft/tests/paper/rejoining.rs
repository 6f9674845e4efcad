//! Pre-vote and check-quorum (thesis 4.2.3, 6.2, 9.6), and the rule that both together need: a node
//! that is stuck at a higher term must be able to rejoin.

use super::*;

fn hearing_a_leader(term: Term) -> Raft {
    let mut raft = follower(3, term, &[]);
    give(
        &mut raft,
        2,
        term,
        Message::Heartbeat {
            commit: 0,
            matched_by_all: 0,
            round: 0,
        },
    );
    sync(&mut raft);
    said(&mut raft);
    raft
}

#[test]
fn who_heard_a_leader_within_the_shortest_timeout_neither_votes_nor_takes_over_the_term() {
    let mut raft = hearing_a_leader(5);
    (0..24).for_each(|_| raft.tick());
    give(&mut raft, 3, 6, vote(id(9, 5)));
    assert_eq!((raft.term(), said(&mut raft)), (5, vec![]));
    let (next_term, last) = (6, id(9, 5));
    give(&mut raft, 3, 5, Message::PreVote { next_term, last });
    let refusal = Message::PreVoteReply {
        next_term,
        granted: false,
    };
    assert_eq!(said(&mut raft), [(3, 5, refusal)]);
    raft.tick();
    give(&mut raft, 3, 6, vote(id(9, 5)));
    assert_eq!(raft.term(), 6, "the leader has been silent for long enough");
}

#[test]
fn a_leader_is_not_deposed_by_a_candidate() {
    let mut raft = leader(3, 5, &[]);
    said(&mut raft);
    give(&mut raft, 3, 8, vote(id(9, 5)));
    assert_eq!(
        (raft.role(), raft.term(), said(&mut raft)),
        (RoleName::Leader, 5, vec![])
    );
}

#[test]
fn a_node_stuck_at_a_higher_term_tells_it_to_the_leader_which_steps_down_for_a_new_election() {
    let mut stuck = follower(3, 8, &[]);
    give(
        &mut stuck,
        2,
        5,
        Message::Heartbeat {
            commit: 0,
            matched_by_all: 0,
            round: 0,
        },
    );
    assert_eq!(said(&mut stuck), [(2, 8, Message::Outdated)]);

    let mut raft = leader(3, 5, &[]);
    give(&mut raft, 3, 8, Message::Outdated);
    assert_eq!((raft.role(), raft.term()), (RoleName::Follower, 8));
}

#[test]
fn a_refused_pre_vote_of_a_higher_term_brings_the_pre_candidate_up_to_it() {
    let mut raft = follower(3, 4, &[]);
    time_out(&mut raft);
    give(
        &mut raft,
        2,
        7,
        Message::PreVoteReply {
            next_term: 5,
            granted: false,
        },
    );
    assert_eq!((raft.role(), raft.term()), (RoleName::Follower, 7));
}

#[test]
fn a_leader_without_a_quorum_of_answers_steps_down_within_two_election_timeouts() {
    for size in 2..=6 {
        let mut raft = leader(size, 5, &[]);
        // The leader always gets one answer less than it needs for a quorum.
        let heard = size / 2 - 1;
        for _ in 0..50 {
            for follower in 2..2 + heard {
                give(&mut raft, follower, 5, Message::HeartbeatReply { round: 0 });
            }
            raft.tick();
        }
        assert_eq!(
            (raft.role(), raft.term()),
            (RoleName::Follower, 5),
            "{size} nodes"
        );
    }
}

#[test]
fn a_leader_with_a_bare_quorum_of_answers_stays() {
    for size in 1..=6 {
        let mut raft = leader_of(size);
        for _ in 0..200 {
            for follower in 2..2 + size / 2 {
                give(&mut raft, follower, 5, Message::HeartbeatReply { round: 0 });
            }
            raft.tick();
        }
        assert_eq!(raft.role(), RoleName::Leader, "{size} nodes");
    }
}

fn leader_of(size: u64) -> Raft {
    if size > 1 {
        return leader(size, 5, &[]);
    }
    let mut raft = follower(1, 4, &[]);
    time_out(&mut raft);
    sync(&mut raft);
    raft
}

#[test]
fn requests_of_others_are_no_answer_to_a_leader_that_nobody_answers() {
    let mut raft = leader(3, 5, &[]);
    for _ in 0..50 {
        give(
            &mut raft,
            2,
            5,
            Message::PreVote {
                next_term: 6,
                last: id(9, 5),
            },
        );
        raft.tick();
    }
    assert_eq!(raft.role(), RoleName::Follower);
}
