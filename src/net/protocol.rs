//! What a connection makes of the bytes that it receives.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::input::Input;
use super::loop_signals::LoopSignals;
use super::outlet::Outlet;
use super::{Limits, Service};
use crate::raft::NodeId;
use crate::wire::codec::DecodeError;
use crate::wire::frame::FrameError;
use crate::wire::handshake::HelloError;

/// What a connection does with received bytes. It begins as [`Opening`](super::opening::Opening)
/// and changes its protocol when it knows what the caller is.
pub(super) trait Protocol: Send {
    /// Takes whole messages out of the input, as many as this turn allows, and delivers them.
    fn on_bytes(&mut self, input: &mut Input, turn: &mut Turn<'_>) -> Result<Next, Close>;

    /// How far the connection has come.
    fn stage(&self) -> Stage;
}

/// What a connection does after its protocol has seen the input.
pub(super) enum Next {
    /// Reads on: what is left is not a whole message.
    Read,
    /// Goes on in the next turn, after the other connections had theirs: there is more input.
    Yield,
    /// Reads no more until the loop is woken: the client is throttled, or the service cannot judge
    /// the caller yet.
    Suspend,
    /// Goes on under another protocol, with the rest of the input.
    Become(Box<dyn Protocol>),
}

/// The stages in the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is not known yet what the caller is; or, on a dialled connection, whether the peer
    /// welcomes this node.
    Opening,
    /// The caller was refused. What it still sends is discarded until it closes.
    Refused,
    /// The caller is a client.
    Client,
    /// The other side is a peer.
    Peer,
}

/// What is the same for all connections of a node.
pub(super) struct Local {
    pub(super) id: NodeId,
    pub(super) cluster: String,
    pub(super) machine: String,
    pub(super) folder: u128,
    pub(super) limits: Limits,
    pub(super) signals: Arc<LoopSignals>,
}

/// One connection's turn: what its protocol may use.
pub(super) struct Turn<'a> {
    pub(super) service: &'a mut dyn Service,
    pub(super) local: &'a Local,
    pub(super) outlet: &'a Arc<Outlet>,
    pub(super) address: SocketAddr,
    /// Whether one more client may be let in.
    pub(super) room_for_client: bool,
    /// How many more messages may be delivered in this turn.
    pub(super) messages_left: usize,
    /// Set once something was delivered.
    pub(super) delivered: bool,
}

impl Turn<'_> {
    /// Counts one message as delivered.
    pub(super) fn count_message(&mut self) {
        self.messages_left = self.messages_left.saturating_sub(1);
        self.delivered = true;
    }
}

/// Why a connection ends.
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
    #[error("it was not known within {0:?} who it is")]
    HandshakeTimeout(Duration),
    #[error("no connection was established within {0:?}")]
    ConnectTimeout(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a {what} {error}")]
    Decode {
        what: &'static str,
        error: DecodeError,
    },
    #[error("no hello: {0}")]
    Hello(HelloError),
    #[error(
        "node {peer} sent a message from node {from} to node {to}, which is not its to send here"
    )]
    Misrouted {
        peer: NodeId,
        from: NodeId,
        to: NodeId,
    },
    #[error("it refuses this node: {0}")]
    Refused(String),
    #[error(
        "node {id} of cluster {cluster:?} answers there: check the addresses of the cluster's nodes"
    )]
    Stranger { id: NodeId, cluster: String },
    #[error("it sent {0} bytes where nothing was to come")]
    Unexpected(usize),
    #[error("{0}")]
    BrokenOff(String),
}

impl Close {
    /// Whether the other side's system says that no process listens there.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Close::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Whether connections also end like this when nothing is wrong; then it is logged at a lower
    /// level.
    pub(super) fn is_ordinary(&self) -> bool {
        matches!(self, Close::Ended | Close::Io(_))
    }
}
