//! What a node reports of the members: how far each is, and what a change waits for.

use super::hub::Hub;
use super::replica::Replica;
use crate::machine::StateMachine;
use crate::raft::{Configuration, Index, MemberProgress, MemberRole, NodeId, Raft, RoleName};
use crate::wire::members::{MemberReport, MembersReport};

/// A member that has not answered for this long is said not to answer, in milliseconds. Only people
/// are told; the core has its own limits.
const SILENT_MS: u64 = 1000;

impl<S: StateMachine> Hub<S> {
    /// What this node knows of the members.
    pub fn members_report(&self) -> MembersReport {
        self.replica().members_report()
    }
}

impl<W> Replica<W> {
    /// What this node knows of the members. How far each is only a leader knows.
    pub fn members_report(&self) -> MembersReport {
        let raft = self.raft();
        let sending = raft.snapshots_sending();
        let report = |member: MemberProgress| {
            let snapshot = sending.iter().find(|(to, ..)| *to == member.id);
            MemberReport {
                id: member.id,
                folder: member.folder,
                matched: member.matched,
                silent_ms: member.silent_ms,
                snapshot: snapshot.map(|(_, received, snapshot)| (*received, snapshot.bytes)),
                round: member.round,
                is_departing: member.is_departing,
            }
        };
        MembersReport {
            id: raft.id(),
            leader: raft.leader(),
            term: raft.term(),
            commit: raft.commit(),
            last_index: raft.last().index,
            configuration: raft.configuration().clone(),
            committed: raft.committed_configuration().index,
            blocker: blocker(raft),
            members: raft.member_progress().into_iter().map(report).collect(),
        }
    }
}

/// What the change that is under way waits for, as this leader sees it.
fn blocker(raft: &Raft) -> Option<String> {
    if raft.role() != RoleName::Leader {
        return None;
    }
    let newest = raft.configuration();
    let progress = raft.member_progress();
    if newest.index > raft.commit() {
        let missing = behind(&newest.configuration, newest.index, raft.id(), &progress);
        return Some(format!(
            "the change at entry {} is not committed yet: it waits for {}",
            newest.index,
            names(&missing)
        ));
    }
    let members = newest.configuration.members().iter();
    let joining = members.filter(|member| member.role == MemberRole::Joining);
    let sentences = joining.filter_map(|member| {
        let its = progress.iter().find(|its| its.id == member.id)?;
        Some(catches_up(its, raft.last().index))
    });
    let sentences: Vec<String> = sentences.collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// The voters that this leader still waits for: those that have not acknowledged the entry at
/// `index`. During a change of voters, the voters before and after the change are looked at, for
/// both majorities have to acknowledge it.
fn behind(
    configuration: &Configuration,
    index: Index,
    me: NodeId,
    progress: &[MemberProgress],
) -> Vec<NodeId> {
    let voters = configuration.voters().chain(configuration.outgoing());
    let has_it = |id: NodeId, folder| {
        let mut its = progress.iter().filter(|its| its.id == id);
        its.any(|its| its.folder == folder && its.matched >= index)
    };
    let missing = voters.filter(|voter| voter.id != me && !has_it(voter.id, voter.folder));
    let mut ids: Vec<NodeId> = missing.map(|voter| voter.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn names(ids: &[NodeId]) -> String {
    let list: Vec<String> = ids.iter().map(NodeId::to_string).collect();
    match list.as_slice() {
        [] => "this node's own disk".to_string(),
        [one] => format!("node {one}"),
        _ => format!("nodes {}", list.join(", ")),
    }
}

/// Why a member does not vote yet that is to.
fn catches_up(its: &MemberProgress, last: Index) -> String {
    let (id, entries) = (its.id, last.saturating_sub(its.matched));
    match its.round {
        _ if its.silent_ms >= SILENT_MS => {
            format!("node {id} is to vote and does not answer: is it running, at its address?")
        }
        Some(round) => format!(
            "node {id} has to catch up before it votes: round {round}, {entries} entries to come"
        ),
        None => format!(
            "node {id} is too slow to become a voter at present ({entries} entries to come); it \
             is tried again after a while"
        ),
    }
}
