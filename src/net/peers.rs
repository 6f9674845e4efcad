//! The way to the other nodes, for every thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outlet::Outlet;
use crate::raft::{Envelope, NodeId};

/// Sends messages to the other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    pub(super) outlets: Arc<BTreeMap<NodeId, Arc<Outlet>>>,
}

impl Peers {
    /// Sends each message to the node that it names, in order, with one write for each node.
    ///
    /// Never blocks. A message is dropped if its node is not connected, has too much waiting, or
    /// is not known: consensus repeats what matters, and stale messages do it no good.
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

    /// Whether there is a connection to this node. It may still refuse, or be dead already.
    pub fn is_connected(&self, id: NodeId) -> bool {
        self.outlets.get(&id).is_some_and(|outlet| outlet.is_open())
    }
}
