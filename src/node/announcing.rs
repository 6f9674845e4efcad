//! What a node makes known of the members: to its own network, to clients, to whoever waits for a
//! change.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::NodeError;
use super::greeting::Estranged;
use super::hub::Hub;
use super::joining::explain_waiting;
use super::own_disk::DiskNotice;
use crate::machine::StateMachine;
use crate::raft::{
    ConfigurationEvent, Contact, Event, Index, LoggedConfiguration, MemberId, News, NodeId, Raft,
};
use crate::wire::handshake::{PeerWelcome, Standing};
use crate::wire::members::MemberList;

/// What was announced of the members last. It has a lock of its own, so that nobody waits for the
/// replica's lock to look up an address.
pub(super) struct Known {
    /// The number of the news; see [`Consequences::news`](super::Consequences::news).
    number: u64,
    /// This node.
    me: MemberId,
    contacts: Vec<Contact>,
    committed: LoggedConfiguration,
}

impl Known {
    /// What the core knows when the node starts. The first news say the same.
    pub fn at_start(raft: &Raft) -> Self {
        Self {
            number: 0,
            me: raft.member(),
            contacts: raft.contacts(),
            committed: raft.committed_configuration().clone(),
        }
    }

    /// Where a node is reached: by the configuration in force, else by the committed one. A leader
    /// may be in a configuration that is not committed yet.
    fn address_of(&self, id: NodeId) -> Option<String> {
        let contact = self.contacts.iter().find(|contact| contact.id == id);
        let committed = self.committed.configuration.contact(id);
        let address = contact.map(|contact| &contact.address);
        let address = address.or(committed.map(|member| &member.address));
        address.filter(|address| !address.is_empty()).cloned()
    }
}

/// Where a committed configuration of the log has this node with this folder. At the start the
/// address may have been another one: a node that is to be moved is started where it is to be, and
/// moved afterwards.
fn own_address(committed: &LoggedConfiguration, me: MemberId) -> Option<&str> {
    let configuration = &committed.configuration;
    let own = configuration
        .contact(me.id)
        .filter(|own| configuration.seats(own, me))?;
    (committed.index > 0 && !own.address.is_empty()).then_some(&own.address)
}

/// What clients are told of a committed configuration. In a joint one those who are about to leave
/// are on the list: one of them may lead.
pub(super) fn list_of(committed: &LoggedConfiguration) -> MemberList {
    let contacts = committed.configuration.contacts();
    MemberList {
        index: committed.index,
        lineage: committed.configuration.lineage(),
        members: contacts
            .map(|member| (member.id, member.address.clone()))
            .collect(),
    }
}

impl<S: StateMachine> Hub<S> {
    /// Logs what the core reports for people, and wakes the threads that wait for another role or
    /// term. Each output is the only one that has its events: a thread that takes an output and
    /// does not come here leaves a gap in the log.
    pub(super) fn tell(
        &self,
        events: &[Event],
        members: &[ConfigurationEvent],
        notices: &[DiskNotice],
    ) {
        events.iter().for_each(|event| log::info!("{event}"));
        members.iter().for_each(|event| log::info!("{event}"));
        notices.iter().for_each(|notice| log::warn!("{notice}"));
        if !events.is_empty() {
            self.changed.notify_all();
        }
    }

    /// Announces news of the members, unless later ones were announced already: two threads may
    /// come here in another order than the one in which they got their news.
    pub(super) fn announce(&self, news: Option<(u64, News)>) {
        let Some((number, news)) = news else {
            return;
        };
        let mut known = self.known.lock();
        if number <= known.number {
            return;
        }
        let list = list_of(&news.committed);
        self.transport().members(news.contacts.clone(), list);
        // What the operator says comes first, as at the start.
        let own = own_address(&news.committed, known.me).filter(|_| self.config.address.is_none());
        if let Some(address) = own {
            self.transport().reached_at(address);
        }
        known.number = number;
        known.contacts = news.contacts;
        known.committed = news.committed.clone();
        drop(known);
        self.files.note_members(self, news.committed);
        self.look_again();
        if let Some(error) = self.with_raft(replaced) {
            self.stop(Some(error));
        }
    }

    /// The committed list of members, if it is newer than the one with this index.
    pub fn members_after(&self, known: Index) -> Option<Box<MemberList>> {
        let committed = &self.known.lock().committed;
        (committed.index > known).then(|| Box::new(list_of(committed)))
    }

    /// What this node says of itself to a peer or a probe, to which its folder has this standing.
    pub fn introduction(&self, standing: Standing) -> PeerWelcome {
        let replica = self.replica();
        let raft = replica.raft();
        let is_empty = raft.last().index == 0 && raft.newest_snapshot().is_none();
        PeerWelcome {
            cluster: self.config.cluster.clone(),
            id: self.config.id,
            machine: self.identity.clone(),
            folder: raft.member().folder,
            lineage: raft.committed_configuration().configuration.lineage(),
            is_blank: is_empty && !raft.is_admitted(),
            standing,
        }
    }

    pub(super) fn address_of(&self, id: NodeId) -> Option<String> {
        self.known.lock().address_of(id)
    }

    /// The function that the event loop calls when another node says that this one is outside.
    pub(super) fn on_estranged(self: &Arc<Self>) -> Box<dyn Fn(&Estranged) + Send> {
        let hub = Arc::downgrade(self);
        Box::new(move |estranged| {
            if let Some(hub) = hub.upgrade() {
                hub.estranged(estranged);
            }
        })
    }

    /// Another node says that this one, with its folder, is outside of the cluster.
    ///
    /// If this node never was a member, it asks to be let in, provided that the cluster has its id:
    /// an id that the others do not have is one that was removed, and to come back it is added. If
    /// another folder has taken the place of this node's, it stops: it would only campaign in vain.
    pub fn estranged(&self, estranged: &Estranged) {
        let Some((folder, address)) = &estranged.known else {
            return;
        };
        if !estranged.was_member {
            let is_new = !self.is_stranger.swap(true, Ordering::SeqCst);
            let own_address = self.config.told_address(None);
            if let (true, false, Some(own)) = (is_new, self.config.rejoins, own_address) {
                explain_waiting(self.config.id, &own);
            }
            self.look_again();
        } else if folder.is_some() {
            self.stop(Some(NodeError::Replaced {
                id: self.config.id,
                address: address.clone(),
                index: estranged.configuration,
            }));
        }
    }

    /// This node takes no part in founding its cluster any more, and its disk says so. If it is
    /// told that another folder has its place, it asks for it from now on.
    pub(super) fn founds_no_more(&self) {
        self.founds.store(false, Ordering::SeqCst);
        self.look_again();
    }
}

/// Why the node stops, if its own log says that another folder has taken the place of its own.
fn replaced(raft: &Raft) -> Option<NodeError> {
    let committed = raft.committed_configuration();
    let member = committed.configuration.contact(raft.id())?;
    let is_another = member.folder.is_some_and(|it| it != raft.member().folder);
    (raft.is_removed() && is_another).then(|| NodeError::Replaced {
        id: member.id,
        address: member.address.clone(),
        index: committed.index,
    })
}
