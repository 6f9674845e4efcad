//! What clients do besides their operations: they die, and ask nodes for snapshots and transfers.

use std::time::Duration;

use super::Client;
use crate::sim::node::Waiter;
use crate::sim::trace::trace;
use crate::sim::world::World;
use raftkv::kv::Command;
use raftkv::wire::client::Ask;

impl World {
    /// A client dies in the middle of what it does. Another one takes its place, with a session of
    /// its own; what the first had under way may still be executed.
    pub(in crate::sim) fn client_dies(&mut self, c: usize) {
        trace!(self, "client {c} dies");
        let fresh = Client::drawn(&self.plan, &mut self.random);
        let old = std::mem::replace(&mut self.clients[c], fresh);
        self.clients[c].life = old.life + 1;
        if let Some(session) = old.session.id().filter(|_| old.calls.is_empty()) {
            // It was able to say goodbye.
            let ask = Ask::Submit(Command::CloseSession { session }.to_bytes());
            self.repeat(c, &ask);
        }
        for _ in 0..self.plan.concurrency {
            self.think(c);
        }
    }

    /// Asks a node for a snapshot.
    pub(in crate::sim) fn ask_for_snapshot(&mut self, server: usize) {
        let nobody = Waiter {
            client: 0,
            attempt: 0,
        };
        self.request(nobody, server, 0, Duration::from_secs(1), Ask::Snapshot);
    }

    /// Asks a node to hand its leadership over.
    pub(in crate::sim) fn ask_for_transfer(&mut self) {
        let server = self.random.below(self.nodes.len() as u64) as usize;
        let to = self.random.between(1, self.nodes.len() as u64);
        let to = Some(to).filter(|_| self.random.chance(0.5));
        let nobody = Waiter {
            client: 0,
            attempt: 0,
        };
        self.request(nobody, server, 0, Duration::from_secs(1), Ask::Transfer(to));
    }
}
