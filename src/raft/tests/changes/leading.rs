//! How a leader changes members, and how the next one goes on with it.

use super::*;

fn grow(cluster: &mut Cluster, id: NodeId) {
    cluster.add(id);
    let change = newcomer(cluster, id, MemberRole::Joining);
    cluster.change(&change);
}

/// The configurations in the log of the leader, by whether they are joint.
fn logged(cluster: &Cluster, id: NodeId) -> Vec<bool> {
    let raft = &cluster.nodes[&id].raft;
    let entries = (raft.first_index()..=raft.last().index).filter_map(|index| raft.entry(index));
    let configurations = entries.filter_map(|entry| match &entry.payload {
        Payload::Configuration(configuration) => Some(configuration.is_joint()),
        _ => None,
    });
    configurations.collect()
}

#[test]
fn a_cluster_grows_from_one_node_to_nine_and_shrinks_back_under_load() {
    let mut cluster = Cluster::new(1);
    cluster.elect();
    let mut written = Vec::new();
    let mut write = |cluster: &mut Cluster, command: &'static str| {
        let leader = cluster.elect();
        if cluster.node(leader).propose(command.into()).is_ok() {
            written.push(command.to_string());
        }
    };
    for id in 2..=9 {
        write(&mut cluster, "grows");
        grow(&mut cluster, id);
        write(&mut cluster, "more");
        cluster.until_voters(&(1..=id).collect::<Vec<_>>());
    }
    for id in 1..=8 {
        write(&mut cluster, "shrinks");
        cluster.change(&Change::Remove(id));
        cluster.until_voters(&(id + 1..=9).collect::<Vec<_>>());
        cluster.crash(id);
    }
    cluster.settle();
    assert_eq!(cluster.executed(9), written);
}

#[test]
fn a_newcomer_first_learns_then_votes_and_the_log_says_so() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.add(4);
    cluster.crash(4);
    let change = newcomer(&cluster, 4, MemberRole::Voter);
    cluster.change(&change);
    (0..100).for_each(|_| cluster.tick());
    // It does not answer, so it is only to become one.
    let role = |cluster: &mut Cluster| {
        let configuration = &cluster.node(leader).configuration().configuration;
        configuration.contact(4).map(|member| member.role)
    };
    assert_eq!(role(&mut cluster), Some(MemberRole::Joining));
    assert_eq!(logged(&cluster, leader), [false]);
    cluster.restart(4);
    cluster.until_voters(&[1, 2, 3, 4]);
    assert_eq!(logged(&cluster, leader), [false, true, false]);
}

#[test]
fn a_learner_stays_one_until_it_is_promoted_and_becomes_one_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    cluster.add(4);
    let change = newcomer(&cluster, 4, MemberRole::Learner);
    cluster.change(&change);
    (0..100).for_each(|_| cluster.tick());
    assert_eq!(cluster.voters(), Some(vec![1, 2, 3]));
    let leader = cluster.elect();
    assert_eq!(cluster.node(4).last(), cluster.node(leader).last());
    cluster.change(&Change::Promote(4));
    cluster.until_voters(&[1, 2, 3, 4]);
    cluster.change(&Change::Demote(4));
    cluster.until_voters(&[1, 2, 3]);
}

#[test]
fn a_new_leader_commits_a_joint_it_found_before_it_leaves_it() {
    let joint = members([1, 4, 5], [1, 2, 3], []);
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, &joint)]);
    ask_for_votes(&mut raft, &[2, 4]);
    yes(&mut raft, 2);
    yes(&mut raft, 4);
    assert_eq!(raft.role(), RoleName::Leader);
    sync(&mut raft);
    let term = raft.term();
    // The joint one itself is on a quorum of both halves, but no entry of this term is.
    for from in [2, 3, 4, 5] {
        give(&mut raft, from, term, accepted(2));
    }
    assert_eq!((raft.commit(), raft.last().index), (0, 3));
    give(&mut raft, 2, term, accepted(3));
    assert_eq!(raft.last().index, 3, "the new half has not committed it");
    give(&mut raft, 4, term, accepted(3));
    assert_eq!((raft.commit(), raft.last().index), (3, 4));
    assert_eq!(raft.configuration().configuration, joint.left());
}

#[test]
fn whoever_leads_next_leaves_the_joint_once() {
    let mut cluster = Cluster::new(3);
    let first = cluster.elect();
    cluster.add(4);
    let change = newcomer(&cluster, 4, MemberRole::Joining);
    let changed = cluster.node(first).change(&change, false);
    let added = changed.expect("it is taken up").index;
    // What leaves the joint configuration stays with the one that has committed it.
    let leaves = |entry: &Entry| match &entry.payload {
        Payload::Configuration(next) => entry.id.index > added && !next.is_joint(),
        _ => false,
    };
    for _ in 0..20 {
        cluster.node(first).tick();
        cluster.settle_for(|envelope| match &envelope.message {
            Message::Append { entries, .. } => !entries.iter().any(leaves),
            _ => true,
        });
    }
    assert_eq!(logged(&cluster, first), [false, true, false]);
    assert_eq!(logged(&cluster, 4), [false, true]);
    cluster.crash(first);
    cluster.until_voters(&[1, 2, 3, 4]);
    cluster.restart(first);
    for _ in 0..100 {
        cluster.tick();
    }
    for id in 1..=4 {
        let configurations = logged(&cluster, id);
        assert_eq!(configurations, [false, true, false], "node {id}");
    }
}

