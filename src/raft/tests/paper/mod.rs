//! The paper's rules one by one, mostly those of its figure 2: one message into one core, and
//! exactly what comes out. The core is always node 1.

mod disk;
mod elections;
mod leaders;
mod logs;
mod rejoining;
mod snapshots;
mod terms;

use super::harness::{members, take_entries, take_messages, take_write};
use crate::raft::{
    Config, Configuration, Entry, EntryId, Envelope, HardState, Index, MemberId, Message, NodeId,
    Payload, Raft, RoleName, Room, Term, Write,
};

fn id(index: Index, term: Term) -> EntryId {
    EntryId { term, index }
}

fn entry(index: Index, term: Term) -> Entry {
    Entry {
        id: id(index, term),
        time_ms: 0,
        payload: Payload::Command(format!("{index}@{term}").into()),
    }
}

/// Consecutive entries with these terms; the first one has the index `first`.
fn entries(first: Index, terms: &[Term]) -> Vec<Entry> {
    let indexes = first..;
    indexes
        .zip(terms)
        .map(|(i, term)| entry(i, *term))
        .collect()
}

/// Node 1 of `size`, come up in `term` without a vote and with a log of these terms.
fn follower(size: u64, term: Term, terms: &[Term]) -> Raft {
    let membership = Configuration::of_voters(1..=size);
    let hard_state = HardState { term, vote: None };
    Raft::new(Config::new(1, membership, 7), hard_state, entries(1, terms))
}

/// As [`follower`], but a candidate in `term`: its own vote is on disk and its requests for votes
/// are sent.
fn candidate(size: u64, term: Term, terms: &[Term]) -> Raft {
    let mut raft = follower(size, term - 1, terms);
    time_out(&mut raft);
    for voter in 2..=size {
        let granted = true;
        let next_term = term;
        give(
            &mut raft,
            voter,
            term - 1,
            Message::PreVoteReply { next_term, granted },
        );
    }
    sync(&mut raft);
    said(&mut raft);
    raft
}

/// As [`candidate`], but just elected in `term`: its empty entry is in memory only.
fn leader(size: u64, term: Term, terms: &[Term]) -> Raft {
    let mut raft = candidate(size, term, terms);
    for voter in 2..=size {
        give(&mut raft, voter, term, Message::VoteReply { granted: true });
    }
    assert_eq!((raft.role(), raft.term()), (RoleName::Leader, term));
    raft
}

/// Lets ticks pass until the core gives up its present role, or an election timeout is over.
fn time_out(raft: &mut Raft) {
    let role = raft.role();
    for _ in 0..50 {
        if raft.role() == role {
            raft.tick();
        }
    }
}

fn give(raft: &mut Raft, from: NodeId, term: Term, message: Message) {
    let to = raft.id();
    raft.step(Envelope {
        from,
        from_folder: from.into(),
        to,
        to_folder: Some(to.into()),
        term,
        message,
    });
}

/// The messages that the core sends now: to whom, in which term, and what.
fn said(raft: &mut Raft) -> Vec<(NodeId, Term, Message)> {
    let messages = take_messages(raft).into_iter();
    messages.map(|m| (m.to, m.term, m.message)).collect()
}

/// Takes all writes and reports them as durable.
fn sync(raft: &mut Raft) -> Vec<Write> {
    let writes: Vec<Write> = std::iter::from_fn(|| take_write(raft)).collect();
    if let Some(last) = writes.last() {
        raft.durable(last.id);
    }
    writes
}

fn append(prev: EntryId, entries: Vec<Entry>, commit: Index) -> Message {
    Message::Append {
        prev,
        entries,
        commit,
    }
}

fn accepted(matched: Index) -> Message {
    Message::Accepted { matched }
}

fn vote(last: EntryId) -> Message {
    Message::Vote {
        last,
        transfer: false,
    }
}

fn terms_of(raft: &Raft) -> Vec<Term> {
    let indexes = 1..=raft.last().index;
    indexes
        .map(|i| raft.entry(i).expect("no hole").id.term)
        .collect()
}
