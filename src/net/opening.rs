//! The opening of an accepted connection: finds out whether the other side is a client or a peer,
//! and whether it is welcome.
//!
//! Another protocol on the same port could be recognised here, by a first byte that differs from
//! the magic's.

use super::client_side::ClientSide;
use super::directory::MAX_STRANGERS;
use super::input::Input;
use super::peer_side::{Called, PeerSide};
use super::protocol::{Close, Next, Protocol, Stage, Turn};
use crate::wire::frame;
use crate::wire::handshake::{Caller, Hello, HelloError, MAGIC, MAX_HELLO, PeerHello, Welcome};

/// If a connection speaks another protocol, how many of its first bytes the line in the diagnostic
/// log shows.
const SHOWN: usize = 32;

/// The protocol of a connection that has just been accepted: waits for the magic and the hello.
#[derive(Default)]
pub(super) struct Opening {
    magic_seen: bool,
    /// The hello, kept while the service cannot decide yet whether the client or peer is welcome.
    hello: Option<Hello>,
}

impl Protocol for Opening {
    fn on_bytes(&mut self, input: &mut Input, turn: &mut Turn<'_>) -> Result<Next, Close> {
        if !self.magic_seen {
            let bytes = input.bytes();
            let len = bytes.len().min(MAGIC.len());
            if bytes[..len] != MAGIC[..len] {
                let shown = &bytes[..bytes.len().min(SHOWN)];
                return Err(Close::Magic(shown.escape_ascii().to_string()));
            }
            if len < MAGIC.len() {
                return Ok(Next::Read);
            }
            input.consume(MAGIC.len());
            self.magic_seen = true;
        }
        let hello = match self.hello.take() {
            Some(hello) => Ok(hello),
            None => {
                let Some((payload, len)) = frame::split(input.bytes(), MAX_HELLO)? else {
                    return Ok(Next::Read);
                };
                let hello = Hello::decode(payload);
                input.consume(len);
                hello
            }
        };
        match hello {
            Ok(hello) => match judge(&hello, turn) {
                Some(protocol) => Ok(Next::Become(protocol)),
                None => {
                    self.hello = Some(hello);
                    Ok(Next::Suspend)
                }
            },
            Err(error @ HelloError::Version { .. }) => {
                Ok(Next::Become(refuse("a caller", error.to_string(), turn)))
            }
            Err(error) => Err(Close::Hello(error)),
        }
    }

    fn stage(&self) -> Stage {
        Stage::Opening
    }
}

/// Decides how a connection goes on after its hello; `None` if the service cannot decide yet.
fn judge(hello: &Hello, turn: &mut Turn<'_>) -> Option<Box<dyn Protocol>> {
    let who = match &hello.caller {
        Caller::Client => "a client".to_string(),
        Caller::Peer(peer) => format!("node {}", peer.from),
        Caller::Probe { .. } => "a probe".to_string(),
    };
    if hello.caller == Caller::Client && !turn.room_for_client {
        let limit = turn.local.limits.max_clients;
        let why = format!("{limit} clients are connected already, which is this node's limit");
        return Some(refuse(&who, why, turn));
    }
    let mut welcome = turn.service.hello(hello, turn.address)?;
    if let (Caller::Peer(peer), Welcome::Peer(_)) = (&hello.caller, &welcome)
        && let Some(why) = cannot_answer(peer, turn)
    {
        welcome = Welcome::Refused(why);
    }
    let protocol: Box<dyn Protocol> = match (welcome, &hello.caller) {
        (Welcome::Refused(why), _) => refuse(&who, why, turn),
        (welcome @ Welcome::Accepted { .. }, _) => {
            turn.outlet.send([&welcome]);
            Box::new(ClientSide::new(turn))
        }
        (Welcome::Peer(welcome), Caller::Peer(peer)) => {
            let called = Called {
                hello: peer.clone(),
                standing: welcome.standing.clone(),
            };
            turn.outlet.send([&Welcome::Peer(welcome)]);
            Box::new(PeerSide::new(called))
        }
        (welcome @ Welcome::Peer(_), Caller::Probe { .. } | Caller::Client) => {
            turn.outlet.send([&welcome]);
            turn.outlet.finish();
            Box::new(Refused)
        }
    };
    Some(protocol)
}

/// Why this node could not send anything to a peer, if it could not: the peer is no contact, and is
/// one too many.
fn cannot_answer(peer: &PeerHello, turn: &Turn<'_>) -> Option<String> {
    let local = turn.local;
    let is_full = !local.directory.has_room_for(peer, local.announced.newest());
    is_full.then(|| {
        format!(
            "{MAX_STRANGERS} nodes that node {} does not know are connected to it already, which \
             is the limit: stop those that are no members",
            local.id
        )
    })
}

fn refuse(who: &str, why: String, turn: &mut Turn<'_>) -> Box<dyn Protocol> {
    log::warn!("refused {who} at {}: {why}", turn.address);
    turn.outlet.send([&Welcome::Refused(why)]);
    turn.outlet.finish();
    Box::new(Refused)
}

/// Discards what a refused client or peer, or a probe that was answered, still sends, until it
/// closes or its deadline passes. If this node closed the socket at once, with bytes unread, the
/// operating system would reset the connection, and the other side might never read the answer.
struct Refused;

impl Protocol for Refused {
    fn on_bytes(&mut self, input: &mut Input, _: &mut Turn<'_>) -> Result<Next, Close> {
        input.clear();
        Ok(Next::Read)
    }

    fn stage(&self) -> Stage {
        Stage::Refused
    }
}
