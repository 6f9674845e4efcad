//! Changes of members: what configuration each leads to, and why one is refused.
//!
//! One rule makes them safe together with the joint configurations (thesis 4.3): a folder enters
//! as a learner, and becomes a voter only by a later change. A change is made only when the one
//! before is committed. So when its vote first counts, a folder stands in a committed
//! configuration, and every later leader knows it.
//!
//! A change of the voters leads to a joint configuration, in which both majorities must agree. One
//! that leaves the voters as they are needs none: its quorums are the same.

use std::collections::BTreeMap;

use super::configuration::{
    Configuration, MAX_CONFIGURATION_WEIGHT, MAX_VOTERS, Member, MemberRole,
};
use super::refusal::ChangeError;
use super::types::{FolderId, Index, NodeId};

/// A change of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node comes in. Whatever its role says, it does not vote yet: as a voter it is
    /// [joining](MemberRole::Joining).
    Add(Member),
    /// A learner is to become a voter, as soon as it has caught up.
    Promote(NodeId),
    /// A voter, or one that was to become one, only learns from now on.
    Demote(NodeId),
    /// A member goes.
    Remove(NodeId),
    /// Another folder takes the place of a member's. If that one voted, the new one will once it
    /// has caught up.
    Replace {
        /// The member.
        id: NodeId,
        /// Its new folder.
        folder: FolderId,
        /// Where the node with this folder is reached.
        address: String,
    },
    /// A member is reached at another address.
    Move {
        /// The member.
        id: NodeId,
        /// The folder that answers there: the member's own.
        folder: FolderId,
        /// The new address.
        address: String,
    },
    /// A member that is joining votes from now on. The leader's own change: it knows who has
    /// caught up.
    Seat(NodeId),
    /// Members without a folder get the ones that have answered the leader. The leader's own
    /// change: it knows who answered. Where a member has a folder already, it stays.
    Settle {
        /// The folders.
        folders: BTreeMap<NodeId, FolderId>,
        /// The lineage, if the cluster has none yet; not 0.
        lineage: u64,
    },
}

/// What has become of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The index of the configuration that has it. When this is committed and no joint
    /// configuration is in force any more, the change is done.
    pub index: Index,
    /// Whether this call made it. If not, it was so already: the call is a repetition.
    pub is_new: bool,
}

impl Change {
    /// The configuration to which the change leads from a stable one: stable if the voters stay,
    /// else joint. If it is so already, the same one.
    ///
    /// Whoever is not named stays as it is, with folder, address and role.
    ///
    /// # Errors
    /// [`ChangeError`] if it makes no sense, whatever the state of the cluster.
    pub fn applied_to(&self, now: &Configuration) -> Result<Configuration, ChangeError> {
        let mut members = now.members().to_vec();
        self.edit(&mut members)?;
        if members == now.members() && !matches!(self, Change::Settle { .. }) {
            return Ok(now.clone());
        }
        check_addresses(&members, self.address())?;
        let next = match self {
            Change::Settle { lineage, .. } if now.is_founding() => {
                Configuration::of(*lineage, members, Vec::new())
            }
            // The seats stay the same. Nobody counted as an empty one, and before the folders were
            // known nobody else counted than the admitted ones, which these are.
            Change::Settle { .. } => Configuration::of(now.lineage(), members, Vec::new()),
            _ => changed(now, members),
        };
        self.check_size(now, &next)?;
        Ok(next)
    }

