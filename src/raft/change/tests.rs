use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::raft::MemberId;

fn member(id: NodeId, role: MemberRole) -> Member {
    Member {
        id,
        folder: Some(MemberId::plain(id).folder),
        address: format!("host-{id}:7000"),
        role,
    }
}

fn of(members: &[(NodeId, MemberRole)]) -> Configuration {
    let members = members.iter().map(|(id, role)| member(*id, *role));
    Configuration::of(1, members.collect(), Vec::new())
}

fn three() -> Configuration {
    of(&[1, 2, 3].map(|id| (id, MemberRole::Voter)))
}

fn refused(change: &Change, now: &Configuration) -> ChangeError {
    change.applied_to(now).expect_err("it makes no sense")
}

#[test]
fn who_is_added_as_a_voter_is_joining_and_no_voter_changes() {
    let new = member(4, MemberRole::Voter);
    let next = Change::Add(new).applied_to(&three()).expect("it may");
    assert_eq!(next.contact(4).map(|m| m.role), Some(MemberRole::Joining));
    assert!(!next.is_joint());
}

#[test]
fn a_change_of_voters_is_joint_with_the_voters_before() {
    let next = Change::Remove(3).applied_to(&three()).expect("it may");
    assert_eq!(next.outgoing(), three().members());
    assert_eq!(next.left().members().len(), 2);
    let joins = of(&[(1, MemberRole::Voter), (2, MemberRole::Joining)]);
    let next = Change::Seat(2).applied_to(&joins).expect("it may");
    let outgoing: Vec<NodeId> = next.outgoing().iter().map(|m| m.id).collect();
    assert_eq!((next.voters().count(), outgoing), (2, vec![1]));
}

#[test]
fn who_is_replaced_is_joining_with_its_new_folder_and_out_with_its_old_one() {
    let change = Change::Replace {
        id: 2,
        folder: 77,
        address: "there:1".into(),
    };
    let next = change.applied_to(&three()).expect("it may");
    let new = next.contact(2).expect("it is a member").clone();
    assert_eq!((new.folder, new.role), (Some(77), MemberRole::Joining));
    assert_eq!(next.outgoing()[1].folder, Some(2));
    let after = next.left();
    assert_eq!(change.applied_to(&after), Ok(after.clone()), "repeated");
}

#[test]
fn settling_fills_empty_seats_only_and_changes_no_quorum() {
    let founding = Configuration::founding((1..=3).map(|id| (id, format!("host-{id}:1"))));
    let settle = |folders: &[(NodeId, FolderId)]| Change::Settle {
        folders: folders.iter().copied().collect(),
        lineage: 9,
    };
    let first = settle(&[(1, 10), (2, 20)])
        .applied_to(&founding)
        .expect("it may");
    assert_eq!((first.lineage(), first.is_joint()), (9, false));
    assert_eq!(first.contact(3).map(|m| m.folder), Some(None));
    let then = settle(&[(2, 21), (3, 30)])
        .applied_to(&first)
        .expect("it may");
    let folders: Vec<_> = then.members().iter().map(|m| m.folder).collect();
    assert_eq!(folders, [Some(10), Some(20), Some(30)]);
    assert!(!then.is_joint());
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let now = three();
    let there = |id, address: &str| Change::Move {
        id,
        folder: MemberId::plain(id).folder,
        address: address.into(),
    };
    let known = Change::Add(member(2, MemberRole::Learner));
    assert!(matches!(
        refused(&known, &now),
        ChangeError::AlreadyMember { id: 2, .. }
    ));
    assert_eq!(
        refused(&Change::Promote(7), &now),
        ChangeError::NotMember(7)
    );
    let one = of(&[(1, MemberRole::Voter), (2, MemberRole::Learner)]);
    assert_eq!(refused(&Change::Remove(1), &one), ChangeError::LastVoter(1));
    assert_eq!(refused(&Change::Demote(1), &one), ChangeError::LastVoter(1));
    let taken = refused(&there(1, "host-3:7000"), &now);
    assert!(
        matches!(taken, ChangeError::AddressTaken { by: 3, .. }),
        "{taken}"
    );
    let other = Change::Move {
        id: 1,
        folder: 5,
        address: "x:1".into(),
    };
    assert!(matches!(
        refused(&other, &now),
        ChangeError::OtherFolder { id: 1, .. }
    ));
    // Of a founder whose folder is not in the log nobody can say that it has another one.
    let founding = Configuration::founding([(1, "host-1:1".to_string())]);
    let moved = other
        .applied_to(&founding)
        .map(|next| next.members()[0].address.clone());
    assert_eq!(moved.as_deref(), Ok("x:1"));
    let full: Vec<_> = (1..=MAX_VOTERS as u64)
        .map(|id| (id, MemberRole::Voter))
        .collect();
    let more = Change::Add(member(10, MemberRole::Joining));
    assert_eq!(refused(&more, &of(&full)), ChangeError::TooManyVoters);
    let learner = Change::Add(member(10, MemberRole::Learner));
    assert!(learner.applied_to(&of(&full)).is_ok());
    let long = there(1, &"x".repeat(MAX_CONFIGURATION_WEIGHT / 2));
    assert!(matches!(refused(&long, &now), ChangeError::TooLarge { .. }));
}

