//! Sends many requests at once from one thread: the event-driven counterpart of
//! [`Tcp`](super::Tcp).
//!
//! It is for programs that keep hundreds of requests under way, where a thread for each request
//! would cost more than the request itself. All requests that are handed in between two calls of
//! [`Carrier::wait`] leave in one write for each connection, and one wake-up reads everything that
//! has arrived.
//!
//! A Carrier has a number of *lanes*. Each lane has one connection to each server, opened when it
//! is first needed, and opened again after an error. So several lanes are several connections to
//! the same server.
//!
//! A Carrier decides nothing: [`Call`](super::Call) says which server to ask, when to repeat a
//! request, and what an answer means. For each request that is handed in, the Carrier hands out
//! exactly one [`Told`]: the answer, or why there is none.

mod link;
mod timer;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use self::link::Link;
use self::timer::Timer;
use super::transport::{Answered, CallError};
use crate::raft::Index;
use crate::wire::client::Ask;

/// The time between two searches of the Carrier for requests whose time is up. So a request may end
/// this much later than its timeout.
const TICK: Duration = Duration::from_millis(20);

/// How many bytes one read from a socket takes at most.
const READ: usize = 256 << 10;

/// The token of the timer's events. A link's token is its place in `links`, which is never as high
/// as this.
const TIMER: Token = Token(usize::MAX);

/// Sends requests and receives their answers over non-blocking sockets.
pub struct Carrier {
    /// When the Carrier was made. The Carrier's clock counts from then.
    start: Instant,
    /// The name of the cluster that all servers must belong to. Empty until it is known: then the
    /// greeting of the first server decides it.
    cluster: String,
    lanes: usize,
    poll: Poll,
    events: Events,
    timer: Timer,
    /// The open connections. The link of a server and a lane is at the place `server * lanes +
    /// lane`, which is also its token.
    links: Vec<Option<Box<Link>>>,
    /// For each server, by its index, what its name was found to mean.
    addresses: Vec<Option<Resolved>>,
    /// The places in `links` of the connections that may have bytes to write.
    dirty: Vec<usize>,
    /// The requests that have ended, which the next [`wait`](Self::wait) hands out.
    told: Vec<Told>,
    /// The buffer into which all links read, one link after the other.
    scratch: Vec<u8>,
    /// When [`expire`](Self::expire) last looked for requests whose time is up.
    looked: Duration,
}

/// A server's address, as the client names it and as the operating system needs it.
struct Resolved {
    name: String,
    address: SocketAddr,
}

/// The end of one request: its answer, or why there is none.
#[derive(Debug)]
pub struct Told {
    /// The tag that was passed with the request to [`Carrier::ask`], by which the request is
    /// recognised.
    pub tag: usize,
    /// The index of the server that was asked.
    pub server: usize,
    /// When the answer arrived or the request failed, on the clock of [`Carrier::now`].
    pub at: Duration,
    /// The answer, or the reason why there is none.
    pub result: Result<Answered, CallError>,
}

impl Carrier {
    /// Makes a Carrier with this many lanes. A lane connects to a server with its first request to
    /// that server. `cluster` is the name of the cluster that must answer. Empty means any cluster,
    /// but all servers must belong to the cluster of the first server that answers.
    ///
    /// # Errors
    /// If the operating system has no file descriptors left.
    pub fn new(lanes: usize, cluster: impl Into<String>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        Ok(Carrier {
            start: Instant::now(),
            cluster: cluster.into(),
            lanes: lanes.max(1),
            poll,
            events: Events::with_capacity(1024),
            timer,
            links: Vec::new(),
            addresses: Vec::new(),
            dirty: Vec::new(),
            told: Vec::new(),
            scratch: vec![0; READ],
            looked: Duration::ZERO,
        })
    }

    /// The time since the Carrier was made.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Hands in a request for the server with this index and address (host:port). The request is
    /// sent over this lane by the next [`wait`](Self::wait). A host name is looked up when it is
    /// first used, which blocks this thread. If the index meant another address so far, the
    /// connections to that one are closed: a client that has to forget a server gives its index to
    /// another one. `known` is the index of the newest list of members that the client has.
    pub fn ask(
        &mut self,
        lane: usize,
        (server, address): (usize, &str),
        tag: usize,
        (ask, known): (Ask, Index),
        timeout: Duration,
    ) {
        let now = self.now();
        self.forget_another(server, address);
        let place = server * self.lanes + lane % self.lanes;
        let sent = match self.open(place, server, address, now) {
            Ok(link) => link.ask(tag, (ask, known), now, timeout),
            Err(why) => Err(why),
        };
        match sent {
            Ok(true) => self.dirty.push(place),
            Ok(false) => {}
            Err(why) => self.told.push(Told {
                tag,
                server,
                at: now,
                result: Err(CallError::NotSent(why)),
            }),
        }
    }

