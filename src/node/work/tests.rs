//! How reads are divided between a thread that has other tasks and the apply thread.

use std::io;

use bytes::Bytes;

use super::super::waiters::Reads;
use super::*;
use crate::machine::{At, Gate};

/// A machine whose answers weigh as much as the question is long, in bytes.
struct Echo;

impl StateMachine for Echo {
    type Reply = usize;
    type Snapshot = ();

    fn identity(&self) -> String {
        "echo".into()
    }

    fn gate(&self) -> Gate {
        std::sync::Arc::new(|_| Ok(()))
    }

    fn apply(&mut self, _: At, _: &Bytes) -> usize {
        0
    }

    fn query(&self, query: &Bytes) -> usize {
        query.len()
    }

    fn query_within(&self, query: &Bytes, room: usize) -> Option<usize> {
        (query.len() <= room).then_some(query.len())
    }

    fn weight(reply: &usize) -> usize {
        *reply
    }

    fn encode_reply(_: &usize, _: &mut Vec<u8>) {}

    fn snapshot(&self) {}

    fn write_snapshot((): &(), _: &mut dyn io::Write) -> io::Result<()> {
        Ok(())
    }

    fn restore(&self, _: &mut dyn io::Read) -> io::Result<Self> {
        Ok(Self)
    }

    fn digest(&self) -> u64 {
        0
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

const APPLY: Share = Share {
    log_bytes: 0,
    reply_bytes: 1000,
    large_from: 100,
    takes: Takes::All,
};

const IN_PASSING: Share = Share {
    reply_bytes: 250,
    takes: Takes::Short,
    ..APPLY
};

const DEADLINE: u64 = 10;

/// Reads with answers of these weights. The waiter of each is its place in the list.
fn reads(weights: &[usize]) -> Reads<usize> {
    let mut reads = Reads::new();
    for (place, weight) in weights.iter().enumerate() {
        let id = reads.fresh_id();
        reads.add(id, vec![0; *weight].into(), DEADLINE, place);
        reads.confirm(id, 7);
    }
    reads
}

/// The places of the reads that one share answers.
fn answered(reads: &mut Reads<usize>, share: Share) -> Vec<usize> {
    let mut answered = Vec::new();
    let mut ready = reads.take_ready(7, share);
    ready.answer(&Echo, &share, |place, _| answered.push(place));
    reads.give_back(ready);
    answered
}

#[test]
fn a_thread_that_others_wait_for_answers_small_reads_up_to_its_share_and_no_large_one() {
    let mut all = reads(&[90, 5000, 90, 90, 90, 5000, 90]);
    // The second read is large. What the machine gathered of it before it gave up counts too.
    assert_eq!(answered(&mut all, IN_PASSING), [0, 2]);
    assert_eq!(all.len(), 5);
    assert_eq!(answered(&mut all, IN_PASSING), [3, 4]);
    assert_eq!(answered(&mut all, IN_PASSING), [6]);
    assert!(answered(&mut all, IN_PASSING).is_empty());
    assert!(all.has_ready(7), "the large ones are the apply thread's");
    assert_eq!(answered(&mut all, APPLY), [1]);
    assert_eq!(answered(&mut all, APPLY), [5]);
    assert!(!all.has_ready(7) && all.len() == 0);
}

#[test]
fn small_and_large_reads_do_not_keep_each_other_waiting_for_ever() {
    let mut all = reads(&[[600; 8], [90; 8]].concat());
    // The first batch finds out which reads are large.
    assert_eq!(answered(&mut all, APPLY), [8, 9, 10]);
    // More small reads than a batch can answer do not keep it from a few large ones.
    for place in 100..200 {
        let id = all.fresh_id();
        all.add(id, vec![0; 90].into(), DEADLINE, place);
        all.confirm(id, 7);
    }
    let second = answered(&mut all, APPLY);
    assert!(second.ends_with(&[0, 1]) && second.len() > 10, "{second:?}");
    assert!(answered(&mut all, APPLY).ends_with(&[2, 3]));
}

#[test]
fn what_was_given_back_still_ends_at_its_deadline_or_with_the_node() {
    let mut all = reads(&[5000, 90, 90, 90, 90]);
    assert_eq!(answered(&mut all, IN_PASSING), [1, 2]);
    let mut late = all.expired(DEADLINE);
    late.sort_unstable();
    assert_eq!(late, [0, 3, 4]);
    assert!(!all.has_ready(7));

    let mut all = reads(&[5000, 90]);
    assert_eq!(answered(&mut all, IN_PASSING), [1]);
    assert_eq!(all.take_all().collect::<Vec<_>>(), [0]);
}