    /// The node that it names, if it names one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Change::Add(Member { id, .. })
            | Change::Promote(id)
            | Change::Demote(id)
            | Change::Remove(id)
            | Change::Replace { id, .. }
            | Change::Move { id, .. }
            | Change::Seat(id) => Some(*id),
            Change::Settle { .. } => None,
        }
    }

    /// The node and the address that it gives the node.
    fn address(&self) -> Option<(NodeId, &str)> {
        match self {
            Change::Add(Member { id, address, .. })
            | Change::Replace { id, address, .. }
            | Change::Move { id, address, .. } => Some((*id, address)),
            _ => None,
        }
    }

    fn edit(&self, members: &mut Vec<Member>) -> Result<(), ChangeError> {
        match self {
            Change::Add(new) => return add(members, new),
            Change::Remove(id) => members.retain(|member| member.id != *id),
            Change::Promote(id) => {
                let member = find(members, *id)?;
                if member.role == MemberRole::Learner {
                    member.role = MemberRole::Joining;
                }
            }
            Change::Seat(id) => {
                let member = find(members, *id)?;
                if member.role == MemberRole::Joining {
                    member.role = MemberRole::Voter;
                }
            }
            Change::Demote(id) => find(members, *id)?.role = MemberRole::Learner,
            Change::Replace {
                id,
                folder,
                address,
            } => replace(find(members, *id)?, *folder, address),
            Change::Move {
                id,
                folder,
                address,
            } => {
                let member = find(members, *id)?;
                if member.folder.is_some_and(|its| its != *folder) {
                    let (id, address) = (*id, address.clone());
                    return Err(ChangeError::OtherFolder { id, address });
                }
                member.address.clone_from(address);
            }
            Change::Settle { folders, .. } => {
                for member in members {
                    member.folder = member.folder.or(folders.get(&member.id).copied());
                }
            }
        }
        Ok(())
    }

    fn check_size(&self, now: &Configuration, next: &Configuration) -> Result<(), ChangeError> {
        if next.voters().next().is_none() {
            // Only a change of one voter can take the last one away.
            return Err(ChangeError::LastVoter(self.node().unwrap_or_default()));
        }
        let to_vote = |of: &Configuration| of.members().iter().filter(|m| m.is_to_vote()).count();
        if to_vote(next) > to_vote(now).max(MAX_VOTERS) {
            return Err(ChangeError::TooManyVoters);
        }
        // The largest one that is still to come: all that are to vote are seated, and the voters
        // before that are there as well.
        let seated = next.members().iter().filter(|member| member.is_to_vote());
        let later = Configuration::of(1, next.members().to_vec(), seated.cloned().collect());
        let weight = next.weight().max(match self.address() {
            Some(_) => later.weight(),
            None => 0,
        });
        match weight <= MAX_CONFIGURATION_WEIGHT {
            true => Ok(()),
            false => Err(ChangeError::TooLarge { weight }),
        }
    }
}

fn find(members: &mut [Member], id: NodeId) -> Result<&mut Member, ChangeError> {
    let mut members = members.iter_mut();
    let member = members.find(|member| member.id == id);
    member.ok_or(ChangeError::NotMember(id))
}

fn add(members: &mut Vec<Member>, new: &Member) -> Result<(), ChangeError> {
    let id = new.id;
    if let Ok(known) = find(members, id) {
        // A repetition, of which the first one was made, and may have had its effect since.
        let is_same = known.folder == new.folder
            && known.address == new.address
            && known.is_to_vote() == new.is_to_vote();
        let address = known.address.clone();
        return match is_same {
            true => Ok(()),
            false => Err(ChangeError::AlreadyMember { id, address }),
        };
    }
    let role = match new.role {
        MemberRole::Learner => MemberRole::Learner,
        MemberRole::Joining | MemberRole::Voter => MemberRole::Joining,
    };
    members.push(Member {
        role,
        ..new.clone()
    });
    members.sort_by_key(|member| member.id);
    Ok(())
}

fn replace(member: &mut Member, folder: FolderId, address: &str) {
    if member.folder == Some(folder) {
        return;
    }
    member.folder = Some(folder);
    member.address = address.to_string();
    if member.role == MemberRole::Voter {
        member.role = MemberRole::Joining;
    }
}

/// Whether the address that a change gives a node is another one's.
fn check_addresses(members: &[Member], given: Option<(NodeId, &str)>) -> Result<(), ChangeError> {
    let Some((id, address)) = given.filter(|(_, address)| !address.is_empty()) else {
        return Ok(());
    };
    let mut others = members.iter().filter(|member| member.id != id);
    match others.find(|member| member.address == address) {
        None => Ok(()),
        Some(by) => Err(ChangeError::AddressTaken {
            address: address.to_string(),
            by: by.id,
        }),
    }
}

/// The configuration with these members: joint if others vote than before.
fn changed(now: &Configuration, members: Vec<Member>) -> Configuration {
    let next = Configuration::of(now.lineage(), members, Vec::new());
    let named = |member: &Member| (member.id, member.folder);
    match now.voters().map(named).eq(next.voters().map(named)) {
        true => next,
        false => {
            let outgoing = now.voters().cloned().collect();
            Configuration::of(now.lineage(), next.members().to_vec(), outgoing)
        }
    }
}

#[cfg(test)]
mod tests;
