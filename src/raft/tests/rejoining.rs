//! Clusters whose links and nodes fail and come back: who leads then, and who does not.

use super::harness::Cluster;
use crate::raft::{HardState, MemberId, NodeId, RoleName};

/// Two elections' worth of ticks.
const LONG: u32 = 200;

/// Ticks until the condition holds, within two elections' worth of ticks.
fn soon(cluster: &mut Cluster, what: &str, holds: impl Fn(&mut Cluster) -> bool) {
    for _ in 0..LONG {
        if holds(cluster) {
            return;
        }
        cluster.tick();
    }
    panic!("not soon: {what}");
}

fn pass(cluster: &mut Cluster, ticks: u32) {
    (0..ticks).for_each(|_| cluster.tick());
}

fn another(leader: NodeId) -> NodeId {
    leader % 3 + 1
}

#[test]
fn who_comes_back_from_isolation_deposes_nobody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.node(leader).term();
    let away = another(leader);
    cluster.isolate(away);
    pass(&mut cluster, LONG);
    assert_eq!(
        cluster.node(away).term(),
        term,
        "it only asks whether it could win"
    );
    cluster.heal();
    pass(&mut cluster, LONG);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.node(leader).term(), term);
}

#[test]
fn a_leader_at_whose_address_nobody_listens_is_replaced_without_waiting_for_the_timeout() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.crash(leader);
    for other in (1..=3).filter(|id| *id != leader) {
        cluster.node(other).absent(leader);
    }
    // The time between two heartbeats, and one tick more.
    pass(&mut cluster, 6);
    assert!(cluster.leader().is_some_and(|new| new != leader));
}

#[test]
fn who_alone_takes_the_leader_for_gone_deposes_nobody_and_hears_it_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.node(leader).term();
    for _ in 0..20 {
        cluster.node(another(leader)).absent(leader);
        pass(&mut cluster, LONG / 10);
    }
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.node(leader).term(), term);
    // It does not matter either that nodes other than the leader are reported absent.
    cluster
        .node(another(leader))
        .absent(another(another(leader)));
    cluster.node(leader).absent(another(leader));
    pass(&mut cluster, LONG);
    assert_eq!(cluster.node(leader).term(), term);
}

#[test]
fn who_is_stuck_at_a_higher_term_finds_back() {
    for size in [3, 4, 5] {
        let mut cluster = Cluster::new(size);
        let leader = cluster.elect();
        cluster.propose(leader, "a");
        cluster.settle();
        let stuck = leader % size + 1;
        let hard_state = HardState {
            term: 50,
            vote: Some(MemberId::plain(stuck)),
        };
        cluster.restart_with(stuck, hard_state, vec![]);
        cluster.until("it has executed what the others have", |cluster| {
            cluster.executed(stuck) == ["a"]
        });
        cluster.elect();
        assert!(cluster.node(stuck).term() > 50);
    }
}

#[test]
fn a_leader_that_can_send_but_not_hear_gives_way() {
    let mut cluster = Cluster::new(3);
    let deaf = cluster.elect();
    for other in (1..=3).filter(|id| *id != deaf) {
        cluster.cut.insert((other, deaf));
    }
    soon(&mut cluster, "another leads", |cluster| {
        cluster.leader().is_some_and(|id| id != deaf)
    });
    let new = cluster.elect();
    cluster.propose(new, "a");
    pass(&mut cluster, LONG);
    assert_eq!(cluster.executed(new), ["a"]);
    assert_ne!(cluster.node(deaf).role(), RoleName::Leader);
}

#[test]
fn a_leader_that_can_hear_but_not_send_gives_way() {
    let mut cluster = Cluster::new(3);
    let mute = cluster.elect();
    for other in (1..=3).filter(|id| *id != mute) {
        cluster.cut.insert((mute, other));
    }
    soon(&mut cluster, "another leads", |cluster| {
        cluster.leader().is_some_and(|id| id != mute)
    });
    cluster.elect();
    cluster.heal();
    cluster.until("the old one follows", |cluster| {
        cluster.node(mute).role() == RoleName::Follower && cluster.node(mute).leader().is_some()
    });
}

