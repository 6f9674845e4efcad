//! Paper 5.2 and 5.4.1, thesis 9.6: who becomes leader.

use super::*;

#[test]
fn a_follower_that_hears_nothing_asks_whether_it_could_win_before_it_touches_its_term() {
    let mut raft = follower(3, 4, &[1, 4]);
    time_out(&mut raft);
    assert_eq!((raft.role(), raft.term()), (RoleName::PreCandidate, 4));
    let question = Message::PreVote {
        next_term: 5,
        last: id(2, 4),
    };
    assert_eq!(
        said(&mut raft),
        [(2, 4, question.clone()), (3, 4, question)]
    );
    assert!(!raft.output(Room::NOTHING).left.write);
}

#[test]
fn a_pre_vote_is_granted_to_a_log_as_complete_as_ones_own_and_changes_nothing() {
    let mut raft = follower(3, 4, &[1, 4]);
    let cases = [
        (5, id(2, 4), true),
        (5, id(1, 5), true),
        (5, id(1, 4), false),
        (5, id(9, 3), false),
        (4, id(2, 4), false),
    ];
    for (next_term, last, granted) in cases {
        give(
            &mut raft,
            2,
            next_term - 1,
            Message::PreVote { next_term, last },
        );
        let reply = Message::PreVoteReply { next_term, granted };
        assert_eq!(said(&mut raft), [(2, 4, reply)], "for {last}");
    }
    assert_eq!(
        raft.hard_state(),
        HardState {
            term: 4,
            vote: None
        }
    );
}

#[test]
fn a_quorum_of_pre_votes_starts_an_election_in_the_next_term() {
    let mut raft = follower(5, 4, &[4]);
    time_out(&mut raft);
    said(&mut raft);
    let granted = Message::PreVoteReply {
        next_term: 5,
        granted: true,
    };
    for _ in 0..3 {
        give(&mut raft, 2, 4, granted.clone());
    }
    assert_eq!(raft.role(), RoleName::PreCandidate, "one voter counts once");
    give(&mut raft, 3, 4, granted);
    assert_eq!((raft.role(), raft.term()), (RoleName::Candidate, 5));
    assert_eq!(
        said(&mut raft),
        [],
        "its own term and vote are not on disk yet"
    );
    sync(&mut raft);
    let asked: Vec<_> = said(&mut raft);
    assert_eq!(asked.len(), 4);
    assert!(
        asked
            .iter()
            .all(|(_, term, m)| (*term, m) == (5, &vote(id(1, 4))))
    );
}

#[test]
fn an_answer_to_an_older_pre_vote_does_not_count() {
    let mut raft = follower(3, 4, &[]);
    time_out(&mut raft);
    give(
        &mut raft,
        2,
        3,
        Message::PreVoteReply {
            next_term: 4,
            granted: true,
        },
    );
    assert_eq!(raft.role(), RoleName::PreCandidate);
}

#[test]
fn a_vote_goes_to_a_log_at_least_as_up_to_date_by_term_first_and_index_second() {
    let cases = [
        (id(2, 4), true),
        (id(3, 4), true),
        (id(1, 5), true),
        (id(1, 4), false),
        (id(9, 3), false),
    ];
    for (last, granted) in cases {
        let mut raft = follower(3, 5, &[1, 4]);
        give(&mut raft, 2, 6, vote(last));
        sync(&mut raft);
        assert_eq!(
            said(&mut raft),
            [(2, 6, Message::VoteReply { granted })],
            "for {last}"
        );
    }
}

#[test]
fn one_vote_in_a_term_and_the_same_answer_to_who_asks_again() {
    let mut raft = follower(3, 5, &[]);
    for (candidate, granted) in [(2, true), (3, false), (2, true)] {
        give(&mut raft, candidate, 6, vote(id(0, 0)));
        sync(&mut raft);
        let reply = Message::VoteReply { granted };
        assert_eq!(said(&mut raft), [(candidate, 6, reply)]);
    }
}

#[test]
fn a_vote_that_is_on_disk_binds_after_a_restart() {
    let hard_state = HardState {
        term: 6,
        vote: Some(MemberId::plain(2)),
    };
    let config = Config::new(1, Configuration::of_voters(1..=3), 7);
    let mut raft = Raft::new(config, hard_state, vec![]);
    give(&mut raft, 3, 6, vote(id(9, 5)));
    assert_eq!(
        said(&mut raft),
        [(3, 6, Message::VoteReply { granted: false })]
    );
}

#[test]
fn the_same_voter_counts_once() {
    let mut raft = candidate(5, 5, &[]);
    for _ in 0..4 {
        give(&mut raft, 2, 5, Message::VoteReply { granted: true });
    }
    assert_eq!(raft.role(), RoleName::Candidate);
    give(&mut raft, 3, 5, Message::VoteReply { granted: true });
    assert_eq!(raft.role(), RoleName::Leader);
}

#[test]
fn an_election_is_lost_when_a_quorum_refuses() {
    let mut raft = candidate(3, 5, &[]);
    give(&mut raft, 2, 5, Message::VoteReply { granted: false });
    assert_eq!(raft.role(), RoleName::Candidate);
    give(&mut raft, 3, 5, Message::VoteReply { granted: false });
    assert_eq!((raft.role(), raft.term()), (RoleName::Follower, 5));
}

#[test]
fn a_candidate_without_answers_asks_anew_whether_it_could_win() {
    let mut raft = candidate(3, 5, &[]);
    time_out(&mut raft);
    assert_eq!((raft.role(), raft.term()), (RoleName::PreCandidate, 5));
}

#[test]
fn a_candidate_that_hears_the_leader_of_its_own_term_follows_it() {
    let heartbeat = Message::Heartbeat {
        commit: 0,
        matched_by_all: 0,
        round: 0,
    };
    for message in [heartbeat, append(id(0, 0), entries(1, &[5]), 0)] {
        let mut raft = candidate(3, 5, &[]);
        give(&mut raft, 2, 5, message);
        assert_eq!((raft.role(), raft.leader()), (RoleName::Follower, Some(2)));
        assert_eq!(raft.term(), 5);
    }
}

#[test]
fn timeouts_differ_from_one_election_to_the_next_and_stay_within_their_bounds() {
    let mut raft = follower(3, 0, &[]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        give(
            &mut raft,
            2,
            1,
            Message::Heartbeat {
                commit: 0,
                matched_by_all: 0,
                round: 0,
            },
        );
        let ticks = (1..).find(|_| {
            raft.tick();
            raft.role() == RoleName::PreCandidate
        });
        seen.extend(ticks);
    }
    assert!(seen.len() > 5, "{seen:?}");
    // A heartbeat turns the pre-candidate into a follower with a fresh timeout.
    assert!(
        seen.iter().all(|ticks| (25..50).contains(ticks)),
        "{seen:?}"
    );
}

#[test]
fn a_learner_never_stands_for_election() {
    let founding = members([2, 3], [], [1]);
    let mut raft = Raft::new(Config::new(1, founding, 7), HardState::default(), vec![]);
    (0..200).for_each(|_| raft.tick());
    give(&mut raft, 2, 0, Message::TimeoutNow);
    assert_eq!((raft.role(), raft.term()), (RoleName::Follower, 0));
}
