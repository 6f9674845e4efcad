//! Members that change, on nodes with threads and a network in memory.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use super::{Machine, PATIENCE};
use crate::machine::StateMachine;
use crate::node::greeting::Estranged;
use crate::node::{Config, NodeError, Transport, launch, open};
use crate::raft::{
    Configuration, Contact, Entry, EntryId, Envelope, FolderId, HardState, Index, Member,
    MemberRole, News, NodeId, Payload, RoleName, Write,
};
use crate::storage::{Disk, SimDisk};
use crate::testkit::{Cluster, address};
use crate::wire::client::{Answer, Ask};
use crate::wire::members::{ChangeRequest, JoinRequest, MembersReport};

/// What the leader answers, once it has time.
fn ask_leader(cluster: &Cluster, ask: &Ask) -> Answer {
    cluster.wait_for("an answer of the leader", |cluster| {
        let answer = cluster.node(cluster.leader()?).ask(ask, PATIENCE);
        let is_for_now = match &answer {
            Answer::Busy | Answer::NotLeader(_) => true,
            // The folders of the founders are being entered into the log.
            Answer::Invalid(sentence) => sentence.contains("is under way since"),
            _ => false,
        };
        (!is_for_now).then_some(answer)
    })
}

fn asked(cluster: &Cluster, change: ChangeRequest) -> Answer {
    let force = false;
    ask_leader(cluster, &Ask::Change { change, force })
}

/// The sentence with which the leader refuses a change.
fn refusal(cluster: &Cluster, change: ChangeRequest) -> String {
    match asked(cluster, change) {
        Answer::Invalid(sentence) => sentence,
        other => panic!("{other:?}"),
    }
}

fn add(id: NodeId, address: &str) -> ChangeRequest {
    ChangeRequest::Add {
        id,
        address: address.to_string(),
        role: MemberRole::Joining,
    }
}

/// The addresses of these nodes.
fn list(ids: &[NodeId]) -> Vec<(NodeId, String)> {
    ids.iter().map(|id| (*id, address(*id))).collect()
}

fn leader_report(cluster: &Cluster) -> Option<MembersReport> {
    let report = cluster.node(cluster.leader()?).members();
    (!report.members.is_empty()).then_some(report)
}

#[test]
fn a_blank_node_that_asks_is_let_in_and_votes_and_every_node_shows_it() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    clerk.put("key", "value").unwrap();
    cluster.add(4, MemberRole::Joining);
    cluster.wait_for_members(&[1, 2, 3, 4], &[]);
    cluster.wait_for("every status to show it", |cluster| {
        let shows = |id| cluster.node(id).status().members == list(&[1, 2, 3, 4]);
        cluster.ids().all(shows).then_some(())
    });
    // Of four voters three are needed: with one of the founders gone, the new one is.
    let leader = cluster.wait_for_leader();
    let other = (1..=3).find(|id| *id != leader).unwrap();
    cluster.crash(other);
    clerk.append("key", "s").unwrap();
    assert_eq!(clerk.get("key").unwrap().as_deref(), Some(&b"values"[..]));
}

#[test]
fn a_learner_stays_one_until_it_is_promoted_and_may_be_one_again() {
    let cluster = Cluster::of_stores(3);
    cluster.add(4, MemberRole::Learner);
    cluster.wait_for_members(&[1, 2, 3], &[4]);
    cluster.wait_for("the learner to be shown as one", |cluster| {
        let shows = |id| cluster.node(id).status().learners == [4];
        cluster.ids().all(shows).then_some(())
    });
    cluster.change(&ChangeRequest::Promote(4));
    cluster.wait_for_members(&[1, 2, 3, 4], &[]);
    cluster.change(&ChangeRequest::Demote(4));
    cluster.wait_for_members(&[1, 2, 3], &[4]);
}

#[test]
fn a_node_is_removed_also_the_one_that_leads_and_then_follows_nobody() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    let removed = cluster.wait_for_leader();
    cluster.change(&ChangeRequest::Remove(removed));
    let left: Vec<NodeId> = (1..=3).filter(|id| *id != removed).collect();
    cluster.wait_for_members(&left, &[]);
    clerk.put("key", "value").unwrap();
    // It goes on, and sends clients to the others.
    let node = cluster.node(removed);
    assert!(node.wait_until(PATIENCE, |raft| {
        raft.is_removed() && raft.role() == RoleName::Follower
    }));
    assert_eq!(node.status().members, list(&left));
    let answer = node.ask(&Ask::Submit("".into()), PATIENCE);
    assert!(
        matches!(answer, Answer::NotLeader(_) | Answer::Invalid(_)),
        "{answer:?}"
    );
}

