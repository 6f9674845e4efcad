//! Sends messages to the other nodes, from any thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outlet::Outlet;
use crate::raft::{Envelope, NodeId};

/// Sends messages to the other nodes. Clones are cheap and use the same connections.
#[derive(Clone)]
pub struct Peers {
    pub(super) outlets: Arc<BTreeMap<NodeId, Arc<Outlet>>>,
}

impl Peers {
    /// Sends each message to the node that it is addressed to. The messages to one node keep their
    /// order and share one write to that node's socket.
    ///
    /// Never blocks. A message is dropped if its node is unknown or not connected, or if too many
    /// bytes wait for the node. That is safe, because consensus repeats what matters and has no use
    /// for stale messages.
    pub fn send(&self, envelopes: &[Envelope]) {
        for (&id, outlet) in self.outlets.iter() {
            let mut mine = envelopes
                .iter()
                .filter(|envelope| envelope.to == id)
                .peekable();
            if mine.peek().is_some() {
                outlet.send(mine);
            }
        }
    }

    /// Whether there is a connection to this node. The node may still refuse the connection, or may
    /// have died without the connection having ended yet.
    pub fn is_connected(&self, id: NodeId) -> bool {
        self.outlets.get(&id).is_some_and(|outlet| outlet.is_open())
    }
}
