//! Sessions and pipes over a cluster that is a map in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::command::{self, Format, Request};
use super::grammar;
use super::interrupt::Interrupt;
use super::output::{Printer, Style};
use super::piped;
use super::session::{Failure, Outcome, Session, exit};
use crate::client::{Clerk, Error, LastWord, Options, Transport, Word};

mod cluster;
mod live;
mod member;

use cluster::{MapCluster, Trouble};

fn session(cluster: &Arc<MapCluster>, format: Format) -> Session {
    let options = Options {
        deadline: Duration::from_millis(60),
        attempt_timeout: Duration::from_millis(20),
        ..Options::default()
    };
    let transport: Arc<dyn Transport> = Arc::clone(cluster) as _;
    let clerk = Clerk::over(transport, ["one:1"], options).unwrap();
    Session::new(clerk, Arc::new(Interrupt::that_ends()), format, false)
}

/// Executes the commands of a pipe. Returns the output, the errors and the exit code.
fn pipe(
    cluster: &Arc<MapCluster>,
    input: &[u8],
    format: Format,
    stop: bool,
) -> (String, String, u8) {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let mut session = session(cluster, format);
    let code = piped::run(&mut session, &mut &*input, &mut out, &mut errors, stop);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(errors), code)
}

fn request(line: &str) -> Request {
    command::parse_line(line.as_bytes()).unwrap().unwrap()
}

/// Runs a single command whose output is raw and not a terminal. Returns the output and the result.
fn single(cluster: &Arc<MapCluster>, line: &str) -> (Vec<u8>, Result<Outcome, Failure>) {
    let mut out = Vec::new();
    let style = Style::Single { terminal: false };
    let mut printer = Printer::new(&mut out, style, Format::Raw);
    let result = session(cluster, Format::Raw).run(&request(line), &mut printer);
    (out, result)
}

fn code(result: &Result<Outcome, Failure>) -> u8 {
    match result {
        Ok(outcome) => outcome.code,
        Err(failure) => failure.code(),
    }
}

#[test]
fn a_pipe_answers_each_command_with_one_line() {
    let input = b"\
# a comment

put a 1
get a
append a \"2\\n\"
get a
cas a x y
cas b --missing 'two words'
get b
scan
scan --keys
scan zzz
delete a b c
get a
transfer
status
timing off
help get
";
    let (out, errors, code) = pipe(&Arc::default(), input, Format::Raw, false);
    let expected = "\
ok
1
3
\"12\\n\"
(differs) \"12\\n\"
ok
two words
a \"12\\n\" b \"two words\"
a b
(empty)
2
(missing)
ok
id=1 address=one:1 role=leader term=3 commit=9 applied=9 last_index=9 log_bytes=512 first_index=1 snapshot_index=0 snapshot_bytes=2048 snapshot_age_ms=0 snapshot_written=0 uptime_ms=1000 write_ms=0 verified_bytes=0 verified_times=0
ok
get KEY: read a value
";
    assert_eq!(out, expected);
    assert_eq!(errors, "");
    assert_eq!(code, exit::NO);
}

#[test]
fn a_pipe_goes_on_after_a_failure_and_names_its_line() {
    let input = b"put a 1\ngte a\nput b 'x\nget a\n";
    let (out, errors, code) = pipe(&Arc::default(), input, Format::Raw, false);
    assert_eq!(out, "ok\n(error)\n(error)\n1\n");
    let errors: Vec<_> = errors.lines().collect();
    assert!(
        errors[0].starts_with("line 2: there is no command gte"),
        "{errors:?}"
    );
    assert!(errors[1].starts_with("line 3: "), "{errors:?}");
    assert_eq!((errors.len(), code), (2, exit::USAGE));
}

