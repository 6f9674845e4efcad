//! How connections through a proxy are treated. A test can change it at any time.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::Connection;

/// What becomes of bytes that arrive at the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// The bytes go on to the other side.
    #[default]
    Passes,
    /// The bytes wait until the flow passes again. A connection survives such a cut, unless the
    /// kernels give the connection up first.
    Waits,
    /// The bytes are taken and never delivered: a black hole. When the flow passes again, a
    /// connection that has lost bytes is broken off, because no TCP stream has a hole.
    Vanishes,
}

/// How one direction of a connection behaves. The default is without fault or delay.
///
/// A chunk is what one read of the proxy returned, 16 KiB at the most. Chunks keep their order, and
/// no bytes are lost from the middle of a stream, as with TCP: if a packet is lost, TCP sends it
/// again, and the program sees a pause ([`stalled_permille`](Self::stalled_permille)); if too many
/// are lost, it sees the connection end ([`broken_permille`](Self::broken_permille)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Whether bytes go on at all.
    pub flow: Flow,
    /// The shortest time that a chunk takes.
    pub min_delay: Duration,
    /// The longest time that a chunk takes. The time of each is drawn between the two, evenly.
    pub max_delay: Duration,
    /// The most bytes that go on in a second; 0 for no limit.
    pub bytes_per_second: u64,
    /// How many of a thousand chunks have one byte changed.
    pub corrupted_permille: u32,
    /// How many of a thousand chunks take [`RETRANSMISSION`] longer, as if a packet was lost.
    pub stalled_permille: u32,
    /// At how many of a thousand chunks the connection ends and the chunk is lost.
    pub broken_permille: u32,
    /// How many of a thousand new connections are closed at once.
    pub refused_permille: u32,
    /// How long a new connection waits before its first byte goes on, as at a program that is slow
    /// to accept.
    pub accept_delay: Duration,
}

/// How much longer a chunk takes if one of its packets was lost: the shortest time after which
/// Linux sends a packet again.
pub const RETRANSMISSION: Duration = Duration::from_millis(200);

impl Quality {
    /// A quality with which bytes wait.
    pub fn waiting() -> Self {
        Self {
            flow: Flow::Waits,
            ..Self::default()
        }
    }

    /// A quality with which bytes vanish.
    pub fn vanishing() -> Self {
        Self {
            flow: Flow::Vanishes,
            ..Self::default()
        }
    }

    /// A quality with which each chunk takes `mean`, give or take up to `jitter`.
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
    /// From the program that connected to the target.
    There,
    /// From the target to the program that connected.
    Back,
}

/// How many connections and chunks a cable has carried, and what became of them.
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

/// How the connections of one or several proxies are treated, and what has happened on them. All
/// clones are the same cable.
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

    /// The connections to break off: those with a hole in a direction in which bytes no longer
    /// vanish.
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
    /// Sets the quality of both directions from now on.
    pub fn set(&self, quality: Quality) {
        self.change(|state| (state.there, state.back) = (quality, quality));
    }

    /// Sets the quality of one direction from now on.
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

    /// The connections and chunks so far.
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

    /// Makes all threads that wait in [`pass`](Self::pass) check again whether they may go on.
    pub(super) fn wake(&self) {
        // A thread in `pass` holds the lock from its check until it waits. To take the lock once
        // makes sure that no thread is between the two and misses the notification.
        drop(self.0.state.lock());
        self.0.changed.notify_all();
    }

    /// Waits until `due`, and then as long as bytes have to wait. Returns the quality at the end of
    /// the wait, or `None` as soon as `is_over` returns true.
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
