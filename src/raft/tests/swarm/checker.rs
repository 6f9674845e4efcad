//! What must hold after every step, judged from outside: by what nodes send, what their disks
//! hold and what they hand out for execution.
//!
//! It does not judge clients (who saw which answer), nor progress: the run's last phase does.

use std::collections::BTreeMap;

use super::disk::Disk;
use crate::raft::{
    DecidedReads, Entry, EntryId, Envelope, Index, MemberId, Message, NodeId, Raft, ReadId,
    RoleName, Term,
};

#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, NodeId>,
    /// Whom each node voted for in each term, as its messages say.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Every entry that was ever in a log, with the term of the one before it.
    entries: BTreeMap<EntryId, (Term, Entry)>,
    /// The committed entries, as the first node that knew of each reported it.
    pub canonical: Vec<Entry>,
    /// For each of these entries, the term of the node that first reported it as committed.
    committed_in: Vec<Term>,
    /// The reads under way: which node was asked, and the lowest index that the read may see.
    reads: BTreeMap<ReadId, (NodeId, Index)>,
    seen: BTreeMap<NodeId, Seen>,
    pub reads_ready: u64,
}

/// A node after its last input.
#[derive(Default)]
struct Seen {
    term: Term,
    leads: bool,
    last: EntryId,
    commit: Index,
}

impl Checker {
    /// A message leaves: the term, vote or entries that it speaks of must be on disk by now (paper
    /// figure 2, "updated on stable storage before responding").
    pub fn leaves(&mut self, envelope: &Envelope, raft: &Raft, disk: &Disk) {
        let Envelope { from, to, term, .. } = *envelope;
        let on_disk = disk.hard_state;
        assert!(on_disk.term >= term, "a term left before it was durable");
        let vote = match envelope.message {
            Message::Vote { .. } => Some(from),
            Message::VoteReply { granted: true } => Some(to),
            _ => None,
        };
        if let Some(vote) = vote {
            let first = *self.votes.entry((from, term)).or_insert(vote);
            assert_eq!(first, vote, "node {from} voted twice in term {term}");
            let durable = on_disk.term > term || on_disk.vote == Some(MemberId::plain(vote));
            assert!(durable, "a vote left before it was durable");
        }
        if let Message::Accepted { matched } = envelope.message
            && raft.term() == term
            && matched > 0
        {
            let held = disk.entry(matched).map(|entry| entry.id);
            let meant = raft.entry(matched).map(|entry| entry.id);
            assert_eq!(held, meant, "node {from} acknowledged what is not on disk");
        }
    }

    /// A node has handled an input: judges its term, log and commit index.
    pub fn stepped(&mut self, raft: &Raft, disks: &BTreeMap<NodeId, &Disk>) {
        let id = raft.id();
        assert_eq!(raft.fault(), None, "node {id} sees a fault");
        let mut seen = self.seen.remove(&id).unwrap_or_default();
        assert!(raft.term() >= seen.term, "the term of {id} went back");
        if raft.last() != seen.last {
            self.log_matches(raft);
        }
        let leads = raft.role() == RoleName::Leader;
        if leads && (!seen.leads || raft.term() != seen.term) {
            self.leads(raft);
        }
        assert!(raft.commit() >= seen.commit, "commit of {id} went back");
        if leads && raft.commit() > seen.commit {
            let last = raft.entry(raft.commit()).map(|entry| entry.id.term);
            let own = last == Some(raft.term());
            assert!(own, "leader {id} counted copies of an earlier term");
        }
        for index in seen.commit + 1..=raft.commit() {
            let entry = raft.entry(index).expect("a committed entry is held");
            self.committed(raft, entry, disks);
        }
        seen = Seen {
            term: raft.term(),
            leads,
            last: raft.last(),
            commit: raft.commit(),
        };
        self.seen.insert(id, seen);
    }

    /// Two entries with one id are equal, and so is all that precedes them (paper 5.3).
    fn log_matches(&mut self, raft: &Raft) {
        for index in raft.commit().max(1)..=raft.last().index {
            let entry = raft.entry(index).expect("the log has no hole");
            let before = raft.entry(index - 1).map_or(0, |entry| entry.id.term);
            let this = (before, entry.clone());
            let known = self.entries.entry(entry.id).or_insert_with(|| this.clone());
            assert_eq!(*known, this, "logs do not match");
        }
    }

    /// One leader in each term (paper 5.2), which holds all that was committed in earlier terms
    /// (paper 5.4.3).
    fn leads(&mut self, raft: &Raft) {
        let (id, term) = (raft.id(), raft.term());
        let first = *self.leaders.entry(term).or_insert(id);
        assert_eq!(first, id, "two leaders in term {term}");
        let committed = self.canonical.iter().zip(&self.committed_in);
        for (entry, _) in committed.filter(|(_, committed_in)| **committed_in < term) {
            let held = raft.entry(entry.id.index);
            assert_eq!(held, Some(entry), "leader {id} lacks a committed entry");
        }
    }

    /// All nodes commit the same, and only what a majority of the disks holds.
    fn committed(&mut self, raft: &Raft, entry: &Entry, disks: &BTreeMap<NodeId, &Disk>) {
        let index = entry.id.index;
        if let Some(known) = self.canonical.get(index as usize - 1) {
            assert_eq!(known, entry, "node {} committed something else", raft.id());
            return;
        }
        let holds = |disk: &&&Disk| disk.entry(index) == Some(entry);
        let copies = disks.values().filter(holds).count();
        let majority = 2 * copies > disks.len();
        assert!(majority, "{} committed on {copies} disks only", entry.id);
        self.canonical.push(entry.clone());
        self.committed_in.push(raft.term());
    }

    /// A node hands out entries for execution, after those up to `applied`.
    pub fn executes(&self, applied: Index, entries: &[Entry]) {
        let expected = self.canonical.iter().skip(applied as usize);
        let expected = expected.take(entries.len());
        assert!(entries.iter().eq(expected), "executed something else");
    }

    pub fn read_asked(&mut self, id: ReadId, at: NodeId) {
        self.reads.insert(id, (at, self.canonical.len() as Index));
    }

    /// A read sees all that anybody knew to be committed when it was asked (thesis 6.4).
    pub fn reads_decided(&mut self, reads: DecidedReads) {
        for (id, index) in reads.ready {
            let (_, floor) = self.reads.remove(&id).expect("asked, and decided once");
            assert!(
                index >= floor,
                "a read is stale: {id} sees {index}, not {floor}"
            );
            self.reads_ready += 1;
        }
        for id in reads.failed {
            assert!(self.reads.remove(&id).is_some(), "asked, and decided once");
        }
    }

    pub fn reads_pending(&self) -> usize {
        self.reads.len()
    }

    /// A node crashed: its reads die with it, and it forgets how far it had committed.
    pub fn crashed(&mut self, id: NodeId) {
        self.reads.retain(|_, (at, _)| *at != id);
        if let Some(seen) = self.seen.get_mut(&id) {
            *seen = Seen::default();
        }
    }
}
