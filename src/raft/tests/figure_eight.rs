//! Figure 8 of the paper, step by step, on five cores: an entry of an earlier term reaches a
//! majority and is overwritten nevertheless, so nobody may count it as committed by itself.

use super::harness::Cluster;
use crate::raft::{Config, EntryId, Envelope, Index, Message, NodeId, RoleName, Term};

/// The index at which two leaders put different entries.
const CONTESTED: Index = 2;

/// Five nodes that send each entry in a message of its own, so that one entry can be lost without
/// the next.
fn five_nodes() -> Cluster {
    Cluster::with(5, |config: &mut Config| config.max_append_bytes = 1)
}

/// Lets one tick pass everywhere. Of the nodes that ask for votes only `candidate` is heard, and
/// messages for which `keep` returns false are lost.
fn tick(cluster: &mut Cluster, candidate: NodeId, keep: impl Fn(&Envelope) -> bool) {
    let up: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for id in up.into_iter().filter(|id| !cluster.down.contains(id)) {
        cluster.nodes.get_mut(&id).expect("it is there").raft.tick();
    }
    cluster.settle_for(|envelope| {
        let asks = matches!(
            envelope.message,
            Message::PreVote { .. } | Message::Vote { .. }
        );
        (!asks || envelope.from == candidate) && keep(envelope)
    });
}

/// Ticks until `id` leads. Returns its term.
fn lead(cluster: &mut Cluster, id: NodeId, keep: impl Fn(&Envelope) -> bool + Copy) -> Term {
    for _ in 0..500 {
        if cluster.node(id).role() == RoleName::Leader {
            return cluster.node(id).term();
        }
        tick(cluster, id, keep);
    }
    panic!("node {id} was never elected");
}

/// Whether a message carries an entry for which `which` holds.
fn brings(envelope: &Envelope, which: impl Fn(EntryId) -> bool) -> bool {
    match &envelope.message {
        Message::Append { entries, .. } => entries.iter().any(|entry| which(entry.id)),
        _ => false,
    }
}

fn id_at(cluster: &mut Cluster, node: NodeId, index: Index) -> Option<EntryId> {
    cluster.node(node).entry(index).map(|entry| entry.id)
}

/// Steps (a) to (c): node 1 leads, puts "old" on itself and node 2, and fails (a). Node 5 leads
/// with the votes of 3 and 4, writes another entry at that index, for itself only, and fails (b).
/// Node 1 comes back and leads again, and brings "old" to node 3, so that a majority holds it; the
/// empty entry of its new term reaches nobody (c). Returns the terms of the three leaderships.
fn up_to_step_c(cluster: &mut Cluster) -> [Term; 3] {
    let first = lead(cluster, 1, |_| true);
    cluster.until("the first entry is committed everywhere", |cluster| {
        (1..=5).all(|id| cluster.node(id).commit() == 1)
    });
    assert_eq!(cluster.propose(1, "old"), CONTESTED);
    cluster.settle_for(|envelope| envelope.to <= 2);
    assert_eq!(cluster.node(1).commit(), 1);
    cluster.crash(1);

    let second = lead(cluster, 5, |envelope| !brings(envelope, |_| true));
    cluster.crash(5);
    cluster.restart(1);

    let of_old = |id: EntryId| id.index == CONTESTED;
    let only_old = |envelope: &Envelope| {
        !brings(envelope, |id| !of_old(id)) && (envelope.to != 4 || !brings(envelope, of_old))
    };
    let third = lead(cluster, 1, only_old);
    (0..100).for_each(|_| tick(cluster, 1, only_old));
    assert_eq!(cluster.node(1).role(), RoleName::Leader);
    let old = EntryId {
        term: first,
        index: CONTESTED,
    };
    for holder in [1, 2, 3] {
        assert_eq!(id_at(cluster, holder, CONTESTED), Some(old), "{holder}");
    }
    assert!(first < second && second < third);
    [first, second, third]
}

/// Step (d): node 1 fails, and node 5 leads with votes of those that hold "old": its last entry is
/// of a later term. It overwrites "old". Whatever node 1 executed in (c) must be there still.
#[test]
fn an_entry_of_an_earlier_term_on_a_majority_is_overwritten_and_nobody_had_executed_it() {
    let mut cluster = five_nodes();
    let [_, second, _] = up_to_step_c(&mut cluster);
    let executed = cluster.executed(1);
    cluster.crash(1);
    cluster.restart(5);
    lead(&mut cluster, 5, |_| true);
    cluster.until("what node 5 wrote is committed", |cluster| {
        (2..=5).all(|id| cluster.node(id).commit() > CONTESTED)
    });
    // Without this overwriting, the test would not show figure 8.
    for id in 2..=5 {
        let held = id_at(&mut cluster, id, CONTESTED).map(|id| id.term);
        assert_eq!(held, Some(second), "node {id}");
    }
    let all = cluster.executed(5);
    assert!(
        executed.iter().all(|command| all.contains(command)),
        "node 1 executed {executed:?}; the log that is committed holds {all:?}"
    );
}

/// Step (e): as (c), but the empty entry of node 1's new term reaches a majority as well, and
/// commits all before it. Node 5 cannot be elected any more.
#[test]
fn an_entry_of_the_new_term_on_a_majority_commits_the_earlier_one_for_good() {
    let mut cluster = five_nodes();
    up_to_step_c(&mut cluster);
    let but_4 = |envelope: &Envelope| envelope.to != 4 || !brings(envelope, |_| true);
    for _ in 0..100 {
        tick(&mut cluster, 1, but_4);
    }
    assert_eq!(cluster.executed(1), ["old"]);
    cluster.crash(1);
    cluster.restart(5);
    for _ in 0..500 {
        tick(&mut cluster, 5, |_| true);
        assert_ne!(cluster.node(5).role(), RoleName::Leader);
    }
    cluster.until("the rest executes it", |cluster| {
        (2..=5).all(|id| cluster.executed(id) == ["old"])
    });
}
