//! Each check notices a trace that is wrong in the one point that the check is about, and accepts
//! the same trace without that.

use super::*;

fn folder(id: NodeId) -> MemberId {
    MemberId {
        id,
        folder: FolderId::from(id) * 100,
    }
}

/// The next folder of the same node.
fn later(id: NodeId) -> MemberId {
    MemberId {
        id,
        folder: FolderId::from(id) * 100 + 1,
    }
}

fn member(who: MemberId, role: MemberRole) -> Member {
    Member {
        id: who.id,
        folder: Some(who.folder),
        address: format!("node{}:7000", who.id),
        role,
    }
}

fn all(ids: &[NodeId]) -> Vec<Member> {
    let voter = |id: &NodeId| member(folder(*id), MemberRole::Voter);
    ids.iter().map(voter).collect()
}

fn stable(ids: &[NodeId]) -> Configuration {
    Configuration::of(7, all(ids), Vec::new())
}

fn joint(ids: &[NodeId], outgoing: &[NodeId]) -> Configuration {
    Configuration::of(7, all(ids), all(outgoing))
}

fn logged(index: Index, configuration: Configuration) -> LoggedConfiguration {
    LoggedConfiguration {
        index,
        configuration,
    }
}

fn entry(term: Term, index: Index, configuration: &Configuration) -> Entry {
    Entry {
        id: EntryId { term, index },
        time_ms: 0,
        payload: Payload::Configuration(Box::new(configuration.clone())),
    }
}

fn these(ids: &[NodeId]) -> BTreeSet<MemberId> {
    ids.iter().map(|id| folder(*id)).collect()
}

/// A log whose entry 2 of term 1 has the members 1 to 3, and entry 3 that node 4 learns.
fn of_three() -> Members {
    let mut members = Members::default();
    members.committed(&entry(1, 2, &stable(&[1, 2, 3])), 1);
    members.committed(&entry(1, 3, &learning()), 1);
    members
}

fn learning() -> Configuration {
    let mut members = all(&[1, 2, 3]);
    members.push(member(folder(4), MemberRole::Joining));
    Configuration::of(7, members, Vec::new())
}

/// Node 1 leads term 2, by the votes of these, with a configuration of entry 3.
fn election(votes: &[MemberId], configuration: Configuration) -> Result<(), Failure> {
    let mut members = of_three();
    let who = folder(1);
    votes.iter().for_each(|voter| members.voted(*voter, 2, who));
    let elected = Elected {
        who,
        term: 2,
        newest: &logged(3, configuration),
        last: None,
    };
    members.elected(&elected, |_, _| true)
}

#[track_caller]
fn notices(check: &str, result: Result<(), Failure>) {
    let failure = result.expect_err("a wrong trace is noticed");
    assert_eq!(failure.check, check, "{failure}");
}

#[test]
fn who_leads_has_the_votes_of_a_majority_of_each_half() {
    election(&[folder(1), folder(2)], learning()).expect("two of three");
    notices(QUORUM, election(&[folder(1), folder(4)], learning()));
    notices(QUORUM, election(&[folder(1), later(2)], learning()));
    let both = joint(&[1, 4, 5], &[1, 2, 3]);
    election(&[folder(1), folder(2), folder(4)], both.clone()).expect("two of each three");
    notices(QUORUM, election(&[folder(1), folder(4)], both.clone()));
    notices(QUORUM, election(&[folder(1), folder(2)], both));
}

#[test]
fn a_vote_for_another_folder_or_in_another_term_counts_for_nothing() {
    let mut members = of_three();
    members.voted(folder(1), 2, folder(1));
    members.voted(folder(2), 2, later(1));
    members.voted(folder(3), 1, folder(1));
    let elected = Elected {
        who: folder(1),
        term: 2,
        newest: &logged(3, learning()),
        last: None,
    };
    notices(QUORUM, members.elected(&elected, |_, _| true));
}

#[test]
fn what_is_committed_is_on_the_disks_of_a_majority_of_each_half() {
    let commit = |configuration: &Configuration, holders: &[NodeId]| {
        let commit = Commit {
            who: folder(1),
            entry: EntryId { term: 2, index: 9 },
            before: configuration,
            after: configuration,
        };
        of_three().commits(&commit, &these(holders))
    };
    commit(&stable(&[1, 2, 3]), &[1, 2]).expect("two of three");
    // A leader outside its configuration is not one of them.
    notices(QUORUM, commit(&stable(&[2, 3, 4]), &[1, 2]));
    let both = joint(&[1, 4, 5], &[1, 2, 3]);
    commit(&both, &[1, 2, 4]).expect("two of each three");
    notices(QUORUM, commit(&both, &[1, 4, 5]));
    notices(QUORUM, commit(&both, &[1, 2, 3]));
}

#[test]
fn one_of_those_who_elect_has_what_was_committed() {
    let mut members = of_three();
    let who = folder(1);
    [1, 2]
        .iter()
        .for_each(|id| members.voted(folder(*id), 2, who));
    let elected = Elected {
        who,
        term: 2,
        newest: &logged(3, learning()),
        last: Some(EntryId { term: 1, index: 8 }),
    };
    let second = |voter, _| voter == folder(2);
    members.elected(&elected, second).expect("node 2 has it");
    let third = |voter, _| voter == folder(3);
    notices(DISJOINT, members.elected(&elected, third));
}

