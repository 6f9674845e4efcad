//! The apply thread of a node: executes what is committed, installs what was received, answers.

use super::Failure;
use super::carrying::encode;
use super::node::{Step, Waiter};
use super::trace::trace;
use super::world::World;
use raftkv::machine::StateMachine;
use raftkv::node::{Share, Takes, Work};
use raftkv::raft::SnapshotMeta;
use raftkv::wire::client::Answer;

/// How much the apply thread takes on at a time: less than in production, so that it
/// happens that a batch ends in the middle.
const SHARE: Share = Share {
    log_bytes: 1 << 10,
    takes: Takes::All,
};

/// What the apply thread has to do, and then what it has executed and not yet answered.
pub(super) enum Applying {
    Install(Work<Waiter>),
    Answer(Vec<(Waiter, Answer)>),
}

impl World {
    /// The apply thread takes on work; see `node::apply`.
    pub(super) fn apply(&mut self, n: usize) -> Result<(), Failure> {
        let running = self.running(n);
        running.apply_woken = false;
        let work = running.replica.take_work(SHARE);
        let mut took = 5 + self.random.exponential(100);
        match work.install {
            None => self.execute(n, work)?,
            Some(ref meta) => {
                self.running(n).files.pin(meta.last);
                // To read a snapshot takes its time.
                took += self.disk_time(n);
                self.running(n).applying = Some(Applying::Install(work));
            }
        }
        self.later(n, took, Step::Applied);
        // Taking work may have ended requests whose entry was replaced.
        self.consequences(n)
    }

    fn install(&mut self, n: usize, meta: &SnapshotMeta) -> Result<(), Failure> {
        let running = self.running(n);
        let before = running.executor.last();
        let installed = (running.executor).install(&mut running.machine, &running.files, meta);
        running.files.unpin();
        trace!(self, "node {} installs {}", n + 1, meta.last);
        if let Err(error) = installed {
            let sentence = format!("node {}: {error}", n + 1);
            return Err(Failure::new("a snapshot can be installed", sentence));
        }
        if meta.last.index <= before.index {
            let sentence = format!("node {} goes from {before} to {}", n + 1, meta.last);
            return Err(Failure::new("no install goes back", sentence));
        }
        self.stats.installs += 1;
        let running = self.nodes[n].running.as_ref().expect("it runs");
        self.checks.snapshot(n, meta.last, &running.machine)
    }

    fn execute(&mut self, n: usize, work: Work<Waiter>) -> Result<(), Failure> {
        let mut replies = Vec::new();
        for (entry, waiter) in work.entries {
            let running = self.nodes[n].running.as_mut().expect("it runs");
            let reply = running.executor.execute(&mut running.machine, &entry);
            replies.extend(waiter.zip(reply.as_ref().map(encode)));
            self.checks.state(n, entry.id.index, &running.machine)?;
        }
        for (query, waiter) in work.reads {
            let reply = self.running(n).machine.query(&query);
            replies.push((waiter, encode(&reply)));
        }
        self.running(n).applying = Some(Applying::Answer(replies));
        Ok(())
    }

    pub(super) fn applied(&mut self, n: usize) -> Result<(), Failure> {
        let applying = self.running(n).applying.take();
        let replies = match applying.expect("the apply thread is at work") {
            Applying::Answer(replies) => replies,
            Applying::Install(work) => {
                if let Some(meta) = &work.install {
                    self.install(n, meta)?;
                }
                self.execute(n, work)?;
                let took = 5 + self.random.exponential(100);
                self.later(n, took, Step::Applied);
                return Ok(());
            }
        };
        for (waiter, answer) in replies {
            self.carry_answer(n, waiter, Ok(answer));
        }
        let running = self.running(n);
        let due = running.executor.report(&mut running.replica);
        self.consequences(n)?;
        if let Some(meta) = due {
            self.begin_taking(n, meta);
        }
        Ok(())
    }
}
