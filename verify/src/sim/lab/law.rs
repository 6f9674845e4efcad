//! The network of the course. All its links follow the same rules, which the course calls reliable,
//! unreliable and long reordering.
//!
//! Reliable: no packet is lost, and each takes at most 0.1 ms. Unreliable: a request is delayed by
//! up to 26 ms, and a tenth of all requests and a tenth of all answers are lost. Long reordering:
//! two thirds of the answers that are not lost are delayed by 200 ms and up to 2 s more; short
//! delays are more frequent than long ones.
//!
//! A call of the course fails if the other side is cut off, after up to 7 s. Messages between our
//! nodes are not calls: a message to a node that is cut off is lost, and its sender does not hear
//! of that. Clients do make calls. As in the course, they hear of a lost packet at once, and of a
//! server that is cut off or down within 100 ms, or with long delays within 7 s.

use std::collections::BTreeMap;

use crate::sim::Time;
use crate::sim::network::{Kind, Place};
use crate::sim::node::Waiter;
use crate::sim::random::Random;
use crate::sim::world::{Event, World};
use raftkv::client::CallError;
use raftkv::raft::Message;

const MS: Time = 1000;
/// How long the way takes in any case.
const WAY: Time = 50;
/// The longest delay of a request on an unreliable network.
const MOST_DELAY: Time = 26 * MS;
/// How likely the unreliable network loses a request, and an answer.
const LOSS: f64 = 0.1;
/// How likely an answer is late, under long reordering.
const LATE: f64 = 2.0 / 3.0;
const LEAST_LATENESS: Time = 200 * MS;
const MOST_LATENESS: Time = 2000 * MS;
/// After how long, at the most, a client hears that a server is out of its reach.
const MOST_PATIENCE: Time = 100 * MS;
/// The same with long delays.
const MOST_LONG_DELAY: Time = 7000 * MS;

/// What happens to packets.
#[derive(Debug)]
pub(in crate::sim) struct Law {
    pub unreliable: bool,
    pub long_reordering: bool,
    /// Clients hear late of a server that is cut off or down.
    pub long_delays: bool,
    /// The last arrival over each link, for the reliable network keeps the order.
    last: BTreeMap<(Place, Place), Time>,
}

impl Law {
    pub fn reliable() -> Self {
        Self {
            unreliable: false,
            long_reordering: false,
            long_delays: false,
            last: BTreeMap::new(),
        }
    }

    /// When a packet arrives, if it does.
    pub fn arrival(
        &mut self,
        (from, to, kind): (Place, Place, Kind),
        now: Time,
        random: &mut Random,
    ) -> Option<Time> {
        let at = now + WAY + random.below(WAY);
        if !self.unreliable {
            let last = self.last.entry((from, to)).or_insert(0);
            *last = at.max(*last);
            return Some(*last);
        }
        if random.chance(LOSS) {
            return None;
        }
        let delay = match kind {
            Kind::Request => random.below(MOST_DELAY + 1),
            Kind::Reply if self.long_reordering && random.chance(LATE) => {
                let most = 1 + random.below(MOST_LATENESS);
                LEAST_LATENESS + random.below(most)
            }
            Kind::Reply => 0,
        };
        Some(at + delay)
    }
}

/// Whether the course would call it a request or a reply.
pub(in crate::sim) fn kind_of(message: &Message) -> Kind {
    match message {
        Message::PreVote { .. }
        | Message::Vote { .. }
        | Message::Append { .. }
        | Message::Heartbeat { .. }
        | Message::Snapshot { .. }
        | Message::TimeoutNow => Kind::Request,
        Message::PreVoteReply { .. }
        | Message::VoteReply { .. }
        | Message::Accepted { .. }
        | Message::Rejected { .. }
        | Message::HeartbeatReply { .. }
        | Message::SnapshotReply { .. }
        | Message::Outdated => Kind::Reply,
    }
}

/// Whether the course would count a message as a request.
pub(crate) fn is_request(message: &Message) -> bool {
    kind_of(message) == Kind::Request
}

impl World {
    /// A client's request to a server, or the answer, is lost: under the law of the course it
    /// hears of that.
    pub(in crate::sim) fn lost(&mut self, to: Waiter, server: usize) {
        let Some(law) = &self.network.law else {
            return;
        };
        let most_patience = match law.long_delays {
            true => MOST_LONG_DELAY,
            false => MOST_PATIENCE,
        };
        let place = self.nodes.len() + to.client;
        let is_cut = self.network.is_cut(place, server, self.now);
        let reached = !is_cut && self.nodes[server].running.is_some();
        let most = if reached { MOST_DELAY } else { most_patience };
        let after = self.random.below(most);
        let lost = Err(CallError::Lost("no answer".into()));
        self.queue.add(self.now + after, Event::Answer(to, lost));
    }
}
