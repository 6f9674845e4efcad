//! "Rules for servers, leaders" (paper figure 2), commitment (5.4.2), reads (8; thesis 6.4) and
//! the hand-over of leadership (thesis 3.10).

use super::*;
use crate::raft::{Conflict, DecidedReads, ProposeError, ReadError};

/// A leader of term 2 that has all of its log on disk; both followers have acknowledged `matched`.
fn established(terms: &[Term], matched: Index) -> Raft {
    let mut raft = leader(3, 2, terms);
    sync(&mut raft);
    for follower in [2, 3] {
        give(&mut raft, follower, 2, accepted(matched));
    }
    said(&mut raft);
    raft
}

#[test]
fn a_new_leader_appends_an_empty_entry_and_asks_all_where_their_logs_end() {
    let mut raft = leader(3, 2, &[1]);
    assert_eq!(raft.last(), id(2, 2));
    assert_eq!(
        raft.entry(2).map(|entry| &entry.payload),
        Some(&Payload::Empty)
    );
    let question = append(id(1, 1), vec![], 0);
    assert_eq!(
        said(&mut raft),
        [(2, 2, question.clone()), (3, 2, question)]
    );
}

#[test]
fn entries_flow_to_a_follower_as_soon_as_the_logs_are_known_to_agree() {
    let mut raft = leader(3, 2, &[1]);
    said(&mut raft);
    give(&mut raft, 3, 2, accepted(1));
    let empty = raft.entry(2).cloned().expect("the empty entry");
    assert_eq!(said(&mut raft), [(3, 2, append(id(1, 1), vec![empty], 0))]);
    assert_eq!(said(&mut raft), [], "once");
}

#[test]
fn silence_is_broken_by_heartbeats_that_commit_no_more_than_a_follower_holds() {
    let mut raft = established(&[1], 1);
    give(&mut raft, 2, 2, accepted(2));
    assert_eq!(raft.commit(), 2);
    said(&mut raft);
    (0..5).for_each(|_| raft.tick());
    let commits = said(&mut raft)
        .into_iter()
        .filter_map(|(to, _, m)| match m {
            Message::Heartbeat { commit, .. } => Some((to, commit)),
            _ => None,
        });
    assert_eq!(commits.collect::<Vec<_>>(), [(2, 2), (3, 1)]);
}

/// Paper figure 8: an entry of an earlier term on a majority may still be overwritten.
#[test]
fn an_entry_of_an_earlier_term_is_committed_only_through_one_of_the_present_term() {
    let mut raft = leader(3, 4, &[1, 2]);
    sync(&mut raft);
    give(&mut raft, 2, 4, accepted(2));
    give(&mut raft, 3, 4, accepted(2));
    assert_eq!(raft.commit(), 0, "on all three, but of term 2");
    give(&mut raft, 3, 4, accepted(3));
    assert_eq!(raft.commit(), 3);
}

#[test]
fn the_commit_index_is_what_a_quorum_holds_in_clusters_of_every_size() {
    for size in 2..=7 {
        let mut raft = leader(size, 1, &[]);
        sync(&mut raft);
        let needed = size / 2;
        for voter in 2..2 + needed {
            assert_eq!(raft.commit(), 0, "{voter} of {size} not yet");
            give(&mut raft, voter, 1, accepted(1));
        }
        assert_eq!(raft.commit(), 1, "{} of {size}", needed + 1);
    }
}

#[test]
fn an_acknowledgement_beyond_the_log_or_of_no_follower_is_nothing() {
    let mut raft = established(&[1], 1);
    for matched in [3, u64::MAX] {
        give(&mut raft, 2, 2, accepted(matched));
    }
    assert_eq!(raft.commit(), 0);
}

#[test]
fn a_refusal_leads_to_the_last_entry_of_the_conflicting_term_if_the_leader_has_it() {
    let mut raft = leader(3, 6, &[1, 3, 3, 5, 5]);
    said(&mut raft);
    // The terms of the follower's entries are 1, 3, 3, 3, 3.
    let conflict = Conflict {
        term: Some(3),
        first_index: 2,
    };
    give(&mut raft, 2, 6, Message::Rejected { prev: 5, conflict });
    assert_eq!(said(&mut raft), [(2, 6, append(id(3, 3), vec![], 0))]);
}

