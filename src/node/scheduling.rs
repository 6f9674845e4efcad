//! The scheduling policy of a node's busy threads, `rpc` and `replicator`.
//!
//! A thread that wakes another thread mostly has more to do: to send the message to the second
//! follower, to write the reply to the next client. By default the system preempts the waking
//! thread in favour of the woken one, and what would be one batch falls apart into many small ones.
//! So the busy threads are batch threads (`SCHED_BATCH`, see sched(7)): a batch thread that is
//! woken waits until a processor is free.
//!
//! This helps where the busy threads share processors with each other. Where a processor is free it
//! changes nothing: the woken thread runs there at once. It does harm beside another program that
//! computes without end: a batch thread would wait for the end of that program's time slice at each
//! step of each request. So each busy thread measures how long it waits for a processor. If the
//! wait is too long, all busy threads of the node go back to the default policy for a while.

use std::time::{Duration, Instant};

use super::sync::{self, Mutex};

/// How often a thread measures its wait.
const INTERVAL: Duration = Duration::from_millis(200);
/// A wait is judged only if the thread got a processor at least this many times in the interval.
const FEWEST_TURNS: u64 = 8;
/// The longest average wait for a processor that is accepted. As measured: nodes that share
/// processors with each other wait a tenth of this; beside a program that computes without end, a
/// thread waits twice as long as this each time.
const PATIENCE: Duration = Duration::from_millis(1);
/// For how long the threads keep the default policy after a wait that was too long: the first time,
/// and at the most. Each pause is twice as long as the last one, unless the last one ended longer
/// than [`LONGEST_PAUSE`] ago; then it is the first length again.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What the busy threads of a node share: the time for which they keep the default policy.
#[derive(Default)]
pub(super) struct Scheduling(Mutex<Pauses>);

#[derive(Debug, Default)]
struct Pauses {
    last: Duration,
    /// When the last pause ends or has ended; `None` before the first one.
    until: Option<Instant>,
}

impl Pauses {
    /// A thread has waited too long for a processor: begins a pause, unless one is under way.
    fn pause(&mut self, now: Instant) {
        if self.are_on(now) {
            return;
        }
        let went_well = self.until.is_some_and(|end| now - end > LONGEST_PAUSE);
        self.last = match self.last.is_zero() || went_well {
            true => FIRST_PAUSE,
            false => (self.last * 2).min(LONGEST_PAUSE),
        };
        self.until = Some(now + self.last);
    }

    fn are_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|end| now < end)
    }
}

/// How long a thread has waited for processors, and how many times it got one.
#[derive(Clone, Copy, Debug)]
struct Turns {
    waited: Duration,
    count: u64,
}

impl Turns {
    /// Whether the average wait for a processor was too long between `before` and now.
    fn were_late(&self, before: &Self) -> bool {
        let count = self.count.saturating_sub(before.count);
        let waited = self.waited.saturating_sub(before.waited);
        count >= FEWEST_TURNS && waited.as_nanos() > PATIENCE.as_nanos() * u128::from(count)
    }
}

/// One busy thread: its policy, and what it had waited when it was last measured.
pub(super) struct Worker {
    looked: Option<Instant>,
    before: Option<Turns>,
    is_batch: bool,
    /// Set if the policy cannot be changed, or must not be: nothing is tried any more.
    is_fixed: bool,
}

impl Worker {
    /// A worker for the calling thread, with the policy that the thread has now.
    pub fn new() -> Self {
        Self {
            looked: None,
            before: None,
            is_batch: false,
            is_fixed: !system::takes_part(),
        }
    }

    /// Measures the calling thread's wait, if an interval has passed, and sets its policy. The
    /// thread calls this each time before it works.
    pub fn look(&mut self, scheduling: &Scheduling) {
        if self.is_fixed {
            return;
        }
        let now = sync::now();
        let is_early = |looked: Instant| now - looked < INTERVAL;
        if self.looked.is_some_and(is_early) {
            return;
        }
        self.looked = Some(now);
        let Some(turns) = system::turns() else {
            // The wait cannot be measured, so harm would not be noticed: the thread gets the
            // default policy.
            self.is_fixed = !self.become_batch(false);
            return;
        };
        let was_late = self.is_batch && self.before.is_some_and(|before| turns.were_late(&before));
        self.before = Some(turns);
        let mut pauses = scheduling.0.lock();
        if was_late {
            pauses.pause(now);
        }
        let are_batch = !pauses.are_on(now);
        drop(pauses);
        self.is_fixed = !self.become_batch(are_batch);
    }

