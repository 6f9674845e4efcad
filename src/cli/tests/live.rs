//! The `member` commands on a cluster of real nodes within this process.

use std::sync::Arc;

use crate::cli::command::{self, Format};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Printer, Style};
use crate::cli::session::{Session, exit};
use crate::raft::MemberRole;
use crate::testkit::Cluster;

/// Runs one command, which must succeed. Returns its output.
fn run(cluster: &Cluster, line: &str) -> String {
    let clerk = cluster.clerk_over(cluster.transport(), [1], Default::default());
    let interrupt = Arc::new(Interrupt::that_ends());
    let mut session = Session::new(clerk, interrupt, Format::Table, false);
    let mut out = Vec::new();
    let mut printer = Printer::new(&mut out, Style::Single { terminal: false }, Format::Table);
    let request = command::parse_line(line.as_bytes()).unwrap().unwrap();
    let outcome = session.run(&request, &mut printer);
    match outcome {
        Ok(outcome) => assert_eq!(outcome.code, exit::DONE, "{line}"),
        Err(failure) => panic!("{line}: {failure}"),
    }
    String::from_utf8(out).unwrap().trim_end().to_string()
}

#[test]
fn nodes_come_in_are_promoted_demoted_and_removed_and_the_list_shows_them() {
    let cluster = Cluster::of_stores(3);
    cluster.add(4, MemberRole::Learner);
    cluster.wait_for_members(&[1, 2, 3], &[4]);
    for (line, answer) in [
        (
            "member add 4=node-4:1 --learner",
            "node 4 learns, at node-4:1",
        ),
        ("member promote 4", "node 4 votes, at node-4:1"),
        ("member promote 4", "node 4 votes, at node-4:1"),
        ("member demote 2", "node 2 learns, at node-2:1"),
        ("member remove 2", "node 2 is no member"),
        ("member remove 2", "node 2 is no member"),
    ] {
        assert_eq!(run(&cluster, line), answer, "{line}");
    }
    let list = run(&cluster, "member list");
    assert!(
        list.contains("3 of 3 voters answer, a quorum needs 2: 1 may still fail"),
        "{list}"
    );
    assert!(list.contains("no change is under way"), "{list}");
}

#[test]
fn the_leader_is_removed_by_a_client_that_knows_only_one_node() {
    let cluster = Cluster::of_stores(3);
    let leader = cluster.wait_for_leader();
    let removed = run(&cluster, &format!("member remove {leader}"));
    assert_eq!(removed, format!("node {leader} is no member"));
    let left: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    cluster.wait_for_members(&left, &[]);
}
