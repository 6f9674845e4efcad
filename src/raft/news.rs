//! What others are told of the members: whom to reach, what is committed, how far each is.

use super::Raft;
use super::common::Common;
use super::configuration::{LoggedConfiguration, Member};
use super::event::ConfigurationEvent;
use super::role::Role;
use super::types::{FolderId, Index, NodeId};

/// A node that this one speaks to, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The node.
    pub id: NodeId,
    /// The folder that messages are for; `None` if the configuration has none for the node.
    pub folder: Option<FolderId>,
    /// `host:port`.
    pub address: String,
}

/// The members have changed, as far as a caller has to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whom this node speaks to from now on, without itself; see [`Raft::contacts`].
    pub contacts: Vec<Contact>,
    /// The newest committed configuration: what clients may be told.
    pub committed: LoggedConfiguration,
}

/// How far a member is, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberProgress {
    /// The member.
    pub id: NodeId,
    /// The folder that is followed.
    pub folder: Option<FolderId>,
    /// It has the log up to here on its disk, inclusive.
    pub matched: Index,
    /// How long it has not answered, in milliseconds of cluster time, counted from the begin of
    /// this leader's office at the earliest.
    pub silent_ms: u64,
    /// The round in which it catches up, if it is to become a voter. `None` while it is too slow
    /// for that, and at members that are not joining.
    pub round: Option<u32>,
    /// Whether it has left, and is only told so.
    pub is_departing: bool,
}

/// What has been told already.
#[derive(Debug)]
pub(super) struct Told {
    /// The version of the configurations, and the index of the newest of them.
    version: u64,
    index: Index,
    /// The index of the newest committed one.
    committed: Index,
    /// Whether a committed configuration had this node with this folder, since it started.
    was_member: bool,
    is_removed: bool,
    /// Whether contacts have changed without another configuration.
    pub contacts_changed: bool,
}

impl Told {
    /// Nothing: the first news says whom to reach.
    pub fn nothing() -> Self {
        Self {
            version: 0,
            index: 0,
            committed: 0,
            was_member: false,
            is_removed: false,
            contacts_changed: true,
        }
    }
}

impl From<&Member> for Contact {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id,
            folder: member.folder,
            address: member.address.clone(),
        }
    }
}

impl Common {
    /// Whether a committed configuration has had this node with this folder as a member, and a
    /// later one has not.
    fn is_removed(&self) -> bool {
        self.told.was_member && !self.is_member(self.committed_configuration())
    }

    /// Whether this node with this folder is a member.
    ///
    /// Only founders are without a folder, in their list and in the seats that the first leader
    /// left empty. Both mean the folder that is admitted: an empty seat waits for it. A founder
    /// that lost its folder has that list too, and catches up with configurations that have its
    /// former folder. It was no member before.
    fn is_member(&self, logged: &LoggedConfiguration) -> bool {
        let configuration = &logged.configuration;
        let both = configuration
            .members()
            .iter()
            .chain(configuration.outgoing());
        both.into_iter().any(|member| match member.folder {
            Some(_) => configuration.seats(member, self.me()),
            None => member.id == self.id() && self.config.admitted,
        })
    }

    /// The newest committed configuration.
    pub fn committed_configuration(&self) -> &LoggedConfiguration {
        let configurations = self.log.configurations();
        let committed = configurations.at(self.log.committed());
        // The first one is not above what has been executed, which is committed.
        committed.expect("one is committed")
    }
}

impl Raft {
    /// The newest committed configuration.
    pub fn committed_configuration(&self) -> &LoggedConfiguration {
        self.common.committed_configuration()
    }

    /// Whether this node with this folder was a member since it started, and is none any more. It
    /// never stands for election again.
    pub fn is_removed(&self) -> bool {
        self.common.is_removed()
    }

    /// Whom this node speaks to: the other members, and at a leader those that are told that they
    /// have left.
    pub fn contacts(&self) -> Vec<Contact> {
        let others = self.common.others();
        let mut contacts: Vec<Contact> = others.iter().map(Contact::from).collect();
        if let Role::Leader(leader) = &self.role {
            contacts.extend(leader.departing());
        }
        contacts
    }

    /// How far each other member is; nobody at a node that does not lead.
    pub fn member_progress(&self) -> Vec<MemberProgress> {
        let Role::Leader(leader) = &self.role else {
            return Vec::new();
        };
        let tick_ms = self.common.config.tick_ms;
        let progress = leader.progress();
        let reports = progress.map(|(id, progress)| MemberProgress {
            id,
            folder: progress.folder,
            matched: progress.matched(),
            silent_ms: u64::from(progress.silent_ticks) * tick_ms,
            round: progress
                .catch_up
                .as_ref()
                .and_then(|catch_up| catch_up.round()),
            is_departing: progress.departing.is_some(),
        });
        reports.collect()
    }

    /// What has changed about the members since the last call.
    pub(super) fn take_news(&mut self) -> Option<News> {
        let common = &mut self.common;
        let configurations = common.log.configurations();
        let (version, newest) = (configurations.version(), configurations.newest().index);
        let committed = common.committed_configuration().index;
        let told = &common.told;
        let in_force = version != told.version;
        let is_committed = committed != told.committed;
        if !in_force && !is_committed && !told.contacts_changed {
            return None;
        }
        if in_force {
            let logged = configurations.newest().clone();
            let event = match newest >= told.index {
                true => ConfigurationEvent::InForce(logged),
                false => ConfigurationEvent::TakenBack(logged),
            };
            common.configuration_events.push(event);
        }
        if is_committed {
            let event = ConfigurationEvent::Committed(committed);
            common.configuration_events.push(event);
        }
        let is_member = common.is_member(common.committed_configuration());
        let (was_member, was_removed) = (common.told.was_member, common.told.is_removed);
        common.told = Told {
            version,
            index: newest,
            committed,
            was_member: was_member || is_member,
            is_removed: was_member && !is_member,
            contacts_changed: false,
        };
        if common.told.is_removed && !was_removed {
            let event = ConfigurationEvent::Removed;
            common.configuration_events.push(event);
        }
        Some(News {
            contacts: self.contacts(),
            committed: self.common.committed_configuration().clone(),
        })
    }
}
