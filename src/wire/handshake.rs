//! How a connection opens.
//!
//! The caller sends [`MAGIC`] and then one frame with a [`Hello`]. The server answers with one
//! frame that holds a [`Welcome`]; after a refusal it closes the connection. The magic stays the
//! same for ever, so that any version can tell any other what is wrong.

use serde::{Deserialize, Serialize};

use crate::raft::NodeId;

/// The first bytes of every connection. A zero byte inside keeps text protocols from matching.
pub const MAGIC: [u8; 8] = *b"raftkv\0\n";

/// The version of everything that follows the magic. Both sides must have the same.
pub const VERSION: u16 = 1;

/// The largest [`Hello`] or [`Welcome`] that is accepted, in bytes.
pub const MAX_HELLO: usize = 4096;

/// Who calls, and whom it believes to have reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The caller's [`VERSION`].
    pub version: u16,
    /// The name of the cluster that the caller means. A client may leave it empty: any cluster.
    pub cluster: String,
    /// What kind of caller it is.
    pub caller: Caller,
}

/// The kinds of callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// Sends [`Request`](super::client::Request)s, one frame each, and gets a
    /// [`Response`](super::client::Response) to each, in any order.
    Client,
    /// Sends [`Envelope`](crate::raft::Envelope)s, one frame each, and gets nothing back: answers
    /// take the connection that the other node opened.
    Peer {
        /// The caller's id.
        from: NodeId,
        /// The id of the node that it means to reach.
        to: NodeId,
        /// The identity of the caller's state machine
        /// ([`StateMachine::identity`](crate::machine::StateMachine::identity)).
        machine: String,
    },
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// Go on.
    Accepted {
        /// The name of the server's cluster.
        cluster: String,
        /// The server's id.
        id: NodeId,
    },
    /// The connection closes now. The text is for the person who runs the caller.
    Refused(String),
}
