//! A network in memory. One thread delivers each message when it is due.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::node::Transport;
use crate::raft::{Envelope, NodeId};

/// How one direction between two nodes behaves. The default is a link without fault or delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Set if no message gets through.
    pub cut: bool,
    /// The shortest delay of a message.
    pub min_delay: Duration,
    /// The longest delay. It is drawn for each message, so that messages overtake each other.
    pub max_delay: Duration,
    /// How many of a thousand messages are late: their delay is between `max_delay` and
    /// `late_delay`.
    pub late_permille: u32,
    /// The longest delay of a late message.
    pub late_delay: Duration,
    /// How many of a thousand messages are lost.
    pub loss_permille: u32,
    /// How many of a thousand messages arrive twice.
    pub twice_permille: u32,
}

impl Link {
    /// A link on which nothing gets through.
    pub const CUT: Self = Self {
        cut: true,
        min_delay: Duration::ZERO,
        max_delay: Duration::ZERO,
        late_permille: 0,
        late_delay: Duration::ZERO,
        loss_permille: 0,
        twice_permille: 0,
    };
}

type Deliver = Arc<dyn Fn(Envelope) + Send + Sync>;

/// A function that sees every message that is sent, and returns whether the message gets through.
pub type Filter = Box<dyn FnMut(&Envelope) -> bool + Send>;

/// How many messages may be on their way. Further ones are lost, as a real network loses them.
const CAPACITY: usize = 100_000;

/// The network between the nodes of a cluster. All clones are the same network.
#[derive(Clone)]
pub struct Network {
    shared: Arc<SharedNetwork>,
}

struct SharedNetwork {
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    links: BTreeMap<(NodeId, NodeId), Link>,
    filter: Option<Filter>,
    nodes: BTreeMap<NodeId, Deliver>,
    on_the_way: BinaryHeap<Reverse<Due>>,
    random: ChaCha8Rng,
    numbers: u64,
    closed: bool,
}

/// A message and the moment at which it arrives. Messages of the same moment arrive in the order in
/// which they were sent.
struct Due {
    at: Instant,
    number: u64,
    envelope: Envelope,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl Network {
    /// A network without faults. The faults that [`set_link`](Self::set_link) asks for later are
    /// drawn from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let shared = Arc::new(SharedNetwork {
            state: Mutex::new(State {
                links: BTreeMap::new(),
                filter: None,
                nodes: BTreeMap::new(),
                on_the_way: BinaryHeap::new(),
                random: ChaCha8Rng::seed_from_u64(seed),
                numbers: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        });
        let carrier = shared.clone();
        let thread = thread::Builder::new().name("network".to_string());
        let thread = thread.spawn(move || carrier.run());
        *shared.thread.lock() = Some(thread.expect("the system has a thread to give"));
        Self { shared }
    }

    /// Connects a node: the network's thread hands it its messages by calling `deliver`.
    pub(super) fn connect(&self, id: NodeId, deliver: Deliver) {
        self.shared.state.lock().nodes.insert(id, deliver);
    }

    /// Disconnects a node: messages on their way to it are lost.
    pub(super) fn disconnect(&self, id: NodeId) {
        let mut state = self.shared.state.lock();
        state.nodes.remove(&id);
        state
            .on_the_way
            .retain(|Reverse(due)| due.envelope.to != id);
    }

    /// Sets how the network behaves from one node to another, in this direction only.
    pub fn set_link(&self, from: NodeId, to: NodeId, link: Link) {
        self.shared.state.lock().links.insert((from, to), link);
    }

    /// Whether no message gets through from one node to another.
    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.shared.state.lock();
        state.links.get(&(from, to)).is_some_and(|link| link.cut)
    }

    /// Loses the messages for which `filter` returns false, besides those that the links lose. The
    /// filter is called for each message with the network's lock held, so it must not call the
    /// network.
    pub fn set_filter(&self, filter: impl FnMut(&Envelope) -> bool + Send + 'static) {
        self.shared.state.lock().filter = Some(Box::new(filter));
    }

    /// Takes the filter away.
    pub fn clear_filter(&self) {
        self.shared.state.lock().filter = None;
    }

    /// How many messages were sent so far, lost ones included.
    pub fn sent(&self) -> u64 {
        self.shared.state.lock().numbers
    }

    pub(super) fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.shared.thread.lock().take() {
            // Joining fails only if a node's code has panicked on that thread, and the panic has
            // been reported.
            let _ = thread.join();
        }
    }
}

impl Transport for Network {
    fn send(&self, messages: Vec<Envelope>) {
        let mut state = self.shared.state.lock();
        for message in messages {
            state.send(message);
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl State {
    fn send(&mut self, envelope: Envelope) {
        self.numbers += 1;
        let link = self.link(&envelope);
        let filter = self.filter.as_mut();
        let filtered = filter.is_some_and(|passes| !passes(&envelope));
        if filtered || link.cut || self.chance(link.loss_permille) {
            return;
        }
        if self.chance(link.twice_permille) {
            self.put_on_the_way(link, envelope.clone());
        }
        self.put_on_the_way(link, envelope);
    }

    fn link(&self, envelope: &Envelope) -> Link {
        let link = self.links.get(&(envelope.from, envelope.to));
        link.copied().unwrap_or_default()
    }

    fn put_on_the_way(&mut self, link: Link, envelope: Envelope) {
        if self.on_the_way.len() >= CAPACITY {
            return;
        }
        let (least, most) = match self.chance(link.late_permille) {
            true => (link.max_delay, link.late_delay),
            false => (link.min_delay, link.max_delay),
        };
        let spread = most.saturating_sub(least).as_micros();
        let extra = self.random.next_u64() % (spread as u64 + 1);
        let delay = least + Duration::from_micros(extra);
        self.on_the_way.push(Reverse(Due {
            at: Instant::now() + delay,
            number: self.numbers,
            envelope,
        }));
    }

    fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.random.next_u32() % 1000 < permille
    }

    /// The messages that are due, each with the function that delivers it.
    fn take_due(&mut self, now: Instant) -> Vec<(Deliver, Envelope)> {
        let mut due = Vec::new();
        while self
            .on_the_way
            .peek()
            .is_some_and(|Reverse(first)| first.at <= now)
        {
            let Some(Reverse(Due { envelope, .. })) = self.on_the_way.pop() else {
                break;
            };
            // The link may have been cut since the message was sent: then the message is lost.
            let lost = self.link(&envelope).cut;
            if let Some(deliver) = self.nodes.get(&envelope.to).filter(|_| !lost) {
                due.push((deliver.clone(), envelope));
            }
        }
        due
    }
}

impl SharedNetwork {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let due = state.take_due(Instant::now());
            if due.is_empty() {
                let next = state.on_the_way.peek().map(|Reverse(first)| first.at);
                match next {
                    Some(at) => drop(self.changed.wait_until(&mut state, at)),
                    None => self.changed.wait(&mut state),
                }
                continue;
            }
            // Messages are delivered without the lock, because a node that takes a message sends
            // others.
            drop(state);
            for (deliver, envelope) in due {
                deliver(envelope);
            }
            state = self.state.lock();
        }
    }
}