/// A chain: the nodes at its two ends do not hear each other. Whichever node leads, the other end
/// must not keep on raising the term.
#[test]
fn a_chain_keeps_its_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.node(leader).term();
    let (a, b) = (leader, another(leader));
    cluster.cut.extend([(a, b), (b, a)]);
    pass(&mut cluster, 5 * LONG);
    assert_eq!(
        (cluster.leader(), cluster.node(leader).term()),
        (Some(leader), term)
    );
}

#[test]
fn neither_half_of_an_even_cluster_leads() {
    let mut cluster = Cluster::new(4);
    cluster.elect();
    for a in [1, 2] {
        for b in [3, 4] {
            cluster.cut.extend([(a, b), (b, a)]);
        }
    }
    pass(&mut cluster, LONG);
    assert_eq!(cluster.leader(), None);
    cluster.heal();
    cluster.elect();
}

#[test]
fn a_cut_off_leader_confirms_no_read_and_names_those_that_failed() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.isolate(old);
    cluster
        .node(old)
        .read(7)
        .expect("it still thinks that it leads");
    cluster.until("another leads", |cluster| cluster.leader() != Some(old));
    let new = cluster.elect();
    cluster.propose(new, "a");
    cluster.settle();
    pass(&mut cluster, LONG);
    let decided = cluster.nodes[&old].decided.clone();
    assert_eq!((decided.ready, decided.failed), (vec![], vec![7]));
}

#[test]
fn a_leader_that_was_paused_confirms_no_read_when_it_wakes_up() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    // Neither ticks nor messages reach the old leader, so it does not learn of the new one.
    cluster.down.insert(old);
    let new = cluster.elect();
    cluster.propose(new, "a");
    cluster.settle();
    cluster.down.remove(&old);
    cluster
        .node(old)
        .read(7)
        .expect("it has not learnt of the new term yet");
    cluster.settle();
    let decided = cluster.nodes[&old].decided.clone();
    assert_eq!((decided.ready, decided.failed), (vec![], vec![7]));
}

#[test]
fn an_index_that_is_used_again_has_another_term() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.isolate(old);
    let lost = cluster.node(old).propose("lost".into()).expect("accepted");
    cluster.until("another leads", |cluster| cluster.leader() != Some(old));
    cluster.elect();
    cluster.heal();
    cluster.until("the index is used again", |cluster| {
        let entry = cluster.node(old).entry(lost.index).map(|entry| entry.id);
        entry.is_some_and(|id| id.term > lost.term)
    });
    assert!(!cluster.executed(old).contains(&"lost".to_string()));
}

#[test]
fn answers_to_a_former_incarnation_do_no_harm() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose(leader, "a");
    // The answers are on their way when the leader crashes. They arrive after its restart.
    cluster.collect();
    while cluster.queue.iter().any(|envelope| envelope.to != leader) {
        cluster.deliver();
        cluster.collect();
    }
    assert!(!cluster.queue.is_empty());
    let late = cluster.queue.clone();
    cluster.crash(leader);
    cluster.restart(leader);
    cluster.settle();
    assert_eq!(cluster.node(leader).role(), RoleName::Follower);
    cluster.elect();
    cluster.queue.extend(late);
    cluster.until("all have executed it", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a"])
    });
}

#[test]
fn leadership_is_handed_over_within_one_exchange_and_nothing_is_lost() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.propose(old, "a");
    let to = another(old);
    assert_eq!(cluster.node(old).transfer(Some(to)), Some(to));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(to), "without a single tick");
    cluster.until("all have executed it", |cluster| {
        (1..=3).all(|id| cluster.executed(id) == ["a"])
    });
}

#[test]
fn all_restarted_at_once_again_and_again_lose_nothing() {
    let mut cluster = Cluster::new(5);
    let commands = ["a", "b", "c", "d", "e"];
    for command in commands {
        let leader = cluster.elect();
        cluster.propose(leader, command);
        cluster.settle();
        (1..=5).for_each(|id| cluster.crash(id));
        (1..=5).for_each(|id| cluster.restart(id));
    }
    cluster.until("all have executed all", |cluster| {
        (1..=5).all(|id| cluster.executed(id) == commands)
    });
}