#[test]
fn one_change_at_a_time_and_none_before_the_leader_has_committed_in_its_term() {
    let mut raft = node(1, 1, vec![empty(1, 1)]);
    ask_for_votes(&mut raft, &[2]);
    yes(&mut raft, 2);
    let term = raft.term();
    sync(&mut raft);
    let four = Change::Add(Member {
        id: 4,
        folder: Some(4),
        address: "four".into(),
        role: MemberRole::Learner,
    });
    assert_eq!(raft.change(&four, true), Err(ChangeError::Busy));
    give(&mut raft, 2, term, accepted(2));
    let changed = raft.change(&four, false).expect("it is taken up");
    assert_eq!((changed.index, changed.is_new), (3, true));
    let index = 3;
    let joint = false;
    let under_way = Err(ChangeError::UnderWay { index, joint });
    assert_eq!(raft.change(&Change::Remove(3), true), under_way);
    assert!(raft.may_change(&Change::Remove(3), true).is_err());
    // The same one again is no other one.
    let again = raft.change(&four, false).expect("it is so already");
    assert_eq!((again.index, again.is_new), (3, false));
    sync(&mut raft);
    give(&mut raft, 2, term, accepted(3));
    assert_eq!(raft.committed_configuration().index, 3);
    assert!(raft.may_change(&Change::Remove(3), false).is_ok());
}

#[test]
fn a_minority_removes_nobody() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    cluster.isolate(leader);
    let away = (1..=5).find(|id| *id != leader).expect("there are others");
    let changed = cluster.node(leader).change(&Change::Remove(away), true);
    let index = changed.expect("it leads still").index;
    (0..20).for_each(|_| cluster.tick());
    assert!(cluster.node(leader).commit() < index);
    (0..200).for_each(|_| cluster.tick());
    cluster.heal();
    cluster.until_voters(&[1, 2, 3, 4, 5]);
    cluster.until("it is taken back", |cluster| {
        cluster.node(leader).configuration().index == 0
    });
}

#[test]
fn a_change_that_leaves_no_live_majority_is_refused_unless_it_is_forced() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let [down, up] = [1, 2].map(|step| (leader + step - 1) % 3 + 1);
    cluster.crash(down);
    (0..40).for_each(|_| cluster.tick());
    let refused = cluster.node(leader).change(&Change::Remove(up), false);
    let (voters, live) = (2, 1);
    assert_eq!(refused, Err(ChangeError::NoLiveMajority { voters, live }));
    // To remove the one that is down is what helps.
    cluster.change(&Change::Remove(down));
    let mut left = [leader, up];
    left.sort_unstable();
    cluster.until_voters(&left);
    let forced = cluster.node(leader).change(&Change::Remove(up), true);
    assert!(forced.is_ok(), "{forced:?}");
}

#[test]
fn a_change_of_role_keeps_what_is_known_of_a_follower() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let other = leader % 3 + 1;
    cluster.propose(leader, "a");
    cluster.settle();
    let matched = |cluster: &mut Cluster| {
        let progress = cluster.node(leader).member_progress();
        let its = progress.iter().find(|progress| progress.id == other);
        its.map(|progress| progress.matched)
    };
    let before = matched(&mut cluster);
    assert!(before > Some(0));
    let changed = cluster.node(leader).change(&Change::Demote(other), false);
    assert!(changed.is_ok());
    assert_eq!(matched(&mut cluster), before);
}

#[test]
fn a_folder_that_is_lost_is_replaced_and_the_new_one_votes() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let lost = leader % 3 + 1;
    cluster.propose(leader, "before");
    cluster.settle();
    cluster.wipe(lost);
    let change = replacement(&cluster, lost);
    let refused = cluster.node(leader).change(&change, false);
    assert!(
        matches!(refused, Err(ChangeError::StillAlive { .. })),
        "{refused:?}"
    );
    (0..60).for_each(|_| cluster.tick());
    assert!(cluster.executed(lost).is_empty(), "nobody speaks to it");
    cluster.change(&change);
    cluster.until_voters(&[1, 2, 3]);
    assert_eq!(cluster.executed(lost), ["before"]);
    // Now it is needed.
    let other = (1..=3).find(|id| ![leader, lost].contains(id));
    cluster.crash(other.expect("the third one"));
    let next = cluster.elect();
    cluster.propose(next, "after");
    (0..20).for_each(|_| cluster.tick());
    assert_eq!(cluster.executed(lost), ["before", "after"]);
}

#[test]
fn a_newcomer_that_needs_a_snapshot_votes_in_the_end() {
    let mut cluster = Cluster::with(3, |config| {
        config.trailing_bytes = 0;
        config.keeps_matched = false;
    });
    let leader = cluster.elect();
    for _ in 0..5 {
        cluster.propose(leader, "a");
    }
    cluster.settle();
    cluster.take_snapshot(leader);
    grow(&mut cluster, 4);
    cluster.until_voters(&[1, 2, 3, 4]);
    assert_eq!(cluster.executed(4).len(), 5);
}

#[test]
fn members_are_in_a_snapshot_as_of_its_last_entry() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    grow(&mut cluster, 4);
    cluster.until_voters(&[1, 2, 3, 4]);
    cluster.take_snapshot(leader);
    let snapshot = cluster.node(leader).newest_snapshot().cloned();
    let meta = snapshot.expect("it was taken").meta;
    assert_eq!(meta.configuration, *cluster.node(leader).configuration());
    // Not one that is not committed.
    cluster.isolate(leader);
    let learner = Change::Demote(4);
    let index = cluster
        .node(leader)
        .change(&learner, true)
        .expect("it leads")
        .index;
    assert_eq!(cluster.node(leader).configuration().index, index);
    let applied = cluster.node(leader).applied_index();
    let as_of = cluster.node(leader).configuration_at(applied);
    assert_eq!(as_of, Some(&meta.configuration));
}
