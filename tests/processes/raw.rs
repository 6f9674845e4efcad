//! A connection that speaks the protocol by hand, and may speak it wrongly.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use raftkv::wire::client::{Ask, Request};
use raftkv::wire::handshake::{Caller, Hello, MAGIC, VERSION, Welcome};
use raftkv::wire::{codec, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cluster::PATIENCE;

pub struct Raw(TcpStream);

/// What a client says first.
pub fn hello(cluster: &str, caller: Caller) -> Hello {
    Hello {
        version: VERSION,
        cluster: cluster.to_string(),
        caller,
    }
}

/// The bytes that open a connection.
pub fn opening(hello: &Hello) -> Vec<u8> {
    [&MAGIC[..], &frame_of(hello)].concat()
}

pub fn frame_of<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(value, &mut bytes);
    bytes
}

pub fn request(ask: Ask) -> Request {
    Request {
        id: 1,
        timeout_ms: 1500,
        known: 0,
        ask,
    }
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// A client that has been welcomed.
    pub fn open(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address);
        raw.write(&opening(&hello("", Caller::Client)));
        assert!(matches!(raw.receive(), Welcome::Accepted { .. }));
        raw
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, ask: Ask) {
        self.write(&frame_of(&request(ask)));
    }

    pub fn receive<T: DeserializeOwned>(&mut self) -> T {
        let mut header = [0; frame::HEADER_LEN];
        self.0.read_exact(&mut header).unwrap();
        let [a, b, c, d, ..] = header;
        let mut payload = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        codec::decode(&payload).unwrap()
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        // The other side may have closed already.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Waits until the other side has closed the connection. Returns what it said before.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // Closing while there is unread input resets the connection, which is as good.
        let _ = self.0.read_to_end(&mut rest);
        rest
    }

    /// This end of the connection, as the log of the other end names it.
    pub fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }
}
