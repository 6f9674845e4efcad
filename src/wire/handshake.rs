//! How a connection is opened.
//!
//! The caller, which is the side that opened the connection, sends [`MAGIC`] and then one frame
//! with a [`Hello`]. The server answers with one frame that holds a [`Welcome`]; after a refusal it
//! closes the connection. The caller need not wait for the welcome: it may send requests or
//! messages right after its hello.
//!
//! | from the caller | |
//! | --- | --- |
//! | 8 bytes | [`MAGIC`]: `72 61 66 74 6b 76 00 0a` |
//! | a [`frame`](super::frame) of at most [`MAX_HELLO`] bytes | [`Hello`]: version, cluster, caller (0 a client; 1 a peer; 2 a probe) |
//! | frames | a client: [`Request`](super::client::Request)s; a peer: [`Envelope`](crate::raft::Envelope)s |
//!
//! | from the server | |
//! | --- | --- |
//! | a frame of at most [`MAX_HELLO`] bytes | [`Welcome`]: 0 accepted: cluster, id; 1 refused: a text; 2 to peers and probes: [`PeerWelcome`] |
//! | frames | to a client: [`Response`](super::client::Response)s; to a peer: nothing |
//!
//! Four things stay the same for ever: the magic, the framing, the version as the hello's first
//! field, and the first two welcomes. So any version can tell any other what is wrong.

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError};
use crate::raft::{FolderId, Index, NodeId};

/// The first bytes of every connection. Text protocols never start with them, because they contain
/// a zero byte.
pub const MAGIC: [u8; 8] = *b"raftkv\0\n";

/// The version of everything that follows the magic. Both sides of a connection must have the same.
pub const VERSION: u16 = 4;

/// The largest [`Hello`] or [`Welcome`] that is accepted, in bytes.
pub const MAX_HELLO: usize = 4096;

/// The first frame of a connection, sent by the side that opened it: what that side is, and which
/// cluster and node it wants to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol [`VERSION`] of the side that opened the connection.
    pub version: u16,
    /// The name of the cluster to reach. A client may leave it empty to accept any cluster.
    pub cluster: String,
    /// What has opened the connection: a client or a peer.
    pub caller: Caller,
}

/// What may open a connection: a client or a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// A client. It sends [`Request`](super::client::Request)s, one frame each, and gets a
    /// [`Response`](super::client::Response) to each, in any order.
    Client,
    /// Another node. It sends [`Envelope`](crate::raft::Envelope)s, one frame each, and receives
    /// nothing here: the other node's messages take the connection which that node opened.
    Peer(PeerHello),
    /// Somebody who only wants to know which node, with which folder, is reached here: the leader
    /// before it lets a node in. The connection ends with the welcome.
    Probe {
        /// The id of the node that is expected here.
        to: NodeId,
    },
}

/// What a node says of itself when it opens a connection to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// The id of the node that opened the connection.
    pub from: NodeId,
    /// The id of the node that the calling node wants to reach.
    pub to: NodeId,
    /// The identity of the calling node's state machine
    /// ([`StateMachine::identity`](crate::machine::StateMachine::identity)).
    pub machine: String,
    /// The random number of the calling node's data folder. A node that comes back with another
    /// folder has forgotten its votes, and is refused.
    pub folder: FolderId,
    /// The folder of the other node, as the calling node knows it: the other node refuses if it
    /// has another one. `None` if the calling node knows none.
    pub to_folder: Option<FolderId>,
    /// Where the calling node is reached, as `host:port`: a node that does not know it yet
    /// answers there.
    pub address: String,
    /// The lineage of the calling node's newest committed configuration; 0 if it knows none.
    pub lineage: u64,
    /// The index of the calling node's newest committed configuration; 0 if it knows none but
    /// the founding one.
    pub configuration: Index,
    /// The digest of the ids with which the calling node founds its cluster; 0 if the cluster
    /// is founded already.
    pub founding: u64,
}

/// The server's answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// The server accepts the connection, and takes requests or messages on it.
    Accepted {
        /// The name of the cluster that the server is a member of.
        cluster: String,
        /// The id of the node that accepted the connection.
        id: NodeId,
    },
    /// The connection is refused and will be closed. The text tells the operator of the client or
    /// node why.
    Refused(String),
    /// The answer to a peer or a probe that is accepted.
    Peer(PeerWelcome),
}

/// What a node tells a peer or a probe about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerWelcome {
    /// The name of the cluster of the node that accepted the connection.
    pub cluster: String,
    /// Its id.
    pub id: NodeId,
    /// The identity of its state machine.
    pub machine: String,
    /// The random number of its data folder.
    pub folder: FolderId,
    /// The lineage of its newest committed configuration; 0 if it knows none.
    pub lineage: u64,
    /// Whether its folder holds nothing yet: no log, no snapshot, no vote that could count.
    pub is_blank: bool,
    /// What the caller's folder is here.
    pub standing: Standing,
}

/// What a node knows of the folder of a node that calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// The cluster is being founded, and the caller's folder is written down here: no other folder
    /// of the caller's id will be.
    Witness,
    /// A configuration of this node has the caller with this folder.
    Member,
    /// It does not.
    Stranger {
        /// The index of the newest configuration that this node knows to be committed, which lacks
        /// the caller's folder. 0: it knows of none in the log; then what it says may change.
        configuration: Index,
        /// The folder and the address that the caller's id has here, if it is a member's. The
        /// folder is missing if the log has none for the member yet.
        known: Option<(Option<FolderId>, String)>,
    },
}

/// Why the first frame of a connection cannot be used as a hello.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The hello is of another version of the protocol, in which its other fields may differ.
    #[error("the caller speaks version {theirs} of the protocol, this node version {VERSION}")]
    Version {
        /// The version in the hello.
        theirs: u16,
    },
    /// The bytes are no hello of any version.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl Hello {
    /// Decodes a hello, beginning with its version.
    ///
    /// # Errors
    /// [`HelloError::Version`] if the version is not [`VERSION`], whatever bytes follow;
    /// [`HelloError::Malformed`] if the bytes are no hello.
    pub fn decode(payload: &[u8]) -> Result<Self, HelloError> {
        match codec::decode_prefix::<u16>(payload)? {
            VERSION => Ok(codec::decode(payload)?),
            theirs => Err(HelloError::Version { theirs }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_of_another_version_is_told_from_garbage_even_if_the_rest_reads_differently() {
        let hello = Hello {
            version: VERSION,
            cluster: "c".into(),
            caller: Caller::Client,
        };
        let mut bytes = codec::to_bytes(&hello).to_vec();
        assert_eq!(Hello::decode(&bytes), Ok(hello));
        bytes.truncate(1);
        assert!(matches!(
            Hello::decode(&bytes),
            Err(HelloError::Malformed(_))
        ));
        bytes[0] = VERSION as u8 + 1;
        let theirs = VERSION + 1;
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Version { theirs }));
        assert!(matches!(Hello::decode(&[]), Err(HelloError::Malformed(_))));
    }
}
