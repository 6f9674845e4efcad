//! What a node says leaves only when what it relies on is on the disk: the real calls, on the real
//! disk, as the kernel sees them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::cluster::Cluster;
use super::durable::{Broken, Rule, Trace, judge};
use super::load::Load;
use super::strace;
use raftkv::raft::{Message, NodeId};

/// Where the calls of a node are written down.
fn calls(cluster: &Cluster, id: NodeId) -> PathBuf {
    cluster.folder().join(format!("calls-{id}"))
}

/// Has the calls of all nodes written down.
fn watch(cluster: &mut Cluster) {
    for id in cluster.ids() {
        let file = calls(cluster, id);
        strace::watch(cluster, id, &file);
    }
}

/// The calls of all nodes, which have ended.
fn texts(cluster: &Cluster) -> Vec<String> {
    let ids = cluster.ids().into_iter();
    let texts = ids.map(|id| fs::read_to_string(calls(cluster, id)).unwrap());
    texts.collect()
}

fn traces(cluster: &Cluster, texts: &[String]) -> Vec<Trace> {
    let ids = cluster.ids().into_iter().zip(texts);
    let traces = ids.map(|(id, text)| {
        let folder = cluster.data(id).canonicalize().unwrap();
        Trace::new(id, &folder, &strace::calls(text))
    });
    traces.collect()
}

/// The rules, each with the first place where it was broken, and how often it was.
fn report(broken: &[Broken]) -> String {
    let runs = broken.chunk_by(|a, b| a.0 == b.0);
    let lines = runs.map(|run| {
        let (rule, first) = &run[0];
        format!("{rule} ({rule:?}, {} times, first: {first})", run.len())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The rules that the same calls would have broken had those of this name not been made.
fn broken_without(cluster: &Cluster, texts: &[String], call: &str) -> BTreeSet<Rule> {
    let call = format!(" {call}(");
    let without = texts.iter().map(|text| {
        let lines = text.lines().filter(|line| !line.contains(&call));
        lines.collect::<Vec<_>>().join("\n")
    });
    let without: Vec<String> = without.collect();
    let broken = judge(&traces(cluster, &without));
    broken.into_iter().map(|(rule, _)| rule).collect()
}

#[test]
fn no_answer_acknowledgement_or_vote_leaves_a_node_before_the_sync_behind_it() {
    let mut cluster = Cluster::start_as(3, watch);
    let load = Load::start(&cluster, 3);
    load.await_more(100);
    let leader = cluster.leader();
    assert!(cluster.stop(leader).unwrap().status.success());
    load.await_more(50);
    load.stop();
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        assert!(cluster.stop(id).unwrap().status.success());
    }
    let texts = texts(&cluster);
    let nodes = traces(&cluster, &texts);
    let broken = judge(&nodes);
    assert!(broken.is_empty(), "{}", report(&broken));

    // There was something to judge.
    let answers: usize = nodes.iter().map(|node| node.answered.len()).sum();
    assert!(answers >= 150, "{answers}");
    let sent = |what: fn(&Message) -> bool| {
        let sent = nodes.iter().flat_map(|node| &node.sent);
        sent.filter(|(_, envelope)| what(&envelope.message)).count()
    };
    let accepted = sent(|message| matches!(message, Message::Accepted { .. }));
    assert!(accepted >= 100, "{accepted}");
    let votes = sent(|message| matches!(message, Message::VoteReply { granted: true }));
    assert!(votes >= 2, "{votes}");
    let no_bytes = broken_without(&cluster, &texts, "fdatasync");
    let expected = [Rule::BytesBeforeWords, Rule::BytesBeforeNames];
    assert_eq!(no_bytes, BTreeSet::from(expected));
    let no_names = broken_without(&cluster, &texts, "fsync");
    let expected = [Rule::NamesBeforeWords, Rule::NamesBeforeWrites];
    assert_eq!(no_names, BTreeSet::from(expected));
}

#[test]
fn the_log_goes_on_in_new_files_and_loses_old_ones_only_after_syncs_of_the_folder() {
    let mut cluster = Cluster::start_as(1, |cluster| {
        watch(cluster);
        cluster.give(1, &["--snapshot-log-bytes", "4000000"]);
    });
    let clerk = cluster.clerk();
    let first = cluster.data(1).join("log-00000000000000000001");
    let mut puts = 0;
    while first.exists() {
        puts += 1;
        assert!(puts < 200, "the first part of the log is never removed");
        let mut value = format!("{puts} ").into_bytes();
        value.resize(3_000_000, b'v');
        clerk.put("key", value).unwrap();
    }
    drop(clerk);
    assert!(cluster.stop(1).unwrap().status.success());
    let texts = texts(&cluster);
    let nodes = traces(&cluster, &texts);
    let broken = judge(&nodes);
    assert!(broken.is_empty(), "{}", report(&broken));

    // There was something to judge.
    assert!(nodes[0].answered.len() >= puts);
    let to = |what: &str| {
        let changes = nodes[0].changes().iter();
        let names = changes.filter_map(|change| change.to.as_ref());
        names
            .filter(|to| to.contains(what) && !to.ends_with(".new"))
            .count()
    };
    assert!(to("/snapshot-") >= 2 && to("/log-") >= 2);
    let no_names = broken_without(&cluster, &texts, "fsync");
    assert!(
        no_names.contains(&Rule::NamesBeforeRemovals),
        "{no_names:?}"
    );
    let no_bytes = broken_without(&cluster, &texts, "fdatasync");
    assert!(no_bytes.contains(&Rule::BytesBeforeNames), "{no_bytes:?}");
}
