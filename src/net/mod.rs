//! The node's sockets: one event loop on one port, for peers and clients alike.
//!
//! The loop knows nothing of consensus. On its own thread it reads bytes, decodes messages and
//! hands them to a [`Service`]. Outgoing messages do not pass through the loop: to wake a thread on
//! another core costs more than a system call. So the thread that has something to send
//! ([`ReplyTo`], [`Peers`]) locks the connection's outlet, encodes the message at the end of its
//! buffer, and writes to the non-blocking socket itself. Bytes that the kernel does not take stay
//! in the buffer, and the loop sends them when the kernel reports room.
//!
//! ```text
//!   accepted socket ─▶ Opening ─▶ ClientSide ─▶ Service::request ─▶ ReplyTo ─┐
//!                         │                                                  ▼
//!                         └─────▶ PeerSide ──▶ Service::peer              Outlet ─▶ socket
//!                                                                            ▲
//!   dialled socket ◀── Dialer: one per other node                   Peers ───┘
//! ```
//!
//! - Between two nodes there are two connections; each node sends on the one that it dialled.
//!   Messages to a node that is not connected, or for which too many bytes wait, are dropped. That
//!   is safe: consensus repeats what matters.
//! - Every socket is registered once, edge-triggered, for reading and writing. A connection that
//!   has more than its share to read is put behind the others and remembered as runnable: the
//!   kernel does not report it again.
//! - A client at one of its bounds ([`Limits`]) is throttled: nothing is read from it, so its own
//!   sends block in TCP. The thread whose answer brings it well below its bounds wakes the loop.
//! - The loop sleeps without a timeout when nothing is due. There are deadlines only while a
//!   connection opens, while a peer waits to be dialled, and after the system failed to accept.
//! - Bytes of a caller reach a `Protocol` (`protocol.rs`) as they come: a further protocol on the
//!   same port is told apart in `opening.rs` by its first bytes.
//! - Bytes that are wrong in any way end the connection that they came on, with one line in the
//!   log, and nothing else.
//!
//! What is missing: encryption and authentication (use a private network); a bound over all
//! connections together, as only each one is bounded; peers that join while the loop runs.

mod accept;
mod address;
mod client_side;
mod connection;
mod dialer;
mod event_loop;
mod input;
mod loop_signals;
mod opening;
mod options;
mod outlet;
mod peer_side;
mod peers;
mod protocol;
mod reply;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::raft::{Envelope, NodeId};
use crate::wire::client::Request;
use crate::wire::handshake::{Hello, Welcome};

use event_loop::EventLoop;
pub use loop_signals::Stopper;
pub use peers::Peers;
pub use reply::{Replies, ReplyTo};

/// What the loop calls, always on its own thread. None of it may block: while it runs, nothing is
/// received.
pub trait Service: Send {
    /// A caller opens a connection. Its version is the same as this node's, or it would have been
    /// refused; the cluster, the ids and the machine's identity are for the service to judge.
    /// `None` if that has to wait for something: the service is asked again each time that the loop
    /// is [woken](Net::waker), until [`Limits::handshake`] has passed and the connection is closed.
    fn hello(&mut self, hello: &Hello, from: SocketAddr) -> Option<Welcome>;

    /// A peer has welcomed this node, on the connection that this node opened.
    fn welcomed(&mut self, peer: NodeId);

    /// The system of a peer says that no process listens at its address: most likely the peer's
    /// process has ended.
    fn absent(&mut self, peer: NodeId);

    /// A message from a peer: from the node that the connection was opened as, to this one.
    fn peer(&mut self, envelope: Envelope);

    /// A request of a client.
    fn request(&mut self, request: Request, reply: ReplyTo);

    /// All that one wake-up of the loop brought in has been delivered. Here the service does the
    /// work that is cheaper for many messages at once, such as sending gathered [`Replies`].
    fn flush(&mut self);
}