    /// Sets the policy of the calling thread. Returns false if the system refuses.
    fn become_batch(&mut self, batch: bool) -> bool {
        let change = self.is_batch != batch;
        self.is_batch = batch;
        !change || system::set_batch(batch)
    }
}

#[cfg(all(target_os = "linux", not(feature = "shuttle")))]
mod system {
    use std::fs;
    use std::time::Duration;

    use thread_priority::unix::{set_thread_priority_and_policy, thread_native_id};
    use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

    use super::Turns;

    /// The niceness that a process has unless somebody has set another one.
    const USUAL_NICENESS: i32 = 0;
    /// The same niceness in the crate's scale, from 0 for 19 to 99 for -20. A test checks that the
    /// niceness stays as it was.
    const USUAL_PRIORITY: u8 = 47;

    /// Whether the policy may be changed. It may not if somebody has set the niceness of the
    /// process: the crate can only set policy and niceness together, and would undo the setting.
    pub fn takes_part() -> bool {
        rustix::process::getpriority_process(None) == Ok(USUAL_NICENESS)
    }

    /// What the kernel has counted for the calling thread: `/proc/PID/schedstat` in proc(5) holds
    /// the time on a processor and the time of waiting for one, both in nanoseconds, and how many
    /// times the thread got a processor.
    pub fn turns() -> Option<Turns> {
        let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let _worked = numbers.next()?.ok()?;
        let waited = Duration::from_nanos(numbers.next()?.ok()?);
        let count = numbers.next()?.ok()?;
        Some(Turns { waited, count })
    }

    /// Whether the system lets this process change the policy of its threads.
    pub fn set_batch(batch: bool) -> bool {
        let policy = match batch {
            true => NormalThreadSchedulePolicy::Batch,
            false => NormalThreadSchedulePolicy::Other,
        };
        let Ok(usual) = USUAL_PRIORITY.try_into() else {
            return false;
        };
        set_thread_priority_and_policy(
            thread_native_id(),
            ThreadPriority::Crossplatform(usual),
            ThreadSchedulePolicy::Normal(policy),
        )
        .is_ok()
    }
}

#[cfg(not(all(target_os = "linux", not(feature = "shuttle"))))]
mod system {
    use super::Turns;

    pub fn takes_part() -> bool {
        false
    }

    pub fn turns() -> Option<Turns> {
        None
    }

    pub fn set_batch(_: bool) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(waited_us: u64, count: u64) -> Turns {
        let waited = Duration::from_micros(waited_us);
        Turns { waited, count }
    }

    #[test]
    fn a_wait_is_judged_by_the_turn_and_only_by_many_of_them() {
        let before = turns(5000, 100);
        assert!(!turns(5000 + 20_000, 120).were_late(&before));
        assert!(turns(5000 + 20_001, 120).were_late(&before));
        assert!(!turns(5000 + 20_000, 107).were_late(&before));
    }

    #[test]
    fn pauses_grow_until_it_goes_well_for_long() {
        let mut pauses = Pauses::default();
        let mut now = sync::now();
        assert!(!pauses.are_on(now));
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600] {
            pauses.pause(now);
            // A second thread also reports a wait that was too long: the pause stays as it is.
            pauses.pause(now);
            assert!(pauses.are_on(now + Duration::from_secs(seconds) - INTERVAL));
            now += Duration::from_secs(seconds);
            assert!(!pauses.are_on(now));
        }
        now += LONGEST_PAUSE + INTERVAL;
        pauses.pause(now);
        assert!(!pauses.are_on(now + FIRST_PAUSE));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_worker_is_a_batch_thread_unless_there_is_a_pause() {
        use thread_priority::unix::thread_schedule_policy;
        use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy};

        let policy = || thread_schedule_policy().unwrap();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let scheduling = Scheduling::default();
        let mut worker = Worker::new();
        worker.look(&scheduling);
        // Where this test itself runs with another niceness, the policy is not changed.
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        assert_eq!(policy() == batch, before == 0);
        scheduling.0.lock().pause(sync::now());
        worker.looked = None;
        worker.look(&scheduling);
        assert_ne!(policy(), batch);
        assert_eq!(niceness(), before);
    }
}
