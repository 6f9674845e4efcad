//! What a report about the members says about a change that was asked for. Pure.
//!
//! A change is done when the configuration in force is committed, is not joint, and has the member
//! in the role that it is to have. That the configuration of the change itself is committed is not
//! enough: a new voter begins as a learner, and a change of voters begins with a joint
//! configuration.

use crate::cli::status::{duration, size};
use crate::raft::{Index, Member, MemberRole, NodeId};
use crate::wire::members::{ChangeRequest, MemberReport, MembersReport};

/// A member that has not answered for this long is called silent, in milliseconds. It is several
/// times the time between two heartbeats and the default election timeout.
pub const SILENT_MS: u64 = 3000;

/// What is to be so when a change is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The node votes.
    Votes(NodeId),
    /// The node is a member and does not vote.
    Learns(NodeId),
    /// The node is no member.
    IsGone(NodeId),
    /// The node has its new folder, and votes if the former one did.
    HasPlace(NodeId),
    /// The node is reached at this address.
    IsAt(NodeId, String),
}

/// Where the change is, according to a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// It is done.
    Done {
        /// What is so now, for people.
        sentence: String,
        /// The index of the configuration in force.
        index: Index,
    },
    /// It goes on.
    Step {
        /// What it waits for, for people.
        text: String,
        /// Numbers that change if and only if there is progress.
        measure: Measure,
    },
    /// The new voter did not catch up, and the leader lets it rest for a while. The sentence says
    /// what to do.
    TooSlow(String),
    /// The leader that had the change in its log failed before the change was committed, and the
    /// next leader does not have it: it must be asked for again.
    Lost,
    /// The change was made, and another one has come since. The sentence says what is so now.
    Undone(String),
}

/// Numbers by which progress is noticed: the index of the configuration in force, whether it is
/// committed, how far the member's log is, how many bytes of a snapshot it has, and its round.
pub type Measure = (Index, bool, Index, u64, Option<u32>);

impl Goal {
    /// What is to be so after this change.
    pub fn of(change: &ChangeRequest) -> Self {
        match change {
            ChangeRequest::Add {
                id,
                role: MemberRole::Learner,
                ..
            } => Goal::Learns(*id),
            ChangeRequest::Add { id, .. } | ChangeRequest::Promote(id) => Goal::Votes(*id),
            ChangeRequest::Demote(id) => Goal::Learns(*id),
            ChangeRequest::Remove(id) => Goal::IsGone(*id),
            ChangeRequest::Replace { id, .. } => Goal::HasPlace(*id),
            ChangeRequest::Move { id, address } => Goal::IsAt(*id, address.clone()),
        }
    }

    /// The node of which it speaks.
    fn id(&self) -> NodeId {
        match self {
            Goal::Votes(id)
            | Goal::Learns(id)
            | Goal::IsGone(id)
            | Goal::HasPlace(id)
            | Goal::IsAt(id, _) => *id,
        }
    }

    /// Whether it is reached if the node is this member; `None` if a member that is joining is on
    /// its way there.
    fn is_reached(&self, member: Option<&Member>) -> Option<bool> {
        match (self, member.map(|member| member.role)) {
            (Goal::Votes(_) | Goal::HasPlace(_), Some(MemberRole::Joining)) => None,
            (Goal::Votes(_), role) => Some(role == Some(MemberRole::Voter)),
            (Goal::Learns(_), role) => Some(role == Some(MemberRole::Learner)),
            (Goal::IsGone(_), role) => Some(role.is_none()),
            (Goal::HasPlace(_), role) => Some(role.is_some()),
            (Goal::IsAt(_, to), _) => Some(member.is_some_and(|member| member.address == *to)),
        }
    }
}

