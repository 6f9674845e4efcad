//! Answers on their way to clients, and the bounds on what a client has under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::outlet::Outlet;
use super::protocol::Local;
use super::shared::Shared;
use crate::wire::client::{Answer, Response};

/// A client as seen by those who answer it.
///
/// At its bounds it is *held*: the loop does not read from it. Below half of them it is released,
/// by whoever brings it there; the gap keeps a client at its bound from waking the loop with each
/// answer.
pub(super) struct Client {
    pub(super) outlet: Arc<Outlet>,
    pub(super) in_flight: AtomicUsize,
    held: AtomicBool,
    max_in_flight: usize,
    max_queued: usize,
    shared: Arc<Shared>,
}

impl Client {
    pub(super) fn new(outlet: &Arc<Outlet>, local: &Local) -> Self {
        Self {
            outlet: outlet.clone(),
            in_flight: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            max_in_flight: local.limits.max_in_flight,
            max_queued: local.limits.client_queue_bytes,
            shared: local.shared.clone(),
        }
    }

    /// Whether no further request may be read. If so, the loop will be woken when one may.
    pub(super) fn must_wait(&self) -> bool {
        let over = self.in_flight.load(Ordering::SeqCst) >= self.max_in_flight
            || self.outlet.queued() >= self.max_queued;
        self.held.store(over, Ordering::SeqCst);
        // Whoever relieved the client before it was marked as held saw no reason to wake the loop.
        // All these accesses are sequentially consistent: one of the two sees the other.
        over && !(self.is_relieved() && self.held.swap(false, Ordering::SeqCst))
    }

    fn is_relieved(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) <= self.max_in_flight / 2
            && self.outlet.queued() <= self.max_queued / 2
    }

    /// Wakes the loop if it holds this client back and no longer needs to.
    fn relieve(&self) {
        if self.held.load(Ordering::SeqCst)
            && self.is_relieved()
            && self.held.swap(false, Ordering::SeqCst)
        {
            self.shared.wake();
        }
    }
}

/// Where the answer to one request goes. Good for one answer, from any thread; none of its methods
/// blocks. If the client has gone, the answer is dropped. If this is dropped without an answer,
/// the client gets none and waits until its own time runs out.
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

    /// Sends the answer together with others: at the latest when `replies` is flushed.
    pub fn queue(self, answer: Answer, replies: &mut Replies) {
        let id = self.id;
        self.client.outlet.queue(&Response { id, answer });
        // Answers to one client often come in a row. If not, flushing it twice costs little.
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

/// Gathers answers, so that each client's take one write, not one each. Flushes when dropped.
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
