//! One connection of a [`Carrier`](super::Carrier) to one server.
//!
//! No request is sent before the server's greeting has come. So a request that ends before the
//! greeting was certainly not executed, and its call is not in doubt.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use serde::de::DeserializeOwned;

use super::super::transport::{Answered, CallError};
use super::Told;
use crate::raft::Index;
use crate::wire::client::{Ask, Request, Response};
use crate::wire::handshake::{Caller, Hello, MAGIC, MAX_HELLO, VERSION, Welcome};
use crate::wire::{codec, frame};

/// How long a connection may take until the server's greeting has come.
const OPENING: Duration = Duration::from_millis(500);

/// A connection is closed if a request's time is up, the request has waited for at least this long,
/// and the server has not sent a byte since the request was handed in. The server or the network to
/// it has failed then; see `SILENCE` in [`connection`](super::super::connection).
const SILENCE: Duration = Duration::from_millis(300);

/// How many requests of one connection may wait for their answers at a time: a server accepts no
/// more.
const MAX_WAITING: usize = 4096;

/// How many bytes the fields of a request other than its command or query take at most.
const OVERHEAD: usize = 64;

pub(super) struct Link {
    server: usize,
    stream: TcpStream,
    /// When the client began to open this connection.
    opened: Duration,
    /// Whether the server's greeting has come and accepts this client.
    greeted: bool,
    /// Encoded requests that wait for the server's greeting. Empty once the greeting has come.
    held: Vec<u8>,
    /// The bytes to write to the socket, of which the first `written` have been written.
    out: Vec<u8>,
    written: usize,
    /// The beginning of a frame whose end has not arrived yet.
    rest: Vec<u8>,
    /// The id of the last request; 0 if there was none. Ids count from 1.
    last_id: u64,
    /// The requests that have no answer yet, by their ids.
    waiting: HashMap<u64, Waiting>,
    /// When bytes last arrived. Before any have arrived: when the link began to connect.
    heard: Duration,
}

struct Waiting {
    tag: usize,
    sent: Duration,
    until: Duration,
}

