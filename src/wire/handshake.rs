//! How a connection opens.
//!
//! The caller sends [`MAGIC`] and then one frame with a [`Hello`]. The server answers with one
//! frame that holds a [`Welcome`]; after a refusal it closes the connection. The caller need not
//! wait for the answer: what it means to say may follow its hello at once.
//!
//! | from the caller | |
//! | --- | --- |
//! | 8 bytes | [`MAGIC`]: `72 61 66 74 6b 76 00 0a` |
//! | a [`frame`](super::frame) of at most [`MAX_HELLO`] bytes | [`Hello`]: version, cluster, caller (0 a client; 1 a peer: from, to, machine, folder) |
//! | frames | a client: [`Request`](super::client::Request)s; a peer: [`Envelope`](crate::raft::Envelope)s |
//!
//! | from the server | |
//! | --- | --- |
//! | a frame of at most [`MAX_HELLO`] bytes | [`Welcome`]: 0 accepted: cluster, id; 1 refused: a text |
//! | frames | to a client: [`Response`](super::client::Response)s; to a peer: nothing |
//!
//! The magic, the framing, the version as the hello's first field, and the whole of the welcome
//! stay the same for ever, so that any version can tell any other what is wrong.

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError};
use crate::raft::NodeId;

/// The first bytes of every connection. A zero byte inside keeps text protocols from matching.
pub const MAGIC: [u8; 8] = *b"raftkv\0\n";

/// The version of everything that follows the magic. Both sides must have the same.
pub const VERSION: u16 = 3;

/// The largest [`Hello`] or [`Welcome`] that is accepted, in bytes.
pub const MAX_HELLO: usize = 4096;

/// The first frame of a connection: what the caller is, and which cluster and node it means to
/// reach.
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
        /// The number of the caller's data folder: a node that comes back with another one has
        /// forgotten its votes.
        folder: u128,
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

/// Why a hello cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The caller speaks another version, whose hello may look different from here on.
    #[error("the caller speaks version {theirs} of the protocol, this node version {VERSION}")]
    Version {
        /// The caller's version.
        theirs: u16,
    },
    /// The bytes are no hello of any version.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl Hello {
    /// Reads a hello, its version first.
    ///
    /// # Errors
    /// [`HelloError::Version`] if the version is not this one's, however the rest may read.
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
