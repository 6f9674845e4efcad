//! Counting time: turns the clock into ticks for the core.

use std::time::{Duration, Instant};

use super::NodeError;
use super::config::Timing;
use super::hub::Hub;
use super::sync::{self, Nudged};
use crate::machine::StateMachine;

/// Turns the time that has passed into ticks, and hands them to the replica.
pub struct Ticker {
    tick: Duration,
    /// The most ticks that are handed in at one time.
    most: u64,
    /// When the next tick is due.
    next: Instant,
    /// How many ticks there are between two looks whether a full disk has space again.
    look_every: u64,
    /// After how many ticks the next look is due.
    look_in: u64,
}

/// How often a node whose disk is full looks whether there is space again.
const LOOK_FOR_SPACE: Duration = Duration::from_millis(500);

impl Ticker {
    /// A ticker whose first tick is due one tick after `now`.
    pub fn new(timing: &Timing, now: Instant) -> Self {
        let tick = timing.tick.max(Duration::from_nanos(1));
        let looks = LOOK_FOR_SPACE.as_nanos() / tick.as_nanos();
        let look_every = u64::try_from(looks).unwrap_or(u64::MAX).max(1);
        let per_heartbeat = timing.heartbeat.as_nanos() / tick.as_nanos();
        Self {
            tick,
            most: u64::try_from(per_heartbeat).unwrap_or(u64::MAX).max(1),
            next: now + tick,
            look_every,
            look_in: look_every,
        }
    }

    /// Hands in the ticks that have become due by `now`. Returns when the next one is due.
    ///
    /// After a pause of the whole process (SIGSTOP, a suspended machine) at most as many ticks are
    /// handed in as make one heartbeat; the rest of the pause is ignored. Otherwise the election
    /// timeout would be over before the node has read the leader's messages that came meanwhile,
    /// and the node would depose a leader that is alive.
    pub fn step<S: StateMachine>(&mut self, hub: &Hub<S>, now: Instant) -> Instant {
        if now < self.next {
            return self.next;
        }
        let late = now.saturating_duration_since(self.next);
        let passed =
            1 + u64::try_from(late.as_nanos() / self.tick.as_nanos()).unwrap_or(u64::MAX - 1);
        let passed_ticks = u32::try_from(passed).unwrap_or(u32::MAX);
        self.next += self.tick.saturating_mul(passed_ticks);
        let ticks = passed.min(self.most);
        self.look_in = self.look_in.saturating_sub(ticks);
        if self.look_in == 0 {
            self.look_in = self.look_every;
            hub.files.look_for_space(hub);
        }
        let disk = hub.files.disk_state();
        hub.exchange(|replica| {
            for _ in 0..ticks {
                replica.note_disk(disk);
                replica.tick();
            }
        });
        self.next
    }

    /// The body of the ticker's thread: ticks until the node stops, of which
    /// [`Task::Tick`](super::signals::Task::Tick) tells it.
    pub(super) fn run<S: StateMachine>(
        mut self,
        hub: &Hub<S>,
        nudged: &Nudged,
    ) -> Result<(), NodeError> {
        while !hub.is_stopping() {
            let next = self.step(hub, sync::now());
            let wait = next.saturating_duration_since(sync::now());
            if !wait.is_zero() {
                nudged.wait_for(wait);
            }
        }
        Ok(())
    }
}
