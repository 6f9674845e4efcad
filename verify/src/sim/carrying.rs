//! Carries the messages and answers of simulated nodes over the simulated network, and hands them
//! to their receivers.

use bytes::Bytes;

use super::Time;
use super::lab;
use super::network::{Kind, Place};
use super::node::{Packet, Waiter};
use super::trace::trace;
use super::world::{Event, World};
use raftkv::client::CallError;
use raftkv::raft::Envelope;
use raftkv::wire::client::Answer;
use raftkv::wire::codec;
use raftkv::wire::frame::{self, MAX_PAYLOAD};

/// How long it takes on average until a connection that was closed is there again.
const REDIAL: Time = 20_000;

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
        if !self.is_connected(n, to) {
            return;
        }
        let bytes = codec::to_bytes(&envelope);
        let kind = lab::kind_of(&envelope.message);
        let way = (n, to, kind);
        let arrivals = self.network.arrivals(way, self.now, &mut self.random);
        self.desk.traffic.note(way, bytes.len(), arrivals.len());
        for at in arrivals {
            if let Some(bytes) = self.after_transit(n, to, &bytes) {
                self.queue.add(at, Event::Packet(to, Packet::Peer(bytes)));
            }
        }
    }

    /// A message as it arrives. If a bit of its frame flipped on the way, the receiver notices by
    /// the frame's checksums and closes the connection: this message is lost, and so is what is
    /// sent before the sender has dialled anew.
    fn after_transit(&mut self, from: Place, to: Place, bytes: &Bytes) -> Option<Bytes> {
        if !self.network.corrupts(from, to, &mut self.random) {
            return Some(bytes.clone());
        }
        self.stats.corrupted += 1;
        let mut frame = Vec::new();
        frame::put_with(&mut frame, |out| out.extend_from_slice(bytes));
        let bit = self.random.below(frame.len() as u64 * 8) as usize;
        frame[bit / 8] ^= 1 << (bit % 8);
        trace!(self, "bit {bit} of it flips on the way");
        if let Ok(Some((payload, _))) = frame::split(&frame, MAX_PAYLOAD) {
            return Some(Bytes::copy_from_slice(payload));
        }
        let again = self.now + self.random.exponential(REDIAL);
        self.network.cut(from, to, again);
        None
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