#[test]
fn a_refusal_leads_before_the_conflicting_term_if_the_leader_does_not_have_it() {
    let mut raft = leader(3, 6, &[1, 3, 3, 3, 5]);
    said(&mut raft);
    // The terms of the follower's entries are 1, 3, 4, 4, 4: from index 3 on they cannot match.
    let conflict = Conflict {
        term: Some(4),
        first_index: 3,
    };
    give(&mut raft, 2, 6, Message::Rejected { prev: 5, conflict });
    assert_eq!(said(&mut raft), [(2, 6, append(id(2, 3), vec![], 0))]);
}

#[test]
fn stale_refusals_move_nothing() {
    let mut raft = established(&[1, 1], 2);
    let conflict = Conflict {
        term: None,
        first_index: 1,
    };
    for prev in [0, 1, 2, 9, u64::MAX] {
        give(&mut raft, 2, 2, Message::Rejected { prev, conflict });
    }
    assert_eq!(said(&mut raft), []);
}

#[test]
fn a_lost_append_is_noticed_by_the_silence_and_repeated() {
    let mut raft = established(&[1], 1);
    give(&mut raft, 2, 2, accepted(2));
    give(&mut raft, 3, 2, accepted(2));
    raft.propose("a".into()).expect("accepted");
    assert_eq!(said(&mut raft).len(), 2, "both are lost");
    (0..10).for_each(|_| raft.tick());
    let asked =
        |(_, _, m): &(_, _, Message)| matches!(m, Message::Append { prev, .. } if prev.index == 3);
    assert_eq!(said(&mut raft).iter().filter(|m| asked(m)).count(), 2);
    let conflict = Conflict {
        term: None,
        first_index: 3,
    };
    give(&mut raft, 2, 2, Message::Rejected { prev: 3, conflict });
    said(&mut raft);
    give(&mut raft, 2, 2, accepted(2));
    let command = raft.entry(3).cloned().expect("proposed");
    assert_eq!(
        said(&mut raft),
        [(2, 2, append(id(2, 2), vec![command], 2))]
    );
}

#[test]
fn proposals_are_refused_by_who_does_not_lead_and_past_the_bound_on_what_is_uncommitted() {
    let refused = follower(3, 1, &[]).propose("a".into());
    assert_eq!(refused, Err(ProposeError::NotLeader));

    let mut raft = established(&[], 0);
    let large = vec![0; 40 << 20];
    assert!(raft.propose(large.clone().into()).is_ok());
    assert_eq!(raft.propose(large.clone().into()), Err(ProposeError::Busy));
    sync(&mut raft);
    give(&mut raft, 2, 2, accepted(2));
    assert!(raft.propose(large.into()).is_ok(), "there is room again");
}

#[test]
fn a_read_is_confirmed_by_a_round_that_began_after_it_arrived() {
    let mut raft = established(&[], 1);
    assert_eq!(raft.read(7), Ok(()));
    let round = Message::Heartbeat {
        commit: 1,
        matched_by_all: 1,
        round: 1,
    };
    assert_eq!(said(&mut raft), [(2, 2, round.clone()), (3, 2, round)]);
    give(&mut raft, 2, 2, Message::HeartbeatReply { round: 0 });
    assert_eq!(
        raft.output(Room::NOTHING).reads,
        DecidedReads::default(),
        "an older round"
    );
    give(&mut raft, 2, 2, Message::HeartbeatReply { round: 1 });
    assert_eq!(raft.output(Room::NOTHING).reads.ready, [(7, 1)]);
}

#[test]
fn a_round_that_was_never_begun_confirms_nothing() {
    let mut raft = established(&[], 1);
    assert_eq!(raft.read(7), Ok(()));
    give(&mut raft, 2, 2, Message::HeartbeatReply { round: 1 });
    assert_eq!(raft.output(Room::MESSAGES).reads.ready, []);
}

#[test]
fn reads_wait_until_an_entry_of_the_leaders_own_term_is_committed() {
    let mut raft = established(&[1, 1], 2);
    assert_eq!(raft.read(7), Ok(()));
    assert_eq!(said(&mut raft), []);
    give(&mut raft, 2, 2, accepted(3));
    said(&mut raft);
    give(&mut raft, 2, 2, Message::HeartbeatReply { round: 1 });
    assert_eq!(raft.output(Room::NOTHING).reads.ready, [(7, 3)]);
}