/// Says where a change is that stands in the log at this index.
pub fn now(report: &MembersReport, goal: &Goal, index: Index) -> Now {
    let newest = &report.configuration;
    let configuration = &newest.configuration;
    if newest.index < index {
        return match report.commit >= index {
            // The entry at this index is committed, and is not the configuration.
            true => Now::Lost,
            false => step(report, None, not_there_yet(report)),
        };
    }
    let mut members = configuration.members().iter();
    let member = members.find(|member| member.id == goal.id());
    let known = member.and_then(|member| progress_of(report, member));
    if configuration.is_joint() {
        let text = "the voters before and after the change both have to agree";
        return step(report, known, blocked(report, text));
    }
    if report.committed < newest.index {
        let text = format!("entry {} has to be committed", newest.index);
        return step(report, known, blocked(report, &text));
    }
    match (goal.is_reached(member), member) {
        (Some(true), _) => Now::Done {
            sentence: describe(goal.id(), member),
            index: newest.index,
        },
        (Some(false), _) | (None, None) => Now::Undone(format!(
            "another change has come in between: {}; `kvcli member list` shows the members",
            describe(goal.id(), member)
        )),
        (None, Some(member)) => catching_up(report, member, known),
    }
}

/// What is so, in a sentence.
fn describe(id: NodeId, member: Option<&Member>) -> String {
    match member {
        None => format!("node {id} is no member"),
        Some(member) => {
            let does = match member.role {
                MemberRole::Voter => "votes",
                MemberRole::Learner => "learns",
                MemberRole::Joining => "catches up",
            };
            format!("node {id} {does}, at {}", member.address)
        }
    }
}

fn catching_up(report: &MembersReport, member: &Member, known: Option<&MemberReport>) -> Now {
    let (id, address) = (member.id, &member.address);
    let Some(known) = known else {
        let why = match report.leader {
            Some(leader) => format!("leader {leader} does not say how far it is"),
            None => format!("there is no leader, and node {} answers", report.id),
        };
        return step(report, None, format!("node {id} catches up: {why}"));
    };
    let text = match (known.snapshot, known.round) {
        _ if known.silent_ms >= SILENT_MS => format!(
            "node {id} has not answered for {}: does it run, with --join, at {address}?",
            duration(known.silent_ms)
        ),
        (Some((received, bytes)), _) => {
            let (received, bytes) = (size(received), size(bytes));
            format!("node {id}: snapshot, {received} of {bytes}")
        }
        (None, Some(round)) => {
            let behind = grouped(report.last_index.saturating_sub(known.matched));
            format!("node {id}: {behind} entries to come, round {round}")
        }
        (None, None) => {
            return Now::TooSlow(format!(
                "node {id} is too slow: the log grows faster than it can follow. The leader tries \
                 again by itself; lower the load meanwhile, or give the change up with `kvcli \
                 member demote {id}` or `kvcli member remove {id}`"
            ));
        }
    };
    step(report, Some(known), text)
}

fn not_there_yet(report: &MembersReport) -> String {
    let node = report.id;
    match report.leader {
        Some(leader) if leader == node => format!("leader {node} does not have the change yet"),
        Some(leader) => format!("node {node} answers, and leader {leader} does not"),
        None => format!("there is no leader, and node {node} answers"),
    }
}

/// What the change waits for, as the leader says it, or else `otherwise`.
fn blocked(report: &MembersReport, otherwise: &str) -> String {
    report.blocker.clone().unwrap_or_else(|| otherwise.into())
}

fn step(report: &MembersReport, known: Option<&MemberReport>, text: String) -> Now {
    let index = report.configuration.index;
    let matched = known.map_or(0, |known| known.matched);
    let received = known.and_then(|known| known.snapshot);
    let round = known.and_then(|known| known.round);
    Now::Step {
        text,
        measure: (
            index,
            report.committed >= index,
            matched,
            received.map_or(0, |(received, _)| received),
            round,
        ),
    }
}

/// How far a member is, if the leader knows it. What it knows of another folder with the same id
/// does not count.
pub fn progress_of<'a>(report: &'a MembersReport, member: &Member) -> Option<&'a MemberReport> {
    let is_it = |known: &&MemberReport| {
        let same_folder = member.folder.is_none() || known.folder == member.folder;
        known.id == member.id && same_folder && !known.is_departing
    };
    report.members.iter().find(is_it)
}

/// Writes a number with a comma before each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