#[test]
fn what_is_so_already_changes_nothing() {
    let now = of(&[(1, MemberRole::Voter), (2, MemberRole::Learner)]);
    for change in [
        Change::Add(member(1, MemberRole::Joining)),
        Change::Add(member(2, MemberRole::Learner)),
        Change::Promote(1),
        Change::Demote(2),
        Change::Remove(7),
    ] {
        assert_eq!(change.applied_to(&now), Ok(now.clone()), "{change:?}");
    }
}

fn role() -> impl Strategy<Value = MemberRole> {
    prop::sample::select(vec![
        MemberRole::Voter,
        MemberRole::Learner,
        MemberRole::Joining,
    ])
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let members = prop::collection::btree_map(1..10u64, role(), 0..9);
    members.prop_map(|mut roles| {
        // Somebody votes.
        roles.insert(5, MemberRole::Voter);
        of(&roles.into_iter().collect::<Vec<_>>())
    })
}

fn a_change() -> impl Strategy<Value = Change> {
    let id = || 1..11u64;
    let folder = || prop_oneof![id().prop_map(FolderId::from), 1000..1003u128];
    let address = || id().prop_map(|id| format!("host-{id}:7000"));
    prop_oneof![
        (id(), role()).prop_map(|(id, role)| Change::Add(member(id, role))),
        id().prop_map(Change::Promote),
        id().prop_map(Change::Demote),
        id().prop_map(Change::Remove),
        id().prop_map(Change::Seat),
        (id(), folder(), address()).prop_map(|(id, folder, address)| Change::Replace {
            id,
            folder,
            address
        }),
        (id(), folder(), address()).prop_map(|(id, folder, address)| Change::Move {
            id,
            folder,
            address
        }),
    ]
}

/// All sets of voters of which one is a quorum, by trying out every set.
fn quorums(configuration: &Configuration) -> Vec<BTreeSet<MemberId>> {
    let both = [
        configuration.voters().collect::<Vec<_>>(),
        configuration.outgoing().iter().collect(),
    ];
    let named = |member: &Member| MemberId {
        id: member.id,
        folder: member.folder.expect("no empty seats here"),
    };
    let all: BTreeSet<MemberId> = both.iter().flatten().map(|m| named(m)).collect();
    let all: Vec<MemberId> = all.into_iter().collect();
    let sets = (0..1u32 << all.len()).map(|bits| {
        let chosen = all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.map(|(_, member)| *member).collect::<BTreeSet<_>>()
    });
    let is_quorum = |set: &BTreeSet<MemberId>| {
        both.iter()
            .filter(|half| !half.is_empty())
            .all(|half| 2 * half.iter().filter(|m| set.contains(&named(m))).count() > half.len())
    };
    sets.filter(is_quorum).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whoever is not named stays as it is, and no folder votes that was not a member before.
    #[test]
    fn what_is_not_named_stays_as_it_was(now in configuration(), change in a_change()) {
        let Ok(next) = change.applied_to(&now) else {
            return Ok(());
        };
        prop_assert!(next.validate().is_ok());
        let named = change.node();
        for id in (1..11).filter(|id| Some(*id) != named) {
            prop_assert_eq!(next.contact(id), now.contact(id));
        }
        for voter in next.voters() {
            let before = now.contact(voter.id);
            prop_assert_eq!(before.map(|member| member.folder), Some(voter.folder));
        }
        prop_assert_eq!(next.lineage(), now.lineage());
        if !next.is_joint() {
            let named = |member: &Member| (member.id, member.folder);
            prop_assert!(next.voters().map(named).eq(now.voters().map(named)));
        } else {
            prop_assert!(next.outgoing().iter().eq(now.voters()));
        }
    }

    /// Each quorum of one configuration shares a member with each quorum of the next.
    #[test]
    fn quorums_before_and_after_share_a_member(now in configuration(), change in a_change()) {
        let Ok(next) = change.applied_to(&now) else {
            return Ok(());
        };
        let left = next.left();
        for (a, b) in [(&now, &next), (&next, &left)] {
            let after = quorums(b);
            for quorum in quorums(a) {
                prop_assert!(after.iter().all(|other| !other.is_disjoint(&quorum)));
            }
        }
    }
}
