//! Sends answers to clients, and bounds how many requests and bytes of answers each client has
//! under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::announced::Announced;
use super::loop_signals::LoopSignals;
use super::outlet::Outlet;
use super::protocol::Local;
use crate::raft::Index;
use crate::wire::client::{Answer, Response};
use crate::wire::members::MemberList;

/// A client, as seen by the threads that answer its requests.
///
/// A client at one of its bounds is *throttled*: the event loop does not read from its connection.
/// The thread whose answer brings the client down to half of each bound wakes the loop, which then
/// reads again. If the loop were woken as soon as the client is below its bound, each answer to a
/// busy client would wake it.
pub(super) struct Client {
    pub(super) outlet: Arc<Outlet>,
    pub(super) in_flight: AtomicUsize,
    throttled: AtomicBool,
    max_in_flight: usize,
    max_queued: usize,
    signals: Arc<LoopSignals>,
    /// The index of the newest list of members that the client has, or was sent on this connection.
    told: AtomicU64,
    announced: Arc<Announced>,
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
            told: AtomicU64::new(0),
            announced: local.announced.clone(),
        }
    }

    /// Notes the list of members that the client says it has.
    pub(super) fn knows(&self, index: Index) {
        if self.told.load(Ordering::Relaxed) < index {
            self.told.fetch_max(index, Ordering::Relaxed);
        }
    }

    /// The announced list of members, if the client has not got it yet: one response has to carry
    /// it. Every response asks, so without news this only compares two numbers. If several threads
    /// ask at once, one of them gets the list.
    fn news(&self) -> Option<Box<MemberList>> {
        let newest = self.announced.newest();
        if newest <= self.told.load(Ordering::Relaxed) {
            return None;
        }
        let list = self.announced.list();
        let is_first = self.told.fetch_max(list.index, Ordering::Relaxed) < list.index;
        is_first.then(|| Box::new((*list).clone()))
    }

    /// Decides whether to throttle the client. If so, returns true, and the thread whose answer
    /// brings the client down to half of its bounds wakes the event loop.
    pub(super) fn must_wait(&self) -> bool {
        let over = self.in_flight.load(Ordering::SeqCst) >= self.max_in_flight
            || self.outlet.queued() >= self.max_queued;
        self.throttled.store(over, Ordering::SeqCst);
        // A thread may have answered after the bounds were read and before `throttled` was set, and
        // so not have woken the loop. Therefore read the bounds once more. All these accesses are
        // sequentially consistent: either the answering thread sees `throttled` set, or this thread
        // sees the effect of the answer.
        over && !(self.is_relieved() && self.throttled.swap(false, Ordering::SeqCst))
    }

    fn is_relieved(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) <= self.max_in_flight / 2
            && self.outlet.queued() <= self.max_queued / 2
    }

    /// Called after each answer to the client. Wakes the event loop if the client is throttled and
    /// has come down to half of its bounds.
    fn relieve(&self) {
        if self.throttled.load(Ordering::SeqCst)
            && self.is_relieved()
            && self.throttled.swap(false, Ordering::SeqCst)
        {
            self.signals.wake();
        }
    }
}

/// Sends the answer to one request, from any thread, and never blocks. If the connection has
/// closed, the answer is dropped: the client sees the connection close and treats the request's
/// outcome as unknown. If a `ReplyTo` is dropped without an answer, the client waits until the
/// request's time is up.
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

    fn response(&self, answer: Answer) -> Response {
        Response {
            id: self.id,
            answer,
            members: self.client.news(),
        }
    }

    /// Sends the answer to the client at once, on the calling thread.
    pub fn send(self, answer: Answer) {
        self.client.outlet.send([&self.response(answer)]);
    }

    /// Adds the answer to the connection's buffer without sending it. It is sent when `replies` is
    /// flushed, or earlier if the buffer has become long.
    pub fn queue(self, answer: Answer, replies: &mut Replies) {
        self.client.outlet.queue(&self.response(answer));
        // Answers to one client often follow each other, so comparing with the last client finds
        // most duplicates. Flushing a client twice costs little.
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

/// The clients with answers that are queued and not sent yet. All queued answers to one client
/// share one write to its socket. Dropping this value sends them.
#[derive(Default)]
pub struct Replies {
    touched: Vec<Arc<Client>>,
}

impl Replies {
    /// Makes an empty collection of clients with queued answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no client has queued answers.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Sends all queued answers, with one write to the socket of each client.
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
