//! How clients reach the nodes of their own process.

use std::time::Duration;

use super::cluster::{Nodes, address};
use crate::client::{CallError, Stop, Transport};
use crate::machine::StateMachine;
use crate::wire::client::{Answer, Ask, Doubt};

/// Calls the nodes of a cluster directly.
pub(super) struct InProcess<S: StateMachine> {
    nodes: Nodes<S>,
}

impl<S: StateMachine> InProcess<S> {
    pub fn new(nodes: Nodes<S>) -> Self {
        Self { nodes }
    }
}

impl<S: StateMachine> Transport for InProcess<S> {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        timeout: Duration,
        _stop: &Stop,
    ) -> Result<Answer, CallError> {
        let nodes = self.nodes.read();
        let node = nodes.iter().find(|(id, _)| address(**id) == server);
        let Some(node) = node.map(|(_, node)| node.clone()) else {
            return Err(CallError::NotSent(format!("{server} is down")));
        };
        drop(nodes);
        match node.ask(ask, timeout) {
            // As a connection that breaks with the request on it.
            Answer::Unknown(Doubt::ShuttingDown) => {
                Err(CallError::Lost(format!("{server} went down")))
            }
            answer => Ok(answer),
        }
    }
}
