//! Tests of a real event loop on 127.0.0.1, to which plain blocking sockets connect.

mod bounds;
mod clients;
mod contacts;
mod damage;
mod logged;
mod members;
mod peers;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{self, Receiver, Sender};
use serde::Serialize;

use super::*;
use crate::raft::Message;
use crate::wire::client::{Answer, Ask, Response};
use crate::wire::handshake::{Caller, MAGIC, PeerHello, Standing, VERSION};
use crate::wire::{codec, frame};

/// Longer than anything takes here: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message that the event loop delivered to its service.
enum Told {
    Peer(Envelope),
    Request(Request, ReplyTo),
}

/// A service that passes all messages to the test, or answers requests itself.
struct Recorder {
    id: NodeId,
    told: Sender<Told>,
    /// Whether to answer each request with the bytes that it submits.
    echo: bool,
    replies: Replies,
    refusing: Arc<AtomicBool>,
    /// What each peer is told that it is.
    standing: Arc<Mutex<Standing>>,
    welcomes: Sender<(PeerWelcome, String)>,
}

impl Service for Recorder {
    fn welcomed(&mut self, welcome: &PeerWelcome, address: &str) {
        // As below.
        let _ = self.welcomes.send((welcome.clone(), address.to_string()));
    }

    fn absent(&mut self, _: NodeId) {}

    fn hello(&mut self, hello: &Hello, _: SocketAddr) -> Option<Welcome> {
        if hello.cluster != "test" || self.refusing.load(Ordering::SeqCst) {
            return Some(Welcome::Refused("another cluster".into()));
        }
        let standing = self.standing.lock().unwrap().clone();
        Some(welcome(hello, self.id, standing))
    }

    fn peer(&mut self, envelope: Envelope) {
        // Sending fails once the test has ended, which is harmless.
        let _ = self.told.send(Told::Peer(envelope));
    }

    fn request(&mut self, request: Request, reply: ReplyTo) {
        if !self.echo {
            let _ = self.told.send(Told::Request(request, reply));
        } else if let Ask::Submit(bytes) = request.ask {
            reply.queue(Answer::Reply(bytes), &mut self.replies);
        }
    }

    fn flush(&mut self) {
        self.replies.flush();
    }
}

/// The welcome of a node whose folder has the number of its id.
fn welcome(hello: &Hello, id: NodeId, standing: Standing) -> Welcome {
    let cluster = hello.cluster.clone();
    if hello.caller == Caller::Client {
        return Welcome::Accepted { cluster, id };
    }
    Welcome::Peer(PeerWelcome {
        cluster,
        id,
        machine: "none".into(),
        folder: id.into(),
        lineage: 0,
        is_blank: false,
        standing,
    })
}

/// A running event loop, which is stopped and joined when dropped.
struct Node {
    address: SocketAddr,
    peers: Peers,
    stopper: Stopper,
    told: Receiver<Told>,
    refusing: Arc<AtomicBool>,
    standing: Arc<Mutex<Standing>>,
    announced: Arc<Announced>,
    /// The welcomes that the node got, with the addresses that they came from.
    welcomes: Receiver<(PeerWelcome, String)>,
    /// The event loop's thread, while the loop runs.
    thread: Option<JoinHandle<()>>,
}

fn config(id: NodeId) -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        id,
        cluster: "test".into(),
        machine: "none".into(),
        folder: id.into(),
        address: String::new(),
        founding: 0,
        peers: Vec::new(),
        reach: BTreeMap::new(),
        limits: Limits::default(),
    }
}

impl Node {
    fn start(config: Config, echo: bool) -> Self {
        Self::start_with_room(1 << 16, config, echo)
    }

    /// The service blocks while `room` messages wait for the test to take them.
    fn start_with_room(room: usize, config: Config, echo: bool) -> Self {
        let (sender, told) = channel::bounded(room);
        let (sender_of_welcomes, welcomes) = channel::bounded(1 << 10);
        let refusing = Arc::new(AtomicBool::new(false));
        let standing = Arc::new(Mutex::new(Standing::Member));
        let recorder = Recorder {
            id: config.id,
            told: sender,
            echo,
            replies: Replies::new(),
            refusing: refusing.clone(),
            standing: standing.clone(),
            welcomes: sender_of_welcomes,
        };
        let net = Net::bind(config).unwrap();
        Self {
            address: net.local_addr(),
            peers: net.peers(),
            stopper: net.stopper(),
            told,
            refusing,
            standing,
            announced: net.announced(),
            welcomes,
            thread: Some(thread::spawn(move || net.run(recorder).unwrap())),
        }
    }

