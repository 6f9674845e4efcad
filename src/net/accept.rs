//! Accepts the connections that wait in the queue of the listening port.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};

use crate::wire::frame;
use crate::wire::handshake::Welcome;

/// How many connections are accepted before the event loop serves the open connections again.
const PER_TURN: usize = 64;

/// How long to pause after the operating system failed to accept a connection, usually because no
/// file descriptor is free. Without a pause the event loop would try again at once, over and over,
/// and use up a processor.
const PAUSE: Duration = Duration::from_millis(100);

/// The node's listening socket: accepts connections, with a pause after a failure.
pub(super) struct Acceptor {
    listener: TcpListener,
    /// Whether connections may be waiting to be accepted. The kernel reports a new connection only
    /// once, so a connection that was left waiting is not reported again.
    pub(super) ready: bool,
    /// When the pause after a failure to accept a connection ends; `None` if there is no pause.
    paused_until: Option<Instant>,
    /// Whether the last attempt to accept a connection failed. Of several failures in a row, only
    /// the first gets a line in the diagnostic log.
    failing: bool,
    /// Whether the last connection was refused because too many are open. Of several refusals in a
    /// row, only the first gets a line in the diagnostic log.
    full: bool,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            ready: false,
            paused_until: None,
            failing: false,
            full: false,
        }
    }

    /// When connections are accepted again after a failure; `None` if there is no pause.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Whether [`accept`](Self::accept) should be called now, without waiting for an event from the
    /// kernel.
    pub(super) fn is_runnable(&self) -> bool {
        self.ready && self.paused_until.is_none()
    }

    /// Accepts at most `PER_TURN` waiting connections. Further ones stay in the kernel's queue
    /// until the next round of the event loop. Returns the first `room` accepted connections, and
    /// refuses and closes the other accepted ones.
    pub(super) fn accept(&mut self, now: Instant, room: usize) -> Vec<(TcpStream, SocketAddr)> {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let mut callers = Vec::new();
        for _ in 0..PER_TURN {
            if !self.is_runnable() {
                break;
            }
            match self.listener.accept() {
                Ok(caller) => {
                    self.failing = false;
                    if callers.len() < room {
                        self.full = false;
                        callers.push(caller);
                    } else {
                        self.send_away(caller);
                    }
                }
                Err(error) => self.failed(&error, now),
            }
        }
        callers
    }

    fn failed(&mut self, error: &std::io::Error, now: Instant) {
        match error.kind() {
            ErrorKind::WouldBlock => self.ready = false,
            // Only this one connection failed, usually because the other side gave up. More
            // connections may be waiting.
            ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
            _ => {
                if !self.failing {
                    log::error!(
                        "cannot accept connections: {error}. Trying again every {PAUSE:?}. If too \
                         many files are open, raise the limit (ulimit -n)"
                    );
                }
                self.failing = true;
                self.paused_until = Some(now + PAUSE);
            }
        }
    }

    fn send_away(&mut self, (mut socket, address): (TcpStream, SocketAddr)) {
        if !self.full {
            log::warn!(
                "refused the connection from {address}: there are too many connections. Further \
                 ones are refused without a line in this log until one closes"
            );
        }
        self.full = true;
        let mut refusal = Vec::new();
        frame::put(
            &Welcome::Refused("too many connections".into()),
            &mut refusal,
        );
        // If the refusal cannot be sent, the other side sees the connection close without a reason.
        let _ = socket.write(&refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_nothing_is_accepted_for_a_moment_and_then_whoever_waited() {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (mut acceptor, now) = (Acceptor::new(listener), Instant::now());
        let _caller = std::net::TcpStream::connect(address).unwrap();
        acceptor.ready = true;
        // The error when no file descriptor is free has no `ErrorKind` of its own.
        let error = std::io::Error::other("too many open files");
        acceptor.failed(&error, now);
        assert!(!acceptor.is_runnable());
        assert_eq!(acceptor.deadline(), Some(now + PAUSE));
        assert!(acceptor.accept(now + PAUSE / 2, 1).is_empty());
        assert_eq!(acceptor.accept(now + PAUSE, 1).len(), 1);
        assert_eq!(acceptor.deadline(), None);
    }
}
