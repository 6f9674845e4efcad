//! Read access to the state of the core, and the invariants that the core asserts.

use super::role::Role;
use super::{
    Entry, EntryId, Fault, HardState, Index, LoggedConfiguration, MemberId, NodeId, Raft, RoleName,
    StoredSnapshot, Term,
};

impl Raft {
    /// Proof that the cluster's promises are broken. Once there is one, the node must stop.
    pub fn fault(&self) -> Option<Fault> {
        self.common.fault
    }

    /// The id of this node.
    pub fn id(&self) -> NodeId {
        self.common.id()
    }

    /// What counts of this node: its id, and its folder.
    pub fn member(&self) -> MemberId {
        self.common.me()
    }

    /// Whether this node's folder is [admitted](super::Config::admitted).
    pub fn is_admitted(&self) -> bool {
        self.common.config.admitted
    }

    /// The present role.
    pub fn role(&self) -> RoleName {
        self.role.name()
    }

    /// The present term.
    pub fn term(&self) -> Term {
        self.common.term()
    }

    /// The present term and vote, which may not be on disk yet.
    pub fn hard_state(&self) -> HardState {
        self.common.hard_state()
    }

    /// The leader of the present term, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.role.leader(&self.common)
    }

    /// The members that have answered this leader since its last quorum check, itself included;
    /// none at a node that does not lead.
    pub fn active(&self) -> Vec<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.active(&self.common),
            _ => Vec::new(),
        }
    }

    /// The highest index known to be committed.
    pub fn commit(&self) -> Index {
        self.common.log.committed()
    }

    /// The highest index that the state machine has executed.
    pub fn applied_index(&self) -> Index {
        self.common.log.applied()
    }

    /// The index of the first entry that the log still holds in memory; one past the last index if
    /// it holds none.
    pub fn first_index(&self) -> Index {
        self.common.log.base().index + 1
    }

    /// The id of the last entry in the log.
    pub fn last(&self) -> EntryId {
        self.common.log.last()
    }

    /// The entry at this index, if the log holds it.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.common.log.get(index)
    }

    /// The term of the entry at this index, if the log still holds it or begins right after it:
    /// that of the entry at [`commit`](Self::commit) is always known.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.common.log.term_at(index)
    }

    /// The newest snapshot on this node's disk.
    pub fn newest_snapshot(&self) -> Option<&StoredSnapshot> {
        self.common.snapshots.newest()
    }

    /// The configuration in force: the last one in the log, committed or not.
    pub fn configuration(&self) -> &LoggedConfiguration {
        self.common.log.configurations().newest()
    }

    /// The configuration that is in force up to and including the entry at this index. `None` if it
    /// is not known any more: the state machine has executed entries behind a later one, or is to
    /// take over a snapshot.
    pub fn configuration_at(&self, index: Index) -> Option<&LoggedConfiguration> {
        self.common.log.configurations().at(index)
    }

    /// For each follower that is being sent a snapshot: its id, how many bytes it has received, and
    /// the snapshot.
    pub fn snapshots_sending(&self) -> Vec<(NodeId, u64, StoredSnapshot)> {
        let Role::Leader(leader) = &self.role else {
            return Vec::new();
        };
        let sendings = leader.progress().filter_map(|(id, progress)| {
            let sending = progress.sending()?;
            Some((id, sending.received(), sending.snapshot().clone()))
        });
        sendings.collect()
    }

    /// Asserts what must hold between any two inputs.
    pub(super) fn check(&self) {
        let common = &self.common;
        common.log.check();
        assert!(
            common.log.last().term <= common.term(),
            "the log is ahead of the term"
        );
        if let Role::Leader(leader) = &self.role {
            assert_eq!(common.vote(), Some(common.me()), "a leader without a vote");
            let last = common.log.last().index;
            assert!(leader.first() <= last, "a leader without its first entry");
            let configuration = common.configuration();
            for (id, progress) in leader.progress() {
                let contact = configuration.contact(id);
                let is_contact = contact.is_some_and(|member| member.folder == progress.folder);
                let is_known = is_contact || progress.departing.is_some();
                assert!(is_known, "node {id} is followed and no member");
                let in_order = progress.matched() < progress.next() && progress.next() <= last + 1;
                assert!(in_order, "node {id} is followed past the log");
            }
        }
    }
}