    fn echoing() -> Self {
        Self::start(config(1), true)
    }

    fn with_limits(limits: Limits, echo: bool) -> Self {
        let config = Config {
            limits,
            ..config(1)
        };
        Self::start(config, echo)
    }

    fn client(&self) -> Remote {
        Remote::open(self.address, &hello(Caller::Client))
    }

    fn next_request(&self) -> (Request, ReplyTo) {
        match self.told.recv_timeout(PATIENCE) {
            Ok(Told::Request(request, reply)) => (request, reply),
            Ok(Told::Peer(envelope)) => panic!("a message instead of a request: {envelope:?}"),
            Err(error) => panic!("no request: {error}"),
        }
    }

    fn wakeups(&self) -> u64 {
        self.stopper.signals.wakeups.load(Ordering::SeqCst)
    }

    fn stop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the loop ends well");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A service that is blocked because the test takes no messages can go on now.
        self.told = channel::never();
        self.stop();
    }
}

fn hello(caller: Caller) -> Hello {
    Hello {
        version: VERSION,
        cluster: "test".into(),
        caller,
    }
}

fn opening(hello: &Hello) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    frame::put(hello, &mut bytes);
    bytes
}

fn submit(id: u64, bytes: impl Into<Bytes>) -> Request {
    Request {
        id,
        timeout_ms: 1000,
        known: 0,
        ask: Ask::Submit(bytes.into()),
    }
}

fn frame_of(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(value, &mut bytes);
    bytes
}

/// A client or peer that uses a blocking socket.
struct Remote {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Remote {
    /// Connects, and sends nothing yet.
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let input = Vec::new();
        Self { socket, input }
    }

    /// Waits until somebody connects to a port.
    fn accept(listener: &TcpListener) -> Self {
        let (sender, accepted) = channel::bounded(1);
        let listener = listener.try_clone().unwrap();
        // Nobody waits for a thread to which nobody connects.
        thread::spawn(move || sender.send(listener.accept()));
        let accepted = accepted.recv_timeout(PATIENCE).expect("nobody connects");
        let (socket, _) = accepted.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let input = Vec::new();
        Self { socket, input }
    }

    fn open(address: SocketAddr, hello: &Hello) -> Self {
        let mut caller = Self::connect(address);
        caller.write(&opening(hello));
        let welcome: Welcome = caller.read().unwrap();
        let is_welcome = !matches!(welcome, Welcome::Refused(_));
        assert!(is_welcome, "{welcome:?}");
        caller
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn ask(&mut self, request: &Request) {
        self.write(&frame_of(request));
    }

    fn read<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            if let Some((payload, used)) = frame::split(&self.input, frame::MAX_PAYLOAD).unwrap() {
                let value = codec::decode(payload).unwrap();
                self.input.drain(..used);
                return Ok(value);
            }
            match self.socket.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.input.extend_from_slice(&chunk[..len]),
            }
        }
    }

    fn answer(&mut self) -> Response {
        self.read().expect("an answer")
    }

    /// Sends a request and checks that the same bytes come back.
    fn round_trip(&mut self, id: u64) {
        self.ask(&submit(id, "ping"));
        let answer = Answer::Reply("ping".into());
        assert_eq!(
            self.answer(),
            Response {
                id,
                answer,
                members: None
            }
        );
    }

    /// Reads until the server closes the connection, and fails if that takes too long.
    fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("still open: {error}"),
        }
    }
}

fn heartbeat(from: NodeId, to: NodeId, round: u64) -> Envelope {
    let message = Message::Heartbeat {
        commit: 0,
        matched_by_all: 0,
        round,
    };
    Envelope {
        from,
        from_folder: from.into(),
        to,
        to_folder: Some(to.into()),
        term: 1,
        message,
    }
}
