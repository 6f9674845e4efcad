//! One connection of the event loop. When the loop gives it a *turn*, it reads from its socket and
//! delivers messages, up to a limit, and then the loop goes on to the next connection.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;

use super::directory::DialerId;
use super::input::Input;
use super::outlet::Outlet;
use super::peer_side::Called;
use super::protocol::{Close, Next, Protocol, Stage, Turn};

/// How many bytes are read from one connection before the event loop goes on to the next one.
const READ_PER_TURN: usize = 256 << 10;

/// A connection that was accepted, or that this node dialled.
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) outlet: Arc<Outlet>,
    /// The dialer that opened the connection; `None` if the connection was accepted.
    pub(super) dialled: Option<DialerId>,
    /// Whether this node dialled the connection and does not know yet whether it is established.
    pub(super) connecting: bool,
    /// Whether the event loop's list of runnable connections contains this one already.
    pub(super) runnable: bool,
    /// When the event loop closes the connection because it is not open yet. `None` once a client
    /// or peer has been accepted on it, or once a connection that this node dialled is established.
    pub(super) deadline: Option<Instant>,
    socket: Arc<TcpStream>,
    input: Input,
    protocol: Box<dyn Protocol>,
    /// Whether the kernel has reported an error on the socket, or that the other side has closed it
    /// for sending.
    ended: bool,
    suspended: bool,
}

/// How a connection's turn ended. The event loop decides by it when the connection gets its next
/// turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// The connection has read all bytes that had arrived. Its next turn comes when the kernel
    /// reports more bytes.
    Idle,
    /// More bytes have arrived than one turn may read or deliver, so the connection gets another
    /// turn in the next round of the event loop.
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

    /// The peer that opened the connection, if it was let in.
    pub(super) fn caller(&self) -> Option<&Called> {
        self.protocol.caller()
    }

    /// Handles an event that the kernel reports about the socket: notes that the connection has
    /// ended, and sends waiting bytes if the kernel has room. Received bytes are read later, in
    /// [`turn`](Self::turn).
    pub(super) fn on_event(&mut self, event: &Event) -> Result<(), Close> {
        self.ended |= event.is_read_closed() || event.is_error();
        if self.suspended && self.ended {
            // The connection is suspended and the other side has closed it, so nobody waits for
            // answers. Requests that have not been read need not be executed, because no client was
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

    /// Reads bytes and delivers the messages in them, until the socket is empty or this turn's
    /// limit on bytes or messages is reached.
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