impl Link {
    /// Begins to connect. The first bytes that the link writes are this client's greeting.
    pub(super) fn open(
        server: usize,
        address: SocketAddr,
        cluster: &str,
        (registry, token): (&Registry, Token),
        now: Duration,
    ) -> Result<Self, String> {
        let mut out = MAGIC.to_vec();
        let hello = Hello {
            version: VERSION,
            cluster: cluster.to_string(),
            caller: Caller::Client,
        };
        frame::put(&hello, &mut out);
        let connect = || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, token, interest)?;
            Ok(stream)
        };
        Ok(Link {
            server,
            stream: connect().map_err(|error: std::io::Error| error.kind().to_string())?,
            opened: now,
            greeted: false,
            held: Vec::new(),
            out,
            written: 0,
            rest: Vec::new(),
            last_id: 0,
            waiting: HashMap::new(),
            heard: now,
        })
    }

    /// Adds a request to the bytes to write. Returns true if there were no bytes to write before,
    /// so that the Carrier must flush the link. `known` is the index of the newest list of members
    /// that this client has.
    pub(super) fn ask(
        &mut self,
        tag: usize,
        (ask, known): (Ask, Index),
        now: Duration,
        timeout: Duration,
    ) -> Result<bool, String> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(format!(
                "{MAX_WAITING} requests wait for this server already"
            ));
        }
        if let Ask::Submit(bytes) | Ask::Query(bytes) = &ask
            && bytes.len() > frame::MAX_PAYLOAD - OVERHEAD
        {
            return Err(format!(
                "the request has {} bytes, more than can be sent",
                bytes.len()
            ));
        }
        self.last_id += 1;
        let id = self.last_id;
        // The server is given 90 % of the time. So a slow server still has time to answer that it
        // does not know the outcome, before this client gives up.
        let timeout_ms = (timeout * 9 / 10)
            .as_millis()
            .clamp(1, u128::from(u32::MAX)) as u32;
        let out = match self.greeted {
            true => &mut self.out,
            false => &mut self.held,
        };
        let was_empty = out.is_empty();
        frame::put(
            &Request {
                id,
                timeout_ms,
                known,
                ask,
            },
            out,
        );
        let (sent, until) = (now, now + timeout);
        self.waiting.insert(id, Waiting { tag, sent, until });
        Ok(self.greeted && was_empty)
    }

    /// Writes waiting bytes as far as the socket has room. When the socket has room again, the
    /// kernel reports an event, and the Carrier calls this again.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err("the connection takes no more bytes".into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_not_yet(error.kind()) => return Ok(()),
                Err(error) => return Err(error.kind().to_string()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads all bytes that have arrived, and hands out the answers in them.
    ///
    /// `is_ended` says that the server has ended the stream, so that the end of the stream follows
    /// these bytes. Then this function must read up to the end, because the kernel reports the end
    /// only once. If the end were left unread, the requests that wait here, and all later ones,
    /// would wait until their time is up.
    pub(super) fn read(
        &mut self,
        is_ended: bool,
        scratch: &mut [u8],
        clock: Instant,
        cluster: &mut String,
        told: &mut Vec<Told>,
    ) -> Result<(), String> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => {
                    self.heard = clock.elapsed();
                    self.take(&scratch[..count], cluster, told)?;
                    // The read returned fewer bytes than it had room for, so the socket is empty.
                    // When more arrives, or the end of the stream, the kernel reports another
                    // event.
                    if count < scratch.len() && !is_ended {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_not_yet(error.kind()) => return Ok(()),
                Err(error) => return Err(error.kind().to_string()),
            }
        }
    }

    /// Handles the complete frames in the received bytes, and keeps the rest for the next read.
    fn take(
        &mut self,
        bytes: &[u8],
        cluster: &mut String,
        told: &mut Vec<Told>,
    ) -> Result<(), String> {
        if self.rest.is_empty() {
            let used = self.frames(bytes, cluster, told)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(bytes);
            let used = self.frames(&rest, cluster, told)?;
            rest.drain(..used);
            self.rest = rest;
        }
        Ok(())
    }

    /// Handles the complete frames at the front of `bytes`. Returns how many bytes they take up.
    fn frames(
        &mut self,
        bytes: &[u8],
        cluster: &mut String,
        told: &mut Vec<Told>,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            if !self.greeted {
                let welcome = next::<Welcome>(rest, MAX_HELLO);
                let no_server = |why| format!("this is no server of this version: {why}");
                let Some((welcome, len)) = welcome.map_err(no_server)? else {
                    return Ok(used);
                };
                used += len;
                self.greet(welcome, cluster)?;
                continue;
            }
            let Some((response, len)) = next(rest, frame::MAX_PAYLOAD)? else {
                return Ok(used);
            };
            let Response {
                id,
                answer,
                members,
            } = response;
            used += len;
            if id == 0 || id > self.last_id {
                return Err(format!(
                    "the server answers request {id}, which was never sent"
                ));
            }
            // An answer to a request that was given up is dropped: nobody waits for it.
            if let Some(waiting) = self.waiting.remove(&id) {
                told.push(Told {
                    tag: waiting.tag,
                    server: self.server,
                    at: self.heard,
                    result: Ok(Answered { answer, members }),
                });
            }
        }
    }

    fn greet(&mut self, welcome: Welcome, ours: &mut String) -> Result<(), String> {
        match welcome {
            Welcome::Refused(why) => return Err(format!("the server refuses: {why}")),
            // All servers must be of one cluster. If the client's list named servers of two
            // clusters, each cluster would get a part of the writes.
            Welcome::Accepted {
                cluster: theirs, ..
            } if ours.is_empty() => *ours = theirs,
            Welcome::Accepted {
                cluster: theirs, ..
            } if *ours != theirs => {
                return Err(format!(
                    "the server belongs to cluster {theirs:?}, not to {ours:?}"
                ));
            }
            Welcome::Accepted { .. } => {}
            Welcome::Peer(_) => return Err("the server takes this client for a node".into()),
        }
        self.greeted = true;
        self.out.append(&mut self.held);
        Ok(())
    }

    /// Ends the requests whose time is up. Returns a reason if the connection must be closed
    /// because the server does not respond.
    pub(super) fn expire(&mut self, now: Duration, told: &mut Vec<Told>) -> Option<&'static str> {
        if !self.greeted {
            // A request that waits for the greeting would be sent when the greeting comes. To be
            // sure that a request is never executed once it was given up, close the connection.
            let late = now.saturating_sub(self.opened) >= OPENING
                || self.waiting.values().any(|waiting| now >= waiting.until);
            return late.then_some("connected, but the server does not greet");
        }
        let (heard, server) = (self.heard, self.server);
        let mut silent = false;
        self.waiting.retain(|_, waiting| {
            if now < waiting.until {
                return true;
            }
            silent |= heard < waiting.sent && now.saturating_sub(waiting.sent) >= SILENCE;
            told.push(Told {
                tag: waiting.tag,
                server,
                at: now,
                result: Err(CallError::Lost("its time ran out".into())),
            });
            false
        });
        silent.then_some("the server is silent")
    }

    /// Called when the connection is closed: ends all of its requests without an answer. Requests
    /// that waited for the server's greeting were never sent.
    pub(super) fn end(
        &mut self,
        registry: &Registry,
        why: &str,
        now: Duration,
        told: &mut Vec<Told>,
    ) {
        // An error does not matter: closing the socket also removes it from the registry.
        let _ = registry.deregister(&mut self.stream);
        for (_, waiting) in self.waiting.drain() {
            let why = why.to_string();
            told.push(Told {
                tag: waiting.tag,
                server: self.server,
                at: now,
                result: Err(match self.greeted {
                    true => CallError::Lost(why),
                    false => CallError::NotSent(why),
                }),
            });
        }
    }
}

/// Decodes the first frame. Returns the value and the number of bytes that the frame takes up;
/// `None` if the frame is not complete yet.
fn next<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<Option<(T, usize)>, String> {
    let split = frame::split(bytes, limit).map_err(|error| error.to_string())?;
    let Some((payload, used)) = split else {
        return Ok(None);
    };
    let value = codec::decode(payload).map_err(|error| error.to_string())?;
    Ok(Some((value, used)))
}

/// Whether the error means only that the socket has nothing to read, has no room to write, or is
/// still connecting.
fn is_not_yet(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected)
}
