//! Where the time goes: how long each stage of the way of commands through this node has taken in
//! the last 10 to 20 seconds ([`recent`]). `docs/performance.md` says how they add up.
//!
//! | stage | from | to |
//! | --- | --- | --- |
//! | `queue` | the oldest input of a batch is put in | the replicator begins to write the batch |
//! | `write` | the replicator begins to write the batch | the record is with the operating system |
//! | `sync` | the record is with the operating system | the record is on the disk |
//! | `round` | a leader sends entries to a follower | the follower says that they are on its disk |
//! | `heartbeat` | a leader sends a heartbeat, as a round of reads does | the follower's answer |
//! | `apply` | a thread begins to execute a batch | its last reply is encoded |
//! | `reply` | the last reply of a batch is encoded | all replies are with the operating system |
//!
//! A time is taken once for each write, message or run of execution, however many commands share
//! it: so these are times of batches.
//!
//! Three locks protect the times: one for the replicator's stages, one for the rounds, one for the
//! stages of execution. Each is held for some ten nanoseconds to note a time. Only a status takes
//! them from another thread, for as long as it takes to copy 24 KiB. No other lock is taken under
//! them.

mod recent;
mod rounds;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(super) use rounds::Acknowledged;

use super::sync::{self, AtomicU64, Mutex};
use crate::raft::Envelope;
use crate::wire::client::Stage;
use recent::Recent;
use rounds::Rounds;

/// How long each stage of the node has taken lately.
pub(super) struct Stages {
    started: Instant,
    /// When the oldest input came that awaits the disk and that the replicator has not taken yet,
    /// in nanoseconds since the start; [`NONE`] without one. Written under the replica's lock.
    waits_since: AtomicU64,
    /// When the oldest of the inputs came that the replicator took last, in nanoseconds since the
    /// start; [`NONE`] without one.
    taken_since: AtomicU64,
    writing: Mutex<Writing>,
    rounds: Mutex<Rounds>,
    execution: Mutex<Execution>,
}

const NONE: u64 = u64::MAX;

/// The stages that the replicator measures.
struct Writing {
    queue: Recent,
    write: Recent,
    sync: Recent,
}

/// The stages that the thread measures which holds the state machine's lock.
struct Execution {
    apply: Recent,
    reply: Recent,
}

/// The moments of one write of the log.
pub(super) struct Written {
    /// The oldest input of the write was put into the replica.
    pub put_in: Option<Instant>,
    /// The replicator began to write the record.
    pub began: Instant,
    /// The operating system had the whole record.
    pub written: Instant,
    /// The record was on the disk.
    pub durable: Instant,
}

