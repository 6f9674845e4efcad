//! How a connection through a proxy is treated, changed at any time.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::Connection;

/// What becomes of bytes that arrive at the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They go on.
    #[default]
    Passes,
    /// They wait, and go on when the flow passes again: a cut that ends before the kernels give
    /// the connection up.
    Waits,
    /// They are taken and never delivered: a black hole. A connection that has lost bytes is
    /// broken off when the flow passes again, for no stream can have a hole.
    Vanishes,
}

/// How one direction of a connection behaves. The default is without fault or delay.
///
/// A chunk is what one read of the proxy returned, 16 KiB at the most. Chunks keep their order, as
/// in any stream. No stream loses bytes from its middle either: where a packet is lost, TCP repeats
/// it, and what the program sees is a pause ([`stalled_permille`](Self::stalled_permille)); where
/// too many are, it sees the connection end ([`broken_permille`](Self::broken_permille)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Whether bytes go on at all.
    pub flow: Flow,
    /// The shortest time that a chunk takes.
    pub min_delay: Duration,
    /// The longest time that a chunk takes; drawn evenly for each.
    pub max_delay: Duration,
    /// How many bytes go on in a second. 0: as many as come.
    pub bytes_per_second: u64,
    /// How many of a thousand chunks have one byte changed.
    pub corrupted_permille: u32,
    /// How many of a thousand chunks take [`RETRANSMISSION`] longer, as if a packet was lost.
    pub stalled_permille: u32,
    /// With how many of a thousand chunks the connection ends; the chunk is lost.
    pub broken_permille: u32,
    /// How many of a thousand new connections are closed at once.
    pub refused_permille: u32,
    /// How long a new connection waits before its first byte goes on, as at a program that is slow
    /// to accept.
    pub accept_delay: Duration,
}

/// How long a chunk is held up in which a packet got lost: the shortest time after which Linux
/// sends a packet again.
pub const RETRANSMISSION: Duration = Duration::from_millis(200);

impl Quality {
    /// Bytes wait.
    pub fn waiting() -> Self {
        Self {
            flow: Flow::Waits,
            ..Self::default()
        }
    }

    /// Bytes vanish.
    pub fn vanishing() -> Self {
        Self {
            flow: Flow::Vanishes,
            ..Self::default()
        }
    }

    /// Each chunk takes `mean`, up to `jitter` less or more.
    pub fn delayed(mean: Duration, jitter: Duration) -> Self {
        Self {
            min_delay: mean.saturating_sub(jitter),
            max_delay: mean + jitter,
            ..Self::default()
        }
    }
}

/// The two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the one who connected to the target.
    There,
    /// From the target to the one who connected.
    Back,
}

/// What has happened on a cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were carried on to their target.
    pub connections: u64,
    /// Chunks that were delivered.
    pub chunks: u64,
    /// Chunks that were delivered with a byte changed.
    pub corrupted: u64,
    /// Chunks that vanished, or broke their connection off.
    pub lost: u64,
}

/// What any number of proxies have in common: the quality of their connections. Clones share it.
#[derive(Clone, Default)]
pub struct Cable(Arc<SharedCable>);

#[derive(Default)]
struct SharedCable {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    there: Quality,
    back: Quality,
    counts: Counts,
    connections: Vec<Weak<Connection>>,
}

impl State {
    fn quality(&self, way: Way) -> Quality {
        match way {
            Way::There => self.there,
            Way::Back => self.back,
        }
    }

    /// Breaks off connections with a hole in a direction that passes again.
    fn mend(&mut self) -> Vec<Arc<Connection>> {
        let open = self.connections.iter().filter_map(Weak::upgrade);
        let broken = |connection: &Arc<Connection>| {
            let passes = |way| self.quality(way).flow != Flow::Vanishes;
            [Way::There, Way::Back]
                .into_iter()
                .any(|way| passes(way) && connection.has_hole(way))
        };
        open.filter(broken).collect()
    }
}

impl Cable {
    /// Both directions behave like this from now on.
    pub fn set(&self, quality: Quality) {
        self.change(|state| (state.there, state.back) = (quality, quality));
    }

    /// One direction behaves like this from now on.
    pub fn set_way(&self, way: Way, quality: Quality) {
        self.change(|state| match way {
            Way::There => state.there = quality,
            Way::Back => state.back = quality,
        });
    }

    /// Ends all connections that are open.
    pub fn break_off(&self) {
        let connections = std::mem::take(&mut self.0.state.lock().connections);
        for connection in connections.iter().filter_map(Weak::upgrade) {
            connection.end();
        }
        self.wake();
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.0.state.lock().counts
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let broken = {
            let mut state = self.0.state.lock();
            change(&mut state);
            state.mend()
        };
        for connection in broken {
            connection.end();
        }
        self.wake();
    }

    pub(super) fn quality(&self, way: Way) -> Quality {
        self.0.state.lock().quality(way)
    }

    pub(super) fn add(&self, connection: &Arc<Connection>) {
        let mut state = self.0.state.lock();
        state.counts.connections += 1;
        state.connections.retain(|known| known.strong_count() > 0);
        state.connections.push(Arc::downgrade(connection));
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.0.state.lock().counts);
    }

    /// Has whoever waits look again.
    pub(super) fn wake(&self) {
        // Whoever has just looked holds the lock until it waits.
        drop(self.0.state.lock());
        self.0.changed.notify_all();
    }

    /// Waits until `due`, and then until the flow does not wait. Returns the quality at that
    /// moment; `None` if `is_over` says so before.
    pub(super) fn pass(
        &self,
        way: Way,
        due: Instant,
        is_over: impl Fn() -> bool,
    ) -> Option<Quality> {
        let mut state = self.0.state.lock();
        loop {
            if is_over() {
                return None;
            }
            let quality = state.quality(way);
            if due > Instant::now() {
                self.0.changed.wait_until(&mut state, due);
            } else if quality.flow == Flow::Waits {
                self.0.changed.wait(&mut state);
            } else {
                return Some(quality);
            }
        }
    }
}
