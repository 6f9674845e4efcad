//! "Rules for servers, all servers" and the first rule of both requests: the terms.

use super::*;

#[test]
fn a_higher_term_in_any_role_makes_a_follower_of_that_term_without_a_vote() {
    for mut raft in [
        follower(3, 1, &[1]),
        candidate(3, 2, &[1]),
        leader(3, 2, &[1]),
    ] {
        give(&mut raft, 2, 9, Message::Outdated);
        assert_eq!((raft.role(), raft.leader()), (RoleName::Follower, None));
        assert_eq!(
            raft.hard_state(),
            HardState {
                term: 9,
                vote: None
            }
        );
    }
}

#[test]
fn requests_of_a_passed_term_are_told_the_present_one() {
    for request in [vote(id(9, 1)), append(id(0, 0), vec![], 0)] {
        let mut raft = follower(3, 5, &[]);
        give(&mut raft, 2, 4, request);
        assert_eq!(said(&mut raft), [(2, 5, Message::Outdated)]);
    }
    let mut raft = follower(3, 5, &[]);
    give(
        &mut raft,
        2,
        4,
        Message::Heartbeat {
            commit: 0,
            matched_by_all: 0,
            round: 1,
        },
    );
    assert_eq!(said(&mut raft), [(2, 5, Message::Outdated)]);
}

#[test]
fn answers_of_a_passed_term_are_dropped() {
    let mut raft = candidate(3, 5, &[]);
    give(&mut raft, 2, 4, Message::VoteReply { granted: true });
    assert_eq!(raft.role(), RoleName::Candidate);

    let mut raft = leader(3, 5, &[1]);
    sync(&mut raft);
    give(&mut raft, 2, 4, accepted(2));
    assert_eq!(raft.commit(), 0);
}

#[test]
fn no_term_is_believed_that_counting_on_from_could_overflow() {
    let mut raft = follower(3, 5, &[]);
    give(&mut raft, 2, Term::MAX, Message::Outdated);
    assert_eq!(raft.term(), 5);
}

#[test]
fn a_message_for_another_node_or_an_answer_of_a_stranger_is_not_for_this_one() {
    let mut raft = follower(3, 5, &[]);
    give(&mut raft, 9, 7, Message::Outdated);
    let (message, term) = (vote(id(9, 6)), 7);
    raft.step(Envelope {
        from: 2,
        from_folder: 2,
        to: 3,
        to_folder: Some(3),
        term,
        message,
    });
    assert_eq!((raft.term(), said(&mut raft)), (5, vec![]));
}

#[test]
fn a_term_and_the_vote_in_it_are_one_record() {
    let mut raft = follower(3, 1, &[1]);
    give(&mut raft, 2, 4, vote(id(1, 1)));
    let writes = sync(&mut raft);
    let hard_states: Vec<_> = writes.iter().map(|write| write.hard_state).collect();
    assert_eq!(
        hard_states,
        [Some(HardState {
            term: 4,
            vote: Some(MemberId::plain(2))
        })]
    );
}
