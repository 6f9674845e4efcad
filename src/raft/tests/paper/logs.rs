//! AppendEntries at the receiver (paper figure 2, rules 2 to 5), and what its rejection tells.

use super::*;

/// What a follower of term 9 answers once its writes are durable.
fn answer(raft: &mut Raft, message: Message) -> Vec<Message> {
    give(raft, 2, 9, message);
    sync(raft);
    said(raft)
        .into_iter()
        .map(|(_, _, message)| message)
        .collect()
}

fn rejected(prev: Index, term: Option<Term>, first_index: Index) -> Message {
    let conflict = crate::raft::Conflict { term, first_index };
    Message::Rejected { prev, conflict }
}

#[test]
fn an_append_behind_the_end_of_the_log_is_refused_with_where_it_ends() {
    let mut raft = follower(3, 9, &[1, 1]);
    assert_eq!(
        answer(&mut raft, append(id(5, 4), vec![], 0)),
        [rejected(5, None, 3)]
    );
}

#[test]
fn an_append_after_another_entry_is_refused_with_its_term_and_that_terms_first_index() {
    let mut raft = follower(3, 9, &[1, 2, 3, 3, 3]);
    assert_eq!(
        answer(&mut raft, append(id(5, 4), vec![], 0)),
        [rejected(5, Some(3), 3)]
    );
    assert_eq!(terms_of(&raft), [1, 2, 3, 3, 3], "a refusal drops nothing");
}

#[test]
fn a_conflicting_tail_is_replaced_from_the_first_difference_on() {
    let mut raft = follower(3, 9, &[1, 1, 2, 2, 2]);
    let message = append(id(1, 1), entries(2, &[1, 3]), 0);
    assert_eq!(answer(&mut raft, message), [accepted(3)]);
    assert_eq!(terms_of(&raft), [1, 1, 3]);
}

#[test]
fn only_the_difference_is_written() {
    let mut raft = follower(3, 9, &[1, 1, 2]);
    give(&mut raft, 2, 9, append(id(1, 1), entries(2, &[1, 3, 3]), 0));
    let writes = sync(&mut raft);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].entries, entries(3, &[3, 3]));
}

#[test]
fn a_late_copy_of_an_older_append_drops_nothing() {
    let mut raft = follower(3, 9, &[1, 1, 1, 1]);
    let message = append(id(1, 1), entries(2, &[1]), 0);
    assert_eq!(answer(&mut raft, message), [accepted(2)]);
    assert_eq!(terms_of(&raft), [1, 1, 1, 1]);
    assert!(!raft.output(Room::NOTHING).left.write);
}

#[test]
fn the_commit_index_is_the_leaders_but_not_beyond_what_this_append_verified() {
    let mut raft = follower(3, 9, &[1, 1, 1, 1]);
    answer(&mut raft, append(id(1, 1), entries(2, &[1]), 4));
    assert_eq!(raft.commit(), 2, "3 and 4 may be another leader's");
    answer(&mut raft, append(id(3, 1), vec![], 9));
    assert_eq!(raft.commit(), 3);
    answer(&mut raft, append(id(4, 1), vec![], 1));
    assert_eq!(raft.commit(), 3, "it never goes back");
}

#[test]
fn a_heartbeat_carries_the_commit_index_and_is_answered_without_the_disk() {
    let mut raft = follower(3, 9, &[1, 1]);
    give(&mut raft, 2, 9, append(id(2, 1), entries(3, &[9]), 0));
    give(
        &mut raft,
        2,
        9,
        Message::Heartbeat {
            commit: 2,
            matched_by_all: 0,
            round: 4,
        },
    );
    assert_eq!(
        said(&mut raft),
        [(2, 9, Message::HeartbeatReply { round: 4 })]
    );
    assert_eq!(raft.commit(), 2);
}

#[test]
fn committed_entries_are_handed_out_once_and_in_order() {
    let mut raft = follower(3, 9, &[1, 1, 1]);
    answer(&mut raft, append(id(3, 1), vec![], 2));
    assert_eq!(take_entries(&mut raft, 1), entries(1, &[1]), "at least one");
    assert_eq!(take_entries(&mut raft, 99_999), entries(2, &[1]));
    assert_eq!(take_entries(&mut raft, 99_999), []);
    raft.applied(2);
    assert_eq!(raft.applied_index(), 2);
}