#[test]
fn reads_in_a_round_and_before_one_fail_when_leadership_is_lost() {
    let mut raft = established(&[], 1);
    assert_eq!(raft.read(7), Ok(()));
    said(&mut raft);
    assert_eq!(raft.read(8), Ok(()));
    give(&mut raft, 2, 3, Message::Outdated);
    assert_eq!(raft.output(Room::NOTHING).reads.failed, [7, 8]);
    assert_eq!(raft.read(9), Err(ReadError::NotLeader));
}

#[test]
fn a_round_whose_heartbeats_were_lost_is_confirmed_by_the_next_heartbeat() {
    let mut raft = established(&[], 1);
    assert_eq!(raft.read(7), Ok(()));
    said(&mut raft);
    (0..5).for_each(|_| raft.tick());
    let again = Message::Heartbeat {
        commit: 1,
        matched_by_all: 1,
        round: 1,
    };
    assert!(said(&mut raft).contains(&(3, 2, again)));
    give(&mut raft, 3, 2, Message::HeartbeatReply { round: 1 });
    assert_eq!(raft.output(Room::NOTHING).reads.ready, [(7, 1)]);
}

#[test]
fn leadership_goes_to_a_voter_once_it_holds_the_whole_log_and_nothing_is_accepted_meanwhile() {
    let mut raft = established(&[], 1);
    raft.propose("a".into()).expect("accepted");
    said(&mut raft);
    assert_eq!(raft.transfer(Some(3)), Some(3));
    assert_eq!(said(&mut raft), []);
    assert_eq!(raft.propose("b".into()), Err(ProposeError::Busy));
    give(&mut raft, 3, 2, accepted(2));
    assert_eq!(said(&mut raft), [(3, 2, Message::TimeoutNow)]);
}

#[test]
fn a_hand_over_to_a_dead_node_is_given_up_after_an_election_timeout() {
    let mut raft = established(&[], 0);
    assert_eq!(raft.transfer(Some(3)), Some(3));
    for _ in 0..25 {
        give(&mut raft, 2, 2, Message::HeartbeatReply { round: 0 });
        raft.tick();
    }
    assert_eq!(raft.role(), RoleName::Leader);
    assert!(raft.propose("a".into()).is_ok());
}

#[test]
fn leadership_is_handed_to_nobody_but_another_voter() {
    let mut raft = established(&[], 1);
    for to in [1, 9] {
        assert_eq!(raft.transfer(Some(to)), None);
    }
    assert_eq!(follower(3, 1, &[]).transfer(None), None);
    assert_eq!(
        raft.transfer(None),
        Some(3),
        "both are as far, the last is taken"
    );
}

#[test]
fn who_is_asked_to_lead_campaigns_at_once_with_a_vote_that_the_lease_does_not_refuse() {
    let mut raft = follower(3, 5, &[5]);
    give(
        &mut raft,
        2,
        5,
        Message::Heartbeat {
            commit: 0,
            matched_by_all: 0,
            round: 0,
        },
    );
    said(&mut raft);
    give(&mut raft, 2, 5, Message::TimeoutNow);
    sync(&mut raft);
    let question = Message::Vote {
        last: id(1, 5),
        transfer: true,
    };
    assert_eq!(
        said(&mut raft),
        [(2, 6, question.clone()), (3, 6, question)]
    );

    let mut other = follower(3, 5, &[5]);
    give(
        &mut other,
        2,
        5,
        Message::Heartbeat {
            commit: 0,
            matched_by_all: 0,
            round: 0,
        },
    );
    said(&mut other);
    give(
        &mut other,
        3,
        6,
        Message::Vote {
            last: id(1, 5),
            transfer: true,
        },
    );
    sync(&mut other);
    assert_eq!(
        said(&mut other),
        [(3, 6, Message::VoteReply { granted: true })]
    );
}

/// After the leader's last entry of the conflicting term or a lower one, its terms are higher than
/// any that the follower has up to there.
#[test]
fn a_refusal_skips_all_terms_that_the_follower_cannot_hold_there() {
    let mut raft = leader(3, 9, &[1, 5, 6, 7, 8]);
    said(&mut raft);
    // The terms of the follower's entries are 1, 1, 1, 2, 2.
    let conflict = Conflict {
        term: Some(2),
        first_index: 4,
    };
    give(&mut raft, 2, 9, Message::Rejected { prev: 5, conflict });
    assert_eq!(said(&mut raft), [(2, 9, append(id(1, 1), vec![], 0))]);
}
