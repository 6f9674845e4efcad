//! What nodes put on the network, and what comes of it at the other end.

use super::lab;
use super::network::{Kind, Place};
use super::node::{Packet, Waiter};
use super::trace::trace;
use super::world::{Event, World};
use raftkv::client::CallError;
use raftkv::raft::Envelope;
use raftkv::wire::client::Answer;
use raftkv::wire::codec;

impl World {
    pub(super) fn carry_message(&mut self, n: usize, envelope: Envelope) {
        let to = envelope.to as usize - 1;
        trace!(
            self,
            "{} -> {} in term {}: {:?}",
            n + 1,
            envelope.to,
            envelope.term,
            envelope.message
        );
        let bytes = codec::to_bytes(&envelope);
        let kind = lab::kind_of(&envelope.message);
        let way = (n, to, kind);
        let arrivals = self.network.arrivals(way, self.now, &mut self.random);
        self.desk.traffic.note(way, bytes.len(), arrivals.len());
        for at in arrivals {
            let packet = Packet::Peer(bytes.clone());
            self.queue.add(at, Event::Packet(to, packet));
        }
    }

    pub(super) fn carry_answer(&mut self, n: usize, to: Waiter, result: Result<Answer, CallError>) {
        if to.client == lab::DESK {
            self.desk.answered(to.attempt, result);
            return;
        }
        let place: Place = self.nodes.len() + to.client;
        let way = (n, place, Kind::Reply);
        let arrivals = self.network.arrivals(way, self.now, &mut self.random);
        match arrivals.first() {
            Some(at) => self.queue.add(*at, Event::Answer(to, result)),
            None => self.lost(to, n),
        }
    }

    /// A caller may learn that nobody listens, or hear nothing at all.
    pub(super) fn refuse_connection(&mut self, n: usize, packet: &Packet) {
        if let Packet::Request { from, .. } = packet
            && self.network.law.is_some()
        {
            self.lost(*from, n);
        } else if let Packet::Request { from, .. } = packet
            && self.random.chance(0.5)
        {
            let why = CallError::NotSent("connection refused".into());
            self.carry_answer(n, *from, Err(why));
        }
    }
}
