//! The sending half of a connection: a buffer and the socket, to which any thread may write.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use parking_lot::Mutex;
use serde::Serialize;

use crate::wire::frame;

/// Messages are gathered so that many share one write to the socket. But as soon as this many bytes
/// are gathered, they are written, so that the receiver can begin to work on them, and the buffer
/// does not grow without need.
const EAGER: usize = 256 << 10;

/// How many bytes an outlet may buffer, and what happens to messages beyond that.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// How many bytes may wait to be sent. If that many wait, no further message is added.
    pub(super) queue: usize,
    /// What happens to a message that comes when the queue is full.
    pub(super) when_full: WhenFull,
    /// How much memory the buffer keeps when it becomes empty, in bytes.
    pub(super) keep: usize,
}

/// What happens to a message that comes when the queue of an outlet is full.
#[derive(Clone, Debug)]
pub(super) enum WhenFull {
    /// The message is dropped, as if the network had lost it. This is for peers, because consensus
    /// repeats what matters. If the socket has taken no bytes for this long, the connection is
    /// broken off.
    Drop(Duration),
    /// The connection is broken off. This is for clients, who would wait in vain for a dropped
    /// answer.
    BreakOff,
}

/// A bounded buffer in front of a socket. The outlet is closed while it has no socket: before it is
/// opened, and after it was closed or broken off. A closed outlet drops every message.
pub(super) struct Outlet {
    bounds: Bounds,
    state: Mutex<State>,
    /// How many bytes wait to be sent. Threads can read this number without the lock.
    queued: AtomicUsize,
}

#[derive(Default)]
struct State {
    socket: Option<Arc<TcpStream>>,
    buffer: Vec<u8>,
    /// How many bytes at the start of `buffer` have been written to the socket.
    sent: usize,
    /// Since when the kernel has had no room for more bytes; `None` if it may have room. As long as
    /// this is set, a write would be a wasted system call. The event loop clears it when the kernel
    /// reports room.
    blocked: Option<Instant>,
    /// Whether no message may be added any more. When the waiting bytes are sent, the sending half
    /// of the socket is closed.
    finishing: bool,
    /// Why this node broke the connection off, if it did.
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

    /// Connects the outlet to `socket`, and sends the bytes of `prelude` first.
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

    /// Drops the socket and the waiting bytes. Returns why this node broke the connection off, if
    /// it did.
    pub(super) fn close(&self) -> Option<String> {
        self.with(|state, _| std::mem::take(state).broken)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().socket.is_some()
    }

    /// How many bytes wait in the buffer because the kernel has not taken them yet.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::SeqCst)
    }

    /// Appends one message to the buffer. Writes to the socket only if at least [`EAGER`] bytes
    /// wait.
    pub(super) fn queue<T: Serialize>(&self, value: &T) {
        self.with(|state, bounds| {
            state.push(value, bounds);
            if state.waiting() >= EAGER {
                state.write_unless_blocked(bounds);
            }
        });
    }

    /// Appends all these messages to the buffer, and writes the buffer to the socket as far as the
    /// kernel has room.
    pub(super) fn send<'a, T: Serialize + 'a>(&self, values: impl IntoIterator<Item = &'a T>) {
        self.with(|state, bounds| {
            for value in values {
                state.push(value, bounds);
            }
            state.write_unless_blocked(bounds);
        });
    }

    /// Writes the waiting bytes to the socket, as far as the kernel has room.
    pub(super) fn flush(&self) {
        self.with(|state, bounds| state.write_unless_blocked(bounds));
    }

    /// Writes the waiting bytes after the kernel has reported room. Only the event loop calls this.
    pub(super) fn room(&self) {
        self.with(|state, bounds| {
            state.blocked = None;
            state.write(bounds);
        });
    }

    /// Refuses further messages, and closes the sending half of the connection when all waiting
    /// bytes are sent.
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
        // Sent bytes are removed once they are the larger part of the buffer. So on average each
        // byte is moved at most once.
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
            // If `shutdown` fails, the socket is closed already.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Ends the connection, from any thread. The event loop, which owns the connection, notices
    /// that the socket was shut down, and cleans up.
    fn break_off(&mut self, why: String) {
        if let Some(socket) = self.socket.take() {
            // If `shutdown` fails, the other side has closed the connection already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        *self = State {
            broken: Some(why),
            ..State::default()
        };
    }
}
