//! `kvcli` on a cluster of processes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};
use std::time::Instant;

use super::cluster::{Cluster, PATIENCE, text};

/// Exit codes of `kvcli`.
const DONE: Option<i32> = Some(0);
const NO: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(2);
const UNAVAILABLE: Option<i32> = Some(3);
const UNKNOWN: Option<i32> = Some(4);

/// Starts `kvcli` with a pipe to write commands into.
fn piped(cluster: &Cluster, options: &[&str]) -> Child {
    let mut command = cluster.cli();
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    streams
        .stderr(Stdio::piped())
        .args(options)
        .spawn()
        .unwrap()
}

/// Runs `kvcli` with this standard input.
fn fed(cluster: &Cluster, options: &[&str], input: &[u8]) -> Output {
    let mut child = piped(cluster, options);
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn single_commands_answer_on_standard_output_and_by_their_exit_code() {
    let cluster = Cluster::start(3);
    let steps: [(&[&str], Option<i32>, &str); 10] = [
        (&["get", "colour"], NO, ""),
        (&["put", "colour", "green"], DONE, "ok\n"),
        (&["get", "colour"], DONE, "green"),
        (&["append", "colour", "ish"], DONE, "8\n"),
        (
            &["cas", "colour", "red", "blue"],
            NO,
            "(differs) greenish\n",
        ),
        (&["cas", "colour", "greenish", "blue"], DONE, "ok\n"),
        (&["scan", "col"], DONE, "colour blue\n"),
        (&["delete", "colour"], DONE, "1\n"),
        (&["scan"], DONE, ""),
        (&["transfer", "9"], NO, ""),
    ];
    for (words, code, stdout) in steps {
        let output = cluster.run(words);
        assert_eq!(output.status.code(), code, "{words:?}: {output:?}");
        assert_eq!(text(&output.stdout), stdout, "{words:?}");
    }
}

#[test]
fn any_bytes_come_out_as_they_went_in() {
    let cluster = Cluster::start(3);
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let output = fed(&cluster, &["put", "file", "--file", "-"], &all);
    assert_eq!(output.status.code(), DONE, "{output:?}");
    let output = cluster.run(&["-o", "raw", "get", "file"]);
    assert!(output.stdout == all, "{} bytes", output.stdout.len());
    let escaped: String = all[..256]
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    let lines = format!("put \"\\x00\\xff key\" \"{escaped}\"\nget \"\\x00\\xff key\"\n");
    let output = fed(&cluster, &["-o", "raw"], lines.as_bytes());
    assert_eq!(output.status.code(), DONE, "{output:?}");
    assert_eq!(
        output.stdout.iter().filter(|byte| **byte == b'\n').count(),
        2
    );
    let output = fed(&cluster, &["-o", "json"], b"get \"\\x00\\xff key\"\n");
    assert!(
        text(&output.stdout).contains("\"base64\":\"AAECAwQF"),
        "{output:?}"
    );
    let clerk = cluster.clerk();
    let value = clerk.get(b"\x00\xff key").unwrap().unwrap();
    assert_eq!(&value[..], &all[..256]);
    clerk.put("key", &value).unwrap();
    let output = cluster.run(&["-o", "raw", "get", "key"]);
    assert_eq!(output.stdout, &all[..256]);
}

#[test]
fn a_pipe_has_one_answer_for_each_line_and_the_exit_code_of_the_first_failure() {
    let cluster = Cluster::start(1);
    let lines = "# a comment\nput a 1\n\nget a\nfrobnicate\nget missing\nappend a 2\n";
    let output = fed(&cluster, &["--stats"], lines.as_bytes());
    assert_eq!(text(&output.stdout), "ok\n1\n(error)\n(missing)\n2\n");
    assert_eq!(output.status.code(), USAGE);
    let errors: Vec<_> = text(&output.stderr).lines().collect();
    assert!(errors[0].starts_with("line 5: ") && errors[0].contains("frobnicate"));
    assert!(
        errors.last().unwrap().starts_with("calls=5 attempts="),
        "{errors:?}"
    );
    let output = fed(&cluster, &["--stop-on-error"], lines.as_bytes());
    assert_eq!(text(&output.stdout), "ok\n1\n(error)\n");
}

#[test]
fn what_is_too_large_is_refused_with_its_size_and_the_limit() {
    let cluster = Cluster::start(1);
    let key = "k".repeat(65_537);
    let output = cluster.run(&["put", &key, "value"]);
    assert_eq!(output.status.code(), NO, "{:?}", output.status);
    let error = text(&output.stderr);
    assert!(
        error.contains("65537") && error.contains("65536"),
        "{error}"
    );
    let file = cluster.folder().join("value");
    fs::write(&file, vec![b'v'; (8 << 20) + 1]).unwrap();
    let output = cluster.run(&["put", "key", "--file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), NO, "{output:?}");
    let error = text(&output.stderr);
    assert!(
        error.contains("8388609") && error.contains("8388608"),
        "{error}"
    );
    assert_eq!(cluster.clerk().get("key"), Ok(None));
}

#[test]
fn a_verbose_status_shows_where_the_time_of_a_running_cluster_goes() {
    let cluster = Cluster::start(3);
    let clerk = cluster.clerk();
    let deadline = Instant::now() + PATIENCE;
    // Some is noted only after the answer has left, and followers execute later.
    loop {
        clerk.put("key", "value").unwrap();
        clerk.get("key").unwrap();
        let output = cluster.run(&["-o", "table", "status", "-v"]);
        assert_eq!(output.status.code(), DONE, "{output:?}");
        let table = text(&output.stdout);
        let rows = |stage: &str| table.matches(&format!(" ┆ {stage} ")).count();
        let everywhere = ["queue", "write", "sync", "apply"].map(rows);
        let at_the_leader = ["round", "heartbeat", "reply"].map(rows);
        if everywhere == [3; 4] && at_the_leader.iter().all(|rows| *rows >= 1) {
            return;
        }
        assert!(Instant::now() < deadline, "{table}");
    }
}

#[test]
fn status_works_without_a_quorum_and_marks_who_does_not_answer() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let output = cluster.run(&["-o", "table", "status", "-v"]);
    assert_eq!(output.status.code(), DONE, "{output:?}");
    let table = text(&output.stdout);
    assert!(
        table.contains("leader *") && table.contains("duplicates"),
        "{table}"
    );
    assert!(table.contains("3 of 3 voters answer, leader "), "{table}");
    cluster.kill([2, 3]).unwrap();
    let output = cluster.run(&["-o", "table", "status"]);
    assert_eq!(output.status.code(), UNAVAILABLE, "{output:?}");
    let table = text(&output.stdout);
    assert_eq!(table.matches("┆ no answer ┆").count(), 2, "{table}");
    for id in [2, 3] {
        let address = cluster.address(id);
        assert!(table.contains(&format!("node {id} at {address} does not answer: ")));
    }
    assert!(table.contains("1 of 3 voters answers") && table.contains("start the others"));
    let output = cluster.run(&["--timeout", "1s", "get", "key"]);
    assert_eq!(output.status.code(), UNAVAILABLE, "{output:?}");
    let error = text(&output.stderr);
    assert!(
        error.contains("1 of 3 servers answer, which is no majority"),
        "{error}"
    );
}

#[test]
fn a_write_that_nobody_confirmed_is_reported_as_unknown() {
    // Slow elections: the leader must still lead when the write arrives.
    let cluster = Cluster::start_with(3, &["--election-ms", "1000"]);
    let leader = cluster.leader();
    let mut child = piped(&cluster, &["--timeout", "4s"]);
    let mut commands = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut answer = String::new();
    commands.write_all(b"put key 1\n").unwrap();
    answers.read_line(&mut answer).unwrap();
    assert_eq!(answer, "ok\n");
    let followers: Vec<_> = cluster
        .ids()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    followers
        .iter()
        .for_each(|id| cluster.node(*id).signal("STOP").unwrap());
    commands.write_all(b"put key 2\n").unwrap();
    drop(commands);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), UNKNOWN, "{output:?}");
    let error = text(&output.stderr);
    assert!(error.contains("outcome unknown") && error.contains("Read the key before"));
    followers
        .iter()
        .for_each(|id| cluster.node(*id).signal("CONT").unwrap());
    let value = cluster.clerk().get("key").unwrap().unwrap();
    assert!(["1", "2"].contains(&text(&value)), "{value:?}");
}

#[test]
fn leadership_goes_to_the_node_that_is_named_and_stays_if_it_is_there() {
    let cluster = Cluster::start(3);
    for id in [1, 2, 3] {
        while cluster.leader() != id {
            let output = cluster.run(&["transfer", &id.to_string()]);
            assert_eq!(output.status.code(), DONE, "{output:?}");
        }
    }
    let output = cluster.run(&["transfer", "3"]);
    assert_eq!(output.status.code(), DONE, "{output:?}");
    assert_eq!(cluster.leader(), 3);
}