#[test]
fn a_node_that_lost_its_folder_gets_its_place_back_by_itself() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    clerk.put("key", "value").unwrap();
    let leader = cluster.wait_for_leader();
    let lost = (1..=3).find(|id| *id != leader).unwrap();
    let before = cluster.node(lost).introduction().folder;
    // The folders of the founders have to be in the log: else nobody knows who was there before.
    cluster.wait_for("the folders to be settled", |cluster| {
        let report = leader_report(cluster)?;
        let configuration = &report.configuration.configuration;
        let member = configuration.contact(lost)?;
        (member.folder == Some(before)).then_some(())
    });
    cluster.wipe(lost);
    let after = cluster.node(lost).introduction().folder;
    assert_ne!(before, after);
    cluster.wait_for_members(&[1, 2, 3], &[]);
    cluster.wait_for("the new folder to have the place", |cluster| {
        let report = leader_report(cluster)?;
        let member = report.configuration.configuration.contact(lost)?;
        (member.folder == Some(after) && member.role == MemberRole::Voter).then_some(())
    });
    // It counts: with another one gone it is one of the two that are needed.
    let third = (1..=3).find(|id| ![leader, lost].contains(id)).unwrap();
    cluster.crash(third);
    clerk.append("key", "s").unwrap();
    assert_eq!(clerk.get("key").unwrap().as_deref(), Some(&b"values"[..]));
}

#[test]
fn nobody_takes_the_place_of_a_node_that_answers() {
    let cluster = Cluster::of_stores(3);
    let leader = cluster.wait_for_leader();
    let other = (1..=3).find(|id| *id != leader).unwrap();
    let request = JoinRequest {
        id: other,
        folder: 12345,
        address: "elsewhere:1".to_string(),
        role: MemberRole::Joining,
        only_back: true,
    };
    let Answer::Invalid(sentence) = ask_leader(&cluster, &Ask::Join(request)) else {
        panic!("it took the place");
    };
    for address in [address(other), "elsewhere:1".to_string()] {
        assert!(sentence.contains(&address), "{sentence}");
    }
    assert!(sentence.contains("stop one of the two"), "{sentence}");
}

#[test]
fn a_node_that_was_removed_does_not_come_back_by_asking_for_its_former_place() {
    let cluster = Cluster::of_stores(3);
    let leader = cluster.wait_for_leader();
    let removed = (1..=3).find(|id| *id != leader).unwrap();
    cluster.change(&ChangeRequest::Remove(removed));
    let left: Vec<NodeId> = (1..=3).filter(|id| *id != removed).collect();
    cluster.wait_for_members(&left, &[]);
    let request = JoinRequest {
        id: removed,
        folder: cluster.node(removed).introduction().folder,
        address: address(removed),
        role: MemberRole::Joining,
        only_back: true,
    };
    let answer = ask_leader(&cluster, &Ask::Join(request));
    let Answer::Invalid(sentence) = answer else {
        panic!("{answer:?}");
    };
    let advice = format!("kvcli member add {removed}={}", address(removed));
    assert!(sentence.contains(&advice), "{sentence}");
    assert!(sentence.contains("was removed"), "{sentence}");
}

#[test]
fn a_node_moves_to_where_it_answers() {
    let cluster = Cluster::of_stores(3);
    // The second address of the same node.
    let address = format!("{}2", address(2));
    let change = ChangeRequest::Move {
        id: 2,
        address: address.clone(),
    };
    cluster.change(&change);
    cluster.wait_for("every status to show it", |cluster| {
        let shows = |id| cluster.node(id).status().members[1] == (2, address.clone());
        cluster.ids().all(shows).then_some(())
    });
    let again = asked(&cluster, change);
    assert!(
        matches!(again, Answer::Changed { is_new: false, .. }),
        "{again:?}"
    );
}