#[test]
fn who_leads_goes_by_what_was_committed_in_earlier_terms() {
    let mut members = of_three();
    let who = folder(1);
    [1, 2]
        .iter()
        .for_each(|id| members.voted(folder(*id), 2, who));
    let mut elected = Elected {
        who,
        term: 2,
        newest: &logged(2, stable(&[1, 2, 3])),
        last: None,
    };
    notices(FOLLOWED, members.elected(&elected, |_, _| true));
    let newest = logged(3, learning());
    elected.newest = &newest;
    members.elected(&elected, |_, _| true).expect("the newest");
}

/// A leader of term 2, with entry 5 of its term committed, makes a configuration at index 6.
fn change(members: &mut Members, configuration: &Configuration) -> Result<(), Failure> {
    members.made(&Made {
        id: EntryId { term: 2, index: 6 },
        configuration,
        commit: EntryId { term: 2, index: 5 },
        between: None,
    })
}

#[test]
fn nobody_votes_who_was_no_member_before() {
    let to = |ids: &[NodeId]| joint(ids, &[1, 2, 3]);
    change(&mut of_three(), &to(&[1, 2, 3, 4])).expect("node 4 has learnt");
    notices(FIRST_COMMITTED, change(&mut of_three(), &to(&[1, 2, 3, 5])));
    let mut lost = all(&[1, 2]);
    lost.push(member(later(3), MemberRole::Voter));
    let lost = Configuration::of(7, lost, all(&[1, 2, 3]));
    notices(FIRST_COMMITTED, change(&mut of_three(), &lost));
}

#[test]
fn founders_vote_if_they_were_admitted() {
    let founders = stable(&[1, 2, 3]);
    let mut members = Members::default();
    [1, 2].iter().for_each(|id| members.admitted(folder(*id)));
    notices(FIRST_COMMITTED, change(&mut members, &founders));
    members.admitted(folder(3));
    change(&mut members, &founders).expect("all are admitted");
}

#[test]
fn while_a_cluster_is_founded_no_two_folders_of_a_node_count() {
    let founding = Configuration::founding((1..=3).map(|id| (id, format!("node{id}:7000"))));
    let mut members = Members::default();
    let commit = |members: &mut Members, holders: [MemberId; 2]| {
        let commit = Commit {
            who: folder(1),
            entry: EntryId { term: 2, index: 9 },
            before: &founding,
            after: &founding,
        };
        members.commits(&commit, &BTreeSet::from(holders))
    };
    commit(&mut members, [folder(1), folder(2)]).expect("two of three");
    commit(&mut members, [folder(1), folder(3)]).expect("another two");
    notices(FIRST_COMMITTED, commit(&mut members, [folder(1), later(2)]));
}

#[test]
fn a_change_follows_a_committed_one_and_an_entry_of_the_leaders_term() {
    let next = joint(&[1, 2, 3, 4], &[1, 2, 3]);
    let made = |between, term| {
        of_three().made(&Made {
            id: EntryId { term: 2, index: 6 },
            configuration: &next,
            commit: EntryId { term, index: 5 },
            between,
        })
    };
    made(None, 2).expect("as it should be");
    notices(ONE, made(Some(4), 2));
    notices(ONE, made(None, 1));
}

#[test]
fn voters_change_through_both_majorities_only() {
    notices(ONE, change(&mut of_three(), &stable(&[1, 2, 3, 4])));
    notices(ONE, change(&mut of_three(), &joint(&[1, 2, 3, 4], &[1, 2])));
    let mut members = of_three();
    let both = joint(&[1, 2, 3, 4], &[1, 2, 3]);
    members.committed(&entry(1, 4, &both), 1);
    notices(ONE, change(&mut members, &joint(&[1, 2], &[1, 2, 3, 4])));
    change(&mut members, &both.left()).expect("it is left");
}

#[test]
fn a_node_goes_by_the_last_configuration_of_its_log() {
    let members = of_three();
    let in_force = |newest: &LoggedConfiguration, commit, behind: Option<&Entry>| {
        members.in_force(0, newest, commit, behind)
    };
    let newest = logged(3, learning());
    in_force(&newest, 7, None).expect("the newest that is committed");
    notices(IN_FORCE, in_force(&newest, 2, None));
    notices(IN_FORCE, in_force(&logged(3, stable(&[1, 2, 3])), 7, None));
    let both = joint(&[1, 2, 3, 4], &[1, 2, 3]);
    let behind = entry(2, 9, &both);
    notices(IN_FORCE, in_force(&newest, 7, Some(&behind)));
    in_force(&logged(9, both), 7, Some(&behind)).expect("it counts before it is committed");
}

#[test]
fn a_snapshot_has_the_members_that_were_committed_at_its_entry() {
    let members = of_three();
    let snapshot = |index, logged: LoggedConfiguration| {
        members.snapshot(0, EntryId { term: 1, index }, &logged)
    };
    snapshot(2, logged(2, stable(&[1, 2, 3]))).expect("those of entry 2");
    snapshot(8, logged(3, learning())).expect("those of entry 3");
    notices(SNAPSHOT, snapshot(2, logged(3, learning())));
    let pending = joint(&[1, 2, 3, 4], &[1, 2, 3]);
    notices(SNAPSHOT, snapshot(8, logged(9, pending)));
}
