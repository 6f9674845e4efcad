//! Options that cannot work: one sentence that says what to do, exit code 2, nothing touched.

use std::process::Command;

use raftkv::testkit::{End, Process, free_addresses};

use super::cluster::{kvcli, kvnode, text};

/// Runs `kvnode` to its end.
pub fn refusal(command: &mut Command) -> End {
    Process::spawn(command).unwrap().end().unwrap()
}

/// The single sentence with which `kvnode` ended.
pub fn sentence(end: &End) -> &str {
    match &end.lines[..] {
        [line] if line.starts_with("kvnode: ") => line,
        lines => panic!("not one sentence: {lines:#?}"),
    }
}

#[test]
fn a_cluster_list_that_cannot_be_is_refused_and_no_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let cases = [
        (
            "2=h:1,3=h:2",
            "lists the nodes 2, 3 but not this one, --id 1",
        ),
        ("1=h:1,2=h:2,1=h:3", "node 1 is listed twice"),
        ("1=h:1,2=h:1", "the address h:1 is listed twice"),
        ("1=h:1,banana", "\"banana\" is not of the form ID=HOST:PORT"),
        ("1=h:1,two=h:2", "\"two\" in \"two=h:2\" is no node id"),
        ("1=h", "has no port"),
        ("1=h:70000", "a port from 1 to 65535"),
        ("", "the list is empty"),
    ];
    for (list, expected) in cases {
        let arguments = ["--id", "1", "--cluster", list, "--data"];
        let end = refusal(kvnode().args(arguments).arg(&data));
        assert_eq!(end.status.code(), Some(2), "{list}: {end:#?}");
        assert!(sentence(&end).contains(expected), "{list}: {end:#?}");
    }
    assert!(!data.exists());
}

#[test]
fn settings_that_contradict_each_other_are_refused_in_the_words_of_the_options() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let list = format!("1={}", free_addresses(1).unwrap()[0]);
    let cases = [
        (["--heartbeat-ms", "500"], "election timeout of 250ms"),
        (["--heartbeat-ms", "0"], "choose at least 10ms"),
        (["--max-value-bytes", "99999999"], "lower max_value_bytes"),
        (["--listen", "no port"], "cannot listen on \"no port\""),
        (["--reach", "2=far"], "--reach: \"far\" has no port"),
        (["--reach", "1=h:1"], "a node does not dial itself"),
    ];
    for (options, expected) in cases {
        let arguments = ["--id", "1", "--cluster", &list, "--data"];
        let end = refusal(kvnode().args(options).args(arguments).arg(&data));
        assert_eq!(end.status.code(), Some(2), "{options:?}: {end:#?}");
        assert!(sentence(&end).contains(expected), "{end:#?}");
    }
    assert!(!data.exists());
}

#[test]
fn unknown_and_missing_options_are_named() {
    let cases: [(&[&str], &str); 4] = [
        (&["--frob"], "--frob"),
        (&["--id", "one"], "invalid value 'one' for '--id <ID>'"),
        (&["--id", "1"], "--data"),
        (
            &["--id", "1", "--cluster", "1=h:1", "--join", "h:2"],
            "cannot be used with",
        ),
    ];
    for (arguments, expected) in cases {
        let end = refusal(kvnode().args(arguments));
        assert_eq!(end.status.code(), Some(2), "{arguments:?}: {end:#?}");
        assert!(end.lines[0].starts_with("error: "), "{end:#?}");
        assert!(end.lines.concat().contains(expected), "{end:#?}");
    }
}

/// A node that is neither told to found a cluster nor to join one does not make up its mind.
#[test]
fn a_new_folder_is_not_made_before_it_is_said_what_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let cases: [(&[&str], &str); 5] = [
        (
            &["--listen", "127.0.0.1:7"],
            "with --cluster, or name nodes",
        ),
        (&[], "with --cluster, or name nodes"),
        (&["--join", "127.0.0.1:7"], "name it with --listen"),
        (
            &["--join", "127.0.0.1:7", "--listen", "0.0.0.0:7000"],
            "with --address HOST:PORT",
        ),
        (&["--join", "nowhere"], "--join: \"nowhere\" has no port"),
    ];
    for (options, expected) in cases {
        let end = refusal(
            kvnode()
                .args(["--id", "1", "--data"])
                .arg(&data)
                .args(options),
        );
        assert_eq!(end.status.code(), Some(2), "{options:?}: {end:#?}");
        assert!(sentence(&end).contains(expected), "{end:#?}");
    }
    assert!(!data.exists());
}

#[test]
fn kvcli_names_what_it_does_not_understand_and_asks_nobody() {
    let cases: [(&[&str], &str); 6] = [
        (&["--frob"], "--frob"),
        (&["frobnicate", "key"], "frobnicate"),
        (&["put", "key"], "usage: put KEY VALUE"),
        (&["-o", "xml", "get", "key"], "xml"),
        (&["--cluster", "nowhere", "get", "key"], "\"nowhere\""),
        (&["--cluster", "h:port", "get", "key"], "h:port"),
    ];
    for (arguments, expected) in cases {
        let output = kvcli().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stdout), "");
        let error = text(&output.stderr);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn kvcli_says_that_nobody_answers_when_nobody_does() {
    let addresses = free_addresses(2).unwrap();
    let addresses = format!("{},{}", addresses[0], addresses[1]);
    let timeout = ["--timeout", "500ms", "--cluster", &addresses];
    for words in [["get", "key"], ["delete", "key"]] {
        let output = kvcli().args(timeout).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let error = text(&output.stderr);
        assert!(error.contains("not executed") && error.contains("None of 2 servers answers"));
    }
}
