//! Members that leave: they learn of it, they lead no more, and they disturb nobody.

use super::*;
use crate::raft::ConfigurationEvent;

fn others(leader: NodeId) -> Vec<NodeId> {
    (1..=3).filter(|id| *id != leader).collect()
}

#[test]
fn who_leaves_learns_that_it_has_left() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let leaves = others(leader)[0];
    cluster.change(&Change::Remove(leaves));
    cluster.until("it knows", |cluster| cluster.node(leaves).is_removed());
    let events = &cluster.nodes[&leaves].configuration_events;
    assert!(events.contains(&ConfigurationEvent::Removed), "{events:?}");
    // And is spoken to no more.
    (0..100).for_each(|_| cluster.tick());
    let contacts = cluster.node(leader).contacts();
    assert!(contacts.iter().all(|contact| contact.id != leaves));
    let term = cluster.node(leader).term();
    (0..300).for_each(|_| cluster.tick());
    assert_eq!(cluster.node(leaves).role(), RoleName::Follower);
    assert_eq!(cluster.node(leader).term(), term);
}

#[test]
fn a_leader_that_is_removed_hands_over_and_does_not_stand_again() {
    let mut cluster = Cluster::new(3);
    let first = cluster.elect();
    let refused = cluster.node(first).change(&Change::Remove(first), false);
    assert!(
        matches!(refused, Err(ChangeError::HandingOver { .. })),
        "{refused:?}"
    );
    let last = cluster.node(first).last();
    cluster.change(&Change::Remove(first));
    cluster.until_voters(&others(first));
    cluster.until("it knows", |cluster| cluster.node(first).is_removed());
    let entries = cluster.node(first).last().index - last.index;
    assert!(entries <= 3, "an empty entry and two configurations");
    (0..300).for_each(|_| cluster.tick());
    assert_eq!(cluster.node(first).role(), RoleName::Follower);
}

/// The disks of all other voters but one are full or hang: told to campaign, they do not.
#[test]
fn a_leader_that_is_removed_hands_over_to_another_voter_if_one_does_not_take_over() {
    for (size, able) in [(3, 1), (3, 2), (3, 3), (5, 1), (5, 3), (5, 5)] {
        let mut cluster = Cluster::new(size);
        let first = cluster.elect();
        cluster.settle();
        let others: Vec<NodeId> = (1..=size).filter(|id| *id != first).collect();
        let able = *others.iter().find(|id| **id >= able).unwrap_or(&others[0]);
        let mut asked = 0;
        while cluster.leader() == Some(first) && asked < 10 * size {
            let refused = cluster.node(first).change(&Change::Remove(first), false);
            asked += u64::from(matches!(refused, Err(ChangeError::HandingOver { .. })));
            (1..=size).for_each(|id| cluster.node(id).tick());
            cluster.settle_for(|envelope| {
                envelope.to == able || envelope.message != Message::TimeoutNow
            });
        }
        assert_eq!(cluster.leader(), Some(able), "of {size} nodes");
        assert!(asked < size, "each of {others:?} is asked once: {asked}");
        cluster.change(&Change::Remove(first));
        cluster.until_voters(&others);
    }
}

/// Nobody can take over: the change is made by the leader itself, which leads until it is done.
#[test]
fn a_leader_without_a_successor_makes_the_change_and_leaves() {
    let mut cluster = Cluster::new(1);
    cluster.elect();
    cluster.add(2);
    let change = newcomer(&cluster, 2, MemberRole::Joining);
    cluster.change(&change);
    cluster.until_voters(&[1, 2]);
    // It has heard nothing for long: what it would hand over to may be gone.
    cluster.isolate(1);
    (0..26).for_each(|_| cluster.node(1).tick());
    if cluster.node(1).role() == RoleName::Leader {
        let forced = cluster.node(1).change(&Change::Remove(1), true);
        assert!(forced.is_ok(), "{forced:?}");
    }
    cluster.heal();
    cluster.until("node 2 has the vote to itself", |cluster| {
        cluster.voters().is_some_and(|voters| voters == [2]) || {
            let leader = cluster.leader();
            if let Some(leader) = leader {
                let _ = cluster.node(leader).change(&Change::Remove(1), false);
            }
            false
        }
    });
    assert_eq!(cluster.leader(), Some(2));
    cluster.until("the old leader has left", |cluster| {
        cluster.node(1).role() == RoleName::Follower
    });
}

