use super::*;
use crate::raft::{Configuration, LoggedConfiguration, SnapshotMeta};

fn replicating(last: Index) -> Progress {
    let mut progress = Progress::new(None, last);
    progress.accepted(last);
    progress
}

#[test]
fn a_probe_asks_once_and_again_with_each_heartbeat() {
    let mut progress = Progress::new(None, 5);
    assert!(progress.may_ask());
    progress.asked();
    assert!(!progress.may_ask());
    assert!(progress.heartbeat_due());
}

#[test]
fn a_stale_rejection_moves_nothing() {
    let mut progress = replicating(5);
    progress.sent(8, 100);
    assert!(!progress.rejected(5, 3), "matched up to 5 already");
    assert!(!progress.rejected(9, 3), "never sent");
    assert!(
        !Progress::new(None, 5).rejected(Index::MAX, 3),
        "never asked"
    );
    assert_eq!((progress.matched(), progress.next()), (5, 9));
    assert!(progress.rejected(7, 3));
    assert_eq!((progress.matched(), progress.next()), (5, 6));
}

#[test]
fn a_rejection_goes_back_by_one_at_least() {
    let mut progress = Progress::new(None, 5);
    assert!(progress.rejected(5, 99));
    assert_eq!(progress.next(), 5);
}

#[test]
fn a_rejection_of_any_number_is_survived() {
    let mut progress = Progress::new(None, 5);
    assert!(!progress.rejected(u64::MAX, u64::MAX));
    assert!(!progress.rejected(0, 0), "an empty log rejects nothing");
    assert_eq!(progress.next(), 6);
}

#[test]
fn a_follower_that_denies_what_it_acknowledged_is_not_asked_again_at_once() {
    let mut progress = replicating(5);
    progress.sent(6, 10);
    assert!(progress.rejected(6, 1));
    progress.asked();
    assert!(!progress.rejected(5, 1));
    assert!(!progress.may_ask(), "not before the next heartbeat");
}

#[test]
fn what_is_on_its_way_is_bounded_and_acknowledged_in_order() {
    let mut progress = replicating(0);
    progress.sent(2, 60);
    assert!(progress.may_send(2, 100));
    progress.sent(4, 60);
    assert!(!progress.may_send(9, 100) && !progress.may_send(2, 1000));
    assert!(progress.accepted(2));
    assert!(progress.may_send(2, 100));
    assert!(!progress.accepted(2), "the same acknowledgement again");
}

#[test]
fn silence_between_two_heartbeats_leads_to_a_question_but_progress_does_not() {
    let mut progress = replicating(0);
    progress.sent(1, 10);
    assert!(!progress.heartbeat_due(), "just begun");
    assert!(progress.heartbeat_due(), "nothing moved since");
    progress.accepted(1);
    assert!(!progress.heartbeat_due());
}

#[test]
fn a_follower_behind_the_log_gets_a_snapshot_until_it_is_past_it() {
    let mut progress = replicating(3);
    assert!(!progress.needs_snapshot(3));
    assert!(progress.needs_snapshot(4));
    let last = EntryId { term: 1, index: 9 };
    let meta = SnapshotMeta {
        last,
        time_ms: 0,
        configuration: LoggedConfiguration::founding(Configuration::of_voters([1])),
    };
    progress.send_snapshot(StoredSnapshot { meta, bytes: 10 });
    assert!(!progress.needs_snapshot(4), "it is on its way");
    assert!(!progress.may_send(9, 100) && !progress.may_ask());
    progress.accepted(8);
    assert!(progress.sending().is_some(), "it has not all of it yet");
    progress.accepted(9);
    assert!(progress.sending().is_none() && progress.next() == 10);
}
