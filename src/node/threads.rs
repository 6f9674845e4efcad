//! The threads of a node. None of them decides anything: they carry.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::replica::Replica;
use super::scheduling::Worker;
use super::shared::Shared;
use super::stages::Written;
use super::sync::thread::{self, JoinHandle, ThreadId};
use super::sync::{self, Mutex, Nudged};
use super::{NodeError, StartError};
use crate::machine::StateMachine;
use crate::storage::Storage;

/// Starts a named thread that stops the node when it ends for any other reason than being told.
pub(super) fn spawn<S: StateMachine>(
    name: &'static str,
    shared: &Arc<Shared<S>>,
    run: impl FnOnce(&Arc<Shared<S>>) -> Result<(), NodeError> + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let shared = shared.clone();
    let body = move || {
        let _guard = StopOnPanic(&shared, name);
        if let Err(error) = run(&shared) {
            shared.stop(Some(error));
        }
    };
    let thread = thread::Builder::new().name(name.to_string());
    thread.spawn(body).map_err(StartError::Thread)
}

struct StopOnPanic<'a, S: StateMachine>(&'a Arc<Shared<S>>, &'static str);

impl<S: StateMachine> Drop for StopOnPanic<'_, S> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(Some(NodeError::Panicked(self.1)));
        }
    }
}

/// Counts time. It is nudged when the node stops.
pub(super) fn ticker<S: StateMachine>(
    shared: &Shared<S>,
    nudged: &Nudged,
) -> Result<(), NodeError> {
    let timing = shared.config.timing;
    // After a pause (SIGSTOP, a suspended machine) most of the time that has passed is ignored:
    // the messages that came meanwhile are still to be read, and must not find a candidate.
    let most = (timing.heartbeat.as_nanos() / timing.tick.as_nanos().max(1)).max(1) as u32;
    let mut next = sync::now() + timing.tick;
    while !shared.is_stopping() {
        let wait = next.saturating_duration_since(sync::now());
        if !wait.is_zero() {
            nudged.wait_for(wait);
            continue;
        }
        let late = sync::now().saturating_duration_since(next);
        let passed = 1 + (late.as_nanos() / timing.tick.as_nanos().max(1)) as u64;
        next += timing
            .tick
            .saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
        let ticks = passed.min(u64::from(most));
        shared.exchange(|replica| (0..ticks).for_each(|_| replica.tick()));
    }
    Ok(())
}

/// Writes the log, and sends what may leave. Whatever gathers while one write is under way goes
/// into the next: group commit.
pub(super) fn replicator<S: StateMachine>(
    shared: &Arc<Shared<S>>,
    nudged: &Nudged,
    mut storage: Storage,
) -> Result<(), NodeError> {
    let mut worker = Worker::new();
    loop {
        nudged.wait();
        if shared.is_stopping() {
            return Ok(());
        }
        look_after_log(shared, &mut storage);
        // Sent before it is written: the leader's followers write at the same time as it does
        // (thesis 10.2.1).
        let take = |replica: &mut Replica<_>| {
            let write = replica.take_write()?;
            Some((write, shared.stages.taken()))
        };
        let mut next = shared.exchange(take);
        while let Some((write, put_in)) = next {
            worker.look(&shared.scheduling);
            let (began, mut written) = (sync::now(), None);
            storage
                .write_and_tell(&write, || written = Some(sync::now()))
                .map_err(NodeError::Storage)?;
            let durable = sync::now();
            if shared.spares.are_wanted() {
                shared.want_spare();
            }
            let put = |replica: &mut Replica<_>| {
                replica.durable(write.id);
                take(replica)
            };
            next = shared.exchange_and_execute(durable, put, Option::is_none);
            if let Some(written) = written {
                shared.stages.wrote(&Written {
                    put_in,
                    began,
                    written,
                    durable,
                });
            }
            look_after_log(shared, &mut storage);
        }
    }
}

/// Lets go of what the log does not need any more, and notes its size for the status. After each
/// write, not only when none waits: clients that take turns may leave no such moment for hours,
/// and meanwhile the log would fill the disk.
fn look_after_log<S: StateMachine>(shared: &Shared<S>, storage: &mut Storage) {
    let cut_to = shared.cut_to.swap(0, Ordering::SeqCst);
    if cut_to > 0 {
        shared.leave_to_courier(storage.let_go(cut_to));
    }
    let bytes = storage.log_bytes();
    shared.log_bytes.store(bytes, Ordering::Relaxed);
}

/// The threads of a node that are to be waited for.
#[derive(Default)]
pub(super) struct Threads {
    ids: Vec<ThreadId>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts one more thread; see [`spawn`].
    pub fn start<S: StateMachine>(
        &mut self,
        name: &'static str,
        shared: &Arc<Shared<S>>,
        run: impl FnOnce(&Arc<Shared<S>>) -> Result<(), NodeError> + Send + 'static,
    ) -> Result<(), StartError> {
        let thread = spawn(name, shared, run)?;
        self.ids.push(thread.thread().id());
        self.running.lock().push(thread);
        Ok(())
    }

    /// Waits until all have ended, whoever else waits for them too. A thread of the node's own does
    /// not wait: the others may be waiting for it.
    pub fn join(&self) {
        if self.ids.contains(&thread::current().id()) {
            return;
        }
        for thread in self.running.lock().drain(..) {
            // A panic has been reported by its guard.
            let _ = thread.join();
        }
    }
}
