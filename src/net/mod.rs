//! The node's sockets: one event loop on one port, for peers and clients alike.
//!
//! The event loop knows nothing of consensus. On its own thread it reads bytes, decodes messages
//! and passes them to a [`Service`]. Outgoing messages do not pass through the loop, because waking
//! a thread on another core costs more than a system call. Instead, the thread that has something
//! to send ([`ReplyTo`], [`Peers`]) locks the connection's outlet, encodes the message at the end
//! of the outlet's buffer, and writes to the non-blocking socket itself. Bytes that the kernel does
//! not take stay in the buffer, and the loop sends them when the kernel reports room.
//!
//! ```text
//!   accepted socket ─▶ Opening ─▶ ClientSide ─▶ Service::request ─▶ ReplyTo ─┐
//!                         │                                                  ▼
//!                         └─────▶ PeerSide ──▶ Service::peer              Outlet ─▶ socket
//!                                                                            ▲
//!   dialled socket ◀── Dialer: one per contact or stranger          Peers ───┘
//! ```
//!
//! - Between two nodes there are two connections, and each node sends on the one that it dialled.
//!   Whom it dials can change at any time (`event_loop/contacts.rs`): the contacts that the node
//!   sets, and strangers that call, so that they get answers. A
//!   message to a node that is not connected, or for which too many bytes wait, is dropped. That is
//!   safe, because consensus repeats what matters.
//! - Every socket is registered once, edge-triggered, for reading and writing. The kernel reports
//!   bytes only when they arrive, and the loop reads a limited number of them before it goes on to
//!   the next connection. So the loop keeps a list of the connections that may have more to read.
//! - A client at one of its bounds ([`Limits`]) is throttled: the loop reads nothing from it, so
//!   TCP blocks the client's sends. The thread whose answer brings the client well below its bounds
//!   wakes the loop.
//! - The loop sleeps without a timeout while there is no deadline. There are deadlines only while a
//!   connection is being opened, while a peer waits to be dialled, and after the operating system
//!   failed to accept a connection.
//! - A `Protocol` (`protocol.rs`) interprets the bytes of a connection. A further protocol on the
//!   same port could be recognised by its first bytes, in `opening.rs`.
//! - Invalid bytes end the connection that they came on, with one line in the diagnostic log, and
//!   have no other effect.
//!
//! What is missing: encryption and authentication (use a private network); a bound on the memory of
//! all connections together, because each connection is bounded separately.

mod accept;
mod address;
mod announced;
mod client_side;
mod connection;
mod dialer;
mod directory;
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

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::raft::{Envelope, FolderId, NodeId};
use crate::wire::client::Request;
use crate::wire::handshake::{Hello, PeerWelcome, Welcome};

pub use announced::Announced;
use event_loop::EventLoop;
pub use loop_signals::Stopper;
pub use peers::Peers;
pub use reply::{Replies, ReplyTo};

/// The functions that the event loop calls, always on its own thread. None of them may block,
/// because nothing is received meanwhile.
pub trait Service: Send {
    /// Decides whether whoever opens a connection is welcome: a client gets [`Welcome::Accepted`],
    /// a peer or a probe [`Welcome::Peer`]. Its protocol version is this node's, or the loop would
    /// have refused it. The service judges the cluster, the ids, the folders and the identity of
    /// the state machine. `None` means that the service cannot decide yet. The loop asks again each
    /// time the loop is [woken](Net::waker), until [`Limits::handshake`] has passed and the
    /// connection is closed.
    ///
    /// After the contacts have changed ([`Peers::set`]), the loop asks again about the peers that
    /// are connected. Those that have become strangers have to call anew.
    fn hello(&mut self, hello: &Hello, from: SocketAddr) -> Option<Welcome>;

    /// Reports that a peer has welcomed this node, on the connection that this node dialled, and
    /// what the peer said of itself and of this node. `address` is where it was dialled.
    fn welcomed(&mut self, welcome: &PeerWelcome, address: &str);

    /// Reports that no process listens at a peer's address, as the peer's operating system says.
    /// Most likely the peer's process has ended.
    fn absent(&mut self, peer: NodeId);

    /// Delivers a message from a peer. The loop has checked that the message comes from the node
    /// that opened the connection, and is addressed to this node.
    fn peer(&mut self, envelope: Envelope);

    /// Delivers a request of a client; its answer goes to `reply`.
    fn request(&mut self, request: Request, reply: ReplyTo);

    /// Called when all messages of one wake-up of the event loop have been delivered. Here the
    /// service can do work that is cheaper for many messages at once, such as sending gathered
    /// [`Replies`].
    fn flush(&mut self);
}

