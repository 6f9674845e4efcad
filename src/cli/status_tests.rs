use super::*;
use crate::wire::client::Stage;

fn status(id: NodeId, role: RoleName, term: u64) -> Status {
    let address = |id| (id, format!("127.0.0.1:700{id}"));
    Status {
        id,
        cluster: "test".into(),
        role,
        term,
        leader: Some(2),
        members: vec![address(1), address(2), address(3)],
        learners: Vec::new(),
        active: vec![],
        commit: 40,
        applied: 40,
        last_index: 41,
        first_index: 1,
        log_bytes: 3 << 20,
        snapshot_index: 0,
        snapshot_bytes: 0,
        snapshot_age_ms: 0,
        sending: Vec::new(),
        uptime_ms: 3_725_000,
        gauges: vec![("keys".into(), 7), ("sessions".into(), 2)],
        snapshot_pending: false,
        snapshot_written: 0,
        stages: Vec::new(),
        disk: Default::default(),
    }
}

fn asked(answers: [Result<Status, &str>; 3]) -> Report {
    let address = |place| format!("127.0.0.1:{}", 7001 + place);
    let answers = answers.into_iter().enumerate();
    Report::new(
        answers
            .map(|(place, answer)| (address(place), answer.map_err(String::from)))
            .collect(),
    )
}

fn one_down() -> Report {
    asked([
        Ok(status(1, RoleName::Follower, 5)),
        Ok(status(2, RoleName::Leader, 5)),
        Err("connection refused"),
    ])
}

#[test]
fn the_table_marks_the_leader_and_who_does_not_answer() {
    let expected = "\
┌────┬────────────────┬───────────┬──────┬────────┬─────────┬────────────┬─────────┬──────────┬──────────┬────────┐
│ id ┆ address        ┆ role      ┆ term ┆ commit ┆ applied ┆ last index ┆ log     ┆ sessions ┆ snapshot ┆ uptime │
╞════╪════════════════╪═══════════╪══════╪════════╪═════════╪════════════╪═════════╪══════════╪══════════╪════════╡
│  1 ┆ 127.0.0.1:7001 ┆ follower  ┆    5 ┆     40 ┆      40 ┆         41 ┆ 3.0 MiB ┆        2 ┆        - ┆ 1h 02m │
│  2 ┆ 127.0.0.1:7002 ┆ leader *  ┆    5 ┆     40 ┆      40 ┆         41 ┆ 3.0 MiB ┆        2 ┆        - ┆ 1h 02m │
│  3 ┆ 127.0.0.1:7003 ┆ no answer ┆    - ┆      - ┆       - ┆          - ┆       - ┆        - ┆        - ┆      - │
└────┴────────────────┴───────────┴──────┴────────┴─────────┴────────────┴─────────┴──────────┴──────────┴────────┘
node 3 at 127.0.0.1:7003 does not answer: connection refused
2 of 3 voters answer, leader 2";
    assert_eq!(one_down().table(false), expected);
}

#[test]
fn verbose_adds_the_counters_of_the_state_machine() {
    let table = one_down().table(true);
    assert!(
        table.lines().nth(1).unwrap().ends_with("┆ uptime ┆ keys │"),
        "{table}"
    );
}

#[test]
fn without_a_quorum_the_summary_says_what_to_do() {
    let report = asked([
        Err("timed out"),
        Err("timed out"),
        Ok(status(3, RoleName::Candidate, 9)),
    ]);
    assert!(!report.has_quorum());
    assert_eq!(
        report.summary(),
        "1 of 3 voters answers, no leader; a quorum needs 2: start the others"
    );
    let report = asked([
        Ok(status(1, RoleName::Follower, 0)),
        Ok(status(2, RoleName::Follower, 0)),
        Err("refused"),
    ]);
    let summary = report.summary();
    assert!(
        summary.starts_with("2 of 3 voters answer, no leader;"),
        "{summary}"
    );
    assert!(summary.contains("a new cluster waits"), "{summary}");
    let report = asked([Err("refused"), Err("refused"), Err("refused")]);
    assert!(report.summary().starts_with("0 of 3 servers answer: check"));
    assert!(report.table(false).contains('?'));
}

#[test]
fn of_two_that_say_they_lead_the_one_of_the_later_term_is_the_leader() {
    let report = asked([
        Ok(status(1, RoleName::Leader, 6)),
        Ok(status(2, RoleName::Leader, 5)),
        Ok(status(3, RoleName::Follower, 6)),
    ]);
    assert_eq!(report.summary(), "3 of 3 voters answer, leader 1");
    assert_eq!(report.table(false).matches("leader *").count(), 1);
}

