//! Decides when to dial a peer: at once, then after longer and longer pauses, until the peer
//! welcomes this node.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::{Address, Lookup};
use super::directory::DialerId;
use super::loop_signals::LoopSignals;
use super::outlet::Outlet;
use super::protocol::{Close, Local};
use crate::raft::{FolderId, NodeId};
use crate::wire::frame;
use crate::wire::handshake::{Caller, Hello, MAGIC, PeerHello, VERSION};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Decides when to dial one peer, so that this node has a connection to it whenever possible.
pub(super) struct Dialer {
    id: DialerId,
    peer: NodeId,
    /// The folder that the peer is to have; `None` if the configuration has none yet.
    pub(super) folder: Option<FolderId>,
    /// Whether the peer is dialled only because it has called this node.
    pub(super) is_stranger: bool,
    pub(super) outlet: Arc<Outlet>,
    /// Where the peer is dialled, as the configuration has it.
    pub(super) text: String,
    address: Address,
    state: State,
    pause: Duration,
    /// Why the last attempt to connect failed. When several attempts in a row fail for the same
    /// reason, only the first gets a line in the diagnostic log.
    trouble: Option<String>,
}

enum State {
    /// There is no connection, and the next attempt to connect is due at this moment.
    Waiting(Instant),
    /// The peer's host name is being looked up, or a connection to the peer is being opened.
    Busy,
    /// The connection is open, and the peer welcomed this node at this moment.
    Welcomed(Instant),
}

impl Dialer {
    /// Makes a dialer for the peer at address `text`; `None` if `text` is not of the form
    /// `HOST:PORT`.
    pub(super) fn new(
        id: DialerId,
        (peer, folder): (NodeId, Option<FolderId>),
        text: &str,
        outlet: Arc<Outlet>,
    ) -> Option<Self> {
        Some(Self {
            id,
            peer,
            folder,
            is_stranger: false,
            outlet,
            text: text.to_string(),
            address: Address::parse(text)?,
            state: State::Waiting(Instant::now()),
            pause: FIRST_PAUSE,
            trouble: None,
        })
    }

    /// When to dial the peer next; `None` while an attempt to connect is under way or a connection
    /// is open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            State::Busy | State::Welcomed(_) => None,
        }
    }

    /// Returns the address to dial, if an attempt to connect is due now. If the peer's name has to
    /// be looked up first, starts the look-up and returns `None`.
    pub(super) fn due(&mut self, now: Instant, signals: &Arc<LoopSignals>) -> Option<SocketAddr> {
        if self.deadline().is_none_or(|until| until > now) {
            return None;
        }
        self.state = State::Busy;
        match self.address.next(self.id, signals) {
            Lookup::Dial(address) => return Some(address),
            Lookup::Resolving => {}
            Lookup::Failed(error) => self.lost(&Close::Io(error), now),
        }
        None
    }

    /// Handles the result of looking up the peer's host name. Returns the address to dial now;
    /// `None` if the look-up has failed.
    pub(super) fn resolved(
        &mut self,
        found: std::io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let first = match found {
            Ok(found) => self.address.resolved(found),
            Err(error) => {
                self.lost(&Close::Io(error), now);
                return None;
            }
        };
        if first.is_none() {
            let nobody = "the host name has no address".to_string();
            self.lost(&Close::BrokenOff(nobody), now);
        }
        first
    }

    /// The first bytes to send on an established connection: the magic and the hello.
    pub(super) fn prelude(&self, local: &Local) -> Vec<u8> {
        let (list, founding) = (local.announced.list(), local.announced.founding());
        let moved = local.announced.address();
        let hello = Hello {
            version: VERSION,
            cluster: local.cluster.clone(),
            caller: Caller::Peer(PeerHello {
                from: local.id,
                to: self.peer,
                machine: local.machine.clone(),
                folder: local.folder,
                to_folder: self.folder,
                address: moved.unwrap_or_else(|| local.address.clone()),
                lineage: list.lineage,
                configuration: list.index,
                founding,
            }),
        };
        let mut bytes = MAGIC.to_vec();
        frame::put(&hello, &mut bytes);
        bytes
    }

    pub(super) fn peer(&self) -> NodeId {
        self.peer
    }

    /// Notes that the peer has welcomed this node. The next failure gets a line in the diagnostic
    /// log again, whatever its reason.
    pub(super) fn welcomed(&mut self, now: Instant) {
        log::info!("connected to node {} at {}", self.peer, self.text);
        self.state = State::Welcomed(now);
        self.trouble = None;
    }

    /// Notes that an attempt to connect failed or that the connection ended, and decides when to
    /// dial again.
    pub(super) fn lost(&mut self, why: &Close, now: Instant) {
        let why = why.to_string();
        // The pauses become short again only after a connection that lasted. Otherwise a peer that
        // welcomes this node and closes at once, over and over, would be dialled a hundred times a
        // second.
        if let State::Welcomed(since) = self.state
            && now.duration_since(since) >= LONGEST_PAUSE
        {
            self.pause = FIRST_PAUSE;
        }
        if self.trouble.as_deref() != Some(&why) {
            log::warn!(
                "not connected to node {} at {}: {why}. The node keeps trying",
                self.peer,
                self.text
            );
            self.trouble = Some(why);
        }
        self.state = State::Waiting(now + jittered(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// A random time between half of `pause` and all of it. So nodes that lost a peer at the same
/// moment do not all dial the peer at the same moment.
fn jittered(pause: Duration) -> Duration {
    // Each `RandomState` has another random seed, which is random enough for a pause.
    let random = RandomState::new().hash_one(0u8) % 1024;
    pause / 2 + pause / 2 * random as u32 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::outlet::{Bounds, WhenFull};

    fn dialer() -> Dialer {
        let bounds = Bounds {
            queue: 1,
            when_full: WhenFull::BreakOff,
            keep: 0,
        };
        let outlet = Arc::new(Outlet::new(bounds));
        Dialer::new(1, (2, None), "127.0.0.1:1", outlet).unwrap()
    }

    fn pause(dialer: &Dialer, now: Instant) -> Duration {
        dialer.deadline().expect("waiting") - now
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_jittered_downwards() {
        let (mut dialer, now) = (dialer(), Instant::now());
        for doubled in [10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            dialer.lost(&Close::Ended, now);
            let full = Duration::from_millis(doubled);
            let pause = pause(&dialer, now);
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
    }

    #[test]
    fn only_a_connection_that_lasted_starts_the_pauses_over() {
        let (mut dialer, now) = (dialer(), Instant::now());
        for _ in 0..10 {
            dialer.welcomed(now);
            dialer.lost(&Close::Ended, now);
        }
        assert!(pause(&dialer, now) >= LONGEST_PAUSE / 2);
        dialer.welcomed(now);
        let later = now + LONGEST_PAUSE;
        dialer.lost(&Close::Ended, later);
        assert!(pause(&dialer, later) <= FIRST_PAUSE);
    }
}
