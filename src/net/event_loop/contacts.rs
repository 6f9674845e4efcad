//! Whom the event loop dials: the contacts that the node has set, and strangers that call.
//!
//! A stranger is a node that sends messages to this one and is none of its contacts: a leader of
//! whose configuration this node has not heard yet, a member that was moved meanwhile, or any
//! member at a node that is to join. It is dialled at the address that it gave, so that it can be
//! answered, for as long as its own connection lasts.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use mio::Token;

use super::{EventLoop, PEER_KEEPS};
use crate::net::Service;
use crate::net::dialer::Dialer;
use crate::net::directory::{DialerId, MAX_STRANGERS, Target, caller};
use crate::net::outlet::{Bounds, Outlet, WhenFull};
use crate::net::protocol::Close;
use crate::raft::{Contact, MemberId, NodeId};
use crate::wire::handshake::{Caller, Hello, VERSION, Welcome};

impl EventLoop {
    /// Dials these contacts from now on. The connections to contacts that stay are left alone.
    pub(super) fn follow(&mut self, contacts: Vec<Contact>) {
        let others = contacts.into_iter().filter(|c| c.id != self.local.id);
        let mut added: BTreeMap<NodeId, Contact> = others.map(|c| (c.id, c)).collect();
        let directory = self.local.directory.clone();
        let mut dialled = Vec::new();
        let gone = directory.change(|lists| {
            let mut gone = Vec::new();
            for (id, mut target) in mem::take(&mut lists.contacts) {
                match added.remove(&id) {
                    Some(contact) if target.is_reached_as(&contact) => {
                        target.folder = contact.folder;
                        if let Some(dialer) = self.dialer_of(&target) {
                            dialer.folder = contact.folder;
                        }
                        lists.contacts.insert(id, target);
                    }
                    changed => {
                        gone.push(target);
                        added.extend(changed.map(|contact| (id, contact)));
                    }
                }
            }
            for (id, contact) in added {
                let target = self.target(contact, false);
                dialled.push((id, target.address.clone(), target.dialer.is_some()));
                lists.contacts.insert(id, target);
            }
            gone
        });
        for (id, address, is_sound) in dialled {
            warn_unless(is_sound, id, &address);
        }
        self.dial_no_more(gone);
        self.mind_strangers();
    }

    /// Dials the nodes that call this one and are no contacts, and no others besides the contacts.
    /// Called whenever a peer has come or gone, or the contacts have changed.
    pub(super) fn mind_strangers(&mut self) {
        let (mut wanted, surplus) = self.calling_strangers();
        let directory = self.local.directory.clone();
        let mut called = Vec::new();
        let gone = directory.change(|lists| {
            let mut gone = Vec::new();
            for (who, target) in mem::take(&mut lists.strangers) {
                match wanted.get(&who) {
                    Some(address) if *address == target.address => {
                        wanted.remove(&who);
                        lists.strangers.insert(who, target);
                    }
                    _ => gone.push(target),
                }
            }
            for (who, address) in wanted {
                let contact = Contact {
                    id: who.id,
                    folder: Some(who.folder),
                    address,
                };
                let target = self.target(contact, true);
                called.push((who, target.address.clone(), target.dialer.is_some()));
                lists.strangers.insert(who, target);
            }
            gone
        });
        // Senders wait for the lists, and whoever reads the log may be slow.
        for (who, address, is_sound) in called {
            log::info!("{who} calls from {address} and is no member there: it gets answers");
            warn_unless(is_sound, who.id, &address);
        }
        self.dial_no_more(gone);
        for token in surplus {
            self.close(token, &Close::NoContact);
        }
    }