#[test]
fn a_member_that_was_not_asked_is_listed_and_a_node_asked_twice_is_listed_once() {
    let first = || Ok(status(1, RoleName::Leader, 5));
    let report = Report::new(vec![
        ("localhost:7001".into(), first()),
        ("127.0.0.1:7001".into(), first()),
    ]);
    let ids: Vec<_> = report.nodes.iter().map(|node| node.id).collect();
    assert_eq!(ids, [Some(1), Some(2), Some(3)]);
    assert!(report.table(false).contains("was not asked"));
}

#[test]
fn lines_and_json_carry_exact_numbers() {
    let lines = one_down().lines();
    assert_eq!(
        lines[1],
        "id=2 address=127.0.0.1:7002 role=leader term=5 commit=40 applied=40 last_index=41 \
         log_bytes=3145728 first_index=1 snapshot_index=0 snapshot_bytes=0 \
         snapshot_age_ms=0 snapshot_written=0 uptime_ms=3725000 \
         write_ms=0 verified_bytes=0 verified_times=0 keys=7 sessions=2"
    );
    assert_eq!(
        lines[2],
        "id=3 address=127.0.0.1:7003 error=\"connection refused\""
    );
    let json = one_down().json();
    assert_eq!(json["nodes"][1]["log_bytes"], 3 << 20);
    assert_eq!(json["nodes"][2]["error"], "connection refused");
    assert_eq!(json["leader"], 2);
}

#[test]
fn sizes_and_times_are_short() {
    assert_eq!(
        [0, 1023, 1024, 5 << 40].map(size),
        ["0 B", "1023 B", "1.0 KiB", "5.0 TiB"]
    );
    assert_eq!(
        [999, 61_000, 3_600_000, 90_000_000].map(duration),
        ["0s", "1m 01s", "1h 00m", "1d 01h"]
    );
}

#[test]
fn a_node_that_is_no_member_any_more_is_listed_and_does_not_count() {
    let mut removed = status(4, RoleName::Follower, 2);
    removed.members = vec![];
    let report = Report::new(vec![
        ("127.0.0.1:7001".into(), Ok(status(1, RoleName::Leader, 5))),
        ("127.0.0.1:7002".into(), Err("connection refused".into())),
        ("127.0.0.1:7003".into(), Err("connection refused".into())),
        ("127.0.0.1:7004".into(), Ok(removed)),
    ]);
    assert!(!report.has_quorum());
    assert!(
        report
            .summary()
            .starts_with("1 of 3 voters answers, leader 1")
    );
    assert_eq!(report.lines().len(), 4);
}

#[test]
fn snapshots_and_their_transfers_are_shown() {
    let mut leader = status(2, RoleName::Leader, 5);
    (leader.snapshot_index, leader.snapshot_bytes) = (30, 12 << 20);
    leader.snapshot_age_ms = 65_000;
    leader.sending = vec![(3, 5 << 20, 12 << 20)];
    let mut follower = status(1, RoleName::Follower, 5);
    (follower.snapshot_pending, follower.snapshot_written) = (true, 3 << 20);
    let report = asked([Ok(follower), Ok(leader), Err("connection refused")]);
    let table = report.table(false);
    assert!(table.contains("30, 12.0 MiB, 1m 05s ago ┆"), "{table}");
    assert!(table.contains(" - (writing: 3.0 MiB) ┆"), "{table}");
    let line = "\nnode 2 is sending its snapshot to 3: 41 % of 12.0 MiB\n";
    assert!(table.contains(line), "{table}");
    let words = "snapshot_index=30 snapshot_bytes=12582912 snapshot_age_ms=65000";
    assert!(report.lines()[1].contains(words));
    let sending = "sending_to=3 sending_received=5242880 sending_bytes=12582912";
    assert!(report.lines()[1].contains(sending));
    assert!(report.lines()[0].contains(" snapshot_written=3145728 "));
    let json = report.json();
    assert_eq!(json["nodes"][0]["snapshot_pending"], true);
    assert_eq!(json["nodes"][0]["snapshot_written"], 3 << 20);
    assert_eq!(json["nodes"][1]["snapshot_index"], 30);
    assert_eq!(json["nodes"][1]["sending"][0]["to"], 3);
}

