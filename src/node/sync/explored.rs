//! Replaces the parts of `sync` under the schedule explorer `shuttle`: every lock, signal and wait
//! is a point at which another thread may go on, and the explorer tries one order of threads after
//! the other.
//!
//! Time stands still here. No wait ends because its time is up, so a thread that waits for a signal
//! which was lost waits for ever, and the explorer reports a deadlock. A test that wants time to
//! pass hands in ticks ([`Handle::tick`](crate::node::Handle::tick)).

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crossbeam::channel::RecvTimeoutError;
pub use shuttle::sync::atomic::{AtomicBool, AtomicU64};
pub use shuttle::thread;

/// Does nothing: the explorer decides which thread goes on.
pub fn yield_to_others() {}

/// The present moment, which is always the same.
pub fn now() -> Instant {
    static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);
    *NOW
}

/// Stands for `parking_lot::Mutex`.
#[derive(Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// The guard of a lock. The inner guard is absent only while its holder waits for a condition.
pub struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    /// A lock that guards `value`.
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard(Some(guard))
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard(Some(guard))),
            Err(TryLockError::Poisoned(error)) => Some(MutexGuard(Some(error.into_inner()))),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("its holder does not wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect("its holder does not wait")
    }
}

/// Stands for `parking_lot::Condvar`.
pub struct Condvar(shuttle::sync::Condvar);

/// Whether a wait ended because its time was up.
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the wait ended because its time was up; it never does.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition for which nobody waits.
    pub fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    /// Gives up the lock, waits to be notified, and takes the lock again.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("its holder does not wait");
        let held = self.0.wait(held).unwrap_or_else(PoisonError::into_inner);
        guard.0 = Some(held);
    }

    /// As [`wait`](Self::wait): the deadline never comes.
    pub fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult(false)
    }

    /// Wakes all threads that wait for the condition.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    /// Whether each side is still there.
    sender: bool,
    receiver: bool,
}

/// Stands for `crossbeam::channel::Sender`.
pub struct Sender<T>(Arc<Channel<T>>);

/// Stands for `crossbeam::channel::Receiver`.
pub struct Receiver<T>(Arc<Channel<T>>);

/// The error of a value that could not be sent.
#[derive(Debug)]
pub struct NotSent;

/// The error of a receiver whose sender has gone.
#[derive(Debug)]
pub struct Disconnected;

/// A channel with room for `capacity` values.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            capacity,
            sender: true,
            receiver: true,
        }),
        changed: Condvar::new(),
    });
    (Sender(channel.clone()), Receiver(channel))
}

/// Stands for `Nudger`: the sending end of a signal.
pub struct Nudger(Sender<()>);

/// Stands for `Nudged`: the receiving end of a signal.
pub struct Nudged(Receiver<()>);

/// A channel with room for one token: the two ends of a signal.
pub fn nudges() -> (Nudger, Nudged) {
    let (sender, receiver) = bounded(1);
    (Nudger(sender), Nudged(receiver))
}

impl Nudger {
    /// Puts the token in.
    pub fn nudge(&self) {
        let _ = self.0.try_send(());
    }
}

impl Nudged {
    /// Waits for the token and takes it.
    pub fn wait(&self) {
        let _ = self.0.recv();
    }

    /// As [`wait`](Self::wait), except that a wait with a timeout of zero ends at once.
    pub fn wait_for(&self, timeout: Duration) {
        let _ = self.0.recv_timeout(timeout);
    }
}

impl<T> Sender<T> {
    /// Sends a value if there is room.
    ///
    /// # Errors
    /// [`NotSent`] if there is no room, or the receiver has gone.
    pub fn try_send(&self, value: T) -> Result<(), NotSent> {
        let mut state = self.0.state.lock();
        if !state.receiver || state.queue.len() >= state.capacity {
            return Err(NotSent);
        }
        state.queue.push_back(value);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Waits for a value.
    ///
    /// # Errors
    /// [`Disconnected`] if there is no value and the sender has gone.
    pub fn recv(&self) -> Result<T, Disconnected> {
        self.recv_timeout(Duration::MAX).map_err(|_| Disconnected)
    }

    /// As [`recv`](Self::recv), except that a wait with a timeout of zero ends at once.
    ///
    /// # Errors
    /// As crossbeam's.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(value) = state.queue.pop_front() {
                return Ok(value);
            }
            if !state.sender {
                return Err(RecvTimeoutError::Disconnected);
            }
            if timeout.is_zero() {
                return Err(RecvTimeoutError::Timeout);
            }
            self.0.changed.wait(&mut state);
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().sender = false;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.receiver = false;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
    }
}