/// The leader is in C_new no more, and C_new is committed by the others alone.
#[test]
fn a_leader_outside_c_new_leads_uncounted_until_it_is_committed() {
    let joint = members([2, 3], [1, 2, 3], []);
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, &joint)]);
    ask_for_votes(&mut raft, &[2, 3]);
    yes(&mut raft, 2);
    yes(&mut raft, 3);
    sync(&mut raft);
    let term = raft.term();
    give(&mut raft, 2, term, accepted(3));
    give(&mut raft, 3, term, accepted(3));
    assert_eq!((raft.commit(), raft.last().index), (3, 4));
    sync(&mut raft);
    give(&mut raft, 2, term, accepted(4));
    assert_eq!(raft.commit(), 3, "its own copy counts");
    assert!(raft.propose("command".into()).is_ok());
    give(&mut raft, 3, term, accepted(4));
    assert_eq!(raft.commit(), 4);
    // It hands over, and gives up in any case.
    assert!(raft.propose("command".into()).is_err());
    for _ in 0..60 {
        raft.tick();
        let round = 0;
        give(&mut raft, 2, term, Message::HeartbeatReply { round });
        give(&mut raft, 3, term, Message::HeartbeatReply { round });
    }
    assert_eq!(raft.role(), RoleName::Follower);
    assert!(!campaigns(&mut raft));
}

#[test]
fn removed_nodes_that_campaign_disturb_nobody() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    let away: Vec<NodeId> = (1..=5).filter(|id| *id != leader).take(2).collect();
    away.iter().for_each(|id| cluster.isolate(*id));
    away.iter()
        .for_each(|id| _ = cluster.change(&Change::Remove(*id)));
    let left: Vec<NodeId> = (1..=5).filter(|id| !away.contains(id)).collect();
    cluster.until_voters(&left);
    (0..200).for_each(|_| cluster.tick());
    let term = cluster.node(leader).term();
    cluster.heal();
    (0..500).for_each(|_| cluster.tick());
    assert_eq!(
        (cluster.leader(), cluster.node(leader).term()),
        (Some(leader), term)
    );
    cluster.propose(leader, "goes on");
    cluster.settle();
    assert_eq!(cluster.executed(left[0]), ["goes on"]);
}

/// The old folder comes back after another one has taken its place.
#[test]
fn a_folder_that_was_replaced_and_comes_back_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let lost = others(leader)[0];
    cluster.crash(lost);
    (0..60).for_each(|_| cluster.tick());
    let other = MemberId {
        id: lost,
        folder: 1234,
    };
    let change = Change::Replace {
        id: lost,
        folder: other.folder,
        address: "elsewhere".into(),
    };
    cluster.change(&change);
    cluster.until("the old folder is out", |cluster| {
        let committed = cluster.node(leader).committed_configuration();
        !committed.configuration.is_joint() && committed.index > 0
    });
    let term = cluster.node(leader).term();
    cluster.restart(lost);
    (0..300).for_each(|_| cluster.tick());
    assert_eq!(cluster.node(leader).term(), term);
    assert_eq!(cluster.leader(), Some(leader));
}

/// Node 3, which founds its cluster with this folder.
fn founder(folder: FolderId, admitted: bool) -> Raft {
    let founders = (1..=3).map(|id| (id, format!("node-{id}")));
    let config = Config {
        folder,
        admitted,
        ..Config::new(3, Configuration::founding(founders), 3)
    };
    let mut raft = Raft::new(config, HardState::default(), Vec::new());
    sync(&mut raft);
    raft
}

/// The node hears that this configuration is committed. Returns whether it takes itself for removed
/// then.
fn hear(raft: &mut Raft, index: Index, now: &Configuration) -> bool {
    let prev = match index {
        1 => EntryId::ZERO,
        _ => id(index - 1, 1),
    };
    let folder = raft.common.me().folder;
    let message = append(prev, vec![change(index, 1, now)], index);
    give_to(raft, Some(folder), 1, message);
    sync(raft);
    assert_eq!(raft.committed_configuration().index, index);
    raft.is_removed()
}

/// A founder whose folder was lost still has the list of the founders, which has its id without a
/// folder. It hears of the configurations with its former folder first.
#[test]
fn a_founder_with_a_new_folder_was_no_member_before_the_log_says_so() {
    let mut raft = founder(1003, false);
    let former = hear(&mut raft, 1, &three());
    assert!(!former, "the former folder is a member");
    let new = with_folder(&three(), 3, Some(1003));
    assert!(!hear(&mut raft, 2, &new));
    assert!(hear(&mut raft, 3, &members([1, 2], [], [])));
}

/// The first leader did not hear it, and entered the others without it. Its seat waits for it.
#[test]
fn an_admitted_founder_whose_seat_is_empty_is_not_removed() {
    let empty = with_folder(&three(), 3, None);
    let mut raft = founder(3, true);
    assert!(!hear(&mut raft, 1, &empty), "its seat is empty");
    assert!(!hear(&mut raft, 2, &three()), "it is seated");
    assert!(hear(&mut raft, 3, &members([1, 2], [], [])));
    let mut raft = founder(3, true);
    assert!(!hear(&mut raft, 1, &empty));
    let another = with_folder(&three(), 3, Some(1003));
    assert!(hear(&mut raft, 2, &another), "another folder is there");
}
