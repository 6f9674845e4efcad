//! The two ends of a connection between nodes: the end of the node that was dialled, and the end of
//! the node that dialled.

use super::input::Input;
use super::protocol::{Close, Next, Protocol, Stage, Turn};
use crate::raft::{Envelope, FolderId, NodeId};
use crate::wire::handshake::{MAX_HELLO, Welcome};
use crate::wire::{codec, frame};

/// A connection between nodes, at the node that was dialled: it receives messages and sends none.
pub(super) struct PeerSide {
    peer: NodeId,
    /// The folder that it named when it was let in.
    folder: FolderId,
}

impl PeerSide {
    pub(super) fn new(peer: NodeId, folder: FolderId) -> Self {
        Self { peer, folder }
    }
}

impl Protocol for PeerSide {
    fn on_bytes(&mut self, input: &mut Input, turn: &mut Turn<'_>) -> Result<Next, Close> {
        while turn.messages_left > 0 {
            let Some(envelope) = input.next::<Envelope>("peer's message")? else {
                return Ok(Next::Read);
            };
            let (from, to, peer) = (envelope.from, envelope.to, self.peer);
            if from != peer || envelope.from_folder != self.folder || to != turn.local.id {
                return Err(Close::Misrouted { peer, from, to });
            }
            turn.count_message();
            turn.service.peer(envelope);
        }
        Ok(Next::Yield)
    }

    fn stage(&self) -> Stage {
        Stage::Peer
    }
}

/// A connection between nodes, at the node that dialled: it receives one welcome and nothing else.
pub(super) struct Dialled {
    peer: NodeId,
    welcomed: bool,
}

impl Dialled {
    pub(super) fn new(peer: NodeId) -> Self {
        Self {
            peer,
            welcomed: false,
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
            match codec::decode(payload).map_err(|error| Close::Decode { what, error })? {
                Welcome::Refused(why) => return Err(Close::Refused(why)),
                Welcome::Accepted { cluster, id }
                    if id != self.peer || cluster != turn.local.cluster =>
                {
                    return Err(Close::Stranger { id, cluster });
                }
                Welcome::Accepted { .. } | Welcome::Peer(_) => self.welcomed = true,
            }
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
