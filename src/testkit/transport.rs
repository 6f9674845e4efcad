//! How clients reach the nodes of a cluster in their own process, and how requests get lost on the
//! way.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel;
use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::cluster::{Nodes, address};
use crate::client::{Answered, CallError, Stop, Transport};
use crate::machine::StateMachine;
use crate::raft::Index;
use crate::wire::client::{Answer, Ask, Doubt};

/// A transport that calls the nodes of a cluster directly, in the same process.
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
        known: Index,
        timeout: Duration,
        _stop: &Stop,
    ) -> Result<Answered, CallError> {
        let nodes = self.nodes.read();
        let node = nodes.iter().find(|(id, _)| address(**id) == server);
        let Some(node) = node.map(|(_, node)| node.clone()) else {
            return Err(CallError::NotSent(format!("{server} is down")));
        };
        drop(nodes);
        match node.ask(ask, timeout) {
            // A real client would see its connection break after the request was sent.
            Answer::Unknown(Doubt::ShuttingDown) => {
                Err(CallError::Lost(format!("{server} went down")))
            }
            answer => Ok(Answered {
                answer,
                members: node.members_after(known),
            }),
        }
    }
}

/// How a client's way to the nodes behaves. The default is without fault or delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLink {
    /// The longest delay of a request. The delay of each is drawn between zero and this.
    pub max_delay: Duration,
    /// How many of a thousand requests are lost before a node sees them.
    pub lost_requests_permille: u32,
    /// How many of a thousand answers are lost, after the request was executed.
    pub lost_answers_permille: u32,
}

/// A transport that delays and loses what it carries. For the client a loss is like a connection
/// that breaks: it notices at once, and cannot tell whether the request or the answer was lost.
pub struct Unreliable {
    inner: Arc<dyn Transport>,
    link: ClientLink,
    random: Mutex<ChaCha8Rng>,
}

impl Unreliable {
    /// Wraps another transport. The same seed draws the same faults.
    pub fn new(inner: Arc<dyn Transport>, link: ClientLink, seed: u64) -> Self {
        Self {
            inner,
            link,
            random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
        }
    }

    /// Draws the delay of a request, and whether the request and the answer get lost.
    fn draw(&self) -> (Duration, bool, bool) {
        let mut random = self.random.lock();
        let longest = self.link.max_delay.as_micros() as u64;
        let delay = Duration::from_micros(random.next_u64() % (longest + 1));
        let mut lost = |permille| random.next_u32() % 1000 < permille;
        let request = lost(self.link.lost_requests_permille);
        (delay, request, lost(self.link.lost_answers_permille))
    }
}

impl Transport for Unreliable {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        known: Index,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Answered, CallError> {
        let (delay, request_lost, answer_lost) = self.draw();
        if !delay.is_zero() {
            let _ = channel::after(delay).recv();
        }
        let lost = || CallError::Lost(format!("the connection to {server} broke"));
        if request_lost {
            return Err(lost());
        }
        let answer = self.inner.call(server, ask, known, timeout, stop)?;
        match answer_lost {
            true => Err(lost()),
            false => Ok(answer),
        }
    }
}
