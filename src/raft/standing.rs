//! Where this node stands among the members: what counts of it, whom it asks, whom it answers, and
//! whether it may lead.
//!
//! Two configurations decide, and never one for both: what this node asks and counts is decided by
//! its own, the last one in its log. What it answers is decided by the asker's, which shows in how
//! the asker addresses this node (thesis 4.1: the caller's configuration decides).

use super::common::Common;
use super::configuration::{Configuration, LoggedConfiguration, Member};
use super::event::ConfigurationEvent;
use super::message::Sender;
use super::types::{MemberId, NodeId};

impl Common {
    /// What counts of this node: its id, and its folder.
    pub fn me(&self) -> MemberId {
        MemberId {
            id: self.config.id,
            folder: self.config.folder,
        }
    }

    /// The configuration in force: the last one in the log, committed or not (thesis 4.1).
    pub fn configuration(&self) -> &Configuration {
        &self.log.configurations().newest().configuration
    }

    /// All other members, learners included: those that a leader sends its log to.
    pub fn others(&self) -> Vec<Member> {
        let contacts = self.configuration().contacts();
        let others = contacts.filter(|member| member.id != self.id());
        others.cloned().collect()
    }

    /// All other voters: those that a candidate asks.
    pub fn other_voters(&self) -> Vec<Member> {
        let mut voters = self.others();
        voters.retain(|member| self.configuration().counts(member));
        voters
    }

    /// Whether an answer of this node may count for who asks: because the folder that the asker's
    /// configuration has for this node is this one, or because the folder is
    /// [admitted](Config::admitted), so that no other folder of this node ever counts for those
    /// who know no folder of it.
    ///
    /// The asker's configuration decides, and not this node's, which may be older (thesis 4.1): a
    /// voter that has not heard yet that it is one must vote, or nobody might be elected. And who
    /// asks for another folder must get no answer, however much this node believes in itself.
    pub fn may_answer(&self, sender: Sender) -> bool {
        sender.names_us || self.config.admitted
    }

    /// Whether what a node says in answer to a request may be looked at: because this node's
    /// configuration, or the one before it, has the node with this folder or with none. Nobody else
    /// is ever asked. A stranger's answer is dropped together with its term, or a node that was
    /// removed and went on by itself could depose the leader.
    pub fn is_asked(&self, who: MemberId) -> bool {
        let configurations = self.log.configurations();
        let both = [Some(configurations.newest()), configurations.former()];
        let mut contacts =
            (both.into_iter().flatten()).filter_map(|it| it.configuration.contact(who.id));
        contacts.any(|member| member.folder.is_none_or(|folder| folder == who.folder))
    }

    /// Whether this node may stand for election: with this folder it is a voter of the
    /// configuration in force. Or of the one before, as long as the newest is not known to be
    /// committed: if that is only on nodes which it removes, one of them has to lead to commit it,
    /// without counting itself (thesis 4.2.2).
    ///
    /// While the cluster is being founded nobody's folder is known, so the folder has to be
    /// admitted: then no other one of this node counts.
    pub fn may_campaign(&self) -> bool {
        let votes = |logged: &LoggedConfiguration| {
            let configuration = &logged.configuration;
            let is_known = self.config.admitted || !configuration.is_founding();
            is_known && configuration.is_voter(self.me())
        };
        let configurations = self.log.configurations();
        let newest = configurations.newest();
        let is_committed = newest.index <= self.log.committed();
        votes(newest) || !is_committed && configurations.former().is_some_and(votes)
    }

    /// A message came that is meant for another folder of this node. Each sender is reported once,
    /// and not more senders than any cluster has.
    pub fn wrong_folder(&mut self, from: NodeId) {
        const MOST: usize = 64;
        if self.wrong_folders.len() < MOST && self.wrong_folders.insert(from) {
            let event = ConfigurationEvent::WrongFolder { from };
            self.configuration_events.push(event);
        }
    }
}
