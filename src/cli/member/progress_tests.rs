use super::*;
use crate::raft::{Configuration, LoggedConfiguration};

const ADD: Goal = Goal::Votes(4);

fn member(id: NodeId, role: MemberRole) -> Member {
    Member {
        id,
        folder: Some(u128::from(id) << 100),
        address: format!("h{id}:7000"),
        role,
    }
}

/// What leader 1 reports of a cluster whose configuration is the entry 20: voters 1 to 3, and node
/// 4 in the given role, if any.
fn report(role: Option<MemberRole>) -> MembersReport {
    let mut members: Vec<_> = (1..=3).map(|id| member(id, MemberRole::Voter)).collect();
    members.extend(role.map(|role| member(4, role)));
    let known = members.iter().skip(1).map(|member| MemberReport {
        id: member.id,
        folder: member.folder,
        matched: 10_000,
        silent_ms: 10,
        snapshot: None,
        round: (member.role == MemberRole::Joining).then_some(3),
        is_departing: false,
    });
    MembersReport {
        id: 1,
        leader: Some(1),
        term: 5,
        commit: 22_345,
        last_index: 22_345,
        members: known.collect(),
        configuration: LoggedConfiguration {
            index: 20,
            configuration: Configuration::of(7, members, Vec::new()),
        },
        committed: 20,
        blocker: None,
    }
}

fn joint(mut report: MembersReport, before: &[NodeId]) -> MembersReport {
    let after = report.configuration.configuration.members().to_vec();
    let before = before.iter().map(|id| member(*id, MemberRole::Voter));
    report.configuration.configuration = Configuration::of(7, after, before.collect());
    report
}

fn text(now: Now) -> String {
    match now {
        Now::Step { text, .. } => text,
        other => panic!("{other:?} instead of a step"),
    }
}

#[test]
fn each_change_is_done_when_the_member_has_its_role() {
    use MemberRole::{Joining, Learner, Voter};
    let id = 4;
    let address = || "h4:7000".to_string();
    let add = |role| ChangeRequest::Add {
        id,
        address: address(),
        role,
    };
    let replace = || ChangeRequest::Replace { id, address: None };
    let moved = || ChangeRequest::Move {
        id,
        address: address(),
    };
    let promote = ChangeRequest::Promote(id);
    let table = [
        (add(Voter), Some(Voter), [None, Some(Learner)]),
        (add(Learner), Some(Learner), [None, Some(Voter)]),
        (promote, Some(Voter), [None, Some(Learner)]),
        (
            ChangeRequest::Demote(id),
            Some(Learner),
            [None, Some(Voter)],
        ),
        (
            ChangeRequest::Remove(id),
            None,
            [Some(Learner), Some(Voter)],
        ),
        (replace(), Some(Voter), [None, None]),
        (replace(), Some(Learner), [None, None]),
        (moved(), Some(Voter), [None, None]),
        (moved(), Some(Joining), [None, None]),
    ];
    for (change, done, undone) in table {
        let goal = Goal::of(&change);
        let is_done = |report: &MembersReport| matches!(now(report, &goal, 20), Now::Done { .. });
        assert!(is_done(&report(done)), "{change:?}");
        for role in undone {
            let after = now(&report(role), &goal, 20);
            assert!(matches!(after, Now::Undone(_)), "{change:?}: {after:?}");
        }
        // Neither a joint configuration nor one that is not committed is the end.
        assert!(!is_done(&joint(report(done), &[1, 2, 3])), "{change:?}");
        let mut uncommitted = report(done);
        uncommitted.committed = 15;
        assert!(!is_done(&uncommitted), "{change:?}");
    }
}

#[test]
fn whoever_is_to_vote_is_waited_for_while_it_catches_up() {
    let mut joining = report(Some(MemberRole::Joining));
    assert_eq!(
        text(now(&joining, &ADD, 20)),
        "node 4: 12,345 entries to come, round 3"
    );
    let replace = Goal::HasPlace(4);
    assert_eq!(
        text(now(&joining, &replace, 20)),
        "node 4: 12,345 entries to come, round 3"
    );
    joining.members[2].snapshot = Some((34 << 20, 95 << 20));
    assert_eq!(
        text(now(&joining, &ADD, 20)),
        "node 4: snapshot, 34.0 MiB of 95.0 MiB"
    );
    joining.members[2].silent_ms = 12_000;
    let silent = text(now(&joining, &ADD, 20));
    assert!(
        silent.contains("not answered for 12s") && silent.contains("h4:7000"),
        "{silent}"
    );
    joining.members.clear();
    joining.leader = None;
    let text = text(now(&joining, &ADD, 20));
    assert_eq!(
        text,
        "node 4 catches up: there is no leader, and node 1 answers"
    );
}

#[test]
fn who_is_too_slow_is_named_with_what_to_do() {
    let mut joining = report(Some(MemberRole::Joining));
    joining.members[2].round = None;
    match now(&joining, &ADD, 20) {
        Now::TooSlow(why) => {
            assert!(why.contains("node 4 is too slow") && why.contains("demote 4"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_leader_knows_of_the_former_folder_is_not_taken_for_the_new_one() {
    let mut joining = report(Some(MemberRole::Joining));
    joining.members[2].folder = Some(7);
    assert!(text(now(&joining, &ADD, 20)).contains("does not say how far it is"));
}

#[test]
fn a_change_that_its_leader_took_into_the_grave_is_asked_for_again() {
    // The change was appended at entry 30, and the next leader has another entry there.
    assert_eq!(now(&report(None), &ADD, 30), Now::Lost);
    let mut behind = report(None);
    behind.commit = 29;
    assert_eq!(
        text(now(&behind, &ADD, 30)),
        "leader 1 does not have the change yet"
    );
    behind.leader = Some(2);
    assert_eq!(
        text(now(&behind, &ADD, 30)),
        "node 1 answers, and leader 2 does not"
    );
}

#[test]
fn what_the_leader_says_about_a_change_that_waits_is_passed_on() {
    let mut waits = joint(report(Some(MemberRole::Voter)), &[1, 2, 3]);
    assert!(text(now(&waits, &ADD, 20)).contains("both have to agree"));
    waits.blocker = Some("entry 20 waits for node 3".into());
    assert_eq!(text(now(&waits, &ADD, 20)), "entry 20 waits for node 3");
}

#[test]
fn progress_is_what_changes_the_numbers_and_new_entries_are_none() {
    let measure = |report: &MembersReport| match now(report, &ADD, 20) {
        Now::Step { measure, .. } => measure,
        other => panic!("{other:?}"),
    };
    let joining = report(Some(MemberRole::Joining));
    let change = |change: fn(&mut MembersReport)| {
        let mut report = joining.clone();
        change(&mut report);
        measure(&report) != measure(&joining)
    };
    assert!(change(|report| report.members[2].matched += 1));
    assert!(change(|report| report.members[2].snapshot = Some((5, 9))));
    assert!(change(|report| report.members[2].round = Some(4)));
    assert!(change(|report| report.configuration.index += 1));
    assert!(!change(
        |report| (report.last_index, report.commit) = (23_000, 23_000)
    ));
    assert!(!change(|report| report.members[1].matched += 1));
    assert!(!change(|report| report.members[2].silent_ms += 5000));
}

#[test]
fn numbers_are_grouped_by_three_digits() {
    let grouped = [0, 999, 1000, 12_345, 1_234_567].map(grouped);
    assert_eq!(grouped, ["0", "999", "1,000", "12,345", "1,234,567"]);
}
