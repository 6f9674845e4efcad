//! One connection as the loop sees it: reading, and whose turn it is.

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

/// How much is read from one connection before the others have their turn, in bytes.
const READ_PER_TURN: usize = 256 << 10;

/// An accepted or dialled connection.
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) outlet: Arc<Outlet>,
    /// The peer, if this node dialled.
    pub(super) dialled: Option<NodeId>,
    /// Dialled, and not known to be established yet.
    pub(super) connecting: bool,
    /// It is in the loop's list of runnable connections already.
    pub(super) runnable: bool,
    /// When the connection is closed unless it has reached the next [`Stage`] by then.
    pub(super) deadline: Option<Instant>,
    socket: Arc<TcpStream>,
    input: Input,
    protocol: Box<dyn Protocol>,
    /// The kernel has reported the end of what comes in.
    ended: bool,
    suspended: bool,
}

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// All that was there was read.
    Idle,
    /// There is more.
    More,
    /// Nothing is read until the loop is woken.
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

    /// Takes note of what the kernel reports, and sends waiting bytes if there is room. Reading is
    /// left to [`turn`](Self::turn).
    pub(super) fn on_event(&mut self, event: &Event) -> Result<(), Close> {
        self.ended |= event.is_read_closed() || event.is_error();
        if self.suspended && self.ended {
            // The client has closed its end, so it gets no answer. What was not read from it need
            // not be executed: no one was told that it would be.
            return Err(Close::Ended);
        }
        if event.is_writable() && !self.connecting {
            self.outlet.room();
        }
        Ok(())
    }

    /// Whether a connection under way is established now. The socket is returned once.
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

    /// Reads and delivers, up to this connection's share.
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
                // The client has closed its end: there is no answer to wait for.
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
                    // report what comes later. If it has reported the end already, it will not
                    // report it again: then the loop must read on until it sees the end.
                    drained = len < room && !self.ended;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turned::Idle),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Close::Io(error)),
            }
        }
    }
}