#[test]
fn an_address_at_which_the_wrong_node_answers_or_none_is_refused() {
    let cluster = Cluster::of_stores(3);
    let moved = |id, address: &str| ChangeRequest::Move {
        id,
        address: address.to_string(),
    };
    let cases = [
        (add(4, "node-4:1"), "nobody answers at node-4:1"),
        (add(4, "node-2:17"), "at node-2:17 is node 2 of cluster"),
        (add(4, "node-2:1"), "is the address of node 2"),
        (add(2, "node-5:1"), "node 2 is a member already"),
        (moved(2, "node-9:1"), "nobody answers at node-9:1"),
        (moved(2, "node-3:17"), "at node-3:17 is node 3 of cluster"),
        (moved(7, "node-7:1"), "node 7 is no member"),
        (ChangeRequest::Promote(7), "node 7 is no member"),
        (add(0, "node-4:1"), "0 is no node id"),
        (add(4, "node-4"), "\"node-4\" has no port"),
    ];
    for (change, says) in cases {
        let sentence = refusal(&cluster, change);
        assert!(sentence.contains(says), "{sentence}");
    }
    let report = cluster.wait_for("a leader", leader_report);
    assert_eq!(report.configuration.configuration.members().len(), 3);
}

#[test]
fn a_request_that_is_repeated_changes_nothing_more() {
    let cluster = Cluster::of_stores(3);
    cluster.add(4, MemberRole::Joining);
    cluster.wait_for_members(&[1, 2, 3, 4], &[]);
    let replace = ChangeRequest::Replace {
        id: 3,
        address: None,
    };
    for change in [add(4, &address(4)), ChangeRequest::Promote(4), replace] {
        let answer = asked(&cluster, change);
        assert!(
            matches!(answer, Answer::Changed { is_new: false, .. }),
            "{answer:?}"
        );
    }
    cluster.change(&ChangeRequest::Remove(4));
    let again = asked(&cluster, ChangeRequest::Remove(4));
    assert!(
        matches!(again, Answer::Changed { is_new: false, .. }),
        "{again:?}"
    );
}

#[test]
fn a_report_says_how_far_the_members_are_and_what_a_change_waits_for() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    clerk.put("key", "value").unwrap();
    cluster.network().set_filter(|message| message.to != 4);
    cluster.add(4, MemberRole::Joining);
    let report = cluster.wait_for("the leader to wait for node 4", |cluster| {
        leader_report(cluster).filter(|report| {
            let blocker = report.blocker.as_deref();
            blocker.is_some_and(|blocker| blocker.contains("does not answer"))
        })
    });
    let its = |id| report.members.iter().find(|member| member.id == id);
    let new = its(4).expect("it is followed");
    assert_eq!((new.matched, new.is_departing), (0, false));
    assert!(new.silent_ms >= 1000);
    let follower = report.members.iter().find(|member| member.id != 4);
    assert!(follower.is_some_and(|member| member.matched > 0));
    let member = report.configuration.configuration.contact(4);
    assert_eq!(member.map(|m| m.role), Some(MemberRole::Joining));

    cluster.network().clear_filter();
    cluster.wait_for_members(&[1, 2, 3, 4], &[]);
    let report = cluster.wait_for("a leader", leader_report);
    assert_eq!(report.blocker, None);
    assert_eq!(report.configuration.index, report.committed);
}

fn estranged(
    configuration: Index,
    known: Option<(Option<FolderId>, String)>,
    was_member: bool,
) -> Estranged {
    Estranged {
        by: (2, address(2)),
        configuration,
        known,
        was_member,
    }
}

/// Waits until the log has the folders of the founders.
fn settled(cluster: &Cluster) -> MembersReport {
    cluster.wait_for("the folders to be settled", |cluster| {
        leader_report(cluster).filter(|report| report.committed > 0)
    })
}

#[test]
fn a_node_whose_place_another_folder_has_taken_stops_and_says_what_to_do() {
    let cluster = Cluster::of_stores(3);
    let report = settled(&cluster);
    let node = cluster.node((1..=3).find(|id| *id != report.id).unwrap());
    let own = node.introduction().folder;
    let elsewhere = |folder| Some((folder, "elsewhere:1".to_string()));
    // It goes on if it was removed and nobody has its place, or only a seat without a folder is
    // left.
    for known in [None, elsewhere(None)] {
        node.hub
            .estranged(&estranged(report.committed + 1, known, true));
    }
    assert!(!node.hub.is_stopping());
    let replaced = estranged(report.committed + 1, elsewhere(Some(own + 1)), true);
    node.hub.estranged(&replaced);
    let end = node.wait();
    let Err(error @ NodeError::Replaced { .. }) = end else {
        panic!("{end:?}");
    };
    let sentence = error.to_string();
    assert!(sentence.contains("elsewhere:1"), "{sentence}");
    assert!(sentence.contains("--join"), "{sentence}");
}

/// A transport on which requests to an address come out at the other end of a channel.
struct Asked(SyncSender<(String, Ask)>);

impl Transport for Asked {
    fn send(&self, _: Vec<Envelope>) {}

