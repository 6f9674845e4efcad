//! Who is answered, and whose answers are heard.

use super::*;
use crate::raft::{ConfigurationEvent, Room};

fn heartbeat() -> Message {
    Message::Heartbeat {
        commit: 0,
        matched_by_all: 0,
        round: 0,
    }
}

#[test]
fn what_was_meant_for_a_former_folder_is_not_answered_and_told_once() {
    let mut raft = joiner(3, 1003);
    for message in [vote(id(9, 1)), heartbeat(), Message::Outdated] {
        give_to(&mut raft, Some(3), 2, message);
    }
    let output = raft.output(Room::EVERYTHING);
    assert_eq!((raft.term(), output.messages), (0, vec![]));
    let told = ConfigurationEvent::WrongFolder { from: 2 };
    assert_eq!(output.configuration_events, [told]);
}

#[test]
fn a_wiped_node_votes_for_no_laggard_that_knows_only_its_id() {
    let mut raft = joiner(3, 1003);
    give_to(&mut raft, None, 2, vote(id(9, 1)));
    sync(&mut raft);
    assert_eq!(said(&mut raft), []);
    assert_eq!(raft.hard_state().vote, None);
    give_to(
        &mut raft,
        None,
        2,
        append(EntryId::ZERO, vec![empty(1, 1)], 0),
    );
    sync(&mut raft);
    assert_eq!((raft.last().index, said(&mut raft)), (1, vec![]));
}

#[test]
fn a_node_that_a_configuration_names_answers_before_it_knows_of_that() {
    let mut raft = joiner(3, 1003);
    give_to(
        &mut raft,
        Some(1003),
        2,
        append(EntryId::ZERO, vec![empty(1, 1)], 0),
    );
    sync(&mut raft);
    assert_eq!(said(&mut raft), [(2, accepted(1))]);
}

#[test]
fn a_strangers_term_deposes_no_leader() {
    let mut raft = node(1, 1, vec![empty(1, 1)]);
    ask_for_votes(&mut raft, &[2]);
    yes(&mut raft, 2);
    let term = raft.term();
    for message in [Message::Outdated, accepted(1), vote(id(9, 9))] {
        give(&mut raft, 9, term + 7, message);
    }
    // A member, but with a folder that the configuration does not have.
    raft.step(Envelope {
        from_folder: 1002,
        ..envelope(2, 1, term + 7, Message::Outdated)
    });
    assert_eq!((raft.role(), raft.term()), (RoleName::Leader, term));
    give(&mut raft, 2, term + 7, Message::Outdated);
    assert_eq!((raft.role(), raft.term()), (RoleName::Follower, term + 7));
}

#[test]
fn a_leader_that_this_node_does_not_know_is_followed() {
    let mut raft = node(1, 1, vec![empty(1, 1)]);
    give(&mut raft, 9, 4, append(id(1, 1), vec![empty(2, 4)], 2));
    sync(&mut raft);
    assert_eq!((raft.leader(), raft.commit()), (Some(9), 2));
    assert_eq!(said(&mut raft), [(9, accepted(2))]);
}

#[test]
fn only_the_leader_tells_a_node_to_take_over() {
    let mut raft = node(1, 1, vec![empty(1, 1)]);
    give(&mut raft, 2, 1, heartbeat());
    give(&mut raft, 3, 1, Message::TimeoutNow);
    assert_eq!(raft.role(), RoleName::Follower);
    give(&mut raft, 2, 1, Message::TimeoutNow);
    assert_eq!(raft.role(), RoleName::Candidate);
}

#[test]
fn while_folders_are_not_known_the_first_one_that_answers_is_the_one_that_counts() {
    let founding = Configuration::founding((1..=3).map(|id| (id, String::new())));
    let mut raft = Raft::new(Config::new(1, founding, 1), HardState::default(), vec![]);
    ask_for_votes(&mut raft, &[2]);
    yes(&mut raft, 2);
    sync(&mut raft);
    let (term, last) = (raft.term(), raft.last().index);
    give(&mut raft, 3, term, Message::HeartbeatReply { round: 0 });
    raft.step(Envelope {
        from_folder: 1003,
        ..envelope(3, 1, term, accepted(last))
    });
    assert_eq!(raft.commit(), 0, "a second folder of node 3 counts");
    give(&mut raft, 3, term, accepted(last));
    assert_eq!(raft.commit(), last);
}

/// The founding list has the node with any folder. That does not make a folder a member that never
/// counted: the node catches up through configurations that have its lost folder.
#[test]
fn a_founder_with_a_new_folder_was_no_member_before_the_log_says_so() {
    let founding = Configuration::founding((1..=3).map(|id| (id, format!("node-{id}:1"))));
    let config = Config {
        folder: 1003,
        admitted: false,
        ..Config::new(3, founding, 3)
    };
    let mut raft = Raft::new(config, HardState::default(), Vec::new());
    let with = |folder, role| {
        let mut members = three().members().to_vec();
        (members[2].folder, members[2].role) = (Some(folder), role);
        Configuration::of(1, members, Vec::new())
    };
    // It tells whom it speaks to, as each node does that starts.
    sync(&mut raft);
    let log = [
        change(1, 1, &three()),
        change(2, 1, &with(1003, MemberRole::Joining)),
        change(3, 1, &with(1003, MemberRole::Voter)),
        change(4, 1, &with(2003, MemberRole::Joining)),
    ];
    for entry in log {
        let (index, prev) = (entry.id.index, EntryId::ZERO);
        let prev = raft.entry(index - 1).map_or(prev, |before| before.id);
        give_to(&mut raft, Some(1003), 1, append(prev, vec![entry], index));
        sync(&mut raft);
        assert_eq!(raft.commit(), index);
        assert_eq!(raft.is_removed(), index == 4, "after entry {index}");
    }
}
