use super::*;
use crate::raft::LoggedConfiguration;

fn member(id: NodeId, role: MemberRole) -> Member {
    Member {
        id,
        folder: Some((0x1111_1111 * u128::from(id)) << 96),
        address: format!("10.0.0.{id}:7000"),
        role,
    }
}

fn voters(ids: &[NodeId]) -> Vec<Member> {
    let voters = ids.iter().map(|id| member(*id, MemberRole::Voter));
    voters.collect()
}

/// What leader 1 reports of these members. All of them answer and have the whole log.
fn report(members: Vec<Member>, outgoing: Vec<Member>) -> MembersReport {
    let configuration = Configuration::of(7, members, outgoing);
    let others = configuration.contacts().filter(|member| member.id != 1);
    let known = others.map(|member| MemberReport {
        id: member.id,
        folder: member.folder,
        matched: 20_000,
        silent_ms: 12,
        snapshot: None,
        round: None,
        is_departing: false,
    });
    MembersReport {
        id: 1,
        leader: Some(1),
        term: 5,
        commit: 20_000,
        last_index: 20_000,
        members: known.collect(),
        configuration: LoggedConfiguration {
            index: 57,
            configuration,
        },
        committed: 57,
        blocker: None,
    }
}

/// The sentences below the table.
fn below(report: MembersReport) -> Vec<String> {
    let table = Listing::new(report).table();
    let sentences = table
        .lines()
        .filter(|line| !line.starts_with(['┌', '│', '╞', '└']));
    sentences.map(String::from).collect()
}

fn known(report: &mut MembersReport, id: NodeId) -> &mut MemberReport {
    let mut all = report.members.iter_mut();
    all.find(|known| known.id == id).unwrap()
}

#[test]
fn a_quiet_cluster_is_listed_with_the_folders_and_how_many_may_fail() {
    let mut report = report(voters(&[1, 2, 3]), vec![]);
    known(&mut report, 3).matched -= 1234;
    let expected = "\
┌────┬─────────┬──────────┬───────────────┬────────┬────────────┬──────┐
│ id ┆ role    ┆ folder   ┆ address       ┆ behind ┆ last heard ┆ note │
╞════╪═════════╪══════════╪═══════════════╪════════╪════════════╪══════╡
│  1 ┆ voter * ┆ 11111111 ┆ 10.0.0.1:7000 ┆      0 ┆          - ┆      │
│  2 ┆ voter   ┆ 22222222 ┆ 10.0.0.2:7000 ┆      0 ┆        now ┆      │
│  3 ┆ voter   ┆ 33333333 ┆ 10.0.0.3:7000 ┆  1,234 ┆        now ┆      │
└────┴─────────┴──────────┴───────────────┴────────┴────────────┴──────┘
no change is under way since entry 57
3 of 3 voters answer, a quorum needs 2: 1 may still fail";
    assert_eq!(Listing::new(report).table(), expected);
}

#[test]
fn a_joint_configuration_shows_what_each_member_was_and_becomes() {
    let mut now = voters(&[1, 2, 4]);
    now.push(member(5, MemberRole::Learner));
    let mut report = report(now, voters(&[1, 2, 3, 5]));
    known(&mut report, 4).round = Some(2);
    report.blocker = Some("entry 57 waits for node 3".into());
    report.committed = 40;
    let table = Listing::new(report.clone()).table();
    for row in [
        "│  1 ┆ voter *          ┆",
        "│  3 ┆ voter -> gone    ┆",
        "│  4 ┆ joining -> voter ┆",
        "│  5 ┆ voter -> learner ┆",
    ] {
        assert!(table.contains(row), "{row}\n{table}");
    }
    let expected = [
        "a change of voters is under way since entry 57: a majority before and one after it both \
         have to agree",
        "4 of 4 voters before answer, a quorum needs 3; 3 of 3 voters after answer, a quorum needs \
         2: 1 may still fail",
        "it waits: entry 57 waits for node 3",
    ];
    assert_eq!(below(report), expected);
}

#[test]
fn a_member_with_a_new_folder_is_listed_beside_the_former_one_until_that_one_is_out() {
    let mut renewed = member(3, MemberRole::Joining);
    renewed.folder = Some(0xabcd_ef01 << 96);
    let mut now = voters(&[1, 2]);
    now.push(renewed);
    let report = report(now, voters(&[1, 2, 3]));
    let lines = Listing::new(report).lines();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[2].starts_with("id=3 role=joining address=10.0.0.3:7000 folder=abcdef01"),
        "{lines:?}"
    );
    assert!(
        lines[3].contains("id=3 role=voter") && lines[3].contains("becomes=gone"),
        "{lines:?}"
    );
    assert!(
        !lines[3].contains("behind="),
        "the leader knows nothing of that folder: {lines:?}"
    );
}