    fn ask(&self, address: &str, ask: &Ask, _: Duration) -> Result<Answer, String> {
        // The test has seen enough if it does not listen any more.
        let _ = self.0.try_send((address.to_string(), ask.clone()));
        Err("nobody answers".to_string())
    }
}

#[test]
fn a_founder_with_a_new_folder_asks_for_its_place_once_it_knows_that_the_cluster_exists() {
    let (sender, asked) = sync_channel(1);
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut config = Config::new(1, list(&[1, 2]), "in memory");
    config.timing = super::config().timing;
    let machine = Machine(Box::new(|| {}), |_| Ok(()));
    let mut opened = open(&config, &disk, &machine.identity()).expect("a new folder opens");
    opened.admitted = false;
    let folder = opened.storage.own_folder();
    let transport = Arc::new(Asked(sender));
    let node = launch(config, machine, opened, transport, Box::new(|| {}));
    let node = node.expect("the node starts");
    assert!(node.introduction().is_blank);
    let known = Some((Some(folder + 1), address(1)));
    node.hub.estranged(&estranged(7, known, false));
    assert!(asked.try_recv().is_err(), "it may still found the cluster");
    node.hub.founds_no_more();
    let (whom, ask) = asked.recv_timeout(PATIENCE).expect("it asks");
    assert_eq!(whom, address(2));
    let request = JoinRequest {
        id: 1,
        folder,
        address: address(1),
        role: MemberRole::Joining,
        only_back: true,
    };
    assert_eq!(ask, Ask::Join(request));
}

#[test]
fn a_node_that_asked_asks_again_after_a_restart_though_its_log_has_members() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let machine = || Machine(Box::new(|| {}), |_| Ok(()));
    let start = |join: &[&str]| {
        let (sender, asked) = sync_channel(1);
        let mut config = Config::new(4, [], "in memory");
        config.timing = super::config().timing;
        config.address = Some(address(4));
        config.join = join.iter().map(ToString::to_string).collect();
        let opened = open(&config, &disk, &machine().identity()).expect("the folder opens");
        let transport = Arc::new(Asked(sender));
        let node = launch(config, machine(), opened, transport, Box::new(|| {}));
        (node.expect("the node starts"), asked)
    };
    let (node, asked) = start(&["node-9:1"]);
    let (whom, _) = asked.recv_timeout(PATIENCE).expect("it asks");
    assert_eq!(whom, "node-9:1");
    let folder = node.introduction().folder;
    node.shutdown();
    node.wait().expect("it stops");
    drop(node);
    // The leader has entered it into the log, and was deposed before that was committed.
    let config = Config::new(4, [], "in memory");
    let mut opened = open(&config, &disk, &machine().identity()).expect("the folder opens");
    let voter = |id| Member {
        id,
        folder: Some(FolderId::from(id)),
        address: address(id),
        role: MemberRole::Voter,
    };
    let mut members: Vec<Member> = (1..=4).map(voter).collect();
    members[3].folder = Some(folder);
    let configuration = Configuration::of(7, members, Vec::new());
    let written = opened.storage.write(&Write {
        id: 1,
        hard_state: Some(HardState {
            term: 1,
            vote: None,
        }),
        entries: vec![Entry {
            id: EntryId { term: 1, index: 1 },
            time_ms: 0,
            payload: Payload::Configuration(Box::new(configuration)),
        }],
        restart: None,
    });
    written.expect("the disk is sound");
    drop(opened);
    let (_node, asked) = start(&[]);
    let (_, ask) = asked.recv_timeout(PATIENCE).expect("it asks again");
    // Nobody tells it any more to join, so that an operator decides if it is no member.
    assert!(
        matches!(ask, Ask::Join(JoinRequest { id: 4, .. })),
        "{ask:?}"
    );
}

#[test]
fn news_that_come_late_do_not_take_the_place_of_newer_ones() {
    let machine = Machine(Box::new(|| {}), |_| Ok(()));
    let node = super::leader(machine, Box::new(|| {}));
    let news = |number, address: &str| {
        let contact = Contact {
            id: 2,
            folder: None,
            address: address.to_string(),
        };
        let committed = node
            .hub
            .with_raft(|raft| raft.committed_configuration().clone());
        let contacts = vec![contact];
        node.hub.announce(Some((
            number,
            News {
                contacts,
                committed,
            },
        )));
    };
    news(1002, "new:1");
    news(1001, "old:1");
    assert_eq!(node.hub.address_of(2).as_deref(), Some("new:1"));
}
