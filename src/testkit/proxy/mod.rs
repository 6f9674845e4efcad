//! A TCP proxy between two programs that treats their bytes as a bad network would: it delays,
//! changes, holds back or swallows them, and breaks connections off.
//!
//! It is for real processes: give a node the addresses of proxies in place of those of its peers,
//! and a client in place of those of the servers. A node sends to a peer only over the connection
//! that it dialled itself, so with one proxy for each ordered pair of nodes, each direction can be
//! treated apart.

mod cable;
mod connection;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub use cable::{Cable, Counts, Flow, Quality, RETRANSMISSION, Way};
use connection::Connection;

/// The most connections that one proxy carries at a time. It closes further ones.
const MAX_CONNECTIONS: usize = 256;
/// How long the proxy tries to reach the target before it closes the caller's connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A running proxy. Dropping it ends its connections and threads.
pub struct Proxy {
    address: SocketAddr,
    inner: Arc<Inner>,
    accept: Option<JoinHandle<()>>,
}

struct Inner {
    target: SocketAddr,
    cable: Cable,
    seed: u64,
    closed: AtomicBool,
    open: Mutex<Vec<Open>>,
}

/// A connection and the threads that carry it.
struct Open {
    connection: Arc<Connection>,
    threads: Vec<JoinHandle<()>>,
}

impl Open {
    fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Proxy {
    /// Connects each caller of `listener` with `target`, and treats the bytes between them as the
    /// cable says. Delays and faults that are left to chance follow from the seed.
    ///
    /// # Errors
    /// If the system refuses a thread or an operation on a socket.
    pub fn start(
        listener: TcpListener,
        target: SocketAddr,
        cable: &Cable,
        seed: u64,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            target,
            cable: cable.clone(),
            seed,
            closed: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let accepting = inner.clone();
        let accept = thread::Builder::new()
            .name("proxy-accept".into())
            .spawn(move || accepting.accept(&listener))?;
        Ok(Self {
            address,
            inner,
            accept: Some(accept),
        })
    }

    /// The address at which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts. If this fails, that thread has ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(accept) = self.accept.take() {
            let _ = accept.join();
        }
        let open = std::mem::take(&mut *self.inner.open.lock());
        for open in &open {
            open.connection.end();
        }
        self.inner.cable.wake();
        for thread in open.into_iter().flat_map(|open| open.threads) {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn accept(&self, listener: &TcpListener) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        for (number, caller) in (0..).zip(listener.incoming()) {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let mut open = self.open.lock();
            open.retain(|open| !open.is_over());
            // A caller that cannot be connected with the target sees its connection end, and tries
            // again.
            let refused = self.cable.quality(Way::There).refused_permille;
            if let Ok(caller) = caller
                && random.next_u64() % 1000 >= u64::from(refused)
                && open.len() < MAX_CONNECTIONS
                && let Ok(carried) = self.start(caller, number)
            {
                open.push(carried);
            }
        }
    }

    fn start(&self, caller: TcpStream, number: u64) -> io::Result<Open> {
        let target = TcpStream::connect_timeout(&self.target, CONNECT_TIMEOUT)?;
        let connection = Connection::new(caller, target)?;
        self.cable.add(&connection);
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let threads = connection.carry(&self.cable, seed)?;
        Ok(Open {
            connection,
            threads,
        })
    }
}
