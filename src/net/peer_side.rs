//! The two ends of a connection between nodes: the end of the node that was dialled, and the end of
//! the node that dialled.

use super::input::Input;
use super::protocol::{Close, Next, Protocol, Stage, Turn};
use crate::raft::{Envelope, FolderId, NodeId};
use crate::wire::handshake::{MAX_HELLO, PeerHello, PeerWelcome, Standing, Welcome};
use crate::wire::{codec, frame};

/// A peer that has called this node, and was let in.
pub(super) struct Called {
    /// What it said of itself.
    pub(super) hello: PeerHello,
    /// What it was told that it is here.
    pub(super) standing: Standing,
}

impl Called {
    /// Whether the peer has to hear of it that it is this now. It has to if it has become a
    /// stranger, and again when that is committed: it acts on nothing less.
    pub(super) fn is_news(&self, standing: &Standing) -> bool {
        let strangeness = |standing: &Standing| match standing {
            Standing::Witness | Standing::Member => 0,
            Standing::Stranger { configuration, .. } => 1 + u8::from(*configuration > 0),
        };
        strangeness(standing) > strangeness(&self.standing)
    }
}

/// A connection between nodes, at the node that was dialled: it receives messages and sends none.
pub(super) struct PeerSide {
    called: Called,
}

impl PeerSide {
    pub(super) fn new(called: Called) -> Self {
        Self { called }
    }
}

impl Protocol for PeerSide {
    fn on_bytes(&mut self, input: &mut Input, turn: &mut Turn<'_>) -> Result<Next, Close> {
        let hello = &self.called.hello;
        while turn.messages_left > 0 {
            let Some(envelope) = input.next::<Envelope>("peer's message")? else {
                return Ok(Next::Read);
            };
            let (from, to, peer) = (envelope.from, envelope.to, hello.from);
            if from != peer || envelope.from_folder != hello.folder || to != turn.local.id {
                return Err(Close::Misrouted { peer, from, to });
            }
            // The peer may learn the folder of this node, or forget it, while the connection is
            // open. But it must not mean another folder.
            let own = turn.local.folder;
            if envelope.to_folder.is_some_and(|folder| folder != own) {
                return Err(Close::WrongFolder(peer));
            }
            turn.count_message();
            turn.service.peer(envelope);
        }
        Ok(Next::Yield)
    }

    fn stage(&self) -> Stage {
        Stage::Peer
    }

    fn caller(&self) -> Option<&Called> {
        Some(&self.called)
    }
}

/// A connection between nodes, at the node that dialled: it receives one welcome and nothing else.
pub(super) struct Dialled {
    peer: NodeId,
    /// The folder that the configuration has for the peer, if it has one.
    folder: Option<FolderId>,
    /// Where the peer was dialled.
    address: String,
    welcomed: bool,
}

impl Dialled {
    pub(super) fn new(peer: NodeId, folder: Option<FolderId>, address: String) -> Self {
        Self {
            peer,
            folder,
            address,
            welcomed: false,
        }
    }

    /// Whether the node that has answered is the one that was dialled.
    fn check(&self, welcome: Welcome, cluster: &str) -> Result<PeerWelcome, Close> {
        let welcome = match welcome {
            Welcome::Peer(welcome) => welcome,
            Welcome::Refused(why) => return Err(Close::Refused(why)),
            Welcome::Accepted { .. } => return Err(Close::NotAsPeer),
        };
        let id = welcome.id;
        if id != self.peer || welcome.cluster != cluster {
            let cluster = welcome.cluster;
            return Err(Close::Stranger { id, cluster });
        }
        match self.folder {
            Some(folder) if folder != welcome.folder => Err(Close::OtherFolder(id)),
            _ => Ok(welcome),
        }
    }
}

impl Protocol for Dialled {
    fn on_bytes(&mut self, input: &mut Input, turn: &mut Turn<'_>) -> Result<Next, Close> {
        if !self.welcomed {
            let Some((payload, len)) = frame::split(input.bytes(), MAX_HELLO)? else {
                return Ok(Next::Read);
            };
            let what = "welcome";
            let decoded = codec::decode(payload).map_err(|error| Close::Decode { what, error })?;
            let welcome = self.check(decoded, &turn.local.cluster)?;
            self.welcomed = true;
            turn.service.welcomed(&welcome, &self.address);
            input.consume(len);
        }
        match input.bytes().len() {
            0 => Ok(Next::Read),
            surplus => Err(Close::Unexpected(surplus)),
        }
    }

    fn stage(&self) -> Stage {
        if self.welcomed {
            Stage::Peer
        } else {
            Stage::Opening
        }
    }
}