    /// Sends what has been handed in, and waits until a request ends, or until `until` on the clock
    /// of [`now`](Self::now), or for a few dozen milliseconds. Replaces the contents of `told` with
    /// the requests that have ended.
    ///
    /// # Errors
    /// If the operating system cannot wait for sockets. Trying again does not help.
    pub fn wait(&mut self, until: Duration, told: &mut Vec<Told>) -> io::Result<()> {
        self.flush();
        let now = self.now();
        let patience = match self.told.is_empty() {
            true => until.saturating_sub(now).min(TICK),
            false => Duration::ZERO,
        };
        // `poll` rounds its timeout to whole milliseconds. The timer ends the wait at the exact
        // time.
        if !patience.is_zero() && patience < TICK {
            self.timer.arm(now, until)?;
        }
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Err(_) => self.events.clear(),
            Ok(()) => {}
        }
        self.handle_events();
        let now = self.now();
        if now.saturating_sub(self.looked) >= TICK {
            self.looked = now;
            self.expire(now);
        }
        told.clear();
        std::mem::swap(told, &mut self.told);
        Ok(())
    }

    /// Returns the link at this place of `links`, and opens a new one if there is none.
    fn open(
        &mut self,
        place: usize,
        server: usize,
        address: &str,
        now: Duration,
    ) -> Result<&mut Link, String> {
        if place >= self.links.len() {
            self.links.resize_with(place + 1, || None);
        }
        if self.links[place].is_none() {
            let address = self.look_up(server, address)?;
            let registry = self.poll.registry();
            let link = Link::open(
                server,
                address,
                &self.cluster,
                (registry, Token(place)),
                now,
            )?;
            self.links[place] = Some(Box::new(link));
            self.dirty.push(place);
        }
        let link = self.links[place].as_deref_mut();
        link.ok_or_else(|| "the connection is closed".into())
    }

    /// Closes the connections to the server that had this index, if that is not the one with this
    /// address.
    fn forget_another(&mut self, server: usize, address: &str) {
        let slot = self.addresses.get_mut(server);
        if slot.is_none_or(|slot| slot.take_if(|known| known.name != address).is_none()) {
            return;
        }
        let first = server * self.lanes;
        for place in first..(first + self.lanes).min(self.links.len()) {
            self.close(place, "another server took its place");
        }
    }

    fn look_up(&mut self, server: usize, name: &str) -> Result<SocketAddr, String> {
        if server >= self.addresses.len() {
            self.addresses.resize_with(server + 1, || None);
        }
        if let Some(known) = &self.addresses[server] {
            return Ok(known.address);
        }
        let found = name.to_socket_addrs().map(|mut all| all.next());
        match found {
            Ok(Some(address)) => {
                let name = name.to_string();
                self.addresses[server] = Some(Resolved { name, address });
                Ok(address)
            }
            Ok(None) => Err("the name has no address".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            let written = self.links[place].as_deref_mut().map(Link::flush);
            if let Some(Err(why)) = written {
                self.close(place, &why);
            }
        }
        self.dirty = dirty;
    }

    fn handle_events(&mut self) {
        // Take the events out of `self` while the loop runs, because `close` needs all of `self`.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(1));
        for event in &events {
            if event.token() == TIMER {
                self.timer.expired();
                continue;
            }
            let place = event.token().0;
            // The link may be closed already, because of an earlier event of this wake-up.
            let Some(link) = self.links.get_mut(place).and_then(Option::as_deref_mut) else {
                continue;
            };
            let mut result = Ok(());
            let is_ended = event.is_read_closed();
            if event.is_readable() || is_ended {
                let (cluster, told) = (&mut self.cluster, &mut self.told);
                result = link.read(is_ended, &mut self.scratch, self.start, cluster, told);
            }
            match result.and_then(|()| link.flush()) {
                Ok(()) => {}
                Err(why) => self.close(place, &why),
            }
        }
        self.events = events;
    }

    /// Ends the requests whose time is up, and closes the connections whose servers do not respond.
    fn expire(&mut self, now: Duration) {
        for place in 0..self.links.len() {
            let link = self.links[place].as_deref_mut();
            if let Some(why) = link.and_then(|link| link.expire(now, &mut self.told)) {
                self.close(place, why);
            }
        }
    }

    fn close(&mut self, place: usize, why: &str) {
        if let Some(mut link) = self.links[place].take() {
            link.end(
                self.poll.registry(),
                why,
                self.start.elapsed(),
                &mut self.told,
            );
        }
    }
}
