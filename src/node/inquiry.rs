//! Questions to an address: who is there, and a request to whoever is.
//!
//! The connections of the event loop lead to the members. These ones lead to an address that a
//! person or a node has named, are opened for one question, and close after the answer. They block,
//! so each is asked on a thread that has nothing else to do.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::register::Register;
use super::sync::{AtomicU64, thread};
use super::{ProbeEnd, Transport};
use crate::net::{Announced, Peers};
use crate::raft::{Contact, Envelope, NodeId};
use crate::wire::client::{Answer, Ask, Request, Response};
use crate::wire::handshake::{Caller, Hello, MAGIC, MAX_HELLO, PeerWelcome, VERSION, Welcome};
use crate::wire::members::MemberList;
use crate::wire::{codec, frame};

/// How long a probed address may take to answer.
const PROBE: Duration = Duration::from_secs(2);

/// The largest answer that is read. Nothing that is asked here has a longer one.
const MAX_ANSWER: usize = 64 << 10;

/// The way to other nodes over TCP.
pub(super) struct Tcp {
    pub peers: Peers,
    pub announced: Arc<Announced>,
    /// How many lists of members have come.
    pub lists: AtomicU64,
    pub register: Arc<Register>,
    pub cluster: String,
    /// The nodes that this one reaches at other addresses than everybody else.
    pub reach: BTreeMap<NodeId, String>,
}

impl Transport for Tcp {
    fn send(&self, messages: Vec<Envelope>) {
        self.peers.send(&messages);
    }

    fn members(&self, mut contacts: Vec<Contact>, list: MemberList) {
        for contact in &mut contacts {
            if let Some(way) = self.reach.get(&contact.id) {
                contact.address.clone_from(way);
            }
        }
        let (number, index) = (self.lists.fetch_add(1, Ordering::SeqCst) + 1, list.index);
        // Before the contacts: the event loop compares them with what this node knows.
        self.announced.announce(list);
        self.peers.set(number, contacts);
        if index > 0 {
            self.register.settled();
        }
    }

    fn reached_at(&self, address: &str) {
        self.announced.reached_at(address);
    }

    fn probe(&self, id: NodeId, address: &str, then: ProbeEnd) {
        let dialled = self.reach.get(&id).map_or(address, String::as_str);
        let (cluster, address) = (self.cluster.clone(), dialled.to_string());
        let thread = thread::Builder::new().name("probe".to_string());
        let started = thread.spawn(move || {
            let answer = probe(&cluster, id, &address, PROBE);
            then(answer);
        });
        if let Err(error) = started {
            // The request ends with its connection: `then` is gone with the thread.
            log::error!("cannot start a thread to probe an address: {error}");
        }
    }

    fn ask(&self, address: &str, ask: &Ask, timeout: Duration) -> Result<Answer, String> {
        question(&self.cluster, address, ask, timeout)
    }
}

/// Asks whoever is at an address, as a client of the cluster.
pub(super) fn question(
    cluster: &str,
    address: &str,
    ask: &Ask,
    timeout: Duration,
) -> Result<Answer, String> {
    let request = Request {
        id: 1,
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        known: 0,
        ask: ask.clone(),
    };
    let mut line = Line::open(address, timeout)?;
    line.say(cluster, Caller::Client, Some(&request))?;
    match line.hear::<Welcome>(MAX_HELLO)? {
        Welcome::Refused(why) => return Err(format!("at {address}: {why}")),
        Welcome::Accepted { .. } | Welcome::Peer(_) => {}
    }
    line.hear::<Response>(MAX_ANSWER).map(|it| it.answer)
}

fn probe(
    cluster: &str,
    id: NodeId,
    address: &str,
    timeout: Duration,
) -> Result<PeerWelcome, String> {
    let mut line = Line::open(address, timeout)?;
    line.say(cluster, Caller::Probe { to: id }, None)?;
    match line.hear::<Welcome>(MAX_HELLO)? {
        Welcome::Peer(welcome) => Ok(welcome),
        Welcome::Refused(why) => Err(format!("at {address}: {why}")),
        Welcome::Accepted { cluster, id } => Err(format!(
            "at {address} is node {id} of cluster \"{cluster}\", which does not say which folder \
             it has"
        )),
    }
}

/// A connection for one question.
struct Line<'a> {
    socket: TcpStream,
    address: &'a str,
    timeout: Duration,
    deadline: Instant,
    /// What has been read and not been looked at.
    read: Vec<u8>,
}