#[test]
fn a_pipe_ends_with_the_first_failure_if_asked_to_and_at_exit_anyway() {
    let (out, _, code) = pipe(&Arc::default(), b"gte a\nput a 1\n", Format::Raw, true);
    assert_eq!((out.as_str(), code), ("(error)\n", exit::USAGE));
    let (out, _, code) = pipe(
        &Arc::default(),
        b"put a 1\nexit\nput a 2\n",
        Format::Raw,
        false,
    );
    assert_eq!((out.as_str(), code), ("ok\n", exit::DONE));
}

#[test]
fn the_exit_code_of_a_pipe_is_the_first_failures_even_behind_an_answer_that_is_no() {
    let cluster = Arc::new(MapCluster::default());
    cluster.trouble_after(1, Trouble::Down);
    let (_, _, code) = pipe(
        &cluster,
        b"get missing\nput a 1\nfrob\n",
        Format::Raw,
        false,
    );
    assert_eq!(code, exit::UNAVAILABLE);
}

#[test]
fn json_in_a_pipe_is_one_object_a_line_errors_too() {
    let input = b"put a \"\\xff\"\nget a\nget b\nfrob\nscan -o raw\n";
    let (out, _, _) = pipe(&Arc::default(), input, Format::Json, false);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(
        lines[..3],
        [
            r#"{"ok":true}"#,
            r#"{"value":{"base64":"/w=="}}"#,
            r#"{"value":null}"#
        ]
    );
    assert!(
        lines[3].starts_with(r#"{"error":{"kind":"usage""#),
        "{}",
        lines[3]
    );
    assert_eq!(lines[4], "a \"\\xff\"");
}

#[test]
fn the_exit_code_of_a_single_command_tells_how_it_ended() {
    let table = [
        ("get there", None, exit::DONE),
        ("get missing", None, exit::NO),
        ("cas there other new", None, exit::NO),
        ("delete missing", None, exit::DONE),
        ("status", None, exit::DONE),
        ("put a --file /no/such/file", None, exit::USAGE),
        ("put a b", Some(Trouble::Refusal), exit::NO),
        ("put a b", Some(Trouble::Down), exit::UNAVAILABLE),
        ("get a", Some(Trouble::Down), exit::UNAVAILABLE),
        ("put a b", Some(Trouble::Doubt), exit::UNKNOWN),
    ];
    for (line, trouble, expected) in table {
        let cluster = Arc::new(MapCluster::default());
        cluster.put(&[("there", "v")]);
        if let Some(trouble) = trouble {
            cluster.trouble_after(0, trouble);
        }
        let (_, result) = single(&cluster, line);
        assert_eq!(code(&result), expected, "{line}: {result:?}");
    }
}

#[test]
fn each_way_to_fail_has_its_exit_code() {
    let waited = Duration::from_secs(1);
    let asked = || {
        let word = Word::Busy;
        vec![LastWord {
            server: "one:1".into(),
            word,
        }]
    };
    let cancelled = |maybe_executed| Error::Cancelled { maybe_executed };
    let refused = Error::Refused {
        asked: asked(),
        waited,
    };
    let unknown = Error::Unknown {
        asked: asked(),
        waited,
    };
    let table = [
        (Failure::Client(refused), exit::UNAVAILABLE),
        (Failure::Client(unknown.clone()), exit::UNKNOWN),
        (Failure::Client(Error::Servers("no".into())), exit::USAGE),
        (
            Failure::Client(Error::BadAnswer("no".into())),
            exit::UNKNOWN,
        ),
        (Failure::Client(cancelled(true)), exit::UNKNOWN),
        (Failure::Client(cancelled(false)), exit::INTERRUPTED),
        (Failure::Interrupted, exit::INTERRUPTED),
        (
            Failure::Partly {
                done: 1,
                named: 2,
                error: unknown,
            },
            exit::UNKNOWN,
        ),
        (
            Failure::Output(std::io::ErrorKind::BrokenPipe.into()),
            exit::DONE,
        ),
        (
            Failure::Output(std::io::ErrorKind::StorageFull.into()),
            exit::UNKNOWN,
        ),
    ];
    for (failure, code) in table {
        assert_eq!(failure.code(), code, "{failure:?}");
    }
}

#[test]
fn a_single_get_hands_out_exactly_the_bytes_and_tells_missing_from_empty() {
    let cluster = Arc::new(MapCluster::default());
    let value = Bytes::from((0..=255).collect::<Vec<u8>>());
    cluster.map.lock().insert("all".into(), value.clone());
    cluster.put(&[("empty", "")]);
    assert_eq!(single(&cluster, "get all").0, value);
    let (out, result) = single(&cluster, "get empty");
    assert_eq!((out.len(), result.unwrap()), (0, Outcome::default()));
    let (out, result) = single(&cluster, "get missing");
    assert_eq!(
        (out.len(), result.unwrap().note.as_deref()),
        (0, Some("(missing)"))
    );
}

#[test]
fn a_scan_reads_one_page_or_so_many_keys_or_all() {
    let cluster = Arc::new(MapCluster::default());
    cluster.put(&[
        ("a", ""),
        ("b1", ""),
        ("b2", ""),
        ("b3", ""),
        ("b4", ""),
        ("c", ""),
    ]);
    let keys = |line: &str| {
        let (out, result) = single(&cluster, line);
        let keys = String::from_utf8(out).unwrap().replace('\n', " ");
        (keys.trim_end().to_string(), result.unwrap().note)
    };
    let table = [
        ("scan --keys --all", "a b1 b2 b3 b4 c"),
        ("scan --keys --limit 5", "a b1 b2 b3 b4"),
        ("scan --keys --limit 2", "a b1"),
        ("scan b --keys --all", "b1 b2 b3 b4"),
        ("scan --from b2 --to b4 --keys", "b2 b3"),
        ("scan --from b4 --keys", "b4 c"),
    ];
    for (line, expected) in table {
        assert_eq!(keys(line), (expected.into(), None), "{line}");
    }
    let (found, note) = keys("scan --keys");
    assert_eq!(found, "a b1 b2");
    assert!(note.unwrap().contains("--from b3"));
}

#[test]
fn what_a_scan_prints_restores_the_store() {
    let source = Arc::new(MapCluster::default());
    source.put(&[
        ("a b", "-1"),
        ("#", "it's\n"),
        ("(missing)", ""),
        ("é", "\"\\"),
    ]);
    let value = Bytes::from((0..=255).collect::<Vec<u8>>());
    source.map.lock().insert(value.clone(), value);
    let (out, _) = single(&source, "scan --all");
    let commands: String = String::from_utf8(out)
        .unwrap()
        .lines()
        .fold(String::new(), |all, line| all + "put " + line + "\n");
    let copy = Arc::new(MapCluster::default());
    let (_, errors, _) = pipe(&copy, commands.as_bytes(), Format::Raw, false);
    assert_eq!(errors, "");
    assert_eq!(*copy.map.lock(), *source.map.lock());
}

#[test]
fn when_one_of_several_keys_fails_the_error_says_how_many_are_done() {
    let cluster = Arc::new(MapCluster::default());
    cluster.put(&[("a", "1"), ("b", "2")]);
    cluster.trouble_after(1, Trouble::Doubt);
    let (_, result) = single(&cluster, "delete a b");
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with("1 of 2 keys were done"), "{message}");
}

