//! How the folders of the founders come into the log.

use super::*;

/// The folders of the members, as the leader has committed them; nothing before any is.
fn folders(cluster: &Cluster) -> Vec<Option<FolderId>> {
    let leader = cluster.leader().map(|id| &cluster.nodes[&id].raft);
    let Some(logged) = leader.map(Raft::committed_configuration) else {
        return Vec::new();
    };
    let members = logged.configuration.members().iter();
    match logged.configuration.is_founding() {
        true => Vec::new(),
        false => members.map(|member| member.folder).collect(),
    }
}

#[test]
fn the_first_leader_enters_the_folders_of_all_founders() {
    for size in [1, 2, 3, 5] {
        let mut cluster = Cluster::founded(size, |_| {});
        let leader = cluster.elect();
        let all: Vec<_> = (1..=size).map(|id| Some(FolderId::from(id))).collect();
        cluster.until("the folders are in the log", |cluster| {
            folders(cluster) == all
        });
        let raft = cluster.node(leader);
        assert_eq!(
            raft.committed_configuration().index,
            2,
            "one entry of {size}"
        );
        let configuration = raft.committed_configuration().configuration.clone();
        assert_ne!(configuration.lineage(), 0);
        // From here on members change as in any other cluster, and the lineage stays.
        cluster.add(9);
        let change = newcomer(&cluster, 9, MemberRole::Learner);
        cluster.change(&change);
        (0..20).for_each(|_| cluster.tick());
        let after = &cluster.nodes[&9].raft.configuration().configuration;
        assert_eq!(after.lineage(), configuration.lineage());
    }
}

#[test]
fn a_founder_that_comes_a_little_late_finds_its_seat_empty_only_if_somebody_wanted_a_change() {
    let mut cluster = Cluster::founded(3, |_| {});
    cluster.crash(3);
    cluster.elect();
    (0..200).for_each(|_| cluster.tick());
    let none: [Option<FolderId>; 0] = [];
    assert_eq!(folders(&cluster), none, "one more failure would stop it");
    cluster.add(9);
    let change = newcomer(&cluster, 9, MemberRole::Learner);
    cluster.change(&change);
    let without = [Some(1), Some(2), None, Some(9)];
    cluster.until("the others are there", |all| folders(all) == without);
    cluster.restart(3);
    let with = [Some(1), Some(2), Some(3), Some(9)];
    cluster.until("it is there too", |all| folders(all) == with);
}

/// Some never come, with the folders that were admitted or with any.
#[test]
fn the_first_leader_waits_for_founders_long_but_not_for_ever() {
    for (size, absent) in [(3, 1), (4, 1), (5, 2), (7, 3)] {
        let mut cluster = Cluster::founded(size, |_| {});
        let present = size - absent;
        (present + 1..=size).for_each(|id| cluster.crash(id));
        cluster.elect();
        let seat = |id: NodeId| (id <= present).then_some(FolderId::from(id));
        let without: Vec<_> = (1..=size).map(seat).collect();
        let mut ticks = 0;
        while folders(&cluster).is_empty() && ticks < 4000 {
            cluster.tick();
            ticks += 1;
        }
        assert_eq!(folders(&cluster), without, "{size} founders");
        assert!(ticks > 2000, "after {ticks} ticks");
        // One comes with its old folder, and another one would be let in with a new one.
        cluster.restart(size);
        cluster.until("its seat is taken", |all| {
            folders(all).last() == Some(&Some(FolderId::from(size)))
        });
        cluster.wipe(present + 1);
        let change = replacement(&cluster, present + 1);
        if absent > 1 {
            cluster.change(&change);
            let all: Vec<NodeId> = (1..=size).collect();
            cluster.until("it has the empty seat", |cluster| {
                cluster.voters().is_some_and(|voters| voters == all)
                    && folders(cluster)[present as usize].is_some()
            });
        }
    }
}

#[test]
fn an_empty_seat_is_not_taken_by_a_folder_that_is_not_admitted_until_it_is_put_there() {
    let mut cluster = Cluster::founded(3, |_| {});
    cluster.wipe(3);
    let leader = cluster.elect();
    let change = replacement(&cluster, 3);
    let refused = cluster.node(leader).change(&change, false);
    assert_eq!(refused, Err(ChangeError::Busy));
    let without = [Some(1), Some(2), None];
    cluster.until("the others are there", |all| folders(all) == without);
    (0..100).for_each(|_| cluster.tick());
    assert_eq!(folders(&cluster), without);
    cluster.change(&change);
    cluster.until_voters(&[1, 2, 3]);
    assert_eq!(folders(&cluster), [Some(1), Some(2), Some(1003)]);
}

#[test]
fn what_one_leader_has_entered_and_not_committed_another_one_may_enter_differently() {
    let mut cluster = Cluster::founded(3, |_| {});
    // What the first leader enters stays with it.
    let holds = |envelope: &Envelope| match &envelope.message {
        Message::Append { entries, .. } => {
            let is_one = |entry: &Entry| matches!(entry.payload, Payload::Configuration(_));
            !entries.iter().any(is_one)
        }
        _ => true,
    };
    let entered = |cluster: &Cluster| {
        let leader = cluster.leader()?;
        let index = cluster.nodes[&leader].raft.configuration().index;
        (index > 0).then_some(leader)
    };
    while entered(&cluster).is_none() {
        (1..=3).for_each(|id| cluster.node(id).tick());
        cluster.settle_for(holds);
    }
    let first = entered(&cluster).expect("just seen");
    assert_eq!(folders(&cluster), []);
    cluster.isolate(first);
    cluster.until("another one leads", |cluster| {
        let leader = cluster.leader().filter(|leader| *leader != first);
        if let Some(leader) = leader
            && folders(cluster).is_empty()
        {
            let refused = cluster.node(leader).change(&Change::Demote(first), false);
            assert!(refused.is_err(), "{refused:?}");
        }
        leader.is_some() && !folders(cluster).is_empty()
    });
    let expected: Vec<_> = (1..=3)
        .map(|id| (id != first).then_some(FolderId::from(id)))
        .collect();
    assert_eq!(folders(&cluster), expected);
    cluster.heal();
    let all = [Some(1), Some(2), Some(3)];
    cluster.until("the former leader is entered", |cluster| {
        folders(cluster) == all
    });
}
