//! The sending half of a connection, which every thread may use.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use parking_lot::Mutex;
use serde::Serialize;

use crate::wire::frame;

/// If so many bytes wait, they are written before the end of the batch: the receiver can work on
/// them, and the buffer does not grow without need.
const EAGER: usize = 256 << 10;

/// How an outlet is bounded.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// With this many bytes waiting, nothing more is taken in.
    pub(super) queue: usize,
    /// What happens to a value that comes when the queue is full.
    pub(super) when_full: WhenFull,
    /// How much memory an empty buffer may keep, in bytes.
    pub(super) keep: usize,
}

/// What happens to a value that comes when the queue is full.
#[derive(Clone, Debug)]
pub(super) enum WhenFull {
    /// It is dropped, as if the network had lost it. If the socket has taken nothing for this long,
    /// the connection is broken off.
    Drop(Duration),
    /// The connection is broken off.
    BreakOff,
}

/// A bounded buffer in front of a socket. It is closed while there is no socket: before it is
/// opened, and after it was closed or broke. Then all that is sent is dropped.
pub(super) struct Outlet {
    bounds: Bounds,
    state: Mutex<State>,
    /// The bytes that wait, readable without the lock.
    queued: AtomicUsize,
}

#[derive(Default)]
struct State {
    socket: Option<Arc<TcpStream>>,
    buffer: Vec<u8>,
    /// The kernel has `buffer[..sent]`.
    sent: usize,
    /// Since when the kernel has no room for more bytes. Until the loop clears this, when the
    /// kernel reports room, a write would be a wasted system call.
    blocked: Option<Instant>,
    /// Nothing follows what waits: the sending half of the socket is closed behind it.
    finishing: bool,
    /// Why the connection was broken off from this side.
    broken: Option<String>,
}

impl Outlet {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: Mutex::default(),
            queued: AtomicUsize::new(0),
        }
    }

    /// Starts to send on `socket`, `prelude` first.
    pub(super) fn open(&self, socket: Arc<TcpStream>, prelude: Vec<u8>) {
        self.with(|state, bounds| {
            *state = State {
                socket: Some(socket),
                buffer: prelude,
                ..State::default()
            };
            state.write(bounds);
        });
    }

    /// Drops the socket and the waiting bytes. Returns why the connection was broken off from this
    /// side, if it was.
    pub(super) fn close(&self) -> Option<String> {
        self.with(|state, _| std::mem::take(state).broken)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().socket.is_some()
    }

    /// How many bytes wait.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::SeqCst)
    }

    /// Appends one value to the buffer. Nothing is written, unless [`EAGER`] bytes wait.
    pub(super) fn queue<T: Serialize>(&self, value: &T) {
        self.with(|state, bounds| {
            state.push(value, bounds);
            if state.waiting() >= EAGER {
                state.write_unless_blocked(bounds);
            }
        });
    }

    /// Sends all the values with as few writes as possible.
    pub(super) fn send<'a, T: Serialize + 'a>(&self, values: impl IntoIterator<Item = &'a T>) {
        self.with(|state, bounds| {
            for value in values {
                state.push(value, bounds);
            }
            state.write_unless_blocked(bounds);
        });
    }

    /// Writes what waits, as far as there is room for it.
    pub(super) fn flush(&self) {
        self.with(|state, bounds| state.write_unless_blocked(bounds));
    }

    /// The kernel has room again: writes what waits. Called by the loop alone.
    pub(super) fn room(&self) {
        self.with(|state, bounds| {
            state.blocked = None;
            state.write(bounds);
        });
    }

    /// Closes the sending half once nothing waits any more.
    pub(super) fn finish(&self) {
        self.with(|state, bounds| {
            state.finishing = true;
            state.write_unless_blocked(bounds);
        });
    }

    fn with<R>(&self, change: impl FnOnce(&mut State, &Bounds) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state, &self.bounds);
        self.queued.store(state.waiting(), Ordering::SeqCst);
        result
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.buffer.len() - self.sent
    }

    fn push<T: Serialize>(&mut self, value: &T, bounds: &Bounds) {
        if self.socket.is_none() || self.finishing {
            return;
        }
        let waiting = self.waiting();
        if waiting >= bounds.queue {
            match bounds.when_full {
                WhenFull::Drop(patience) => self.check_progress(patience),
                WhenFull::BreakOff => {
                    self.break_off(format!("it does not read: {waiting} bytes wait for it"));
                }
            }
            return;
        }
        // The sent bytes are removed once they are the larger part of the buffer. So, on the
        // average, a byte is moved once at most.
        if self.sent > waiting {
            self.buffer.drain(..self.sent);
            self.sent = 0;
        }
        frame::put(value, &mut self.buffer);
    }

    fn check_progress(&mut self, patience: Duration) {
        let waiting = self.waiting();
        if let Some(since) = self.blocked
            && since.elapsed() >= patience
        {
            self.break_off(format!(
                "it took none of the {waiting} bytes that wait for it in {patience:?}"
            ));
        }
    }

    fn write_unless_blocked(&mut self, bounds: &Bounds) {
        if self.blocked.is_none() {
            self.write(bounds);
        }
    }

    fn write(&mut self, bounds: &Bounds) {
        let Some(socket) = self.socket.clone() else {
            return;
        };
        while self.sent < self.buffer.len() {
            match (&*socket).write(&self.buffer[self.sent..]) {
                Ok(0) => return self.break_off("the socket takes no more bytes".into()),
                Ok(taken) => self.sent += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = Some(Instant::now());
                    return;
                }
                Err(error) => return self.break_off(error.to_string()),
            }
        }
        self.sent = 0;
        self.buffer.clear();
        if self.buffer.capacity() > bounds.keep {
            self.buffer = Vec::new();
        }
        if self.finishing {
            // An error means that it is closed already.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Ends the connection from any thread. The loop owns the connection: it sees the end of the
    /// socket that is shut down here, and cleans up.
    fn break_off(&mut self, why: String) {
        if let Some(socket) = self.socket.take() {
            // An error means that the other side was faster.
            let _ = socket.shutdown(Shutdown::Both);
        }
        *self = State {
            broken: Some(why),
            ..State::default()
        };
    }
}
