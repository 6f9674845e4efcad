//! Messages as a story tells them.

use crate::raft::{
    Configuration, Conflict, Envelope, Member, MemberId, MemberRole, Message, Payload,
};

/// The members, each with what it is for, and behind a bar the voters that leave.
fn describe_members(configuration: &Configuration) -> String {
    let name = |member: &Member| {
        let MemberId { id, folder } = MemberId::plain(member.id);
        let folder = match member.folder {
            Some(other) if other != folder => format!(" with folder {other}"),
            _ => String::new(),
        };
        match member.role {
            MemberRole::Voter => format!("{id}{folder}"),
            MemberRole::Learner => format!("{id}{folder} learns"),
            MemberRole::Joining => format!("{id}{folder} joins"),
        }
    };
    let names = |half: &[Member]| half.iter().map(name).collect::<Vec<_>>().join(", ");
    let members = names(configuration.members());
    match configuration.is_joint() {
        true => format!("members {members} | {}", names(configuration.outgoing())),
        false => format!("members {members}"),
    }
}

pub fn describe(envelope: &Envelope) -> String {
    let Envelope {
        from,
        to,
        term,
        message,
        ..
    } = envelope;
    let text = match message {
        Message::PreVote { next_term, last } => format!("pre-vote for t{next_term}? last {last}"),
        Message::PreVoteReply { granted, .. } => format!("pre-vote {}", yes(*granted)),
        Message::Vote {
            last,
            transfer: false,
        } => format!("vote? last {last}"),
        Message::Vote {
            last,
            transfer: true,
        } => format!("vote, the leader wants it? last {last}"),
        Message::VoteReply { granted } => format!("vote {}", yes(*granted)),
        Message::Append {
            prev,
            entries,
            commit,
        } => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| match &entry.payload {
                    Payload::Empty => format!("{} empty", entry.id),
                    Payload::Configuration(c) => format!("{} {}", entry.id, describe_members(c)),
                    Payload::Command(c) => format!("{} {}", entry.id, String::from_utf8_lossy(c)),
                })
                .collect();
            let entries = entries.join(", ");
            format!("append after {prev} [{entries}] commit {commit}")
        }
        Message::Accepted { matched } => format!("accepted up to {matched}"),
        Message::Rejected { prev, conflict } => {
            format!("rejected after {prev}, {}", describe_conflict(*conflict))
        }
        Message::Heartbeat { .. } => describe_heartbeat(message),
        Message::HeartbeatReply { round } => format!("heartbeat heard, round {round}"),
        Message::Snapshot {
            meta,
            bytes,
            offset,
            data,
        } => format!(
            "snapshot up to {}, {} bytes at {offset} of {bytes}",
            meta.last,
            data.len()
        ),
        Message::SnapshotReply { last, received } => {
            format!("snapshot up to {last} received up to {received}")
        }
        Message::TimeoutNow => "campaign now".to_string(),
        Message::Outdated => "your term has passed".to_string(),
    };
    format!("{from}>{to} t{term} {text}")
}

fn describe_heartbeat(message: &Message) -> String {
    match message {
        Message::Heartbeat {
            commit,
            matched_by_all,
            round,
        } => format!("heartbeat commit {commit} matched by all {matched_by_all} round {round}"),
        other => panic!("{other:?} is no heartbeat"),
    }
}

fn describe_conflict(conflict: Conflict) -> String {
    let first = conflict.first_index;
    match conflict.term {
        Some(term) => format!("t{term} from {first}"),
        None => format!("no term from {first}"),
    }
}

fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}