#[test]
fn a_value_can_come_from_a_file_but_not_from_the_pipe_that_brings_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("value");
    std::fs::write(&path, b"\x00\n\xff").unwrap();
    let cluster = Arc::new(MapCluster::default());
    let line = format!(
        "put a --file {}\nput b --file -\n",
        grammar::word(path.to_str().unwrap().as_bytes())
    );
    let (out, errors, code) = pipe(&cluster, line.as_bytes(), Format::Raw, false);
    assert_eq!(out, "ok\n(error)\n");
    assert!(errors.contains("single command only"), "{errors}");
    assert_eq!(code, exit::USAGE);
    assert_eq!(cluster.map.lock()[&b"a"[..]], &b"\x00\n\xff"[..]);
}

#[test]
fn an_output_that_nobody_reads_ends_a_pipe_without_a_panic() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let cluster = Arc::new(MapCluster::default());
    let mut errors = Vec::new();
    let mut session = session(&cluster, Format::Raw);
    let input = b"put a 1\nput b 2\n";
    let code = piped::run(
        &mut session,
        &mut &input[..],
        &mut Closed,
        &mut errors,
        false,
    );
    assert_eq!((code, errors.len()), (exit::DONE, 0));
    assert_eq!(cluster.map.lock().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_pass_a_pipe_unchanged(
        key in prop::collection::vec(any::<u8>(), 0..30),
        value in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let key = grammar::word(&key);
        let input = format!("put {key} {}\nget {key}\n", grammar::word(&value));
        let (out, _, code) = pipe(&Arc::default(), input.as_bytes(), Format::Raw, false);
        let lines: Vec<_> = out.lines().collect();
        prop_assert_eq!((lines.len(), code), (2, exit::DONE));
        prop_assert_eq!(grammar::unline(lines[1].as_bytes()).unwrap(), value);
    }

    #[test]
    fn no_input_makes_a_pipe_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
        pipe(&Arc::default(), &input, Format::Raw, false);
    }
}

