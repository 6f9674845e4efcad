//! One connection of the event loop: reads from its socket and delivers messages until its turn
//! ends.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;

use super::input::Input;
use super::outlet::Outlet;
use super::protocol::{Close, Next, Protocol, Stage, Turn};
use crate::raft::NodeId;

/// How many bytes are read from one connection before the others get their turn.
const READ_PER_TURN: usize = 256 << 10;

/// A connection that was accepted, or that this node dialled.
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) outlet: Arc<Outlet>,
    /// The peer that this node dialled; `None` if the connection was accepted.
    pub(super) dialled: Option<NodeId>,
    /// Whether the connection was dialled and is not known to be established yet.
    pub(super) connecting: bool,
    /// Whether the event loop's list of runnable connections contains this one already.
    pub(super) runnable: bool,
    /// When the event loop closes the connection, unless it has reached the next [`Stage`] before.
    pub(super) deadline: Option<Instant>,
    socket: Arc<TcpStream>,
    input: Input,
    protocol: Box<dyn Protocol>,
    /// Whether the kernel has reported an error, or that the other side sends nothing more.
    ended: bool,
    suspended: bool,
}

/// How a connection's turn ended, from which the event loop knows when to give the next one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// Everything that had arrived was read. The next turn comes when the kernel reports more.
    Idle,
    /// There is more to read or to deliver, so the connection needs another turn soon.
    More,
    /// The client is throttled, or the service has not judged the hello yet. Nothing more is read
    /// until another thread wakes the event loop.
    Suspended,
}

impl Connection {
    pub(super) fn new(
        socket: Arc<TcpStream>,
        address: SocketAddr,
        outlet: Arc<Outlet>,
        protocol: Box<dyn Protocol>,
    ) -> Self {
        Self {
            address,
            outlet,
            dialled: None,
            connecting: false,
            runnable: false,
            deadline: None,
            socket,
            input: Input::default(),
            protocol,
            ended: false,
            suspended: false,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.protocol.stage()
    }

    /// Notes what the kernel reports about the socket, and sends waiting bytes if the kernel has
    /// room. [`turn`](Self::turn) does the reading.
    pub(super) fn on_event(&mut self, event: &Event) -> Result<(), Close> {
        self.ended |= event.is_read_closed() || event.is_error();
        if self.suspended && self.ended {
            // The other side has closed its end of a connection from which nothing is read, so
            // nobody waits for answers. Unread requests need not be executed, because nobody was
            // told that they would be.
            return Err(Close::Ended);
        }
        if event.is_writable() && !self.connecting {
            self.outlet.room();
        }
        Ok(())
    }

    /// Returns the socket once a dialled connection is established, and `None` before that.
    pub(super) fn established(&mut self) -> Result<Option<Arc<TcpStream>>, Close> {
        if let Some(error) = self.socket.take_error()? {
            return Err(Close::Io(error));
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                self.connecting = false;
                Ok(Some(self.socket.clone()))
            }
            Err(error) if error.kind() == ErrorKind::NotConnected && !self.ended => Ok(None),
            Err(error) => Err(Close::Io(error)),
        }
    }

    /// Reads bytes and delivers messages until no more have arrived, or until the turn ends.
    pub(super) fn turn(
        &mut self,
        scratch: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Result<Turned, Close> {
        self.suspended = false;
        let mut share = READ_PER_TURN;
        let mut drained = false;
        loop {
            match self.protocol.on_bytes(&mut self.input, turn)? {
                Next::Become(protocol) => {
                    self.protocol = protocol;
                    continue;
                }
                Next::Yield => return Ok(Turned::More),
                // The other side has closed its end, so nobody waits for answers. Close the
                // connection instead of suspending it.
                Next::Suspend if self.ended => return Err(Close::Ended),
                Next::Suspend => {
                    self.suspended = true;
                    return Ok(Turned::Suspended);
                }
                Next::Read if drained => return Ok(Turned::Idle),
                Next::Read if share == 0 => return Ok(Turned::More),
                Next::Read => {}
            }
            let room = scratch.len().min(share);
            match (&*self.socket).read(&mut scratch[..room]) {
                Ok(0) => {
                    return Err(match self.input.bytes().len() {
                        0 => Close::Ended,
                        left => Close::CutShort(left),
                    });
                }
                Ok(len) => {
                    self.input.append(&scratch[..len]);
                    share -= len;
                    // Fewer bytes than asked for mean that the socket is empty, and the kernel will
                    // report bytes that come later. But once the kernel has reported the end, it
                    // reports nothing more. Then the loop must read on until `read` returns the
                    // end.
                    drained = len < room && !self.ended;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turned::Idle),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Close::Io(error)),
            }
        }
    }
}
