//! Who may stand for election, who votes, and whose votes count.

use super::*;

#[test]
fn in_a_joint_configuration_a_candidate_needs_both_majorities_and_its_own_vote_counts_in_its_half()
{
    let joint = members([2, 3], [1, 2], []);
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, &joint)]);
    ask_for_votes(&mut raft, &[2, 3]);
    // With this node 2 of 2 voters of the old half, and 1 of 2 of the new one.
    yes(&mut raft, 2);
    assert_eq!(raft.role(), RoleName::Candidate);
    yes(&mut raft, 3);
    assert_eq!(raft.role(), RoleName::Leader);
}

#[test]
fn who_alone_holds_c_new_leads_without_counting_itself() {
    let new = members([2, 3], [], []);
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, &new)]);
    ask_for_votes(&mut raft, &[2, 3]);
    yes(&mut raft, 2);
    assert_eq!(raft.role(), RoleName::Candidate, "its own vote counts");
    yes(&mut raft, 3);
    assert_eq!(raft.role(), RoleName::Leader);
    sync(&mut raft);
    let (term, last) = (raft.term(), raft.last().index);
    give(&mut raft, 2, term, accepted(last));
    assert_eq!(raft.commit(), 0, "its own copy counts");
    give(&mut raft, 3, term, accepted(last));
    assert_eq!(raft.commit(), last);
}

#[test]
fn who_knows_that_it_was_removed_does_not_stand_for_election() {
    let new = members([2, 3], [], []);
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, &new)]);
    give(&mut raft, 2, 1, append(id(2, 1), vec![], 2));
    assert_eq!(raft.commit(), 2);
    assert!(!campaigns(&mut raft));
}

#[test]
fn who_was_removed_by_what_was_taken_back_stands_for_election_again() {
    let new = members([2, 3], [], []);
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, &new)]);
    give(&mut raft, 2, 3, append(id(1, 1), vec![empty(2, 3)], 2));
    assert_eq!(raft.configuration().configuration, three());
    assert!(campaigns(&mut raft));
}

#[test]
fn a_vote_is_given_to_a_candidate_that_knows_more_members() {
    let mut raft = node(1, 1, vec![empty(1, 1)]);
    give(&mut raft, 4, 2, vote(id(9, 1)));
    sync(&mut raft);
    assert_eq!(said(&mut raft), [(4, Message::VoteReply { granted: true })]);
}

#[test]
fn a_learner_that_does_not_know_that_it_is_a_voter_votes() {
    let learns = members([2, 3], [], [1]);
    let mut raft = node(1, 1, vec![change(1, 1, &learns)]);
    give(&mut raft, 2, 1, append(id(1, 1), vec![], 1));
    assert!(!campaigns(&mut raft));
    drop(said(&mut raft));
    give(&mut raft, 2, 2, vote(id(2, 1)));
    sync(&mut raft);
    assert_eq!(said(&mut raft), [(2, Message::VoteReply { granted: true })]);
}

#[test]
fn a_vote_is_not_given_again_to_the_same_node_with_another_folder() {
    let mut raft = node(1, 1, vec![]);
    give(&mut raft, 2, 2, vote(id(1, 1)));
    sync(&mut raft);
    assert_eq!(said(&mut raft), [(2, Message::VoteReply { granted: true })]);
    let other = Envelope {
        from_folder: 1002,
        ..envelope(2, 1, 2, vote(id(1, 1)))
    };
    raft.step(other);
    assert_eq!(
        said(&mut raft),
        [(2, Message::VoteReply { granted: false })]
    );
    assert_eq!(raft.hard_state().vote, Some(MemberId::plain(2)));
}

#[test]
fn a_vote_stays_when_its_node_follows_the_leader_of_the_term() {
    let mut raft = node(1, 1, vec![]);
    give(&mut raft, 2, 2, vote(id(1, 1)));
    give(&mut raft, 3, 2, append(EntryId::ZERO, vec![empty(1, 2)], 0));
    assert_eq!(raft.hard_state().vote, Some(MemberId::plain(2)));
    sync(&mut raft);
    drop(said(&mut raft));
    give(&mut raft, 3, 2, vote(id(9, 2)));
    assert_eq!(
        said(&mut raft),
        [(3, Message::VoteReply { granted: false })]
    );
}

#[test]
fn a_configuration_that_is_on_no_disk_elects_nobody() {
    let mut raft = node(1, 1, vec![empty(1, 1)]);
    let joint = members([1, 4, 5], [1, 2, 3], []);
    give(
        &mut raft,
        2,
        1,
        append(id(1, 1), vec![change(2, 1, &joint)], 1),
    );
    give(&mut raft, 2, 1, Message::TimeoutNow);
    assert_eq!(raft.role(), RoleName::Candidate);
    assert_eq!(said(&mut raft), [], "votes are asked for with it");
    let write = take_write(&mut raft).expect("term, vote and log");
    assert_eq!(write.entries.last().map(|entry| entry.id.index), Some(2));
    raft.durable(write.id);
    let asked: Vec<NodeId> = said(&mut raft).into_iter().map(|(to, _)| to).collect();
    assert!(asked.contains(&4) && asked.contains(&2), "{asked:?}");
}

/// A joiner that is brought up to date goes through all the configurations that there ever were.
#[test]
fn a_new_folder_that_replays_old_configurations_stays_quiet() {
    let alone = members([3], [], []);
    let mut raft = joiner(3, 1003);
    let log = vec![change(1, 1, &three()), change(2, 1, &alone)];
    give_to(&mut raft, Some(1003), 1, append(EntryId::ZERO, log, 2));
    assert_eq!(raft.commit(), 2);
    assert!(!campaigns(&mut raft));
    give_to(&mut raft, Some(1003), 1, Message::TimeoutNow);
    assert_eq!(raft.role(), RoleName::Follower);
    // The one that seats it.
    let seated = with_folder(&three(), 3, Some(1003));
    give_to(
        &mut raft,
        Some(1003),
        1,
        append(id(2, 1), vec![change(3, 1, &seated)], 2),
    );
    assert!(campaigns(&mut raft));
}

#[test]
fn an_empty_configuration_elects_nobody() {
    assert!(!campaigns(&mut joiner(3, 1003)));
}
