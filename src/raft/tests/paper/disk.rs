//! "Updated on stable storage before responding": which messages wait for the disk, and for which
//! write.

use super::*;

#[test]
fn a_vote_leaves_once_it_is_durable() {
    let mut raft = follower(3, 1, &[]);
    give(&mut raft, 2, 2, vote(id(0, 0)));
    let write = take_write(&mut raft).expect("the vote");
    assert_eq!(said(&mut raft), []);
    raft.durable(write.id);
    assert_eq!(
        said(&mut raft),
        [(2, 2, Message::VoteReply { granted: true })]
    );
}

#[test]
fn an_acknowledgement_leaves_once_its_entries_are_durable() {
    let mut raft = follower(3, 1, &[]);
    give(&mut raft, 2, 1, append(id(0, 0), entries(1, &[1, 1]), 0));
    let first = take_write(&mut raft).expect("two entries");
    give(&mut raft, 2, 1, append(id(2, 1), entries(3, &[1]), 0));
    let second = take_write(&mut raft).expect("one more");
    assert_eq!(said(&mut raft), []);
    raft.durable(first.id);
    assert_eq!(said(&mut raft), [(2, 1, accepted(2))]);
    raft.durable(second.id);
    assert_eq!(said(&mut raft), [(2, 1, accepted(3))]);
}

#[test]
fn what_is_queued_goes_into_one_write_and_one_acknowledgement() {
    let mut raft = follower(3, 1, &[]);
    for index in 1..=3 {
        let prev = id(index - 1, u64::from(index > 1));
        give(&mut raft, 2, 1, append(prev, entries(index, &[1]), 0));
    }
    let writes = sync(&mut raft);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].entries, entries(1, &[1, 1, 1]));
    assert_eq!(said(&mut raft), [(2, 1, accepted(3))]);
}

#[test]
fn an_acknowledgement_of_a_passed_term_never_leaves() {
    let mut raft = follower(3, 1, &[]);
    give(&mut raft, 2, 1, append(id(0, 0), entries(1, &[1]), 0));
    let write = take_write(&mut raft).expect("an entry");
    give(&mut raft, 3, 2, Message::Outdated);
    raft.durable(write.id);
    sync(&mut raft);
    assert_eq!(said(&mut raft), []);
}

/// A-B-A: an entry is replaced and comes back, with the same term and index, before its first write
/// returns. A second write has put another entry there in between. Each term goes into a write of
/// its own, so the acknowledgement waits for the entry alone.
#[test]
fn a_write_that_was_overtaken_does_not_count_even_if_the_same_entry_comes_back() {
    let mut raft = follower(3, 1, &[]);
    let mut taken = Vec::new();
    // No correct leader of term 3 has 1@1 where that of term 2 had 1@2, but a log that is cut back
    // must not rely on it.
    for (leader, term, entry_term) in [(2, 1, 1), (3, 2, 2), (2, 3, 1)] {
        give(&mut raft, leader, term, append(id(0, 0), vec![], 0));
        taken.extend(take_write(&mut raft));
        give(
            &mut raft,
            leader,
            term,
            append(id(0, 0), entries(1, &[entry_term]), 0),
        );
        taken.extend(take_write(&mut raft));
    }
    let (again, earlier) = taken.split_last().expect("five writes");
    assert_eq!(earlier.len(), 4);
    for write in earlier {
        raft.durable(write.id);
        let said = said(&mut raft);
        let acknowledged = said
            .iter()
            .any(|(_, term, m)| (*term, m) == (3, &accepted(1)));
        assert!(!acknowledged, "1@1 is not on disk after write {}", write.id);
    }
    raft.durable(again.id);
    assert_eq!(said(&mut raft), [(2, 3, accepted(1))]);
}

#[test]
fn a_leaders_own_write_that_was_overtaken_does_not_count_when_it_leads_again() {
    let mut raft = leader(3, 2, &[]);
    let old = take_write(&mut raft).expect("1@2");
    said(&mut raft);
    give(&mut raft, 2, 3, append(id(0, 0), entries(1, &[3, 3]), 0));
    raft.durable(old.id);
    assert_eq!(said(&mut raft), [], "the new entries are not on disk");
    sync(&mut raft);
    assert_eq!(said(&mut raft), [(2, 3, accepted(2))]);
}

