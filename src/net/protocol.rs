//! The protocols of a connection: each decodes received bytes into messages in its own way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::announced::Announced;
use super::directory::Directory;
use super::input::Input;
use super::loop_signals::LoopSignals;
use super::outlet::Outlet;
use super::peer_side::Called;
use super::{Limits, Service};
use crate::raft::{FolderId, NodeId};
use crate::wire::codec::DecodeError;
use crate::wire::frame::FrameError;
use crate::wire::handshake::HelloError;

/// Decodes the bytes that a connection receives. An accepted connection begins with
/// [`Opening`](super::opening::Opening), and changes to another protocol when the other side has
/// said whether it is a client or a peer.
pub(super) trait Protocol: Send {
    /// Takes complete messages out of the input and delivers them to the service, at most as many
    /// as `turn` still allows.
    fn on_bytes(&mut self, input: &mut Input, turn: &mut Turn<'_>) -> Result<Next, Close>;

    /// How far the connection has come since it was opened.
    fn stage(&self) -> Stage;

    /// The peer that opened the connection, if it was let in.
    fn caller(&self) -> Option<&Called> {
        None
    }
}

/// What the event loop does next with a connection, as its protocol decides from the input.
pub(super) enum Next {
    /// The connection reads more bytes, because the input contains no complete message.
    Read,
    /// There may be more messages in the input than one connection may deliver at a time. The
    /// connection goes on after the event loop has served the other connections.
    Yield,
    /// The connection reads nothing until another thread wakes the event loop. Either the client is
    /// throttled, or the service cannot decide yet whether the other side is welcome.
    Suspend,
    /// The connection goes on with another protocol, which gets the rest of the input.
    Become(Box<dyn Protocol>),
}

/// How far a connection has come. This decides whether it has a deadline, and whether it counts
/// against the limit on clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The other side of an accepted connection has not said yet whether it is a client or a peer;
    /// or, on a connection that this node dialled, the peer has not welcomed this node yet.
    Opening,
    /// This node has refused the other side, and discards what the other side still sends until it
    /// closes.
    Refused,
    /// The other side is a client, and was accepted.
    Client,
    /// The other side is a peer: this node has accepted the peer, or the peer has welcomed this
    /// node.
    Peer,
}

/// The values that all connections of a node share: the node's identity, its limits and the signals
/// of its event loop.
pub(super) struct Local {
    pub(super) id: NodeId,
    pub(super) cluster: String,
    pub(super) machine: String,
    pub(super) folder: FolderId,
    /// Where other nodes reach this one, as this node tells them.
    pub(super) address: String,
    pub(super) limits: Limits,
    pub(super) announced: Arc<Announced>,
    pub(super) directory: Arc<Directory>,
    pub(super) signals: Arc<LoopSignals>,
}

/// The means that a protocol has while the event loop serves its connection: the service to deliver
/// messages to, and the number of messages that it may still deliver before the next connection's
/// turn.
pub(super) struct Turn<'a> {
    pub(super) service: &'a mut dyn Service,
    pub(super) local: &'a Local,
    pub(super) outlet: &'a Arc<Outlet>,
    pub(super) address: SocketAddr,
    /// Whether the limit on clients leaves room for one more.
    pub(super) room_for_client: bool,
    /// How many more messages the connection may deliver before the next connection's turn.
    pub(super) messages_left: usize,
    /// Whether the connection has delivered a message in this turn.
    pub(super) delivered: bool,
}

impl Turn<'_> {
    /// Counts one more message as delivered, against the limit for this turn.
    pub(super) fn count_message(&mut self) {
        self.messages_left = self.messages_left.saturating_sub(1);
        self.delivered = true;
    }
}

/// Why a connection ends. The line in the diagnostic log names the other side and then this reason.
#[derive(Debug, thiserror::Error)]
pub(super) enum Close {
    #[error("the other side closed the connection")]
    Ended,
    #[error("it ended in the middle of a message, after {0} bytes of it")]
    CutShort(usize),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not speak this protocol: its first bytes are \"{0}\"")]
    Magic(String),
    #[error("it did not complete the handshake within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("no connection was established within {0:?}")]
    ConnectTimeout(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a {what} is malformed: {error}")]
    Decode {
        what: &'static str,
        error: DecodeError,
    },
    #[error("it sent no hello: {0}")]
    Hello(HelloError),
    #[error(
        "node {peer} sent a message from node {from} to node {to}, not one of its own to this node"
    )]
    Misrouted {
        peer: NodeId,
        from: NodeId,
        to: NodeId,
    },
    #[error("node {0} sent a message to a folder that this node does not have")]
    WrongFolder(NodeId),
    #[error("it refuses this node: {0}")]
    Refused(String),
    #[error(
        "node {id} of cluster {cluster:?} answers there: check the addresses of the cluster's nodes"
    )]
    Stranger { id: NodeId, cluster: String },
    #[error(
        "node {0} answers there with another data folder than the configuration has: it lost its \
         folder, or another node took its place"
    )]
    OtherFolder(NodeId),
    #[error("it welcomes this node as if it were a client")]
    NotAsPeer,
    #[error("the configuration does not name it any more, or names it with another address")]
    NoContact,
    #[error("what it is to this node has changed: it has to introduce itself again")]
    Estranged,
    #[error("it sent {0} bytes where none were expected")]
    Unexpected(usize),
    #[error("{0}")]
    BrokenOff(String),
}

impl Close {
    /// Whether the other machine refused the connection because no process listens at the address.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Close::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Whether a connection may also end for this reason when nothing is wrong. For an accepted
    /// connection, the diagnostic log has such an end only at the level `debug`.
    pub(super) fn is_ordinary(&self) -> bool {
        use Close::{Ended, Estranged, Io, NoContact};
        matches!(self, Ended | Io(_) | NoContact | Estranged)
    }
}