    /// The strangers that have a connection to this node, with the addresses that they gave last;
    /// and the connections of those that are too many. That can only be if they were contacts when
    /// they called.
    fn calling_strangers(&self) -> (BTreeMap<MemberId, String>, Vec<Token>) {
        let directory = &self.local.directory;
        let newest = self.local.announced.newest();
        directory.change(|lists| {
            let callers = self.connections.iter();
            let callers = callers.filter_map(|(token, c)| Some((*token, &c.caller()?.hello)));
            let mut callers: Vec<_> = callers
                .filter(|(_, hello)| !lists.is_contact(hello, newest))
                .collect();
            // Those that are answered already come first, and of one node the connection that it
            // opened last comes last.
            callers.sort_by_key(|(token, hello)| {
                (!lists.strangers.contains_key(&caller(hello)), *token)
            });
            let (mut wanted, mut surplus) = (BTreeMap::new(), Vec::new());
            for (token, hello) in callers {
                let who = caller(hello);
                if wanted.len() < MAX_STRANGERS || wanted.contains_key(&who) {
                    wanted.insert(who, lists.way_to(hello));
                } else {
                    surplus.push(token);
                }
            }
            (wanted, surplus)
        })
    }

    /// Asks the service again what the peers are that have a connection to this node, after the
    /// members may have changed. Closes the connections of those that have become strangers or are
    /// not welcome any more: they call again, and then learn so.
    pub(super) fn judge_again(&mut self, service: &mut dyn Service) {
        if !mem::take(&mut self.judges_again) {
            return;
        }
        let mut estranged = Vec::new();
        for (&token, connection) in &self.connections {
            let Some(called) = connection.caller() else {
                continue;
            };
            let hello = Hello {
                version: VERSION,
                cluster: self.local.cluster.clone(),
                caller: Caller::Peer(called.hello.clone()),
            };
            let stays = match service.hello(&hello, connection.address) {
                Some(Welcome::Peer(welcome)) => !called.is_news(&welcome.standing),
                Some(Welcome::Refused(_)) => false,
                Some(Welcome::Accepted { .. }) | None => true,
            };
            if !stays {
                estranged.push(token);
            }
        }
        for token in estranged {
            self.close(token, &Close::Estranged);
        }
    }

    /// Makes an outlet and a dialer for a node. A node whose address cannot be dialled gets no
    /// dialer, and messages to it are dropped.
    fn target(&mut self, contact: Contact, is_stranger: bool) -> Target {
        let Contact {
            id,
            folder,
            address,
        } = contact;
        let outlet = peer_outlet(&self.local.limits);
        let number = self.next_dialer;
        self.next_dialer += 1;
        let dialer = Dialer::new(number, (id, folder), &address, outlet.clone());
        let is_sound = dialer.is_some();
        if let Some(mut dialer) = dialer {
            dialer.is_stranger = is_stranger;
            self.dialers.insert(number, dialer);
        }
        Target {
            folder,
            address,
            dialer: is_sound.then_some(number),
            outlet,
        }
    }

    fn dialer_of(&mut self, target: &Target) -> Option<&mut Dialer> {
        self.dialers.get_mut(&target.dialer?)
    }

    /// Drops the dialers of nodes that are not sent to any more, and closes their connections.
    fn dial_no_more(&mut self, gone: Vec<Target>) {
        let gone: Vec<DialerId> = gone.iter().filter_map(|target| target.dialer).collect();
        for dialer in &gone {
            self.dialers.remove(dialer);
        }
        let connections = self.connections.iter();
        let is_gone = |dialled: Option<DialerId>| dialled.is_some_and(|id| gone.contains(&id));
        let closed = connections.filter(|(_, c)| is_gone(c.dialled));
        let closed: Vec<Token> = closed.map(|(token, _)| *token).collect();
        for token in closed {
            self.close(token, &Close::NoContact);
        }
    }
}

fn warn_unless(is_sound: bool, id: NodeId, address: &str) {
    if !is_sound {
        log::warn!(
            "cannot send to node {id}: its address, \"{address}\", is not of the form HOST:PORT"
        );
    }
}

fn peer_outlet(limits: &crate::net::Limits) -> Arc<Outlet> {
    Arc::new(Outlet::new(Bounds {
        queue: limits.peer_queue_bytes,
        when_full: WhenFull::Drop(limits.peer_stall),
        keep: PEER_KEEPS,
    }))
}
