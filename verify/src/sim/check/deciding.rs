//! Looks at a node's core after each step for what the checks of the members need to know.

use std::collections::BTreeSet;

use super::Checks;
use super::members::{Commit, Elected, Made};
use crate::sim::durable::Durable;
use crate::sim::node::Node;
use crate::sim::{Failure, Time};
use raftkv::raft::{
    Configuration, Entry, EntryId, Index, LoggedConfiguration, MemberId, NodeId, Payload, Raft,
    RoleName,
};

/// The disks of all folders, those that were lost included.
#[derive(Clone, Copy)]
pub struct Folders<'a> {
    pub nodes: &'a [Node],
    /// As they were when they were lost.
    pub lost: &'a [(MemberId, Durable)],
}

/// A node after a step of it.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub n: usize,
    pub now: Time,
    pub raft: &'a Raft,
    /// Up to here its log was looked at before.
    pub checked: Index,
    /// Its configuration in force before the step.
    pub before: &'a LoggedConfiguration,
    pub folders: Folders<'a>,
}

impl<'a> Folders<'a> {
    fn all(self) -> impl Iterator<Item = (MemberId, &'a Durable)> {
        let present = self.nodes.iter().zip(1..).filter_map(|(node, id)| {
            let folder = node.folder?;
            Some((MemberId { id, folder }, &node.durable))
        });
        let lost = self.lost.iter().map(|(who, durable)| (*who, durable));
        present.chain(lost)
    }

    fn holders(self, id: EntryId) -> BTreeSet<MemberId> {
        let holders = self.all().filter(|(_, durable)| durable.holds(id));
        holders.map(|(who, _)| who).collect()
    }

    fn holds(self, who: MemberId, id: EntryId) -> bool {
        let mut all = self.all();
        all.any(|(other, durable)| other == who && durable.holds(id))
    }
}

impl Look<'_> {
    fn is_configuration(entry: &&Entry) -> bool {
        matches!(entry.payload, Payload::Configuration(_))
    }

    /// The last configuration that the log has after one index and before another one.
    fn configuration_between(&self, after: Index, before: Index) -> Option<&Entry> {
        let indexes = (after + 1..before).rev();
        let entries = indexes.map_while(|index| self.raft.entry(index));
        entries.into_iter().find(Self::is_configuration)
    }
}

impl Checks {
    /// A node leads a term that had no leader before.
    pub(super) fn elected(&mut self, look: &Look<'_>) -> Result<(), Failure> {
        let (raft, who) = (look.raft, look.raft.member());
        let term = raft.term();
        let own = look.folders.nodes[look.n].durable.hard_state();
        if own.term == term
            && let Some(vote) = own.vote
        {
            self.members.voted(who, term, vote);
        }
        let earlier = self.canonical.partition_point(|known| known.term < term);
        let last = earlier.checked_sub(1).map(|at| self.canonical[at].entry.id);
        let newest = raft.configuration();
        let elected = Elected {
            who,
            term,
            newest,
            last,
        };
        let folders = look.folders;
        self.members
            .elected(&elected, |voter, id| folders.holds(voter, id))
    }

    /// A node was the first to know that entries behind `known` are committed.
    pub(super) fn decided(&mut self, look: &Look<'_>, known: Index) -> Result<(), Failure> {
        let after = look.raft.configuration();
        let newly = &self.canonical[known as usize..];
        let mut decisions: Vec<(EntryId, Option<Configuration>)> = Vec::new();
        for committed in newly {
            if let Payload::Configuration(configuration) = &committed.entry.payload {
                decisions.push((committed.entry.id, Some((**configuration).clone())));
            }
        }
        decisions.extend(newly.last().map(|last| (last.entry.id, None)));
        for (entry, own) in decisions {
            let (before, after) = match &own {
                Some(own) => (own, own),
                None => (&look.before.configuration, &after.configuration),
            };
            let commit = Commit {
                who: look.raft.member(),
                entry,
                before,
                after,
            };
            self.members
                .commits(&commit, &look.folders.holders(entry))?;
        }
        Ok(())
    }

    /// Another configuration is in force at a node than before its last step.
    pub(super) fn reconfigured(&mut self, look: &Look<'_>) -> Result<(), Failure> {
        let (raft, newest) = (look.raft, look.raft.configuration());
        let Some(entry) = raft.entry(newest.index) else {
            return Ok(());
        };
        let is_own = raft.role() == RoleName::Leader && entry.id.term == raft.term();
        if !is_own {
            return Ok(());
        }
        let index = raft.commit();
        let term = raft.term_at(index).unwrap_or_default();
        let between = look.configuration_between(index, newest.index);
        self.members.made(&Made {
            id: entry.id,
            configuration: &newest.configuration,
            commit: EntryId { term, index },
            between: between.map(|entry| entry.id.index),
        })
    }

    /// The configuration in force at a node is the last one of its log.
    pub(super) fn goes_by_its_log(&self, look: &Look<'_>) -> Result<(), Failure> {
        let (raft, commit) = (look.raft, look.raft.commit());
        let behind = look.configuration_between(commit, raft.last().index + 1);
        self.members
            .in_force(look.n, raft.configuration(), commit, behind)
    }
}

/// The node of this place with the folder that it has.
pub fn member(n: usize, node: &Node) -> Option<MemberId> {
    let id = n as NodeId + 1;
    node.folder.map(|folder| MemberId { id, folder })
}