/// What the loop needs to know of its node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0 lets the system choose: see [`Net::local_addr`].
    pub listen: SocketAddr,
    /// The node's id.
    pub id: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// The identity of the node's state machine.
    pub machine: String,
    /// The number of the node's data folder.
    pub folder: u128,
    /// The other nodes as `host:port`, by id. The node itself may be among them. Names are looked
    /// up when the node is dialled, by a thread of their own, again after each failure.
    pub peers: Vec<(NodeId, String)>,
    /// The bounds.
    pub limits: Limits,
}

/// The bounds on what others can make a node hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients connected at a time. One more is refused with a reason. There is some room beyond
    /// this for peers, and for callers that are not known yet to be clients, so that clients cannot
    /// keep peers out.
    pub max_clients: usize,
    /// Requests of one client that are not answered yet. At the bound the client is throttled.
    pub max_in_flight: usize,
    /// Bytes waiting to be sent to one client. At the bound the client is throttled. The answers to
    /// requests that are under way may exceed it; at eight times as much the connection is closed.
    pub client_queue_bytes: usize,
    /// Bytes waiting to be sent to one peer; past it messages to it are dropped.
    pub peer_queue_bytes: usize,
    /// If a peer has taken none of the bytes that wait for it for so long, the connection is
    /// closed.
    pub peer_stall: Duration,
    /// How long a caller may take to say who it is.
    pub handshake: Duration,
    /// How long to wait for a connection to a peer to be established.
    pub connect: Duration,
    /// How long to go on sending what waits when the loop is stopped.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 4096,
            max_in_flight: 4096,
            client_queue_bytes: 32 << 20,
            peer_queue_bytes: 64 << 20,
            peer_stall: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(2),
            linger: Duration::from_millis(200),
        }
    }
}

/// Why the loop cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The port is taken.
    #[error(
        "cannot listen on {address}: another program uses this port. Is this node running already? \
         Stop that program or choose another port"
    )]
    AddressInUse {
        /// Where the node was to listen.
        address: SocketAddr,
    },
    /// The system refuses the address for another reason.
    #[error("cannot listen on {address}: {source}. The address must be one of this machine's own")]
    Bind {
        /// Where the node was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A peer's address is not one.
    #[error("the address of node {id}, \"{address}\", is not of the form HOST:PORT")]
    PeerAddress {
        /// The peer.
        id: NodeId,
        /// What was given.
        address: String,
    },
    /// Two peers have the same id.
    #[error("node {id} is named twice among the peers")]
    PeerTwice {
        /// The id.
        id: NodeId,
    },
    /// The system's event queue failed.
    #[error(
        "cannot wait for events on sockets: {0}. Is the limit on open files (ulimit -n) too low?"
    )]
    Events(#[from] io::Error),
}

/// A bound port, ready to [`run`](Net::run).
pub struct Net {
    event_loop: EventLoop,
}

impl Net {
    /// Binds the port. Callers queue up from now on; nothing is read or dialled before
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// [`NetError`] if the port is taken, or an address is not one.
    pub fn bind(config: Config) -> Result<Self, NetError> {
        Ok(Self {
            event_loop: EventLoop::bind(config)?,
        })
    }

    /// Where callers reach this node.
    pub fn local_addr(&self) -> SocketAddr {
        self.event_loop.local_addr()
    }

    /// The way to the other nodes.
    pub fn peers(&self) -> Peers {
        self.event_loop.peers()
    }

    /// What ends the loop.
    pub fn stopper(&self) -> Stopper {
        self.event_loop.stopper()
    }

    /// What wakes the loop, from any thread, so that it asks the service again about the callers
    /// that wait.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let signals = self.event_loop.stopper().signals;
        move || signals.wake()
    }

    /// Carries until stopped: then sends what waits, for a moment, and closes everything.
    ///
    /// # Errors
    /// [`NetError::Events`] if the system's event queue fails.
    pub fn run(self, mut service: impl Service) -> Result<(), NetError> {
        self.event_loop.run(&mut service)
    }
}
