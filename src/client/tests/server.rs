//! A small server for tests, which write every byte that it sends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::de::DeserializeOwned;

use crate::wire::client::{Answer, Ask, Request, Response};
use crate::wire::handshake::{Caller, Hello, MAGIC, Welcome};
use crate::wire::{codec, frame};

/// A server on its own TCP port. Each connection runs a script of the test in its own thread.
pub(super) struct Server {
    pub(super) address: String,
    pub(super) accepted: Arc<AtomicUsize>,
}

impl Server {
    /// A server that does not greet. The script gets the number of the connection, from 1, and the
    /// stream as it was accepted.
    pub(super) fn raw(script: impl Fn(usize, Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, script) = (Arc::clone(&accepted), Arc::new(script));
        // The thread accepts connections until the process ends.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let script = Arc::clone(&script);
                thread::spawn(move || script(number, Peer::new(stream.unwrap())));
            }
        });
        Server { address, accepted }
    }

    /// A server that greets each client before the script begins.
    pub(super) fn greeting(script: impl Fn(usize, Peer) + Send + Sync + 'static) -> Self {
        Server::raw(move |number, mut peer| {
            peer.greet("test");
            script(number, peer);
        })
    }

    /// A server that answers every request with the bytes of its command or query.
    pub(super) fn echo() -> Self {
        Server::greeting(|_, mut peer| {
            while let Some(request) = peer.try_receive::<Request>() {
                peer.answer(request.id, echo_of(&request.ask));
            }
        })
    }

    pub(super) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

pub(super) fn echo_of(ask: &Ask) -> Answer {
    match ask {
        Ask::Query(bytes) | Ask::Submit(bytes) => Answer::Reply(bytes.clone()),
        _ => Answer::Busy,
    }
}

/// The server's end of a connection.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) unread: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Peer {
            stream,
            unread: Vec::new(),
        }
    }

    pub(super) fn greet(&mut self, cluster: &str) {
        self.hear_hello();
        let cluster = cluster.to_string();
        self.send(&Welcome::Accepted { cluster, id: 1 });
    }

    pub(super) fn hear_hello(&mut self) -> Hello {
        let mut magic = [0; MAGIC.len()];
        self.stream.read_exact(&mut magic).unwrap();
        assert_eq!(magic, MAGIC);
        let hello: Hello = self.receive();
        assert_eq!(hello.caller, Caller::Client);
        hello
    }

    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> T {
        self.try_receive()
            .expect("the client closed the connection")
    }

    pub(super) fn try_receive<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some((payload, used)) = frame::split(&self.unread, frame::MAX_PAYLOAD).unwrap() {
                let value = codec::decode(payload).unwrap();
                self.unread.drain(..used);
                return Some(value);
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.unread.extend_from_slice(&chunk[..count]);
        }
    }

    pub(super) fn send<T: serde::Serialize>(&mut self, value: &T) {
        let mut bytes = Vec::new();
        frame::put(value, &mut bytes);
        // An error is ignored: the client may have closed the connection already.
        let _ = self.stream.write_all(&bytes);
    }

    pub(super) fn answer(&mut self, id: u64, answer: Answer) {
        self.send(&Response {
            id,
            answer,
            members: None,
        });
    }
}
