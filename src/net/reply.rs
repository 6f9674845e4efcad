//! Answers on their way to clients, and the bounds on what a client has under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::loop_signals::LoopSignals;
use super::outlet::Outlet;
use super::protocol::Local;
use crate::wire::client::{Answer, Response};

/// A client as seen by those who answer it.
///
/// A client at one of its bounds is *throttled*: the event loop does not read from its connection.
/// The thread whose answer brings the client below half of its bounds wakes the loop, which then
/// reads again. Without the gap between the bound and its half, a client at its bound would wake
/// the loop with each answer.
pub(super) struct Client {
    pub(super) outlet: Arc<Outlet>,
    pub(super) in_flight: AtomicUsize,
    throttled: AtomicBool,
    max_in_flight: usize,
    max_queued: usize,
    signals: Arc<LoopSignals>,
}

impl Client {
    pub(super) fn new(outlet: &Arc<Outlet>, local: &Local) -> Self {
        Self {
            outlet: outlet.clone(),
            in_flight: AtomicUsize::new(0),
            throttled: AtomicBool::new(false),
            max_in_flight: local.limits.max_in_flight,
            max_queued: local.limits.client_queue_bytes,
            signals: local.signals.clone(),
        }
    }

    /// Whether the client is throttled. If it is, the loop is woken when it no longer is.
    pub(super) fn must_wait(&self) -> bool {
        let over = self.in_flight.load(Ordering::SeqCst) >= self.max_in_flight
            || self.outlet.queued() >= self.max_queued;
        self.throttled.store(over, Ordering::SeqCst);
        // A thread that answered between the look at the bounds and the mark saw no mark, and did
        // not wake the loop. So the loop looks at the bounds once more. All these accesses are
        // sequentially consistent: either the thread sees the mark, or the loop sees its answer.
        over && !(self.is_relieved() && self.throttled.swap(false, Ordering::SeqCst))
    }

    fn is_relieved(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) <= self.max_in_flight / 2
            && self.outlet.queued() <= self.max_queued / 2
    }

    /// Called after an answer: wakes the loop if it throttles this client and no longer has to.
    fn relieve(&self) {
        if self.throttled.load(Ordering::SeqCst)
            && self.is_relieved()
            && self.throttled.swap(false, Ordering::SeqCst)
        {
            self.signals.wake();
        }
    }
}

/// Where the answer to one request goes. Good for one answer, from any thread; none of its methods
/// blocks. If the connection has closed, the answer is dropped: the client sees the connection
/// close and takes the request's outcome for unknown. If a `ReplyTo` is dropped without an answer,
/// the client waits until the request's time is up.
pub struct ReplyTo {
    pub(super) client: Arc<Client>,
    id: u64,
}

impl ReplyTo {
    pub(super) fn new(client: &Arc<Client>, id: u64) -> Self {
        client.in_flight.fetch_add(1, Ordering::SeqCst);
        Self {
            client: client.clone(),
            id,
        }
    }

    /// Sends the answer at once.
    pub fn send(self, answer: Answer) {
        let id = self.id;
        self.client.outlet.send([&Response { id, answer }]);
    }

    /// Leaves the answer in the connection's buffer. It is sent when `replies` is flushed, at the
    /// latest.
    pub fn queue(self, answer: Answer, replies: &mut Replies) {
        let id = self.id;
        self.client.outlet.queue(&Response { id, answer });
        // Answers to one client often come in a row, so a look at the last client finds most
        // duplicates. To flush a client twice costs little.
        let last = replies.touched.last();
        if last.is_none_or(|last| !Arc::ptr_eq(last, &self.client)) {
            replies.touched.push(self.client.clone());
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        self.client.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.client.relieve();
    }
}

/// The clients with answers that are queued and not sent yet. All answers to one client then take
/// one write to its socket. Flushes when dropped.
#[derive(Default)]
pub struct Replies {
    touched: Vec<Arc<Client>>,
}

impl Replies {
    /// Nothing gathered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Sends what was gathered.
    pub fn flush(&mut self) {
        for client in self.touched.drain(..) {
            client.outlet.flush();
            client.relieve();
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.flush();
    }
}