/// Makes a cluster that has applied 40 entries, and `polls` of whose statuses say that a snapshot
/// is still being written.
fn snapshotting(polls: u64) -> Arc<MapCluster> {
    let cluster = Arc::<MapCluster>::default();
    cluster.applied.store(40, SeqCst);
    // One status more, because kvcli first asks for one to find the nodes.
    cluster.writing.store(polls + 1, SeqCst);
    cluster
}

#[test]
fn a_snapshot_is_waited_for_until_it_is_durable() {
    let cluster = snapshotting(3);
    let (out, result) = single(&cluster, "snapshot");
    let expected = "id=1 address=one:1 snapshot_index=40 snapshot_bytes=2048 new=true\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(code(&result), exit::DONE);
    let (out, errors, code) = pipe(&cluster, b"snapshot 1\n", Format::Json, false);
    let expected = "{\"snapshots\":[{\"address\":\"one:1\",\"id\":1,\"new\":false,\
                    \"snapshot_bytes\":2048,\"snapshot_index\":40}]}\n";
    assert_eq!((&*out, &*errors, code), (expected, "", exit::DONE));
    let (out, _, _) = pipe(&cluster, b"snapshot -o table\n", Format::Raw, false);
    assert_eq!(
        out,
        "node 1: nothing new since the snapshot up to 40, 2.0 KiB\n"
    );
}

#[test]
fn a_snapshot_of_which_there_is_ever_more_is_waited_for_longer_than_the_timeout() {
    // Together, three pauses are longer than the timeout of these tests, and there are more than
    // three.
    let cluster = snapshotting(6);
    cluster.written[1].store(1, SeqCst);
    let (out, result) = single(&cluster, "snapshot");
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("snapshot_index=40"), "{out}");
    assert_eq!(code(&result), exit::DONE);
}

#[test]
fn a_snapshot_that_cannot_be_written_or_takes_too_long_or_has_no_node_is_reported() {
    let cluster = snapshotting(2);
    cluster.disk_is_full.store(true, SeqCst);
    let (out, result) = single(&cluster, "snapshot -o table");
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.contains("could not be written: the node's log says why"),
        "{out}"
    );
    assert_eq!(code(&result), exit::UNAVAILABLE);

    let (out, result) = single(&snapshotting(1 << 40), "snapshot -o table");
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("still being written"), "{out}");
    assert_eq!(code(&result), exit::UNKNOWN);

    let (out, result) = single(&snapshotting(1), "snapshot 7");
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("id=7 address=? error="), "{out}");
    assert_eq!(code(&result), exit::UNAVAILABLE);
}