/// The settings of an event loop: who its node is, whom it dials, and its limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. With port 0 the operating system chooses the port: see [`Net::local_addr`].
    pub listen: SocketAddr,
    /// The id of this node in its cluster.
    pub id: NodeId,
    /// The name of this node's cluster.
    pub cluster: String,
    /// The identity of this node's state machine, which its peers must share.
    pub machine: String,
    /// The random number of this node's data folder, by which peers recognise the folder.
    pub folder: FolderId,
    /// Where other nodes reach this one, as `host:port`: it tells them when it dials them.
    pub address: String,
    /// The digest of the ids with which the node founds its cluster; 0 if it founds none.
    pub founding: u64,
    /// The ids of the other nodes and their addresses, as `host:port`. This node itself may be
    /// among them and is left out. Host names are looked up on a separate thread when the node is
    /// dialled, and again after failures. These are the contacts until others are
    /// [set](Peers::set).
    pub peers: Vec<(NodeId, String)>,
    /// Where this node dials nodes that it reaches at other addresses than those that they give.
    /// What is in `peers`, or is [set](Peers::set), has these addresses already.
    pub reach: BTreeMap<NodeId, String>,
    /// Bounds on the connections, the memory and the time that clients and peers can take from this
    /// node.
    pub limits: Limits,
}

/// Bounds on connections, memory and time, so that clients and peers cannot use up a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many clients may be connected at a time. A further client is refused with a reason.
    /// There is room for some more connections: those of peers, and those on which the other side
    /// has not said yet whether it is a client or a peer. So clients cannot keep peers out.
    pub max_clients: usize,
    /// How many requests of one client may be without an answer. At that number the client is
    /// throttled: nothing more is read from it.
    pub max_in_flight: usize,
    /// How many bytes may wait to be sent to one client. At that number the client is throttled:
    /// nothing more is read from it. Answers to earlier requests may still exceed the number; at
    /// eight times as many bytes the connection is closed.
    pub client_queue_bytes: usize,
    /// How many bytes may wait to be sent to one peer. Further messages to the peer are dropped.
    pub peer_queue_bytes: usize,
    /// If bytes wait for a peer, and the peer takes none of them for this long, the connection to
    /// the peer is closed.
    pub peer_stall: Duration,
    /// How long a new connection may take until its hello has been accepted or refused.
    pub handshake: Duration,
    /// How long a connection to a peer may take to be established.
    pub connect: Duration,
    /// How long waiting bytes are still sent after the loop is stopped.
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

/// Why the event loop cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another program uses the port.
    #[error(
        "cannot listen on {address}: another program uses this port. Is this node running already? \
         Stop that program or choose another port"
    )]
    AddressInUse {
        /// The address on which the node was to listen.
        address: SocketAddr,
    },
    /// The operating system does not let the node listen on the address, although the port is not
    /// taken.
    #[error("cannot listen on {address}: {source}. The address must be one of this machine's own")]
    Bind {
        /// The address on which the node was to listen.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The address of a peer is not of the form `HOST:PORT`.
    #[error("the address of node {id}, \"{address}\", is not of the form HOST:PORT")]
    PeerAddress {
        /// The id of the peer whose address is wrong.
        id: NodeId,
        /// The wrong address, as the operator gave it.
        address: String,
    },
    /// Two peers have the same id.
    #[error("node {id} is named twice among the peers")]
    PeerTwice {
        /// The id that two peers have.
        id: NodeId,
    },
    /// The operating system's event queue failed.
    #[error(
        "cannot wait for events on sockets: {0}. Is the limit on open files (ulimit -n) too low?"
    )]
    Events(#[from] io::Error),
}

/// An event loop whose port is bound, ready to [`run`](Net::run).
pub struct Net {
    event_loop: EventLoop,
}

impl Net {
    /// Binds the port. From now on connections queue up, but nothing is read or dialled before
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// [`NetError`] if the port is taken, or an address is invalid.
    pub fn bind(config: Config) -> Result<Self, NetError> {
        Ok(Self {
            event_loop: EventLoop::bind(config)?,
        })
    }

    /// The address at which this node accepts connections.
    pub fn local_addr(&self) -> SocketAddr {
        self.event_loop.local_addr()
    }

    /// The handle through which any thread sends messages to the other nodes.
    pub fn peers(&self) -> Peers {
        self.event_loop.peers()
    }

    /// What this node says of itself and of its cluster, for any thread to change.
    pub fn announced(&self) -> Arc<Announced> {
        self.event_loop.announced()
    }

    /// The handle through which any thread stops the event loop.
    pub fn stopper(&self) -> Stopper {
        self.event_loop.stopper()
    }

    /// A function that wakes the event loop, from any thread. The loop then asks the service again
    /// about connections on which the service could not decide.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let signals = self.event_loop.stopper().signals;
        move || signals.wake()
    }

    /// Runs the event loop until it is stopped. Then sends waiting bytes, for at most
    /// [`Limits::linger`], and closes all connections.
    ///
    /// # Errors
    /// [`NetError::Events`] if the operating system's event queue fails.
    pub fn run(self, mut service: impl Service) -> Result<(), NetError> {
        self.event_loop.run(&mut service)
    }
}
