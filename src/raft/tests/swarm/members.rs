//! Members that change, and folders that are lost.

use super::world::World;
use crate::raft::{Change, Configuration, Member, MemberId, MemberRole, NodeId, Payload};

impl World {
    /// Any change of any node, sensible or not.
    pub fn draw_change(&mut self) -> Change {
        let id = self.dice.below(self.plan.nodes) + 1;
        let folder = self.peers[&id].config.folder;
        let address = format!("node-{id}-{}", self.dice.below(3));
        let add = |role| {
            let (folder, address) = (Some(folder), address.clone());
            Change::Add(Member {
                id,
                folder,
                address,
                role,
            })
        };
        match self.dice.below(8) {
            0 | 1 => add(MemberRole::Joining),
            2 => add(MemberRole::Learner),
            3 => Change::Promote(id),
            4 => Change::Demote(id),
            5 => Change::Remove(id),
            6 => Change::Replace {
                id,
                folder,
                address,
            },
            _ => Change::Move {
                id,
                folder,
                address,
            },
        }
    }

    /// Asks the node for the change; most are refused. Not one after which too many voters would
    /// have lost their folders: the leader might not have noticed yet, and such a change cannot be
    /// finished.
    pub fn change(&mut self, id: NodeId, change: &Change) {
        let raft = self.peers[&id].raft.as_ref();
        let next = raft.and_then(|raft| {
            let now = &raft.configuration().configuration;
            change.applied_to(&now.left()).ok()
        });
        if next.is_none_or(|next| !self.survives(&next, None)) {
            return;
        }
        // Where no folder is lost for good, voters that do not answer come back.
        let force = self.plan.wipe == 0 && self.dice.chance(100);
        let mut is_new = false;
        self.input(id, |raft| {
            is_new = raft
                .change(change, force)
                .is_ok_and(|changed| changed.is_new);
        });
        self.changes += u64::from(is_new);
    }

    /// Whether a majority of each half still has its folders, also when this node loses its own.
    fn survives(&self, configuration: &Configuration, losing: Option<NodeId>) -> bool {
        let lives = |member: &&Member| {
            self.peers.values().any(|peer| {
                let MemberId { id, folder } = peer.member();
                Some(id) != losing && id == member.id && Some(folder) == member.folder
            })
        };
        let halves = [configuration.members(), configuration.outgoing()];
        halves.into_iter().all(|half| {
            let voters = || half.iter().filter(|m| m.role == MemberRole::Voter);
            half.is_empty() || 2 * voters().filter(lives).count() > voters().count()
        })
    }

    /// The node loses its folder, unless too many others have lost theirs: what a majority has lost
    /// nobody can bring back. It comes up with a new one when it is restarted.
    pub fn wipe(&mut self, id: NodeId) {
        let known = self.known_configurations();
        if !known.iter().all(|known| self.survives(known, Some(id))) {
            return;
        }
        self.crash(id);
        // What is on its way may hold a configuration that nobody has in a log any more.
        self.network.clear();
        let peer = self.peer(id);
        let (member, disk) = (peer.member(), std::mem::take(&mut peer.disk));
        peer.config.folder += 1000;
        peer.config.admitted = false;
        self.lost.insert(member, disk);
        self.wipes += 1;
    }

    /// Every configuration that may still come into force anywhere.
    fn known_configurations(&self) -> Vec<Configuration> {
        let founding = Configuration::of_voters(1..=self.plan.size);
        let mut known = vec![founding];
        for peer in self.peers.values() {
            let committed = self.checker.canonical.len() as u64;
            let logged = peer
                .disk
                .log
                .iter()
                .filter(|entry| entry.id.index > committed);
            known.extend(logged.filter_map(|entry| match &entry.payload {
                Payload::Configuration(configuration) => Some((**configuration).clone()),
                _ => None,
            }));
            if let Some(raft) = &peer.raft {
                known.push(raft.configuration().configuration.clone());
            }
        }
        let committed = self.checker.canonical.iter().rev();
        let mut committed = committed.filter_map(|entry| match &entry.payload {
            Payload::Configuration(configuration) => Some((**configuration).clone()),
            _ => None,
        });
        // What the cluster was founded with is of the past once another one is committed.
        if let Some(newest) = committed.next() {
            known[0] = newest;
        }
        known
    }

    /// An operator after the last fault: lets the present folder of each member that has lost its
    /// own take its place. Returns the members once all is as it should be: the configuration is
    /// committed, every member has its folder, and nobody is on the way to become a voter.
    pub fn repair(&mut self) -> Option<Vec<NodeId>> {
        let (_, leader) = self.leader()?;
        let raft = self.peers[&leader].raft.as_ref()?;
        let logged = raft.configuration().clone();
        let is_committed = logged.index <= raft.commit();
        let members = logged.configuration.members();
        let lost = members.iter().find(|member| {
            let present = self.peers[&member.id].config.folder;
            member.folder != Some(present)
        });
        if let Some(lost) = lost {
            let (id, folder) = (lost.id, self.peers[&lost.id].config.folder);
            let address = format!("new-{id}");
            let change = Change::Replace {
                id,
                folder,
                address,
            };
            self.change(leader, &change);
            return None;
        }
        let is_joining = |member: &Member| member.role == MemberRole::Joining;
        let is_done = is_committed && !logged.configuration.is_joint();
        let is_done = is_done && !members.iter().any(is_joining);
        is_done.then(|| members.iter().map(|member| member.id).collect())
    }
}