#[test]
fn what_is_wrong_with_a_disk_is_said_in_words() {
    let mut slow = status(1, RoleName::Follower, 5);
    slow.disk.write_ms = 3240;
    let mut full = status(2, RoleName::Leader, 5);
    full.disk.no_space = Some("there is no space for the log".into());
    let mut rotten = status(3, RoleName::Follower, 5);
    rotten.disk.damage = Some("log-1 is damaged at offset 7".into());
    rotten.disk.write_ms = 20;
    let report = asked([Ok(slow), Ok(full), Ok(rotten)]);
    let table = report.table(false);
    let expected = "node 1 has a slow disk: a write of its log has not returned for 3.2 s\n\
                    node 2: there is no space for the log\n\
                    node 3: log-1 is damaged at offset 7\n";
    assert!(table.contains(expected), "{table}");
    let lines = report.lines();
    assert!(lines[0].contains(" write_ms=3240 "), "{}", lines[0]);
    assert!(
        lines[1].ends_with(" no_space=\"there is no space for the log\""),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].ends_with(" damage=\"log-1 is damaged at offset 7\""),
        "{}",
        lines[2]
    );
    let json = report.json();
    assert_eq!(json["nodes"][0]["write_ms"], 3240);
    assert_eq!(
        json["nodes"][1]["no_space"],
        "there is no space for the log"
    );
    assert_eq!(json["nodes"][2]["damage"], "log-1 is damaged at offset 7");
}

#[test]
fn verbose_shows_where_the_time_of_each_node_goes_and_leaves_out_what_nothing_has_passed() {
    let stage = |name: &str, count, [p50_ns, p99_ns, max_ns]: [u64; 3]| Stage {
        name: name.into(),
        count,
        p50_ns,
        p99_ns,
        max_ns,
    };
    let mut follower = status(1, RoleName::Follower, 5);
    follower.stages = vec![
        stage("sync", 12, [250_049, 1_843_199, 9_000_000]),
        stage("round", 0, [0; 3]),
    ];
    let mut leader = status(2, RoleName::Leader, 5);
    leader.stages = vec![
        stage("sync", 12, [240_000, 700_000, 800_000]),
        stage("round", 23_000, [410_000, 950_000, 12_345_678]),
        stage("apply", 11, [3_100, 8_000, 8_100]),
    ];
    let report = asked([Ok(follower), Ok(leader), Err("connection refused")]);
    let expected = "
how long batches took in each stage, in the last 10 to 20 seconds:
┌────┬───────┬───────┬────────┬────────┬─────────┐
│ id ┆ stage ┆ count ┆ p50 us ┆ p99 us ┆ max us  │
╞════╪═══════╪═══════╪════════╪════════╪═════════╡
│  1 ┆ sync  ┆    12 ┆  250.0 ┆ 1843.2 ┆  9000.0 │
│  2 ┆ sync  ┆    12 ┆  240.0 ┆  700.0 ┆   800.0 │
│    ┆ round ┆ 23000 ┆  410.0 ┆  950.0 ┆ 12345.7 │
│    ┆ apply ┆    11 ┆    3.1 ┆    8.0 ┆     8.1 │
└────┴───────┴───────┴────────┴────────┴─────────┘
node 3 at 127.0.0.1:7003 does not answer: connection refused
2 of 3 voters answer, leader 2";
    let table = report.table(true);
    assert!(table.ends_with(expected), "{table}");
    assert!(!report.table(false).contains("stage"));
    let json = report.json();
    assert_eq!(json["nodes"][0]["stages"][1]["count"], 0);
    assert_eq!(json["nodes"][1]["stages"][1]["name"], "round");
    assert_eq!(json["nodes"][1]["stages"][1]["max_ns"], 12_345_678);
}

#[test]
fn where_no_time_has_gone_lately_there_is_no_table_of_it() {
    let table = one_down().table(true);
    assert!(!table.contains("stage"), "{table}");
}

#[test]
fn learners_are_listed_and_do_not_count_as_voters() {
    let with_learners = |id, role| {
        let mut status = status(id, role, 5);
        status.learners = vec![2, 3];
        status
    };
    let report = asked([
        Ok(with_learners(1, RoleName::Leader)),
        Ok(with_learners(2, RoleName::Follower)),
        Err("connection refused"),
    ]);
    assert_eq!(report.summary(), "1 of 1 voters answers, leader 1");
    assert!(report.has_quorum());
    let table = report.table(false);
    assert!(table.contains("┆ learner "), "{table}");
    assert!(table.contains("node 3 at 127.0.0.1:7003 does not answer"));
    let json = report.json();
    assert_eq!(json["voters"], 1);
    assert_eq!(json["learners"], json!([2, 3]));
    let report = asked([
        Err("connection refused"),
        Ok(with_learners(2, RoleName::Follower)),
        Ok(with_learners(3, RoleName::Follower)),
    ]);
    assert!(!report.has_quorum(), "learners elect nobody");
}
