//! How other threads reach the event loop: they leave data for the loop here, and wake it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mio::Waker;
use parking_lot::Mutex;

use super::directory::DialerId;
use crate::raft::Contact;

/// The result of looking up a host name, and the dialer that waits for it.
pub(super) type Resolved = (DialerId, io::Result<Vec<SocketAddr>>);

/// Data that other threads leave for the event loop, and the means to wake the loop.
pub(super) struct LoopSignals {
    waker: Waker,
    stop: AtomicBool,
    /// The results of finished look-ups of host names that the event loop has not taken yet. There
    /// is at most one for each dialer, because a dialer has one look-up under way at a time.
    resolved: Mutex<Vec<Resolved>>,
    contacts: Mutex<LeftContacts>,
    /// How often the loop has woken up. A test checks that an idle loop does not wake up.
    pub(super) wakeups: AtomicU64,
}

/// Whom the event loop is to dial, as another thread has left it.
#[derive(Default)]
struct LeftContacts {
    /// The number of the newest list that was left.
    newest: u64,
    /// That list, until the loop takes it.
    list: Option<Vec<Contact>>,
}

impl LoopSignals {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            waker,
            stop: AtomicBool::new(false),
            resolved: Mutex::new(Vec::new()),
            contacts: Mutex::default(),
            wakeups: AtomicU64::new(0),
        }
    }

    /// Wakes the event loop. The loop then takes the results of look-ups and the list of contacts,
    /// reads again from its suspended connections, and sees whether it is to stop.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the event loop: {error}");
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(super) fn hand_in(&self, resolved: Resolved) {
        self.resolved.lock().push(resolved);
        self.wake();
    }

    /// Leaves a list of contacts, unless a newer one was left, and wakes the loop.
    pub(super) fn leave_contacts(&self, sequence: u64, list: Vec<Contact>) {
        let mut left = self.contacts.lock();
        if sequence <= left.newest {
            return;
        }
        *left = LeftContacts {
            newest: sequence,
            list: Some(list),
        };
        drop(left);
        self.wake();
    }

    pub(super) fn take_contacts(&self) -> Option<Vec<Contact>> {
        self.contacts.lock().list.take()
    }

    pub(super) fn take_resolved(&self) -> Vec<Resolved> {
        std::mem::take(&mut *self.resolved.lock())
    }
}

/// Stops the event loop, from any thread. Dropping a `Stopper` does nothing.
#[derive(Clone)]
pub struct Stopper {
    pub(super) signals: Arc<LoopSignals>,
}

impl Stopper {
    /// Makes [`Net::run`](super::Net::run) return soon, and does not wait until it has.
    pub fn stop(&self) {
        self.signals.stop.store(true, Ordering::SeqCst);
        self.signals.wake();
    }
}
