//! Clusters whose members change.

use super::{Cluster, Node};
use crate::raft::{
    Change, ChangeError, Config, Configuration, Envelope, FolderId, Index, Member, MemberId,
    MemberRole, Message, NodeId, Term,
};

/// A message between two nodes whose folders have the same numbers as they themselves.
pub fn envelope(from: NodeId, to: NodeId, term: Term, message: Message) -> Envelope {
    Envelope {
        from,
        from_folder: MemberId::plain(from).folder,
        to,
        to_folder: Some(MemberId::plain(to).folder),
        term,
        message,
    }
}

/// A configuration of such nodes: voters, voters before a change, learners.
pub fn members<const V: usize, const O: usize, const L: usize>(
    voters: [NodeId; V],
    outgoing: [NodeId; O],
    learners: [NodeId; L],
) -> Configuration {
    let member = |id: NodeId, role| Member {
        id,
        folder: Some(MemberId::plain(id).folder),
        address: String::new(),
        role,
    };
    let voter = |id| member(id, MemberRole::Voter);
    let learner = |id| member(id, MemberRole::Learner);
    let members = voters.map(voter).into_iter().chain(learners.map(learner));
    Configuration::of(1, members.collect(), outgoing.map(voter).into())
}

impl Cluster {
    /// Brings up a node that knows nobody, and that nobody knows.
    pub fn add(&mut self, id: NodeId) {
        let any = self.nodes.values().next().expect("a cluster has nodes");
        let config = Config {
            founding: Configuration::default(),
            admitted: false,
            id,
            folder: MemberId::plain(id).folder,
            seed: id,
            ..any.config.clone()
        };
        self.nodes
            .insert(id, Node::new(config, any.library.clone()));
    }

    /// The folder that the node has at present.
    pub fn folder(&self, id: NodeId) -> FolderId {
        self.nodes[&id].config.folder
    }

    /// Has whoever leads change the members, as often as it takes to be taken up.
    pub fn change(&mut self, change: &Change) -> Index {
        let mut index = 0;
        self.until("the change is taken up", |cluster| {
            let Some(leader) = cluster.leader() else {
                return false;
            };
            match cluster.node(leader).change(change, false) {
                Ok(changed) => index = changed.index,
                Err(
                    ChangeError::Busy
                    | ChangeError::HandingOver { .. }
                    | ChangeError::UnderWay { .. },
                ) => return false,
                Err(error) => panic!("{change:?} is refused: {error}"),
            }
            true
        });
        index
    }

    /// The voters of the leader's configuration, once it is stable, committed, and nobody is
    /// joining.
    pub fn voters(&mut self) -> Option<Vec<NodeId>> {
        let leader = self.leader()?;
        let raft = &self.nodes[&leader].raft;
        let logged = raft.configuration();
        let configuration = &logged.configuration;
        let joins = configuration
            .members()
            .iter()
            .any(|m| m.role == MemberRole::Joining);
        let done = logged.index <= raft.commit() && !configuration.is_joint() && !joins;
        done.then(|| configuration.voters().map(|voter| voter.id).collect())
    }

    /// Ticks until exactly these vote.
    pub fn until_voters(&mut self, expected: &[NodeId]) {
        self.until("the voters are the right ones", |cluster| {
            cluster.voters().is_some_and(|voters| voters == expected)
        });
    }
}
