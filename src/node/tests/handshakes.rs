//! What the event loop must not be held up by: a disk that hangs while the node writes down whom it
//! has met, and many requests for a status.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::WatchedDisk;
use super::*;
use crate::node::greeting::founding_digest;
use crate::wire::client::{Answer, Ask, Request, Response};
use crate::wire::handshake::{
    Caller, Hello, MAGIC, MAX_HELLO, PeerHello, Standing, VERSION, Welcome,
};
use crate::wire::{codec, frame};

/// A connection on which a test sends and reads the frames of the protocol itself.
pub(super) struct Raw(TcpStream);

impl Raw {
    pub fn open(node: &Handle<Machine>, caller: Caller) -> Self {
        let mut raw = Self::on(TcpStream::connect(node.address().unwrap()).unwrap());
        raw.0.write_all(&MAGIC).unwrap();
        raw.send(&Hello {
            version: VERSION,
            cluster: "raftkv".to_string(),
            caller,
        });
        raw
    }

    /// Uses a connection that is open.
    pub fn on(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Reads the hello of a node that has opened the connection.
    pub fn called(&mut self) -> PeerHello {
        let mut magic = [0; MAGIC.len()];
        self.0.read_exact(&mut magic).unwrap();
        match self.receive::<Hello>().caller {
            Caller::Peer(peer) => peer,
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&mut self, value: &impl Serialize) {
        let mut bytes = Vec::new();
        frame::put(value, &mut bytes);
        self.0.write_all(&bytes).unwrap();
    }

    pub fn receive<T: DeserializeOwned>(&mut self) -> T {
        let mut bytes = Vec::new();
        loop {
            if let Some((payload, _)) = frame::split(&bytes, MAX_HELLO).unwrap() {
                return codec::decode(payload).unwrap();
            }
            let mut byte = [0];
            let read = self.0.read_exact(&mut byte);
            read.expect("an answer comes, whatever the disk does");
            bytes.push(byte[0]);
        }
    }

    /// Whether no byte has arrived on the connection.
    fn has_nothing(&mut self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let read = self.0.read(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// Node 1 of three; nobody listens at the addresses of the others.
pub(super) fn node(disk: &WatchedDisk) -> Handle<Machine> {
    node_among(disk, [2, 3])
}

/// Node 1 of three; the others listen at these ports.
pub(super) fn node_among(disk: &WatchedDisk, [second, third]: [u16; 2]) -> Handle<Machine> {
    let members = [(1, 1), (2, second), (3, third)];
    let members = members.map(|(id, port)| (id, format!("127.0.0.1:{port}")));
    let mut config = Config::new(1, members, "in memory");
    config.listen = Some("127.0.0.1:0".to_string());
    let machine = Machine(Box::new(|| {}), |_| Ok(()));
    Node::serve(config, machine, &disk.disk()).unwrap()
}

pub(super) fn peer(from: u64, folder: u128) -> Caller {
    Caller::Peer(peer_hello(from, folder))
}

pub(super) fn peer_hello(from: u64, folder: u128) -> PeerHello {
    PeerHello {
        from,
        to: 1,
        machine: "a test's machine".to_string(),
        folder,
        to_folder: None,
        address: String::new(),
        lineage: 0,
        configuration: 0,
        founding: founding_digest([1, 2, 3]),
    }
}

pub(super) fn standing(welcome: &Welcome) -> &Standing {
    match welcome {
        Welcome::Peer(welcome) if welcome.id == 1 => &welcome.standing,
        other => panic!("{other:?}"),
    }
}

fn is_witness(welcome: &Welcome) -> bool {
    *standing(welcome) == Standing::Witness
}

fn is_stranger(welcome: &Welcome) -> bool {
    matches!(standing(welcome), Standing::Stranger { .. })
}

/// A status must not wait for the disk, and a peer is welcomed only once its folder number is on
/// disk.
#[test]
fn a_peer_is_welcomed_once_it_is_written_down_and_nobody_else_waits_for_that() {
    let disk = WatchedDisk::new();
    let node = node(&disk);
    let hang = disk.hang("peers");
    let mut second = Raw::open(&node, peer(2, 7));
    disk.wait_for_hanging_write();
    let mut third = Raw::open(&node, peer(3, 8));
    let mut client = Raw::open(&node, Caller::Client);
    assert!(matches!(client.receive(), Welcome::Accepted { id: 1, .. }));
    client.send(&Request {
        id: 5,
        timeout_ms: 1000,
        known: 0,
        ask: Ask::Status,
    });
    let response: Response = client.receive();
    assert_eq!(response.id, 5);
    assert!(second.has_nothing() && third.has_nothing());
    let mut again = Raw::open(&node, peer(2, 9));
    drop(hang);
    for peer in [&mut second, &mut third] {
        assert!(is_witness(&peer.receive()));
    }
    assert!(is_stranger(&again.receive()), "the folder 7 came first");
}

/// The node remembers what it has written: nothing has to be written for a peer that it knows.
#[test]
fn a_peer_that_is_known_is_welcomed_while_the_disk_hangs() {
    let disk = WatchedDisk::new();
    let first = node(&disk);
    assert!(is_witness(&Raw::open(&first, peer(2, 7)).receive()));
    first.shutdown();
    let next = node(&disk);
    let hang = disk.hang("peers");
    assert!(is_witness(&Raw::open(&next, peer(2, 7)).receive()));
    assert!(is_stranger(&Raw::open(&next, peer(2, 8)).receive()));
    drop(hang);
}

/// To sum up what a status shows takes longer than to take in any other request. A client can ask
/// for hundreds at once, and heartbeats would wait for all of them.
#[test]
fn statuses_that_are_asked_for_at_once_are_summed_up_once() {
    const ASKED: u64 = 400;
    let node = node(&WatchedDisk::new());
    let mut client = Raw::open(&node, Caller::Client);
    assert!(matches!(client.receive(), Welcome::Accepted { id: 1, .. }));
    let mut requests = Vec::new();
    for id in 0..ASKED {
        let request = Request {
            id,
            timeout_ms: 1000,
            known: 0,
            ask: Ask::Status,
        };
        frame::put(&request, &mut requests);
    }
    client.0.write_all(&requests).unwrap();
    let mut moments = BTreeSet::new();
    for id in 0..ASKED {
        let response: Response = client.receive();
        assert_eq!(response.id, id);
        match response.answer {
            Answer::Status(status) => moments.insert(status.uptime_ms),
            other => panic!("{other:?}"),
        };
    }
    // The requests may arrive in a few parts, and each part gets a status of its own.
    assert!(moments.len() <= 4, "{moments:?}");
}
