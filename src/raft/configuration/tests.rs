use proptest::prelude::*;

use super::*;
use crate::raft::FolderId;

fn member(id: NodeId, folder: Option<FolderId>, role: MemberRole) -> Member {
    Member {
        id,
        folder,
        address: String::new(),
        role,
    }
}

fn plain(id: NodeId, role: MemberRole) -> Member {
    member(id, Some(id.into()), role)
}

/// Voters before and after, and learners.
fn joint(incoming: &[NodeId], outgoing: &[NodeId], learners: &[NodeId]) -> Configuration {
    let voter = |id: &NodeId| plain(*id, MemberRole::Voter);
    let learner = |id: &NodeId| plain(*id, MemberRole::Learner);
    let members = incoming.iter().map(voter);
    let members = members.chain(learners.iter().map(learner)).collect();
    Configuration::of(1, members, outgoing.iter().map(voter).collect())
}

fn votes(answers: &[(NodeId, bool)]) -> BTreeMap<MemberId, bool> {
    let answers = answers.iter();
    answers
        .map(|(id, yes)| (MemberId::plain(*id), *yes))
        .collect()
}

#[test]
fn a_joint_configuration_needs_both_majorities() {
    let joint = joint(&[1, 2, 3], &[3, 4, 5], &[]);
    let yes = |ids: &[NodeId]| votes(&ids.iter().map(|id| (*id, true)).collect::<Vec<_>>());
    assert_eq!(joint.vote_result(&yes(&[1, 2])), VoteResult::Pending);
    assert_eq!(joint.vote_result(&yes(&[1, 3, 4])), VoteResult::Won);
    let no = votes(&[(4, false), (5, false), (1, true), (2, true), (3, true)]);
    assert_eq!(joint.vote_result(&no), VoteResult::Lost);
}

#[test]
fn a_learner_counts_for_nothing() {
    let configuration = joint(&[1, 2, 3], &[], &[4, 5]);
    assert!(!configuration.has_quorum(|member| member.id > 2));
    assert_eq!(configuration.quorum_value(|member| member.id), 2);
}

#[test]
fn an_empty_configuration_reaches_nothing_and_elects_nobody() {
    let empty = Configuration::default();
    assert_eq!(empty.quorum_value(|_| 7), 0);
    assert!(!empty.has_quorum(|_| true));
    assert_eq!(empty.vote_result(&votes(&[(1, true)])), VoteResult::Lost);
    // Not even if there was a voter before.
    let only_outgoing = joint(&[], &[1], &[]);
    assert_eq!(only_outgoing.quorum_value(|_| 7), 0);
    assert_eq!(
        only_outgoing.vote_result(&votes(&[(1, true)])),
        VoteResult::Lost
    );
}

#[test]
fn the_same_id_with_another_folder_counts_for_nothing() {
    let configuration = Configuration::of_voters([1]);
    let other = MemberId { id: 1, folder: 7 };
    let yes = BTreeMap::from([(other, true)]);
    assert_eq!(configuration.vote_result(&yes), VoteResult::Pending);
    assert!(!configuration.is_voter(other));
    assert!(configuration.is_voter(MemberId::plain(1)));
}

#[test]
fn both_folders_of_an_id_count_in_their_own_half() {
    let old = member(1, Some(10), MemberRole::Voter);
    let new = member(1, Some(11), MemberRole::Voter);
    let joint = Configuration::of(1, vec![new.clone()], vec![old]);
    let [a, b] = [10, 11].map(|folder| MemberId { id: 1, folder });
    assert_eq!(
        joint.vote_result(&BTreeMap::from([(a, true)])),
        VoteResult::Pending
    );
    assert_eq!(
        joint.vote_result(&BTreeMap::from([(a, true), (b, true)])),
        VoteResult::Won
    );
    assert_eq!(joint.contact(1), Some(&new));
    assert_eq!(joint.contacts().count(), 1);
}

#[test]
fn an_empty_seat_counts_for_nobody() {
    let seat = member(1, None, MemberRole::Voter);
    let who = MemberId { id: 1, folder: 5 };
    let yes = BTreeMap::from([(who, true)]);
    let founding = Configuration::of(0, vec![seat.clone()], Vec::new());
    assert_eq!(founding.vote_result(&yes), VoteResult::Won);
    let logged = Configuration::of(9, vec![seat], Vec::new());
    assert_eq!(logged.vote_result(&yes), VoteResult::Pending);
}

#[test]
fn what_no_leader_would_log_is_told() {
    assert_eq!(Configuration::of_voters(1..=25).validate(), Ok(()));
    let voter = |id| plain(id, MemberRole::Voter);
    let long = Member {
        address: "x".repeat(MAX_CONFIGURATION_WEIGHT),
        ..voter(1)
    };
    let unsorted = Configuration {
        lineage: 1,
        members: vec![voter(2), voter(1)],
        outgoing: Vec::new(),
    };
    let wrong = [
        (unsorted, "order"),
        (Configuration::of_voters([1, 1]), "order"),
        (Configuration::of_voters([0]), "id 0"),
        (joint(&[], &[1], &[2]), "no voter"),
        (Configuration::of(1, vec![long], Vec::new()), "too long"),
    ];
    for (configuration, names) in wrong {
        let sentence = configuration.validate().expect_err("it is wrong");
        assert!(sentence.contains(names), "{sentence}");
    }
}

proptest! {
    /// The sorted pick against the definition: the largest value that a majority reached.
    #[test]
    fn quorum_value_is_what_a_majority_reached(values in prop::collection::vec(0u64..9, 1..8)) {
        let configuration = Configuration::of_voters(0..values.len() as u64);
        let naive = (0..9u64)
            .filter(|v| 2 * values.iter().filter(|x| *x >= v).count() > values.len())
            .max()
            .unwrap_or(0);
        let reached = configuration.quorum_value(|member| values[member.id as usize]);
        prop_assert_eq!(reached, naive);
    }

    /// A vote is won or lost exactly when no answer that is still missing could change it.
    #[test]
    fn a_vote_is_decided_when_nothing_can_change_it(
        answers in prop::collection::vec(prop::option::of(any::<bool>()), 1..8),
    ) {
        let configuration = Configuration::of_voters(0..answers.len() as u64);
        let given = answers.iter().enumerate();
        let given = given.filter_map(|(id, answer)| answer.map(|a| (id as NodeId, a)));
        let votes = votes(&given.collect::<Vec<_>>());
        let yes = answers.iter().filter(|a| **a == Some(true)).count();
        let open = answers.iter().filter(|a| a.is_none()).count();
        let expected = if 2 * yes > answers.len() {
            VoteResult::Won
        } else if 2 * (yes + open) <= answers.len() {
            VoteResult::Lost
        } else {
            VoteResult::Pending
        };
        prop_assert_eq!(configuration.vote_result(&votes), expected);
    }
}
