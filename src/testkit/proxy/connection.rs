//! One connection through a proxy. Each direction has two threads, one that reads and one that
//! delivers, and a bounded queue between them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::cable::{Cable, Flow, Quality, RETRANSMISSION, Way};

/// The most bytes that one read takes from a socket.
const CHUNK: usize = 16 << 10;
/// How many chunks may be on their way in one direction. With that many the proxy stops reading,
/// and TCP holds the sender back.
const CHUNKS: usize = 64;

/// The state that the two directions of a connection share.
pub(super) struct Connection {
    caller: TcpStream,
    target: TcpStream,
    over: AtomicBool,
    /// For each direction, whether bytes have vanished on it. Indexed by [`Way`].
    holes: [AtomicBool; 2],
}

struct Chunk {
    bytes: Vec<u8>,
    read_at: Instant,
}

impl Connection {
    pub fn new(caller: TcpStream, target: TcpStream) -> io::Result<Arc<Self>> {
        // The kernel must not delay small writes: only the proxy is to decide about delays.
        caller.set_nodelay(true)?;
        target.set_nodelay(true)?;
        Ok(Arc::new(Self {
            caller,
            target,
            over: AtomicBool::new(false),
            holes: [AtomicBool::new(false), AtomicBool::new(false)],
        }))
    }

    pub fn has_hole(&self, way: Way) -> bool {
        self.holes[way as usize].load(Ordering::SeqCst)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Ends both directions. The caller must then wake the threads that wait on the cable.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        for socket in [&self.caller, &self.target] {
            // This fails if the socket is closed already, which is just as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Starts the threads of both directions.
    pub fn carry(self: &Arc<Self>, cable: &Cable, seed: u64) -> io::Result<Vec<JoinHandle<()>>> {
        let mut threads = Vec::new();
        for way in [Way::There, Way::Back] {
            let (sender, receiver) = bounded(CHUNKS);
            let (from, to) = match way {
                Way::There => (&self.caller, &self.target),
                Way::Back => (&self.target, &self.caller),
            };
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let direction = Direction {
                connection: self.clone(),
                cable: cable.clone(),
                way,
                random: ChaCha8Rng::seed_from_u64(seed.wrapping_mul(2) + way as u64),
            };
            threads.push(spawn("proxy-read", move || read(from, &sender))?);
            threads.push(spawn("proxy-write", move || {
                direction.deliver(&receiver, to);
            })?);
        }
        Ok(threads)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

/// Reads until the end of the stream, or until the delivering thread has ended.
fn read(mut from: TcpStream, chunks: &Sender<Chunk>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let chunk = Chunk {
            bytes: buffer[..len].to_vec(),
            read_at: Instant::now(),
        };
        if chunks.send(chunk).is_err() {
            break;
        }
    }
}

/// One direction, as its delivering thread sees it.
struct Direction {
    connection: Arc<Connection>,
    cable: Cable,
    way: Way,
    random: ChaCha8Rng,
}

impl Direction {
    /// Delivers chunk after chunk, and then the end of the stream.
    fn deliver(mut self, chunks: &Receiver<Chunk>, mut to: TcpStream) {
        let mut free_at = Instant::now() + self.cable.quality(self.way).accept_delay;
        for chunk in chunks {
            match self.treat(chunk, &mut free_at) {
                Some(bytes) if to.write_all(&bytes).is_ok() => {}
                _ => return self.give_up(),
            }
        }
        // The end of the stream waits like its bytes. If bytes have vanished, the other side must
        // not see the end: no stream has a hole.
        let is_over = || self.connection.is_over();
        let passed = self.cable.pass(self.way, free_at, is_over);
        if passed.is_none() || self.connection.has_hole(self.way) {
            return;
        }
        // This fails if the other side is gone as well, which does no harm.
        let _ = to.shutdown(Shutdown::Write);
    }

    fn give_up(&self) {
        self.connection.end();
        self.cable.wake();
    }

    /// Waits until the chunk is due, and returns what is to be delivered of it: all, perhaps with a
    /// byte changed, or nothing. `None` if the connection ends instead.
    fn treat(&mut self, mut chunk: Chunk, free_at: &mut Instant) -> Option<Vec<u8>> {
        let delay = self.delay(&self.cable.quality(self.way));
        let due = (*free_at).max(chunk.read_at + delay);
        let is_over = || self.connection.is_over();
        let quality = self.cable.pass(self.way, due, is_over)?;
        if quality.flow == Flow::Vanishes {
            self.connection.holes[self.way as usize].store(true, Ordering::SeqCst);
            self.cable.count(|counts| counts.lost += 1);
            return Some(Vec::new());
        }
        if self.connection.has_hole(self.way) || self.happens(quality.broken_permille) {
            self.cable.count(|counts| counts.lost += 1);
            return None;
        }
        if self.happens(quality.corrupted_permille) {
            let at = self.random.next_u64() as usize % chunk.bytes.len();
            let change = 1 + (self.random.next_u64() % 255) as u8;
            chunk.bytes[at] ^= change;
            self.cable.count(|counts| counts.corrupted += 1);
        }
        self.cable.count(|counts| counts.chunks += 1);
        *free_at = Instant::now();
        let len = chunk.bytes.len() as u64;
        if let Some(nanos) = (len * 1_000_000_000).checked_div(quality.bytes_per_second) {
            *free_at += Duration::from_nanos(nanos);
        }
        Some(chunk.bytes)
    }

    fn delay(&mut self, quality: &Quality) -> Duration {
        let range = quality.max_delay.saturating_sub(quality.min_delay);
        let drawn = self.random.next_u64() % (range.as_nanos() as u64).saturating_add(1);
        let stall = match self.happens(quality.stalled_permille) {
            true => RETRANSMISSION,
            false => Duration::ZERO,
        };
        quality.min_delay + Duration::from_nanos(drawn) + stall
    }

    fn happens(&mut self, permille: u32) -> bool {
        self.random.next_u64() % 1000 < u64::from(permille)
    }
}
