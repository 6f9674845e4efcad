//! Requests over TCP: one connection to each server, opened when it is first needed, and opened
//! again after an error.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::{Connection, SLICE};
use super::frames::Frames;
use super::routes::MAX_SERVERS;
use super::transport::{Answered, CallError, Stop, Transport};
use crate::raft::Index;
use crate::wire::client::Ask;
use crate::wire::frame;
use crate::wire::handshake::{Caller, Hello, MAGIC, MAX_HELLO, VERSION, Welcome};

/// The longest time to connect to one address. A cancelled call may go on for as long, because
/// connecting cannot be interrupted.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// The [`Transport`] over TCP.
///
/// A host name is looked up each time that a connection is opened. The operating system sets no
/// bound on how long a look-up takes, so name servers by IP address if deadlines matter.
pub struct Tcp {
    /// The name of the cluster that all servers must belong to. Empty until it is known: then the
    /// greeting of the first server decides it.
    cluster: Mutex<String>,
    /// The connection to each server, by the server's address, host:port.
    links: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    /// Each link, with the number of its last use. There are at most [`MAX_SERVERS`].
    all: BTreeMap<String, (u64, Arc<ServerLink>)>,
    /// How often links have been used.
    uses: u64,
}

/// The connection to one server, if there is one. Shared by all threads that send requests to that
/// server.
#[derive(Default)]
struct ServerLink {
    state: Mutex<ServerLinkState>,
    /// Notified when a thread has finished dialling, with success or without.
    dialled: Condvar,
}

#[derive(Default)]
struct ServerLinkState {
    connection: Option<Arc<Connection>>,
    /// Whether a thread is opening a connection. Other threads wait for that attempt, and fail if
    /// it fails: otherwise each of them would wait for a dead server, one after the other.
    dialling: bool,
    /// How many attempts to connect have failed. A thread that waits for another thread's attempt
    /// learns from a change of this number that the attempt has failed.
    failures: u64,
    last_failure: String,
}

impl Tcp {
    /// Makes a transport, which connects to a server when the first request to that server is sent.
    /// `cluster` is the name of the cluster that must answer. Empty means any cluster, but all
    /// servers must belong to the cluster of the first server that answers.
    pub fn new(cluster: impl Into<String>) -> Self {
        Tcp {
            cluster: Mutex::new(cluster.into()),
            links: Mutex::default(),
        }
    }

    /// The link to a server. If there are as many as the client may know servers, the one that was
    /// used longest ago makes room: of the members that a cluster had in the course of time, a
    /// client asks the present ones. A call that is under way on it ends as if nothing had
    /// happened, because it holds the link.
    fn link(&self, server: &str) -> Arc<ServerLink> {
        let links = &mut *self.links.lock();
        links.uses += 1;
        if !links.all.contains_key(server) && links.all.len() >= MAX_SERVERS {
            let oldest = links.all.iter().min_by_key(|(_, (used, _))| *used);
            let oldest = oldest.map(|(address, _)| address.clone());
            oldest.map(|address| links.all.remove(&address));
        }
        let (used, link) = links.all.entry(server.to_string()).or_default();
        *used = links.uses;
        Arc::clone(link)
    }

    /// Returns the connection to a server. If there is none, this thread opens one, or waits for
    /// the thread that is opening one.
    fn connection(
        &self,
        link: &ServerLink,
        server: &str,
        until: Instant,
        stop: &Stop,
    ) -> Result<Arc<Connection>, String> {
        let mut state = link.state.lock();
        let failures = state.failures;
        loop {
            if let Some(connection) = state.usable() {
                return Ok(connection);
            }
            if !state.dialling {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.is_set() {
                return Err("still connecting".into());
            }
            link.dialled.wait_for(&mut state, left.min(SLICE));
            if state.failures != failures {
                return Err(state.last_failure.clone());
            }
        }
        state.dialling = true;
        state.connection = None;
        drop(state);
        let dialled = self.dial(server, until, stop);
        state = link.state.lock();
        state.dialling = false;
        link.dialled.notify_all();
        match dialled {
            Ok(connection) => {
                let connection = Arc::new(connection);
                state.connection = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(why) => {
                state.failures += 1;
                state.last_failure.clone_from(&why);
                Err(why)
            }
        }
    }

    /// Connects to the server and exchanges greetings with it. After an error, no request has been
    /// sent.
    fn dial(&self, server: &str, until: Instant, stop: &Stop) -> Result<Connection, String> {
        let stream = open(server, until).map_err(|error| match error.raw_os_error() {
            Some(_) => error.kind().to_string(),
            None => error.to_string(),
        })?;
        let mut hello = MAGIC.to_vec();
        let cluster = self.cluster.lock().clone();
        frame::put(
            &Hello {
                version: VERSION,
                cluster,
                caller: Caller::Client,
            },
            &mut hello,
        );
        let sent = (&stream).write_all(&hello);
        sent.map_err(|error| error.kind().to_string())?;
        let mut frames = Frames::new();
        let welcome = loop {
            let no_server = |why| format!("this is no server of this version: {why}");
            if let Some(welcome) = frames.next(MAX_HELLO).map_err(no_server)? {
                break welcome;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.is_set() {
                return Err("connected, but the server does not greet".into());
            }
            frames.read(&stream, left.min(SLICE))?;
        };
        match welcome {
            Welcome::Accepted { cluster, .. } => self.settle_on(cluster)?,
            Welcome::Refused(why) => return Err(format!("the server refuses: {why}")),
            Welcome::Peer(_) => return Err("the server takes this client for a node".into()),
        }
        Ok(Connection::new(stream, frames))
    }

    /// Refuses a server of another cluster than the first server's. If the client's list named
    /// servers of two clusters, each cluster would get a part of the writes.
    fn settle_on(&self, theirs: String) -> Result<(), String> {
        let mut ours = self.cluster.lock();
        if ours.is_empty() {
            *ours = theirs;
        } else if *ours != theirs {
            return Err(format!(
                "the server belongs to cluster {theirs:?}, not to {ours:?}"
            ));
        }
        Ok(())
    }
}

impl Transport for Tcp {
    fn call(
        &self,
        server: &str,
        ask: &Ask,
        known: Index,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Answered, CallError> {
        let until = Instant::now() + timeout;
        let link = self.link(server);
        self.connection(&link, server, until, stop)
            .map_err(CallError::NotSent)?
            .call(ask, known, until, stop)
    }

    fn is_connected(&self, server: &str) -> bool {
        let link = self.links.lock().all.get(server).cloned();
        link.is_some_and(|(_, link)| link.state.lock().usable().is_some())
    }
}

impl ServerLinkState {
    /// Returns the connection, if there is one and it is not known to be dead.
    fn usable(&self) -> Option<Arc<Connection>> {
        let connection = self.connection.as_ref()?;
        connection.is_usable().then(|| Arc::clone(connection))
    }
}

/// Connects to the first of the server's addresses that accepts.
fn open(server: &str, until: Instant) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::other("the name has no address");
    for address in server.to_socket_addrs()?.take(8) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::Error::other("no time was left to connect"));
        }
        match TcpStream::connect_timeout(&address, left.min(CONNECT_TIMEOUT)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(SLICE))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
