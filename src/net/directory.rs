//! Whom a node sends to: its contacts, and the strangers that it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::outlet::Outlet;
use crate::raft::{Contact, Envelope, FolderId, Index, MemberId, NodeId};
use crate::wire::handshake::PeerHello;

/// How many nodes that are no contacts of this node it answers at a time. There are seldom more
/// than one or two: a leader that this node has not heard of yet, and nodes that were removed and
/// still run. At a node that is to join a cluster all members are strangers: at most 9 voters, and
/// of the learners only those that lead later.
pub(super) const MAX_STRANGERS: usize = 16;

/// Names a dialer of the event loop. No number is used twice, so what was begun for a dialer that
/// is gone is never taken for another one's.
pub(super) type DialerId = u64;

/// The nodes that this one sends to, with their outlets. The event loop changes it; each thread
/// that sends reads it.
#[derive(Default)]
pub(super) struct Directory {
    lists: RwLock<Lists>,
}

/// What a [`Directory`] holds.
#[derive(Default)]
pub(super) struct Lists {
    /// The nodes that the configuration names: one for each id.
    pub(super) contacts: BTreeMap<NodeId, Target>,
    /// The addresses at which this node dials certain nodes. They take the place of the addresses
    /// in the list of members and in greetings, because this node reaches those nodes by a way of
    /// its own, such as a tunnel.
    pub(super) reach: BTreeMap<NodeId, String>,
    /// Nodes that have called this one and are no contacts.
    pub(super) strangers: BTreeMap<MemberId, Target>,
}

/// A node that this one sends to.
pub(super) struct Target {
    /// The folder that the messages to it are for; `None` if the configuration has none yet.
    pub(super) folder: Option<FolderId>,
    /// Where it is dialled.
    pub(super) address: String,
    /// Who dials it; `None` if its address cannot be dialled.
    pub(super) dialer: Option<DialerId>,
    pub(super) outlet: Arc<Outlet>,
}

impl Directory {
    /// Calls `look` with each outlet and a function that says which messages are for it.
    pub(super) fn each(&self, mut look: impl FnMut(&Outlet, &dyn Fn(&Envelope) -> bool)) {
        let lists = self.lists.read();
        for (&id, target) in &lists.contacts {
            look(&target.outlet, &|envelope| {
                // The messages to another folder of the same node are not for this contact: they
                // answer a node that has taken its place, or are late.
                envelope.to == id
                    && fits(target.folder, envelope.to_folder)
                    && !lists.answers(envelope)
            });
        }
        for (&who, target) in &lists.strangers {
            look(&target.outlet, &|envelope| names(envelope) == Some(who));
        }
    }

    /// The outlet to a contact.
    pub(super) fn contact(&self, id: NodeId) -> Option<Arc<Outlet>> {
        let lists = self.lists.read();
        lists.contacts.get(&id).map(|target| target.outlet.clone())
    }

    /// Whether the node that says this hello can be answered: it is a contact or a stranger
    /// already, or there is room for one more stranger.
    pub(super) fn has_room_for(&self, hello: &PeerHello, newest: Index) -> bool {
        let lists = self.lists.read();
        lists.is_contact(hello, newest)
            || lists.strangers.len() < MAX_STRANGERS
            || lists.strangers.contains_key(&caller(hello))
    }

    /// Changes the lists, before the next message is sent.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Lists) -> T) -> T {
        change(&mut self.lists.write())
    }
}

impl Lists {
    /// Whether a node that says this hello is a contact, so that what answers it goes to the
    /// contact's address.
    ///
    /// While the contact's folder is not known, the id decides, with one exception. If the caller
    /// knows a configuration of the log and gives another address than the contact's, then the
    /// contact comes from the founders' list, and this list is out of date: a message to the
    /// contact's address would not reach the caller, so the caller is answered as a stranger.
    ///
    /// A caller with the contact's folder may have been moved. If it knows later members than this
    /// node, whose newest committed ones have the index `newest`, it is answered at the address
    /// that it gives: it may lead, and then only its entries can tell this node where it is.
    pub(super) fn is_contact(&self, hello: &PeerHello, newest: Index) -> bool {
        self.contacts.get(&hello.from).is_some_and(|contact| {
            let has_own_way = self.reach.contains_key(&hello.from);
            let is_there = hello.address == contact.address || has_own_way;
            match contact.folder {
                Some(folder) => {
                    folder == hello.folder && (hello.configuration <= newest || is_there)
                }
                None => hello.configuration == 0 || is_there,
            }
        })
    }

    /// Where a node that says this hello is dialled.
    pub(super) fn way_to(&self, hello: &PeerHello) -> String {
        let own = self.reach.get(&hello.from);
        own.unwrap_or(&hello.address).clone()
    }

    /// Whether a message goes to a stranger. One that cannot be reached may be a contact as well,
    /// to which this node has a way of its own.
    fn answers(&self, envelope: &Envelope) -> bool {
        let is_reached = |target: &Target| target.outlet.is_open();
        !self.strangers.is_empty()
            && names(envelope).is_some_and(|who| self.strangers.get(&who).is_some_and(is_reached))
    }
}

impl Target {
    /// Whether this target stays connected when it becomes this contact. It does when its folder
    /// was not known: if another one than the contact's is at the address, it refuses the first
    /// message.
    pub(super) fn is_reached_as(&self, contact: &Contact) -> bool {
        self.address == contact.address && fits(self.folder, contact.folder)
    }
}

/// Whether two sides may mean the same folder: both name the same one, or one names none.
fn fits(one: Option<FolderId>, other: Option<FolderId>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Whom a message names, if it names a folder.
fn names(envelope: &Envelope) -> Option<MemberId> {
    let (id, folder) = (envelope.to, envelope.to_folder?);
    Some(MemberId { id, folder })
}

/// Who says a hello.
pub(super) fn caller(hello: &PeerHello) -> MemberId {
    let (id, folder) = (hello.from, hello.folder);
    MemberId { id, folder }
}