#[test]
fn after_a_restart_everything_is_executed_again_from_the_start() {
    let mut raft = follower(3, 9, &[1, 1]);
    assert_eq!((raft.commit(), raft.applied_index()), (0, 0));
    answer(&mut raft, append(id(2, 1), vec![], 2));
    assert_eq!(take_entries(&mut raft, 99_999), entries(1, &[1, 1]));
}

#[test]
fn entries_that_no_leader_can_hold_are_not_taken() {
    let hole = vec![entry(3, 1), entry(5, 1)];
    let not_after_prev = vec![entry(4, 1)];
    let terms_go_back = entries(3, &[3, 2]);
    let of_the_future = entries(3, &[10]);
    for wrong in [hole, not_after_prev, terms_go_back, of_the_future] {
        let mut raft = follower(3, 9, &[1, 1]);
        assert_eq!(answer(&mut raft, append(id(2, 1), wrong, 2)), []);
        assert_eq!((raft.commit(), terms_of(&raft)), (0, vec![1, 1]));
    }
}

#[test]
fn entries_whose_time_lies_before_that_of_the_log_are_not_taken() {
    let mut raft = follower(3, 9, &[1, 1]);
    let mut later = entry(3, 1);
    later.time_ms = 100;
    answer(&mut raft, append(id(2, 1), vec![later], 0));
    let mut earlier = entry(4, 1);
    earlier.time_ms = 99;
    assert_eq!(answer(&mut raft, append(id(3, 1), vec![earlier], 0)), []);
    assert_eq!(terms_of(&raft), [1, 1, 1]);
}

#[test]
fn a_leader_that_contradicts_what_is_committed_is_proof_of_a_fault() {
    for message in [
        append(id(2, 7), vec![], 0),
        append(id(1, 1), entries(2, &[7]), 0),
    ] {
        let mut raft = follower(3, 9, &[1, 1, 1]);
        answer(&mut raft, append(id(3, 1), vec![], 3));
        give(&mut raft, 2, 9, message);
        let (leader, index) = (2, 2);
        let fault = crate::raft::Fault::CommittedEntryContradicted { leader, index };
        assert_eq!((raft.fault(), said(&mut raft)), (Some(fault), vec![]));
    }
}

#[test]
fn a_heartbeat_beyond_the_log_is_proof_that_acknowledged_entries_were_lost() {
    let mut raft = follower(3, 9, &[1]);
    give(
        &mut raft,
        2,
        9,
        Message::Heartbeat {
            commit: 2,
            matched_by_all: 0,
            round: 0,
        },
    );
    let (acknowledged, last) = (2, 1);
    let fault = crate::raft::Fault::AcknowledgedEntriesLost { acknowledged, last };
    assert_eq!((raft.fault(), said(&mut raft)), (Some(fault), vec![]));
}

#[test]
fn two_leaders_of_one_term_are_proof_of_a_fault() {
    let mut raft = follower(3, 9, &[]);
    give(&mut raft, 2, 9, append(id(0, 0), vec![], 0));
    give(&mut raft, 3, 9, append(id(0, 0), entries(1, &[9]), 1));
    assert!(matches!(
        raft.fault(),
        Some(crate::raft::Fault::TwoLeaders {
            known: 2,
            other: 3,
            ..
        })
    ));
    assert_eq!(raft.last(), id(0, 0));
}

/// Up to `prev` the leader's log holds no term higher than `prev`'s, so a follower's entry of a
/// higher term cannot match.
#[test]
fn a_refusal_skips_all_terms_that_the_leader_cannot_hold_there() {
    let mut raft = follower(3, 9, &[1, 2, 2, 4, 5, 6, 7, 8]);
    assert_eq!(
        answer(&mut raft, append(id(8, 3), vec![], 0)),
        [rejected(8, None, 4)]
    );
    let mut raft = follower(3, 9, &[4, 5, 6]);
    assert_eq!(
        answer(&mut raft, append(id(3, 3), vec![], 0)),
        [rejected(3, None, 1)]
    );
}

#[test]
fn an_append_after_nothing_has_neither_term_nor_index_before_it() {
    for prev in [id(0, 1), id(1, 0)] {
        let mut raft = follower(3, 9, &[1, 1]);
        assert_eq!(answer(&mut raft, append(prev, vec![], 0)), []);
        assert_eq!(raft.fault(), None);
    }
}
