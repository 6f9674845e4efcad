//! What must hold after every step, judged from outside: by what nodes send, what their disks
//! hold and what they hand out for execution.
//!
//! It does not judge clients (who saw which answer), nor progress: the run's last phase does.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::Disk;
use crate::raft::{
    Configuration, DecidedReads, Entry, EntryId, Envelope, Index, Member, MemberId, MemberRole,
    Message, NodeId, Payload, Raft, ReadId, RoleName, Term,
};

#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, MemberId>,
    /// Whom each member voted for in each term, as its messages say.
    votes: BTreeMap<(Term, MemberId), MemberId>,
    /// Every folder that stands in a committed configuration, or stood in one.
    standing: BTreeSet<MemberId>,
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
    configuration: Configuration,
    leads: bool,
    last: EntryId,
    commit: Index,
}

/// Whether these are a majority of the voters before and of those after a change: counted anew,
/// because the product's own count is what is judged.
fn decide(configuration: &Configuration, these: &BTreeSet<MemberId>) -> bool {
    let is_one = |member: &&&Member| {
        let folder = member.folder.expect("no empty seats here");
        let id = member.id;
        these.contains(&MemberId { id, folder })
    };
    [configuration.members(), configuration.outgoing()]
        .into_iter()
        .all(|half| {
            let voters = half
                .iter()
                .filter(|member| member.role == MemberRole::Voter);
            let voters: Vec<&Member> = voters.collect();
            half.is_empty() || 2 * voters.iter().filter(is_one).count() > voters.len()
        })
}

impl Checker {
    /// Of a cluster that begins with these members.
    pub fn new(founding: &Configuration) -> Self {
        let mut checker = Self::default();
        checker.stand(founding);
        checker
    }

    /// These members are committed.
    fn stand(&mut self, configuration: &Configuration) {
        let members = configuration.members().iter();
        self.standing.extend(members.filter_map(|member| {
            let (id, folder) = (member.id, member.folder?);
            Some(MemberId { id, folder })
        }));
    }

