//! Members that change: which configuration counts, who is asked, who is answered. Mostly one
//! message into one core, and what comes out.

mod counting;
mod elections;
mod enumerated;
mod founding;
mod leading;
mod leaving;
mod restarts;
mod stepwise;
mod strangers;

use super::harness::{Cluster, envelope, members, take_messages, take_write};
use crate::raft::{
    Change, ChangeError, Config, Configuration, Entry, EntryId, Envelope, FolderId, HardState,
    Index, LoggedConfiguration, Member, MemberId, MemberRole, Message, NodeId, Payload, Raft,
    RoleName, SnapshotMeta, StoredSnapshot, Term,
};

fn id(index: Index, term: Term) -> EntryId {
    EntryId { term, index }
}

fn entry(index: Index, term: Term, payload: Payload) -> Entry {
    Entry {
        id: id(index, term),
        time_ms: 0,
        payload,
    }
}

fn empty(index: Index, term: Term) -> Entry {
    entry(index, term, Payload::Empty)
}

fn change(index: Index, term: Term, to: &Configuration) -> Entry {
    entry(index, term, Payload::Configuration(Box::new(to.clone())))
}

/// Three voters, whose folders have the same numbers as they themselves.
fn three() -> Configuration {
    Configuration::of_voters(1..=3)
}

/// A node that comes up in `term` with this log, in a cluster of [`three`].
fn node(me: NodeId, term: Term, log: Vec<Entry>) -> Raft {
    let hard_state = HardState { term, vote: None };
    Raft::new(Config::new(me, three(), me), hard_state, log)
}

/// A node with this folder that is to join, and knows nobody.
fn joiner(me: NodeId, folder: FolderId) -> Raft {
    let config = Config {
        folder,
        admitted: false,
        ..Config::new(me, Configuration::default(), me)
    };
    Raft::new(config, HardState::default(), Vec::new())
}

fn give(raft: &mut Raft, from: NodeId, term: Term, message: Message) {
    let to = raft.id();
    raft.step(envelope(from, to, term, message));
}

/// Delivers a message whose sender has this folder for the node.
fn give_to(raft: &mut Raft, to_folder: Option<FolderId>, term: Term, message: Message) {
    let named = envelope(2, raft.id(), term, message);
    raft.step(Envelope { to_folder, ..named });
}

fn append(prev: EntryId, entries: Vec<Entry>, commit: Index) -> Message {
    Message::Append {
        prev,
        entries,
        commit,
    }
}

fn vote(last: EntryId) -> Message {
    Message::Vote {
        last,
        transfer: false,
    }
}

fn accepted(matched: Index) -> Message {
    Message::Accepted { matched }
}

/// Does all that is to be written.
fn sync(raft: &mut Raft) {
    while let Some(write) = take_write(raft) {
        raft.durable(write.id);
    }
}

/// What the core says now, and to whom.
fn said(raft: &mut Raft) -> Vec<(NodeId, Message)> {
    let messages = take_messages(raft).into_iter();
    messages.map(|m| (m.to, m.message)).collect()
}

/// Lets ticks pass until the node stands for election. False if it never does.
fn campaigns(raft: &mut Raft) -> bool {
    for _ in 0..200 {
        raft.tick();
        if raft.role() != RoleName::Follower {
            return true;
        }
    }
    false
}

/// Has the node win its round of pre-votes with the yes of these, and asks for votes.
fn ask_for_votes(raft: &mut Raft, with: &[NodeId]) {
    assert!(campaigns(raft), "it does not stand for election");
    let (term, next_term) = (raft.term(), raft.term() + 1);
    for from in with {
        let granted = true;
        give(
            raft,
            *from,
            term,
            Message::PreVoteReply { next_term, granted },
        );
    }
    assert_eq!(raft.role(), RoleName::Candidate);
    sync(raft);
}

/// Gives the candidate a vote.
fn yes(raft: &mut Raft, from: NodeId) {
    let term = raft.term();
    give(raft, from, term, Message::VoteReply { granted: true });
}

/// Node `id` with its present folder, to be added.
fn newcomer(cluster: &Cluster, id: NodeId, role: MemberRole) -> Change {
    Change::Add(Member {
        id,
        folder: Some(cluster.folder(id)),
        address: format!("node-{id}"),
        role,
    })
}

/// The node has the others take its present folder.
fn replacement(cluster: &Cluster, id: NodeId) -> Change {
    Change::Replace {
        id,
        folder: cluster.folder(id),
        address: format!("new-{id}"),
    }
}

/// A configuration of which the member with this id has another folder.
fn with_folder(of: &Configuration, id: NodeId, folder: Option<FolderId>) -> Configuration {
    let change = |member: &Member| match member.id == id {
        true => Member {
            folder,
            ..member.clone()
        },
        false => member.clone(),
    };
    let members = of.members().iter().map(change).collect();
    Configuration::of(of.lineage(), members, of.outgoing().to_vec())
}
