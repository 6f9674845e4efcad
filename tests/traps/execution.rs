//! Executing a command only on the node that received the request; executing it before it is
//! committed; answering a Get from local state.

use std::time::Duration;

use bytes::Bytes;
use raftkv::kv::{Kv, Reply};
use raftkv::node::{End, Outcome};
use raftkv::raft::{NodeId, RoleName};
use raftkv::testkit::{Cluster, Link};

use super::support::{LONG, get, hold_back_commits, others, recorders, wait_for_leader_among};

#[test]
fn every_node_executes_what_one_node_received() {
    let (cluster, journal) = recorders(5);
    let leader = cluster.wait_for_leader();
    let pending = cluster.node(leader).start("command", LONG).ok().unwrap();
    let executed = (pending.id().index, Bytes::from("command"));
    assert_eq!(pending.wait(LONG), Outcome::Reply(executed.clone()));
    cluster.wait_for_agreement();
    for id in cluster.ids() {
        let of_this = cluster.node(id).with_machine(|m| m.executed().to_vec());
        assert_eq!(of_this, std::slice::from_ref(&executed), "node {id}");
    }
    assert_eq!(journal.contradiction(), None);
}

#[test]
fn nothing_is_executed_before_it_is_committed() {
    let (cluster, journal) = recorders(3);
    let leader = cluster.wait_for_leader();
    cluster.wait_for_agreement();
    hold_back_commits(&cluster);
    let pending = cluster.node(leader).start("command", LONG).ok().unwrap();
    let index = pending.id().index;
    cluster.wait_for("every log to hold the command", |cluster| {
        let holds = |id| cluster.node(id).status().last_index >= index;
        cluster.ids().all(holds).then_some(())
    });
    // Nobody may execute it, and that is to be seen for a while.
    let executed = |_: &Cluster<_>| !journal.executed().is_empty();
    assert!(!cluster.wait_until(Duration::from_millis(500), executed));

    cluster.network().clear_filter();
    assert!(matches!(pending.wait(LONG), Outcome::Reply((at, _)) if at == index));
    cluster.wait_for_agreement();
}

fn is_refusal(outcome: &Outcome<Reply>) -> bool {
    matches!(outcome, Outcome::Ended(End::NotLeader { .. }))
}

fn assert_no_answer(cluster: &Cluster<Kv>, id: NodeId, what: &str) {
    let outcome = cluster
        .node(id)
        .query(get("key"), Duration::from_millis(300));
    let answered = matches!(outcome, Outcome::Reply(_) | Outcome::Invalid(_));
    assert!(!answered, "{what}, node {id}, answers {outcome:?}");
}

#[test]
fn a_leader_that_was_cut_off_does_not_answer_a_get() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    clerk.put("key", "old").unwrap();
    let old = cluster.wait_for_leader();
    cluster.isolate(old);
    // It still believes to lead, and nobody has written since: but it cannot know.
    assert_no_answer(&cluster, old, "cut off just now");
    clerk.put("key", "new").unwrap();
    assert_no_answer(&cluster, old, "with a successor that has written");
    assert_eq!(clerk.get("key").unwrap().as_deref(), Some(&b"new"[..]));
    assert_no_answer(&cluster, old, "cut off for long");
}

#[test]
fn a_leader_that_can_be_heard_but_hears_nobody_does_not_answer_a_get() {
    let cluster = Cluster::of_stores(3);
    cluster.clerk().put("key", "old").unwrap();
    let old = cluster.wait_for_leader();
    for other in others(&cluster, old) {
        cluster.network().set_link(other, old, Link::CUT);
    }
    assert_no_answer(&cluster, old, "deaf");
    // It steps down, so that the others come to a leader that does hear.
    let leader = wait_for_leader_among(&cluster, &others(&cluster, old));
    assert_eq!(cluster.node(leader).status().role, RoleName::Leader);
    cluster.clerk().put("key", "new").unwrap();
    assert_no_answer(&cluster, old, "deaf for long");
}

#[test]
fn a_follower_does_not_answer_a_get_from_its_own_state() {
    let cluster = Cluster::of_stores(3);
    cluster.clerk().put("key", "value").unwrap();
    let leader = cluster.wait_for_leader();
    cluster.wait_for_agreement();
    let followers = others(&cluster, leader);
    for id in &followers {
        let outcome = cluster.node(*id).query(get("key"), LONG);
        assert!(is_refusal(&outcome), "node {id}: {outcome:?}");
    }
    cluster.isolate(followers[0]);
    assert_no_answer(&cluster, followers[0], "a follower cut off just now");
    cluster.clerk().put("key", "other").unwrap();
    assert_no_answer(&cluster, followers[0], "a follower that missed a write");
}

#[test]
fn a_new_leader_answers_a_get_only_when_it_knows_what_is_committed() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    clerk.put("key", "value").unwrap();
    let old = cluster.wait_for_leader();
    // The successor can be elected, but not commit the entry that opens its term.
    hold_back_commits(&cluster);
    cluster.isolate(old);
    let next = cluster.wait_for("a successor", |cluster| {
        let leads = |id: &NodeId| cluster.node(*id).status().role == RoleName::Leader;
        others(cluster, old).into_iter().find(leads)
    });
    assert_no_answer(&cluster, next, "a leader that has committed nothing");
    cluster.network().clear_filter();
    assert_eq!(clerk.get("key").unwrap().as_deref(), Some(&b"value"[..]));
}
