//! Opens connections: accepts those that wait at the port, and dials peers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::EventLoop;
use crate::net::Limits;
use crate::net::connection::Connection;
use crate::net::directory::DialerId;
use crate::net::opening::Opening;
use crate::net::options;
use crate::net::outlet::{Bounds, Outlet, WhenFull};
use crate::net::peer_side::Dialled;
use crate::net::protocol::Close;

/// How many connections are accepted beyond the limit on clients: those of peers, and those on
/// which the other side has not said yet whether it is a client or a peer.
const ROOM_BESIDE_CLIENTS: usize = 64;
/// How much memory a client's empty outgoing buffer keeps, in bytes. This is little, because
/// clients are many.
const CLIENT_KEEPS: usize = 16 << 10;

impl EventLoop {
    pub(super) fn accept(&mut self) {
        let now = Instant::now();
        let due = self.acceptor.deadline().is_some_and(|due| due <= now);
        if !self.acceptor.is_runnable() && !due {
            return;
        }
        let accepted = self.connections.values().filter(|c| c.dialled.is_none());
        let limit = self.local.limits.max_clients + ROOM_BESIDE_CLIENTS;
        let room = limit.saturating_sub(accepted.count());
        for (socket, address) in self.acceptor.accept(now, room) {
            if let Err(error) = self.add_caller(socket, address, now) {
                log::warn!("cannot serve the connection from {address}: {error}");
            }
        }
    }

    fn add_caller(
        &mut self,
        socket: TcpStream,
        address: SocketAddr,
        now: Instant,
    ) -> io::Result<()> {
        options::set_accepted(&socket)?;
        let (token, socket) = self.register(socket)?;
        let outlet = Arc::new(Outlet::new(client_bounds(&self.local.limits)));
        outlet.open(socket.clone(), Vec::new());
        let opening = Box::new(Opening::default());
        let mut connection = Connection::new(socket, address, outlet, opening);
        let deadline = now + self.local.limits.handshake;
        connection.deadline = Some(deadline);
        self.deadlines.insert((deadline, token));
        self.connections.insert(token, connection);
        Ok(())
    }

    fn register(&mut self, mut socket: TcpStream) -> io::Result<(Token, Arc<TcpStream>)> {
        let token = Token(self.next_token);
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, token, interest)?;
        Ok((token, Arc::new(socket)))
    }

    pub(super) fn dial_due(&mut self) {
        let (now, signals) = (Instant::now(), &self.local.signals);
        let due = self.dialers.iter_mut();
        let due = due.filter_map(|(&id, dialer)| Some((id, dialer.due(now, signals)?)));
        for (dialer, address) in due.collect::<Vec<_>>() {
            self.dial(dialer, address);
        }
    }

    pub(super) fn dial(&mut self, id: DialerId, address: SocketAddr) {
        let now = Instant::now();
        let socket = TcpStream::connect(address).and_then(|socket| {
            options::set_dialled(&socket, self.local.limits.peer_stall)?;
            self.register(socket)
        });
        let Some(dialer) = self.dialers.get_mut(&id) else {
            return;
        };
        let (token, socket) = match socket {
            Ok(registered) => registered,
            Err(error) => return dialer.lost(&Close::Io(error), now),
        };
        let protocol = Box::new(Dialled::new(
            dialer.peer(),
            dialer.folder,
            dialer.text.clone(),
        ));
        let mut connection = Connection::new(socket, address, dialer.outlet.clone(), protocol);
        let deadline = now + self.local.limits.connect;
        connection.dialled = Some(id);
        connection.connecting = true;
        connection.deadline = Some(deadline);
        self.deadlines.insert((deadline, token));
        self.connections.insert(token, connection);
    }

    /// Opens the outlet to a peer once the connection is established, and ends the connection's
    /// deadline. A frozen peer's kernel still accepts connections, but the peer's welcome comes
    /// only when its process goes on. Closing the connection and dialling again would not bring the
    /// welcome earlier.
    pub(super) fn establish(&mut self, token: Token) -> Result<(), Close> {
        let Some(connection) = self.connections.get_mut(&token) else {
            return Ok(());
        };
        let Some(socket) = connection.established()? else {
            return Ok(());
        };
        if let Some(deadline) = connection.deadline.take() {
            self.deadlines.remove(&(deadline, token));
        }
        let dialled = connection.dialled;
        if let Some(dialer) = dialled.and_then(|id| self.dialers.get(&id)) {
            dialer.outlet.open(socket, dialer.prelude(&self.local));
        }
        Ok(())
    }
}

fn client_bounds(limits: &Limits) -> Bounds {
    Bounds {
        queue: limits.client_queue_bytes.saturating_mul(8),
        when_full: WhenFull::BreakOff,
        keep: CLIENT_KEEPS,
    }
}