    /// A message leaves: the term, vote or entries that it speaks of must be on disk by now (paper
    /// figure 2, "updated on stable storage before responding").
    pub fn leaves(&mut self, envelope: &Envelope, raft: &Raft, disk: &Disk) {
        let Envelope {
            from,
            from_folder,
            to,
            to_folder,
            term,
            ..
        } = *envelope;
        let me = MemberId {
            id: from,
            folder: from_folder,
        };
        let on_disk = disk.hard_state;
        assert!(on_disk.term >= term, "a term left before it was durable");
        let vote = match envelope.message {
            Message::Vote { .. } => Some(me),
            Message::VoteReply { granted: true } => {
                to_folder.map(|folder| MemberId { id: to, folder })
            }
            _ => None,
        };
        if let Some(vote) = vote {
            let first = *self.votes.entry((term, me)).or_insert(vote);
            assert_eq!(first, vote, "node {from} voted twice in term {term}");
            let durable = on_disk.term > term || on_disk.vote == Some(vote);
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
    pub fn stepped(&mut self, raft: &Raft, me: MemberId, disks: &BTreeMap<MemberId, &Disk>) {
        let id = raft.id();
        assert_eq!(raft.fault(), None, "node {id} sees a fault");
        let mut seen = self.seen.remove(&id).unwrap_or_default();
        assert!(raft.term() >= seen.term, "the term of {id} went back");
        let leads = raft.role() == RoleName::Leader;
        if leads && (!seen.leads || raft.term() != seen.term) {
            self.leads(raft, me, disks);
        }
        assert!(raft.commit() >= seen.commit, "commit of {id} went back");
        if leads && raft.commit() > seen.commit {
            let last = raft.entry(raft.commit()).map(|entry| entry.id.term);
            let own = last == Some(raft.term());
            assert!(own, "leader {id} counted copies of an earlier term");
        }
        for index in seen.commit + 1..=raft.commit() {
            let entry = raft.entry(index).expect("a committed entry is held");
            self.committed(raft, entry, &seen.configuration, disks);
        }
        if raft.last() != seen.last {
            self.log_matches(raft);
        }
        seen = Seen {
            term: raft.term(),
            configuration: raft.configuration().configuration.clone(),
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
            if !self.entries.contains_key(&entry.id) {
                self.created(raft, entry);
            }
            let known = self.entries.entry(entry.id).or_insert_with(|| this.clone());
            assert_eq!(*known, this, "logs do not match");
        }
        // The last configuration in the log is in force.
        let indexes = (1..=raft.last().index).rev();
        let entries = indexes.filter_map(|index| raft.entry(index));
        let is_one = |entry: &&Entry| matches!(entry.payload, Payload::Configuration(_));
        let last = entries
            .clone()
            .find(is_one)
            .map_or(0, |entry| entry.id.index);
        assert_eq!(
            raft.configuration().index,
            last,
            "another configuration is in force"
        );
    }

    /// A leader has made an entry. If it is a configuration, the one before is committed, and
    /// every folder that votes stood in a committed one before (thesis 4.1, 4.2.1).
    fn created(&self, raft: &Raft, entry: &Entry) {
        let Payload::Configuration(configuration) = &entry.payload else {
            return;
        };
        let before = (1..entry.id.index)
            .rev()
            .filter_map(|index| raft.entry(index));
        let is_one = |entry: &&Entry| matches!(entry.payload, Payload::Configuration(_));
        let before = before
            .clone()
            .find(is_one)
            .map_or(0, |entry| entry.id.index);
        let committed = self.canonical.len() as Index;
        assert!(
            before <= committed,
            "two changes at once: {before} and {}",
            entry.id
        );
        for voter in configuration.voters() {
            let folder = voter.folder.expect("no empty seats here");
            let id = voter.id;
            let stands = self.standing.contains(&MemberId { id, folder });
            assert!(stands, "node {id} votes at {} and never learnt", entry.id);
        }
    }

    /// One leader in each term (paper 5.2), which holds all that was committed in earlier terms
    /// (paper 5.4.3).
    fn leads(&mut self, raft: &Raft, me: MemberId, disks: &BTreeMap<MemberId, &Disk>) {
        let (id, term) = (raft.id(), raft.term());
        let first = *self.leaders.entry(term).or_insert(me);
        assert_eq!(first, me, "two leaders in term {term}");
        self.elected(raft, me, disks);
        let committed = self.canonical.iter().zip(&self.committed_in);
        for (entry, _) in committed.filter(|(_, committed_in)| **committed_in < term) {
            let held = raft.entry(entry.id.index);
            assert_eq!(held, Some(entry), "leader {id} lacks a committed entry");
        }
    }

    /// A leader has the votes of its members, and of what is committed one of them has the last
    /// entry on its disk: so no two disjoint majorities decide.
    fn elected(&self, raft: &Raft, me: MemberId, disks: &BTreeMap<MemberId, &Disk>) {
        let term = raft.term();
        let in_term = self
            .votes
            .iter()
            .filter(|((of, _), to)| *of == term && **to == me);
        let mut voters: BTreeSet<MemberId> = in_term.map(|((_, from), _)| *from).collect();
        let own = disks.get(&me).map(|disk| disk.hard_state);
        if own.is_some_and(|own| own.term == term && own.vote == Some(me)) {
            voters.insert(me);
        }
        let configuration = &raft.configuration().configuration;
        assert!(
            decide(configuration, &voters),
            "node {} leads term {term} of {configuration} with the votes of {voters:?}",
            raft.id()
        );
        let earlier = self.committed_in.iter().filter(|of| **of < term).count();
        if let Some(last) = earlier.checked_sub(1).map(|at| &self.canonical[at]) {
            let has = |voter: &MemberId| {
                disks.get(voter).and_then(|disk| disk.entry(last.id.index)) == Some(last)
            };
            assert!(voters.iter().any(has), "nobody who voted has {}", last.id);
        }
    }

    /// All nodes commit the same, and only what a majority of the members has on its disks: of
    /// those before this input, or of those after it.
    fn committed(
        &mut self,
        raft: &Raft,
        entry: &Entry,
        before: &Configuration,
        disks: &BTreeMap<MemberId, &Disk>,
    ) {
        let index = entry.id.index;
        if let Some(known) = self.canonical.get(index as usize - 1) {
            assert_eq!(known, entry, "node {} committed something else", raft.id());
            return;
        }
        let holds = |(_, disk): &(&MemberId, &&Disk)| disk.entry(index) == Some(entry);
        let holders = disks
            .iter()
            .filter(holds)
            .map(|(member, _)| *member)
            .collect();
        let after = &raft.configuration().configuration;
        let majority = decide(after, &holders) || !before.is_empty() && decide(before, &holders);
        assert!(
            majority,
            "{} of {after} is committed on {holders:?} only",
            entry.id
        );
        if let Payload::Configuration(configuration) = &entry.payload {
            self.stand(configuration);
        }
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
