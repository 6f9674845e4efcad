//! What a leader counts.

use super::*;

/// Node 1, which leads with this configuration at index 2 and has an entry of its own term at 3.
fn leader(configuration: &Configuration, voters: &[NodeId]) -> Raft {
    let mut raft = node(1, 1, vec![empty(1, 1), change(2, 1, configuration)]);
    ask_for_votes(&mut raft, voters);
    voters.iter().for_each(|from| yes(&mut raft, *from));
    assert_eq!(raft.role(), RoleName::Leader);
    sync(&mut raft);
    raft
}

fn has(raft: &mut Raft, who: MemberId, matched: Index) {
    let (to, term) = (raft.id(), raft.term());
    raft.step(Envelope {
        from_folder: who.folder,
        ..envelope(who.id, to, term, accepted(matched))
    });
}

#[test]
fn both_halves_of_a_joint_configuration_must_have_an_entry() {
    let joint = members([1, 4, 5], [1, 2, 3], []);
    let mut raft = leader(&joint, &[2, 4]);
    has(&mut raft, MemberId::plain(2), 3);
    assert_eq!(raft.commit(), 0);
    has(&mut raft, MemberId::plain(3), 3);
    assert_eq!(raft.commit(), 0, "the old half alone commits");
    has(&mut raft, MemberId::plain(5), 3);
    assert_eq!(raft.commit(), 3);
}

#[test]
fn a_learner_counts_for_nothing_and_is_sent_the_log() {
    let mut raft = leader(&members([1, 2, 3], [], [4]), &[2]);
    drop(said(&mut raft));
    has(&mut raft, MemberId::plain(4), 3);
    assert_eq!(raft.commit(), 0);
    raft.propose("command".into()).expect("it leads");
    let said = said(&mut raft);
    let sent = |(to, message): &(NodeId, Message)| {
        *to == 4 && matches!(message, Message::Append { entries, .. } if !entries.is_empty())
    };
    assert!(said.iter().any(sent), "{said:?}");
}

#[test]
fn who_is_not_followed_counts_for_nothing() {
    // Of the old half 3 is there with a folder that is not followed: the new one is.
    let new = with_folder(&three(), 3, Some(1003));
    let outgoing = three().members().to_vec();
    let joint = Configuration::of(1, new.members().to_vec(), outgoing);
    let mut raft = leader(&joint, &[2]);
    let [old, new] = [3, 1003].map(|folder| MemberId { id: 3, folder });
    has(&mut raft, old, 3);
    assert_eq!(raft.commit(), 0);
    has(&mut raft, new, 3);
    assert_eq!(raft.commit(), 0, "the new folder counts for the old one");
    has(&mut raft, MemberId::plain(2), 3);
    assert_eq!(raft.commit(), 3);
}

#[test]
fn an_empty_seat_counts_for_nobody() {
    let empty_seat = with_folder(&three(), 3, None);
    let mut raft = leader(&empty_seat, &[2]);
    has(&mut raft, MemberId::plain(3), 3);
    assert_eq!(raft.commit(), 0);
    has(&mut raft, MemberId::plain(2), 3);
    assert_eq!(raft.commit(), 3);
}

#[test]
fn entries_behind_a_change_wait_for_its_quorum() {
    // The leader has entries of its term before and behind a change, none of them committed.
    let more = members([1, 2, 3, 4, 5], [], []);
    let mut raft = leader(&three(), &[2]);
    let term = raft.term();
    give(&mut raft, 2, term + 1, Message::Outdated);
    let log = vec![empty(4, term), change(5, term, &more), empty(6, term)];
    give(&mut raft, 2, term + 1, append(id(3, term), log, 0));
    sync(&mut raft);
    ask_for_votes(&mut raft, &[2, 4]);
    yes(&mut raft, 2);
    yes(&mut raft, 4);
    assert_eq!(raft.role(), RoleName::Leader);
    sync(&mut raft);
    let last = raft.last().index;
    has(&mut raft, MemberId::plain(2), last);
    assert_eq!(raft.commit(), 0, "two of three count, and five are needed");
    has(&mut raft, MemberId::plain(5), last);
    assert_eq!(raft.commit(), last);
}

#[test]
fn a_leader_whose_new_half_is_silent_steps_down() {
    let mut raft = leader(&members([1, 4, 5], [1, 2, 3], []), &[2, 4]);
    for tick in 0..60 {
        raft.tick();
        let term = raft.term();
        let reply = Message::HeartbeatReply { round: 0 };
        give(&mut raft, 2, term, reply.clone());
        give(&mut raft, 3, term, reply);
        if raft.role() == RoleName::Follower {
            return assert!(tick > 20, "it did not wait for the new half");
        }
    }
    panic!("it leads without the new half");
}
