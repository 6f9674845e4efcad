//! The event loop: waits for events on sockets, and lets one connection after the other read its
//! socket and deliver its messages. What one connection does before the next one is its *turn*.

mod connecting;
mod contacts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use super::accept::Acceptor;
use super::address::Address;
use super::announced::Announced;
use super::connection::{Connection, Turned};
use super::dialer::Dialer;
use super::directory::DialerId;
use super::loop_signals::{LoopSignals, Stopper};
use super::peers::Peers;
use super::protocol::{Close, Local, Stage, Turn};
use super::{Config, NetError, Service};
use crate::raft::{Contact, NodeId};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// The number of the first connection. Later connections count up from here, and no number is used
/// twice. So a late event for a closed connection is never taken for an event of another
/// connection.
const FIRST_CONNECTION: usize = 2;

/// How many events the event loop takes from the kernel at a time.
const EVENTS: usize = 1024;
/// How many messages one connection may deliver before the event loop goes on to the next
/// connection.
const MESSAGES_PER_TURN: usize = 512;
/// The size in bytes of the buffer that all connections read into.
const SCRATCH: usize = 64 << 10;
/// How much memory a peer's empty outgoing buffer keeps, in bytes. This is a lot, because peers are
/// few and get large messages.
const PEER_KEEPS: usize = 1 << 20;

pub(super) struct EventLoop {
    poll: Poll,
    local: Local,
    address: SocketAddr,
    acceptor: Acceptor,
    connections: HashMap<Token, Connection>,
    dialers: BTreeMap<DialerId, Dialer>,
    next_dialer: DialerId,
    /// Whether the contacts have changed since the service was last asked about peers that are
    /// connected.
    judges_again: bool,
    /// The deadlines of connections that are being opened. Each equals the connection's own
    /// `deadline`.
    deadlines: BTreeSet<(Instant, Token)>,
    /// The connections that may have bytes to read or messages to deliver. Each gets a turn in this
    /// round of the event loop, or in the next one.
    runnable: Vec<Token>,
    /// The connections from which nothing is read until another thread wakes the event loop,
    /// because the client is throttled or its hello has not been judged.
    suspended: BTreeSet<Token>,
    /// The peers whose machines have reported, in this round of the event loop, that no process
    /// listens at the peer's address.
    absent: Vec<NodeId>,
    clients: usize,
    next_token: usize,
    scratch: Vec<u8>,
}

