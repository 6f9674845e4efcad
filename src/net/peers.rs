//! Sends messages to the other nodes, from any thread.

use std::sync::Arc;

use super::directory::Directory;
use super::loop_signals::LoopSignals;
use crate::raft::{Contact, Envelope, NodeId};

/// Sends messages to the other nodes. Clones are cheap and use the same connections.
#[derive(Clone)]
pub struct Peers {
    pub(super) directory: Arc<Directory>,
    pub(super) signals: Arc<LoopSignals>,
}

impl Peers {
    /// Sends each message to the node that it is addressed to. The messages to one node keep their
    /// order and share one write to that node's socket.
    ///
    /// Never blocks. A message is dropped if its node is unknown or not connected, if the node at
    /// hand has another folder than the message names, or if too many bytes wait for the node. That
    /// is safe, because consensus repeats what matters and has no use for stale messages.
    pub fn send(&self, envelopes: &[Envelope]) {
        self.directory.each(|outlet, is_for| {
            let mut mine = envelopes.iter().filter(|one| is_for(one)).peekable();
            if mine.peek().is_some() {
                outlet.send(mine);
            }
        });
    }

    /// Sets whom the event loop dials from now on, in place of all that it dialled before. A node
    /// that is in both lists with the same address and folder keeps its connection; so does one
    /// whose folder becomes known.
    ///
    /// Never blocks: the loop takes the list when it wakes up. `sequence` orders the lists of
    /// several threads, from 1 up: a list that is not newer than the last one is dropped.
    pub fn set(&self, sequence: u64, contacts: Vec<Contact>) {
        self.signals.leave_contacts(sequence, contacts);
    }

    /// Whether there is a connection to this contact. The node may still refuse the connection, or
    /// may have died without the connection having ended yet.
    pub fn is_connected(&self, id: NodeId) -> bool {
        let outlet = self.directory.contact(id);
        outlet.is_some_and(|outlet| outlet.is_open())
    }
}