impl<'a> Line<'a> {
    /// Connects to the first of the addresses that the name stands for and that takes the call.
    fn open(address: &'a str, timeout: Duration) -> Result<Self, String> {
        let deadline = Instant::now() + timeout;
        let silent =
            |error: &dyn std::fmt::Display| format!("nobody answers at {address}: {error}");
        let found = address.to_socket_addrs().map_err(|error| silent(&error))?;
        let mut why = "the host name has no address".to_string();
        for one in found {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(&one, left) {
                Ok(socket) => {
                    return Ok(Self {
                        socket,
                        address,
                        timeout,
                        deadline,
                        read: Vec::new(),
                    });
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(silent(&why))
    }

    /// Sends a hello, and right behind it a request, if there is one.
    fn say(
        &mut self,
        cluster: &str,
        caller: Caller,
        request: Option<&Request>,
    ) -> Result<(), String> {
        let hello = Hello {
            version: VERSION,
            cluster: cluster.to_string(),
            caller,
        };
        let mut bytes = MAGIC.to_vec();
        frame::put(&hello, &mut bytes);
        if let Some(request) = request {
            frame::put(request, &mut bytes);
        }
        let left = self.left()?;
        let sent = self.socket.set_write_timeout(Some(left));
        let sent = sent.and_then(|()| self.socket.write_all(&bytes));
        sent.map_err(|error| self.broken(&error))
    }

    /// Waits for the next frame.
    fn hear<T: DeserializeOwned>(&mut self, limit: usize) -> Result<T, String> {
        loop {
            let split = frame::split(&self.read, limit);
            let split = split.map_err(|error| self.foreign(&error))?;
            if let Some((payload, len)) = split {
                let value = codec::decode(payload).map_err(|error| self.foreign(&error))?;
                self.read.drain(..len);
                return Ok(value);
            }
            let left = self.left()?;
            let mut bytes = [0; 4096];
            let read = self.socket.set_read_timeout(Some(left));
            let read = read.and_then(|()| self.socket.read(&mut bytes));
            match read {
                Ok(0) => return Err(self.broken(&ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.read.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// The time that is left; an error if it is up.
    fn left(&self) -> Result<Duration, String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(self.late()),
            false => Ok(left),
        }
    }

    fn late(&self) -> String {
        format!(
            "nobody answers at {} within {:?}",
            self.address, self.timeout
        )
    }

    fn broken(&self, error: &io::Error) -> String {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.late(),
            ErrorKind::UnexpectedEof => {
                format!("who answers at {} hangs up", self.address)
            }
            _ => format!("nobody answers at {}: {error}", self.address),
        }
    }

    fn foreign(&self, error: &dyn std::fmt::Display) -> String {
        format!("at {} is no node of this version: {error}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::wire::handshake::Standing;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(30);

    /// Probes a listener that sends `answer` to whoever calls, and then waits for the caller to
    /// hang up.
    fn probe_one_that_sends(answer: Vec<u8>, timeout: Duration) -> Result<PeerWelcome, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                socket.write_all(&answer).unwrap();
                let _ = socket.read_to_end(&mut Vec::new());
            });
            probe("blue", 4, &address, timeout)
        })
    }

    fn framed(welcome: &Welcome) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::put(welcome, &mut bytes);
        bytes
    }

    #[test]
    fn a_probe_brings_what_the_node_says_of_itself() {
        let welcome = PeerWelcome {
            cluster: "blue".into(),
            id: 4,
            machine: "a machine".into(),
            folder: u128::MAX,
            lineage: 7,
            is_blank: true,
            standing: Standing::Member,
        };
        let sent = framed(&Welcome::Peer(welcome.clone()));
        assert_eq!(probe_one_that_sends(sent, LONG), Ok(welcome));
    }

    #[test]
    fn a_probe_says_why_it_brings_nothing() {
        let refusal = framed(&Welcome::Refused("not here".into()));
        let cases = [
            (refusal, LONG, ": not here"),
            (Vec::new(), SHORT, "within 200ms"),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), LONG, "no node of"),
        ];
        for (sent, timeout, says) in cases {
            let why = probe_one_that_sends(sent, timeout).expect_err(says);
            assert!(why.contains(says) && why.contains("127.0.0.1:"), "{why}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let why = probe("blue", 4, &address, LONG).expect_err("nobody listens");
        assert!(why.starts_with("nobody answers at 127.0.0.1:"), "{why}");
    }
}
