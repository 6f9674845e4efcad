//! A majority is lost for good, and `kvnode recover` makes a cluster of one of what has survived.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;
use std::{fs, path::PathBuf};

use bytes::Bytes;
use raftkv::client::{Clerk, Kind};
use raftkv::kv::{Command, Op, Reply};
use raftkv::raft::NodeId;
use raftkv::wire::client::{Answer, Ask, Response};
use raftkv::wire::codec;

use super::cluster::{Cluster, PATIENCE, clerk_at, kvcli, kvnode, text};
use super::folders::contents;
use super::raw::Raw;

fn recover(cluster: &Cluster, id: NodeId, words: &[&str], answer: &str) -> Output {
    let mut command = kvnode();
    command.arg("recover").arg(cluster.data(id)).args(words);
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = streams.stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without asking.
    let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
    child.wait_with_output().unwrap()
}

/// A client of this node alone.
fn clerk_of(cluster: &Cluster, id: NodeId) -> Clerk {
    clerk_at(vec![cluster.address(id).to_string()], PATIENCE)
}

fn beside(cluster: &Cluster, id: NodeId, ending: &str) -> PathBuf {
    let data = cluster.data(id);
    let name = data.file_name().unwrap().to_str().unwrap();
    data.with_file_name(format!("{name}.{ending}"))
}

/// The store's reply to a command that is sent as it is.
fn execute(raw: &mut Raw, command: &Command) -> Reply {
    raw.send(Ask::Submit(command.to_bytes()));
    let response: Response = raw.receive();
    match response.answer {
        Answer::Reply(bytes) => codec::decode(&bytes).unwrap(),
        other => panic!("no reply: {other:?}"),
    }
}

#[test]
fn a_survivor_of_three_becomes_a_cluster_of_one_with_all_it_has_and_grows_again() {
    let mut cluster = Cluster::start(3);
    let clerk = cluster.clerk();
    for key in 0..20 {
        clerk.put(format!("key-{key}"), "value").unwrap();
    }
    while cluster.leader() != 3 {
        assert_eq!(cluster.run(&["transfer", "3"]).status.code(), Some(0));
    }
    let mut raw = Raw::open(cluster.address(3));
    let Reply::Opened(session) = execute(&mut raw, &Command::OpenSession) else {
        panic!("no session");
    };
    let append = Command::Execute {
        session,
        seq: 1,
        lowest_unanswered: 1,
        op: Op::Append {
            key: Bytes::from("once"),
            value: Bytes::from("x"),
        },
    };
    assert_eq!(execute(&mut raw, &append), Reply::Appended(1));
    let refused = recover(&cluster, 3, &["--yes"], "");
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    cluster.kill([1, 2, 3]).unwrap();
    for id in [1, 2] {
        fs::remove_dir_all(cluster.data(id)).unwrap();
    }

    recovered_when_asked(&cluster);
    cluster.restart([3]).unwrap();
    let clerk = clerk_of(&cluster, 3);
    for key in 0..20 {
        assert_eq!(clerk.get(format!("key-{key}")), Ok(Some("value".into())));
    }
    // A client that had no answer before the disaster repeats its command.
    let mut raw = Raw::open(cluster.address(3));
    assert_eq!(execute(&mut raw, &append), Reply::Appended(1));
    assert_eq!(clerk.get("once"), Ok(Some("x".into())));
    // The others come in with empty folders.
    cluster.restart([1]).unwrap();
    let own = cluster.address(1).to_string();
    let added = at(&cluster, 3, &["member", "add", &format!("1={own}")]);
    assert_eq!(added.status.code(), Some(0), "{added:?}");
    clerk.put("after", "value").unwrap();
}

/// Recovers node 3: the command says what it is about to do, and changes nothing without a yes.
fn recovered_when_asked(cluster: &Cluster) {
    let before = contents(&cluster.data(3));
    for answer in ["", "no\n", "y\n"] {
        let declined = recover(cluster, 3, &[], answer);
        assert_eq!(declined.status.code(), Some(1), "{declined:?}");
        assert!(text(&declined.stderr).contains("nothing has been changed"));
        assert!(contents(&cluster.data(3)) == before, "it was only asked");
    }
    let done = recover(cluster, 3, &[], "yes\n");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let said = text(&done.stdout);
    for part in [
        "members    1, 2, 3 (this one)",
        "log        up to entry",
        "lost       what the",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(contents(&beside(cluster, 3, "before-recover")) == before);
}

/// `kvcli` that knows this node alone.
fn at(cluster: &Cluster, id: NodeId, words: &[&str]) -> Output {
    let address = cluster.address(id).to_string();
    let mut command = kvcli();
    command.args(["--cluster", &address]).args(words);
    command.env("RAFTKV_TIMEOUT", "60s").output().unwrap()
}

#[test]
fn old_nodes_that_come_back_refuse_the_new_cluster_and_are_refused_by_it() {
    let mut cluster = Cluster::start(3);
    cluster.clerk().put("key", "old").unwrap();
    cluster.kill([1, 2, 3]).unwrap();
    let address = cluster.address(3).to_string();
    let done = recover(&cluster, 3, &["--yes", "--address", &address], "");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    cluster.restart([3]).unwrap();
    clerk_of(&cluster, 3).put("key", "new").unwrap();

    cluster.restart([1, 2]).unwrap();
    cluster
        .node(1)
        .line("node 3 lost its folder, or runs twice");
    let own = cluster.address(1).to_string();
    let added = at(&cluster, 3, &["member", "add", &format!("1={own}")]);
    assert_eq!(added.status.code(), Some(1), "{added:?}");
    let sentence = text(&added.stderr);
    assert!(
        sentence.contains("give the node an empty folder"),
        "{sentence}"
    );
    // The two are a majority of the old cluster, which does not hear of the new one.
    let old = clerk_at(vec![own], PATIENCE);
    assert_eq!(old.get("key"), Ok(Some("old".into())));
    assert_eq!(clerk_of(&cluster, 3).get("key"), Ok(Some("new".into())));
    // One of them alone gets nowhere with the help of the new cluster. The client learns that the
    // node of the new one is of another cluster.
    cluster.kill([2]).unwrap();
    let address = cluster.address(1).to_string();
    let alone = clerk_at(vec![address], Duration::from_secs(2));
    let error = alone.put("key", "lost").unwrap_err();
    assert!(
        [Kind::Unavailable, Kind::Usage].contains(&error.kind()),
        "{error}"
    );
    assert_eq!(clerk_of(&cluster, 3).get("key"), Ok(Some("new".into())));
}

#[test]
fn what_cannot_be_recovered_is_refused_with_the_reason_and_left_as_it_is() {
    let mut cluster = Cluster::start(1);
    cluster.clerk().put("key", "value").unwrap();
    cluster.kill([1]).unwrap();
    let missing = kvnode().args(["recover", "/nowhere/1"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    let wrong = recover(&cluster, 1, &["--yes", "--address", "no port"], "");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let log = cluster.data(1).join("log-00000000000000000001");
    let mut bytes = fs::read(&log).unwrap();
    bytes[4096 + 20] ^= 1;
    fs::write(&log, bytes).unwrap();
    let before = contents(&cluster.data(1));
    let damaged = recover(&cluster, 1, &["--yes"], "");
    assert_eq!(damaged.status.code(), Some(4), "{damaged:?}");
    let sentence = text(&damaged.stderr);
    assert!(
        sentence.contains("choose the folder of another node"),
        "{sentence}"
    );
    assert!(
        contents(&cluster.data(1)) == before,
        "the folder has changed"
    );
}