impl Stages {
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            waits_since: AtomicU64::new(NONE),
            taken_since: AtomicU64::new(NONE),
            writing: Mutex::new(Writing {
                queue: Recent::new(now),
                write: Recent::new(now),
                sync: Recent::new(now),
            }),
            rounds: Mutex::new(Rounds::new(now)),
            execution: Mutex::new(Execution {
                apply: Recent::new(now),
                reply: Recent::new(now),
            }),
        }
    }

    /// An input that has to be written came at the moment `at`. Called under the replica's lock, as
    /// [`taken`](Self::taken) is. Without the lock, the moment of an input could be noted after the
    /// input was taken, and would count for the next write, which may come much later.
    pub fn put_in(&self, at: Instant) {
        if self.waits_since.load(Ordering::Relaxed) == NONE {
            let ns = at.saturating_duration_since(self.started).as_nanos();
            self.waits_since.store(ns as u64, Ordering::Relaxed);
        }
    }

    /// The replicator takes all inputs that have to be written. Called under the replica's lock.
    pub fn taken(&self) {
        let since = self.waits_since.swap(NONE, Ordering::Relaxed);
        self.taken_since.store(since, Ordering::Relaxed);
    }

    /// The moment at which the oldest input of the write under way came.
    pub fn oldest_input(&self) -> Option<Instant> {
        match self.taken_since.load(Ordering::Relaxed) {
            NONE => None,
            ns => Some(self.started + Duration::from_nanos(ns)),
        }
    }

    /// A write of the log is durable: notes the times of its stages.
    pub fn wrote(&self, write: &Written) {
        let mut writing = self.writing.lock();
        if let Some(put_in) = write.put_in {
            writing.queue.note(put_in, write.began);
        }
        writing.write.note(write.began, write.written);
        writing.sync.note(write.written, write.durable);
    }

    /// Notes when these messages leave, if they are to be timed: they are about to be sent.
    pub fn sending(&self, messages: &[Envelope]) {
        if rounds::has_question(messages) {
            let now = sync::now();
            self.rounds.lock().sent(messages, now);
        }
    }

    /// Notes that these acknowledgements have arrived at the moment `at`.
    pub fn acknowledged(&self, all: &[Acknowledged], at: Instant) {
        if all.is_empty() {
            return;
        }
        let mut rounds = self.rounds.lock();
        for one in all {
            rounds.acknowledged(one, at);
        }
    }

    /// Notes the times of a batch that was executed, by three moments: it began, it was executed,
    /// and, if there were replies to send, the operating system had them.
    pub fn executed(&self, began: Instant, executed: Instant, replied: Option<Instant>) {
        let mut execution = self.execution.lock();
        execution.apply.note(began, executed);
        if let Some(replied) = replied {
            execution.reply.note(executed, replied);
        }
    }

    /// The times of all stages lately, in the order in which a command passes the stages.
    pub fn lately(&self) -> Vec<Stage> {
        let now = sync::now();
        // Each lock is taken for one copy only, and the copies are summed up without a lock, so
        // that the busy threads wait for no more than a copy.
        let queue = self.writing.lock().queue.copy(now);
        let write = self.writing.lock().write.copy(now);
        let sync = self.writing.lock().sync.copy(now);
        let round = self.rounds.lock().appends.copy(now);
        let heartbeat = self.rounds.lock().heartbeats.copy(now);
        let apply = self.execution.lock().apply.copy(now);
        let reply = self.execution.lock().reply.copy(now);
        let all = [
            ("queue", queue),
            ("write", write),
            ("sync", sync),
            ("round", round),
            ("heartbeat", heartbeat),
            ("apply", apply),
            ("reply", reply),
        ];
        let summed = all.map(|(name, times)| recent::sum_up(name, times));
        summed.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_since_its_oldest_input_and_the_next_one_since_its_own() {
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let stages = Stages::new(start);
        let taken = || {
            stages.taken();
            stages.oldest_input()
        };
        assert_eq!(taken(), None);
        stages.put_in(second(1));
        stages.put_in(second(2));
        assert_eq!(taken(), Some(second(1)));
        assert_eq!(taken(), None);
        stages.put_in(second(3));
        assert_eq!(stages.oldest_input(), None, "of the write before");
        assert_eq!(taken(), Some(second(3)));
    }

    #[test]
    fn the_parts_of_a_write_are_told_apart_and_what_has_no_reply_counts_none() {
        let start = Instant::now();
        let us = |n| start + Duration::from_micros(n);
        let stages = Stages::new(start);
        stages.wrote(&Written {
            put_in: Some(us(0)),
            began: us(10),
            written: us(30),
            durable: us(130),
        });
        stages.executed(us(140), us(145), None);
        let rounded = |stage: Stage| (stage.name, stage.count, stage.max_ns / 1000);
        let shown: Vec<_> = stages.lately().into_iter().map(rounded).collect();
        let expected = [
            ("queue", 1, 10),
            ("write", 1, 20),
            ("sync", 1, 100),
            ("round", 0, 0),
            ("heartbeat", 0, 0),
            ("apply", 1, 5),
            ("reply", 0, 0),
        ];
        let expected = expected.map(|(name, count, us)| (name.to_string(), count, us));
        assert_eq!(shown, expected);
    }
}
