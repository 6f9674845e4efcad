//! Requests over TCP: one connection per server, opened on demand, and again after an error.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::{Connection, SLICE};
use super::frames::Frames;
use super::routes::MAX_SERVERS;
use super::transport::{CallError, Stop, Transport};
use crate::wire::client::{Answer, Ask};
use crate::wire::frame;
use crate::wire::handshake::{Caller, Hello, MAGIC, MAX_HELLO, VERSION, Welcome};

/// How long a connection may take to open. Connecting cannot be interrupted, so this is also how
/// long a cancelled call may go on.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// The [`Transport`] over TCP.
///
/// A host name is looked up each time that a connection opens, for as long as the system takes
/// for that: where deadlines matter, name servers by IP address.
pub struct Tcp {
    /// The cluster that must answer; empty as long as any may.
    cluster: Mutex<String>,
    links: Mutex<BTreeMap<String, Arc<ServerLink>>>,
}

/// The way to one server.
#[derive(Default)]
struct ServerLink {
    state: Mutex<ServerLinkState>,
    dialled: Condvar,
}

#[derive(Default)]
struct ServerLinkState {
    connection: Option<Arc<Connection>>,
    /// Whether a thread is opening a connection; the others wait for it and share its failure.
    dialling: bool,
    failures: u64,
    last_failure: String,
}

impl Tcp {
    /// Connects on demand. `cluster` is the name of the cluster that must answer; empty: any, but
    /// then all servers must be of the one that answers first.
    pub fn new(cluster: impl Into<String>) -> Self {
        Tcp {
            cluster: Mutex::new(cluster.into()),
            links: Mutex::new(BTreeMap::new()),
        }
    }

    fn link(&self, server: &str) -> Result<Arc<ServerLink>, CallError> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(server) {
            return Ok(Arc::clone(link));
        }
        if links.len() >= MAX_SERVERS {
            let why = format!("this client has been in touch with {MAX_SERVERS} servers already");
            return Err(CallError::NotSent(why));
        }
        let link = Arc::<ServerLink>::default();
        links.insert(server.to_string(), Arc::clone(&link));
        Ok(link)
    }

    /// The link's connection: the one that is there, or a new one, which this thread opens or
    /// waits for.
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
        }
        Ok(Connection::new(stream, frames))
    }

    /// Two clusters in one list would each get some of the writes.
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
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Answer, CallError> {
        let until = Instant::now() + timeout;
        let link = self.link(server)?;
        self.connection(&link, server, until, stop)
            .map_err(CallError::NotSent)?
            .call(ask, until, stop)
    }

    fn is_connected(&self, server: &str) -> bool {
        let link = self.links.lock().get(server).cloned();
        link.is_some_and(|link| link.state.lock().usable().is_some())
    }
}

impl ServerLinkState {
    fn usable(&self) -> Option<Arc<Connection>> {
        let connection = self.connection.as_ref()?;
        connection.is_usable().then(|| Arc::clone(connection))
    }
}

/// A stream to the first of the server's addresses that takes one.
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
