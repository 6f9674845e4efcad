//! How a node of a cluster in one process reaches the others.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;

use super::cluster::{NodeMap, Nodes, address};
use super::network::Network;
use crate::machine::StateMachine;
use crate::node::{Handle, ProbeEnd, Transport};
use crate::raft::{Envelope, NodeId};
use crate::wire::client::{Answer, Ask};

/// One node's way to the others: messages over the network, questions to an address straight to the
/// node there, if the network lets them through in both directions. Each node has its host for
/// itself, and answers at every port.
pub(super) struct Way<S: StateMachine> {
    from: NodeId,
    network: Network,
    /// Weak, for each node has its way.
    nodes: Weak<RwLock<NodeMap<S>>>,
}

impl<S: StateMachine> Way<S> {
    pub fn new(from: NodeId, network: &Network, nodes: &Nodes<S>) -> Self {
        Self {
            from,
            network: network.clone(),
            nodes: Arc::downgrade(nodes),
        }
    }

    fn node_at(&self, at: &str) -> Result<Arc<Handle<S>>, String> {
        let nodes = self.nodes.upgrade();
        let nodes = nodes.ok_or_else(|| "the cluster has ended".to_string())?;
        let nodes = nodes.read();
        let host = |address: &str| address.split(':').next().map(str::to_string);
        let found = nodes
            .iter()
            .find(|(id, _)| host(&address(**id)) == host(at));
        let reached = found.filter(|(to, _)| {
            let passes = |from, to| from == to || !self.network.is_cut(from, to);
            passes(self.from, **to) && passes(**to, self.from)
        });
        let node = reached.map(|(_, node)| node.clone());
        node.ok_or_else(|| format!("nobody answers at {at}"))
    }
}

impl<S: StateMachine> Transport for Way<S> {
    fn send(&self, messages: Vec<Envelope>) {
        self.network.send(messages);
    }

    fn probe(&self, _: NodeId, address: &str, then: ProbeEnd) {
        then(self.node_at(address).map(|node| node.introduction()));
    }

    fn ask(&self, address: &str, ask: &Ask, timeout: Duration) -> Result<Answer, String> {
        Ok(self.node_at(address)?.ask(ask, timeout))
    }
}
