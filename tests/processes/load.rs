//! Clients that append without a pause, and know what must be there in the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use raftkv::client::Clerk;

use super::cluster::{Cluster, PATIENCE, clerk_at};

/// Each client appends the numbers from 1 on to a key of its own, the next one when the last one
/// is acknowledged.
pub struct Load {
    shared: Arc<SharedLoad>,
    clients: Vec<JoinHandle<u64>>,
}

#[derive(Default)]
struct SharedLoad {
    enough: AtomicBool,
    acknowledged: Mutex<Vec<Instant>>,
    changed: Condvar,
}

impl Load {
    pub fn start(cluster: &Cluster, clients: usize) -> Self {
        Self::start_with(clients, || cluster.clerk())
    }

    /// Clients that know the cluster by these addresses.
    pub fn start_at(clients: usize, addresses: &[SocketAddr]) -> Self {
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        Self::start_with(clients, || clerk_at(addresses.clone(), PATIENCE))
    }

    fn start_with(clients: usize, clerk: impl Fn() -> Clerk) -> Self {
        let shared = Arc::new(SharedLoad::default());
        let clients = (0..clients)
            .map(|client| {
                let (clerk, shared) = (clerk(), shared.clone());
                thread::spawn(move || shared.append(&clerk, &key(client)))
            })
            .collect();
        Self { shared, clients }
    }

    /// Waits until so many more writes are acknowledged.
    pub fn await_more(&self, writes: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut acknowledged = self.shared.acknowledged.lock();
        let enough = acknowledged.len() + writes;
        while acknowledged.len() < enough {
            let late = self.shared.changed.wait_until(&mut acknowledged, deadline);
            assert!(!late.timed_out(), "{} of {enough}", acknowledged.len());
        }
    }

    /// Lets each client end the write at hand. Returns what they have acknowledged.
    pub fn stop(self) -> Expected {
        self.shared.enough.store(true, Ordering::SeqCst);
        let clients = self.clients.into_iter();
        let written = clients.map(|client| client.join().unwrap()).collect();
        let times = std::mem::take(&mut *self.shared.acknowledged.lock());
        Expected { written, times }
    }
}

impl SharedLoad {
    fn append(&self, clerk: &Clerk, key: &str) -> u64 {
        let mut number = 0;
        while !self.enough.load(Ordering::SeqCst) {
            number += 1;
            let result = clerk.append(key, format!("{number};"));
            result.unwrap_or_else(|error| panic!("{number} of {key}: {error}"));
            self.acknowledged.lock().push(Instant::now());
            self.changed.notify_all();
        }
        number
    }
}

fn key(client: usize) -> String {
    format!("key-{client}")
}

/// What the clients have written.
pub struct Expected {
    /// How many numbers each client has appended; all are acknowledged.
    written: Vec<u64>,
    /// When.
    times: Vec<Instant>,
}

impl Expected {
    /// Every acknowledged number is there once, in its order, and no other.
    pub fn check(&self, clerk: &Clerk) {
        for (client, written) in self.written.iter().enumerate() {
            let expected: String = (1..=*written).map(|number| format!("{number};")).collect();
            let value = clerk.get(key(client)).unwrap().unwrap_or_default();
            assert_eq!(std::str::from_utf8(&value), Ok(&*expected), "{client}");
        }
    }

    /// The longest time in which nothing was acknowledged.
    pub fn longest_gap(&self) -> Duration {
        let pairs = self.times.windows(2).map(|pair| pair[1] - pair[0]);
        pairs.max().unwrap_or_default()
    }

    /// How many writes were acknowledged.
    pub fn count(&self) -> usize {
        self.times.len()
    }
}