impl EventLoop {
    pub(super) fn bind(config: Config) -> Result<Self, NetError> {
        let listen = config.listen;
        let mut listener = TcpListener::bind(listen).map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => NetError::AddressInUse { address: listen },
            _ => NetError::Bind {
                address: listen,
                source,
            },
        })?;
        let contacts = first_contacts(&config)?;
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        let signals = LoopSignals::new(Waker::new(registry, WAKER)?);
        let mut event_loop = Self {
            address: listener.local_addr()?,
            poll,
            local: Local {
                id: config.id,
                cluster: config.cluster,
                machine: config.machine,
                folder: config.folder,
                address: config.address,
                limits: config.limits,
                announced: Arc::new(Announced::new(config.founding)),
                directory: Arc::default(),
                signals: Arc::new(signals),
            },
            acceptor: Acceptor::new(listener),
            connections: HashMap::new(),
            dialers: BTreeMap::new(),
            next_dialer: 0,
            judges_again: false,
            deadlines: BTreeSet::new(),
            runnable: Vec::new(),
            suspended: BTreeSet::new(),
            absent: Vec::new(),
            clients: 0,
            next_token: FIRST_CONNECTION,
            scratch: vec![0; SCRATCH],
        };
        let directory = &event_loop.local.directory;
        directory.change(|lists| lists.reach = config.reach);
        event_loop.follow(contacts);
        Ok(event_loop)
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn peers(&self) -> Peers {
        Peers {
            directory: self.local.directory.clone(),
            signals: self.local.signals.clone(),
        }
    }

    pub(super) fn announced(&self) -> Arc<Announced> {
        self.local.announced.clone()
    }

    pub(super) fn stopper(&self) -> Stopper {
        Stopper {
            signals: self.local.signals.clone(),
        }
    }

    pub(super) fn run(mut self, service: &mut dyn Service) -> Result<(), NetError> {
        let mut events = Events::with_capacity(EVENTS);
        let carried = self.carry(&mut events, service);
        let result = carried.and_then(|()| self.linger(&mut events));
        // Dropping the connections would not close their sockets, because other threads share the
        // outlets, which share the sockets.
        for connection in self.connections.values() {
            connection.outlet.finish();
            connection.outlet.close();
        }
        result
    }

    fn carry(&mut self, events: &mut Events, service: &mut dyn Service) -> Result<(), NetError> {
        while !self.local.signals.stopping() {
            self.dial_due();
            self.wait(events)?;
            for event in events.iter() {
                self.on_event(event);
            }
            self.judge_again(service);
            self.close_overdue();
            self.accept();
            let delivered = self.give_turns(service);
            let absent = std::mem::take(&mut self.absent);
            absent.iter().for_each(|peer| service.absent(*peer));
            if delivered || !absent.is_empty() {
                service.flush();
            }
        }
        Ok(())
    }

    /// Sleeps until the kernel reports an event or the next deadline passes. Without any deadline
    /// there is no timeout. If a connection is runnable, the loop does not sleep.
    fn wait(&mut self, events: &mut Events) -> Result<(), NetError> {
        let timeout = if self.runnable.is_empty() && !self.acceptor.is_runnable() {
            let dials = self.dialers.values().filter_map(Dialer::deadline);
            let opening = self.deadlines.first().map(|&(deadline, _)| deadline);
            let next = dials.chain(opening).chain(self.acceptor.deadline()).min();
            next.map(|deadline| deadline.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        poll(&mut self.poll, events, timeout)?;
        let wakeups = &self.local.signals.wakeups;
        wakeups.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn on_event(&mut self, event: &Event) {
        match event.token() {
            LISTENER => self.acceptor.ready = true,
            WAKER => {
                for token in std::mem::take(&mut self.suspended) {
                    self.make_runnable(token);
                }
                if let Some(contacts) = self.local.signals.take_contacts() {
                    self.follow(contacts);
                    self.judges_again = true;
                }
                for (id, found) in self.local.signals.take_resolved() {
                    let dialer = self.dialers.get_mut(&id);
                    if let Some(address) = dialer.and_then(|d| d.resolved(found, Instant::now())) {
                        self.dial(id, address);
                    }
                }
            }
            token => {
                let Some(connection) = self.connections.get_mut(&token) else {
                    return;
                };
                let mut result = connection.on_event(event);
                if connection.connecting && result.is_ok() {
                    result = self.establish(token);
                }
                match result {
                    Ok(()) => self.make_runnable(token),
                    Err(why) => self.close(token, &why),
                }
            }
        }
    }

    fn make_runnable(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(&token)
            && !connection.runnable
            && !connection.connecting
        {
            connection.runnable = true;
            self.runnable.push(token);
        }
    }

    /// Gives every runnable connection one turn. Returns whether any message was delivered.
    fn give_turns(&mut self, service: &mut dyn Service) -> bool {
        let mut delivered = false;
        for token in std::mem::take(&mut self.runnable) {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            connection.runnable = false;
            let before = connection.stage();
            let outlet = connection.outlet.clone();
            let mut turn = Turn {
                service: &mut *service,
                local: &self.local,
                outlet: &outlet,
                address: connection.address,
                room_for_client: self.clients < self.local.limits.max_clients,
                messages_left: MESSAGES_PER_TURN,
                delivered: false,
            };
            let turned = connection.turn(&mut self.scratch, &mut turn);
            delivered |= turn.delivered;
            let after = connection.stage();
            if after != before {
                self.advanced(token, after);
            }
            match turned {
                Ok(Turned::Idle) => {}
                Ok(Turned::More) => self.make_runnable(token),
                Ok(Turned::Suspended) => {
                    self.suspended.insert(token);
                }
                Err(why) => self.close(token, &why),
            }
        }
        delivered
    }

    /// Handles a connection that has reached another stage. Once the other side is accepted as a
    /// client or peer, the connection has no deadline any more. A client counts against the limit
    /// on clients.
    fn advanced(&mut self, token: Token, stage: Stage) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let has_called = connection.caller().is_some();
        match stage {
            Stage::Opening | Stage::Refused => return,
            Stage::Client => self.clients += 1,
            Stage::Peer => {
                let dialled = connection.dialled;
                if let Some(dialer) = dialled.and_then(|id| self.dialers.get_mut(&id)) {
                    dialer.welcomed(Instant::now());
                }
            }
        }
        if let Some(deadline) = connection.deadline.take() {
            self.deadlines.remove(&(deadline, token));
        }
        if has_called {
            self.mind_strangers();
        }
    }

    fn close_overdue(&mut self) {
        let now = Instant::now();
        while let Some(&(deadline, token)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let limits = &self.local.limits;
            let why = match self.connections.get(&token) {
                Some(connection) if connection.connecting => Close::ConnectTimeout(limits.connect),
                Some(connection) if connection.stage() == Stage::Refused => Close::Ended,
                _ => Close::HandshakeTimeout(limits.handshake),
            };
            self.close(token, &why);
        }
    }

    fn close(&mut self, token: Token, why: &Close) {
        let Some(connection) = self.connections.remove(&token) else {
            return;
        };
        self.suspended.remove(&token);
        let now = Instant::now();
        if let Some(deadline) = connection.deadline {
            self.deadlines.remove(&(deadline, token));
        }
        // If this node broke the connection off, log its reason for that. The error on the socket
        // is only the consequence.
        let broken = connection.outlet.close().map(Close::BrokenOff);
        let why = broken.as_ref().unwrap_or(why);
        if connection.stage() == Stage::Client {
            self.clients -= 1;
        }
        let dialled = connection.dialled;
        if let Some(dialer) = dialled.and_then(|id| self.dialers.get_mut(&id)) {
            // A stranger is not awaited, and a contact may have the same id.
            if connection.connecting && why.is_refusal() && !dialer.is_stranger {
                self.absent.push(dialer.peer());
            }
            dialer.lost(why, now);
        } else if dialled.is_some() {
            log::debug!("the connection to {} ended: {why}", connection.address);
        } else if why.is_ordinary() {
            log::debug!("the connection from {} ended: {why}", connection.address);
        } else {
            log::warn!("closed the connection from {}: {why}", connection.address);
        }
        if connection.caller().is_some() {
            self.mind_strangers();
        }
        // Dropping the last handle of the socket closes it and removes it from the poll.
    }

    /// Goes on sending waiting bytes after a stop, for at most
    /// [`Limits::linger`](super::Limits::linger). Nothing is read or accepted any more.
    fn linger(&mut self, events: &mut Events) -> Result<(), NetError> {
        let until = Instant::now() + self.local.limits.linger;
        for connection in self.connections.values() {
            connection.outlet.flush();
        }
        loop {
            let waiting = self.connections.values().any(|c| c.outlet.queued() > 0);
            let left = until.saturating_duration_since(Instant::now());
            if !waiting || left.is_zero() {
                return Ok(());
            }
            poll(&mut self.poll, events, Some(left))?;
            for event in events.iter() {
                let connection = self.connections.get_mut(&event.token());
                // An error means that the connection has ended. All connections are closed after
                // this loop.
                let _ = connection.map(|connection| connection.on_event(event));
            }
        }
    }
}

fn poll(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> Result<(), NetError> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        other => Ok(other?),
    }
}

/// The contacts with which the loop begins.
fn first_contacts(config: &Config) -> Result<Vec<Contact>, NetError> {
    let mut contacts: BTreeMap<NodeId, Contact> = BTreeMap::new();
    for (id, address) in config.peers.iter().filter(|(id, _)| *id != config.id) {
        if Address::parse(address).is_none() {
            return Err(NetError::PeerAddress {
                id: *id,
                address: address.clone(),
            });
        }
        let contact = Contact {
            id: *id,
            folder: None,
            address: address.clone(),
        };
        if contacts.insert(*id, contact).is_some() {
            return Err(NetError::PeerTwice { id: *id });
        }
    }
    Ok(contacts.into_values().collect())
}