#[test]
fn a_silent_voter_counts_as_failed_and_the_next_command_is_named() {
    let mut report = report(voters(&[1, 2, 3]), vec![]);
    known(&mut report, 3).silent_ms = 65_000;
    let table = Listing::new(report.clone()).table();
    assert!(
        table.contains("┆  1m 05s ago ┆ silent ┆") || table.contains("1m 05s ago ┆ silent"),
        "{table}"
    );
    let expected = [
        "no change is under way since entry 57",
        "2 of 3 voters answer, a quorum needs 2: none may fail now",
        "next: start node 3 at 10.0.0.3:7000; if its machine or its folder is lost: kvcli member \
         replace 3[=HOST:PORT] or kvcli member remove 3",
    ];
    assert_eq!(below(report.clone()), expected);
    known(&mut report, 2).silent_ms = 65_000;
    assert!(
        below(report)[1].ends_with("1 of 3 voters answer, a quorum needs 2: 1 more must answer")
    );
}

#[test]
fn who_catches_up_is_listed_with_how_far_it_is() {
    let mut members = voters(&[1, 2, 3]);
    members.push(member(4, MemberRole::Joining));
    let mut report = report(members, vec![]);
    known(&mut report, 4).round = Some(2);
    let note =
        |report: &MembersReport| Listing::new(report.clone()).json()["members"][3]["note"].clone();
    assert_eq!(note(&report), "catches up, round 2");
    assert_eq!(below(report.clone())[0], "node 4 is to vote once caught up");
    known(&mut report, 4).snapshot = Some((34 << 20, 95 << 20));
    assert_eq!(note(&report), "gets a snapshot: 35 % of 95.0 MiB");
    known(&mut report, 4).snapshot = None;
    known(&mut report, 4).round = None;
    assert_eq!(note(&report), "too slow: tried again after a while");
    assert!(below(report)[2].contains("kvcli member demote 4"));
}

#[test]
fn an_empty_seat_counts_for_nobody_and_is_to_be_filled() {
    let mut members = voters(&[1, 2]);
    members.push(Member {
        folder: None,
        ..member(3, MemberRole::Voter)
    });
    let sentences = below(report(members, vec![]));
    assert_eq!(
        sentences[1],
        "2 of 3 voters answer, a quorum needs 2: none may fail now"
    );
    assert!(
        sentences[2].contains("kvcli member replace 3"),
        "{sentences:?}"
    );
}

#[test]
fn a_learner_may_be_promoted_when_nothing_else_is_to_be_done() {
    let mut members = voters(&[1, 2, 3]);
    members.push(member(4, MemberRole::Learner));
    let mut report = report(members, vec![]);
    assert_eq!(
        below(report.clone())[2],
        "next: kvcli member promote 4 lets it vote"
    );
    report.committed = 40;
    assert_eq!(
        below(report),
        [
            "the change of entry 57 is under way: it is not committed yet",
            "3 of 3 voters answer, a quorum needs 2: 1 may still fail",
        ]
    );
}

#[test]
fn a_follower_lists_the_members_and_says_what_it_does_not_know() {
    let mut report = report(voters(&[1, 2, 3]), vec![]);
    report.members.clear();
    (report.id, report.leader) = (2, None);
    let listing = Listing::new(report.clone());
    assert!(
        listing
            .table()
            .contains("10.0.0.3:7000 ┆      ? ┆          ? ┆"),
        "{}",
        listing.table()
    );
    assert_eq!(listing.json()["may_fail"], Value::Null);
    let expected = [
        "no change is under way since entry 57 (according to node 2: no leader)",
        "of 3 voters a quorum needs 2; how many may still fail is not known without the leader",
        "next: start the members that do not run: kvcli status lists them",
    ];
    assert_eq!(below(report), expected);
}

#[test]
fn founders_and_a_node_that_is_to_join_are_described_as_such() {
    let mut founding = report(voters(&[1, 2, 3]), vec![]);
    let founders = (1..=3).map(|id| (id, format!("10.0.0.{id}:7000")));
    founding.configuration = LoggedConfiguration::founding(Configuration::founding(founders));
    founding.committed = 0;
    assert!(below(founding)[0].contains("their folders are not in the log yet"));
    let mut joiner = report(vec![], vec![]);
    (joiner.id, joiner.leader) = (4, None);
    assert!(below(joiner)[0].contains("it is to join a cluster"));
}

#[test]
fn one_that_was_removed_is_listed_while_it_is_told_so() {
    let mut report = report(voters(&[1, 2]), vec![]);
    report.members.push(MemberReport {
        id: 3,
        folder: Some(3),
        matched: 0,
        silent_ms: 0,
        snapshot: None,
        round: None,
        is_departing: true,
    });
    let lines = Listing::new(report).lines();
    assert!(
        lines[2].starts_with("id=3 role=gone address=-"),
        "{lines:?}"
    );
}

#[test]
fn lines_and_json_carry_exact_numbers() {
    let listing = Listing::new(report(voters(&[1, 2]), vec![]));
    assert_eq!(
        listing.lines(),
        [
            "id=1 role=voter address=10.0.0.1:7000 folder=11111111000000000000000000000000 \
             behind=0",
            "id=2 role=voter address=10.0.0.2:7000 folder=22222222000000000000000000000000 \
             behind=0 silent_ms=12",
        ]
    );
    let json = listing.json();
    assert_eq!(
        (&json["index"], &json["committed"]),
        (&json!(57), &json!(57))
    );
    assert_eq!((&json["quorum"], &json["may_fail"]), (&json!(2), &json!(0)));
    assert_eq!(json["joint"], false);
    assert_eq!(json["members"][1]["silent_ms"], 12);
}