#[test]
fn a_leaders_own_copy_counts_once_it_is_durable() {
    let mut raft = leader(3, 1, &[]);
    said(&mut raft);
    let write = take_write(&mut raft).expect("the empty entry");
    assert_eq!(raft.commit(), 0);
    raft.durable(write.id);
    assert_eq!(raft.commit(), 0, "one of three");
    give(&mut raft, 2, 1, accepted(1));
    assert_eq!(raft.commit(), 1);
}

#[test]
fn two_others_commit_what_the_leaders_slow_disk_does_not_have_yet() {
    let mut raft = leader(3, 1, &[]);
    give(&mut raft, 2, 1, accepted(1));
    assert_eq!(raft.commit(), 0);
    give(&mut raft, 3, 1, accepted(1));
    assert_eq!(raft.commit(), 1);
}

#[test]
fn a_lone_node_neither_leads_nor_commits_before_its_disk_says_so() {
    let mut raft = follower(1, 0, &[]);
    time_out(&mut raft);
    assert_eq!(raft.role(), RoleName::Candidate);
    sync(&mut raft);
    assert_eq!(raft.role(), RoleName::Leader);
    raft.propose("a".into()).expect("accepted");
    let write = take_write(&mut raft).expect("two entries");
    assert_eq!((raft.commit(), take_entries(&mut raft, 99)), (0, vec![]));
    raft.durable(write.id);
    assert_eq!(raft.commit(), 2);
}

#[test]
fn entries_leave_the_leader_before_they_are_on_its_own_disk() {
    let mut raft = leader(3, 1, &[]);
    said(&mut raft);
    give(&mut raft, 2, 1, accepted(0));
    let sent = said(&mut raft);
    assert!(raft.output(Room::NOTHING).left.write);
    assert!(matches!(&sent[..], [(2, 1, Message::Append { entries, .. })] if entries.len() == 1));
}

#[test]
fn a_slow_disk_does_not_look_like_a_dead_leader() {
    let mut raft = follower(3, 1, &[]);
    give(&mut raft, 2, 1, append(id(0, 0), entries(1, &[1]), 0));
    let write = take_write(&mut raft).expect("an entry");
    (0..24).for_each(|_| raft.tick());
    raft.durable(write.id);
    (0..24).for_each(|_| raft.tick());
    assert_eq!(raft.role(), RoleName::Follower);
}

#[test]
fn an_election_waits_for_the_candidates_own_disk_however_slow() {
    for size in [1, 3] {
        let mut raft = follower(size, 4, &[]);
        time_out(&mut raft);
        for voter in 2..=size {
            let (next_term, granted) = (5, true);
            give(
                &mut raft,
                voter,
                4,
                Message::PreVoteReply { next_term, granted },
            );
        }
        let write = take_write(&mut raft).expect("its own vote");
        (0..500).for_each(|_| raft.tick());
        raft.durable(write.id);
        for voter in 2..=size {
            give(&mut raft, voter, 5, Message::VoteReply { granted: true });
        }
        assert_eq!((raft.role(), raft.term()), (RoleName::Leader, 5));
    }
}

#[test]
fn a_flood_of_the_same_request_while_the_disk_is_slow_is_answered_once() {
    let mut raft = follower(3, 1, &[]);
    for round in 1..=1000 {
        give(&mut raft, 2, 2, append(id(0, 0), entries(1, &[1]), 0));
        give(
            &mut raft,
            2,
            2,
            Message::Heartbeat {
                commit: 0,
                matched_by_all: 0,
                round,
            },
        );
    }
    sync(&mut raft);
    let heartbeat = Message::HeartbeatReply { round: 1000 };
    assert_eq!(said(&mut raft), [(2, 2, accepted(1)), (2, 2, heartbeat)]);
}

#[test]
#[should_panic(expected = "the log would get a hole")]
fn what_is_no_log_does_not_come_up() {
    let found = vec![entry(1, 1), entry(1, 1), entry(3, 1)];
    let hard_state = HardState {
        term: 1,
        vote: None,
    };
    let config = Config::new(1, Configuration::of_voters([1]), 7);
    Raft::new(config, hard_state, found);
}

#[test]
#[should_panic(expected = "a term that the node does not know")]
fn a_log_ahead_of_the_term_does_not_come_up() {
    follower(3, 1, &[2]);
}
