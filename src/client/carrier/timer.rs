//! A timer that ends a wait for events at an exact time. The wait's own timeout has a resolution of
//! a millisecond, which is too coarse for a benchmark that sends requests at fixed times.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer of Linux (`timerfd`), which wakes the poll of the Carrier like a socket.
pub(super) struct Timer {
    fd: OwnedFd,
    /// The time at which the timer will go off; `None` if it is not set or has gone off.
    armed: Option<Duration>,
}

impl Timer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Timer { fd, armed: None })
    }

    /// Sets the timer to go off at `until`, which is after `now` on the same clock. Setting it also
    /// clears its count of expirations, so the count need not be read.
    pub(super) fn arm(&mut self, now: Duration, until: Duration) -> io::Result<()> {
        if self.armed != Some(until) {
            let after = until.saturating_sub(now).max(Duration::from_nanos(1));
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let setting = Itimerspec {
                it_interval: zero,
                it_value: Timespec::try_from(after).unwrap_or(zero),
            };
            timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &setting)?;
            self.armed = Some(until);
        }
        Ok(())
    }

    pub(super) fn expired(&mut self) {
        self.armed = None;
    }
}
