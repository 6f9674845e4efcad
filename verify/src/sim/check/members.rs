//! Checks of the members: who counted in each decision, and which configuration each node goes by.
//!
//! The checks know the members by what the nodes' messages and disks say, and count majorities in
//! the plainest way: a set of voters, and how many of these are among those that said yes. The
//! product's own count is what is judged. A folder is told from a later one of the same node
//! everywhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::Failure;
use raftkv::raft::{
    Configuration, Entry, EntryId, Envelope, FolderId, Index, LoggedConfiguration, Member,
    MemberId, MemberRole, Message, NodeId, Payload, Term,
};

pub const IN_FORCE: &str = "the configuration in force is that of the log";
pub const QUORUM: &str = "a decision has a quorum of the members";
pub const DISJOINT: &str = "no two disjoint majorities decide";
pub const FOLLOWED: &str = "a committed configuration is followed";
pub const FIRST_COMMITTED: &str = "who counts was a member before";
pub const ONE: &str = "one change of members at a time";
pub const SNAPSHOT: &str = "a snapshot has the members of its entry";

/// A committed configuration.
struct Known {
    index: Index,
    /// The term of the node that first knew of it.
    term: Term,
    configuration: Configuration,
}

/// What has been seen of the members so far.
#[derive(Default)]
pub struct Members {
    /// Whom each folder voted for in each term.
    votes: BTreeMap<(Term, MemberId), MemberId>,
    /// The committed configurations of the log, in order.
    committed: Vec<Known>,
    /// Every folder that stands in one of them, or stood.
    standing: BTreeSet<MemberId>,
    /// Every folder that was admitted while the cluster was founded.
    admitted: BTreeSet<MemberId>,
    /// The folder of each founder that counted while the log had none.
    founders: BTreeMap<NodeId, FolderId>,
    /// The configurations that leaders have made and that may still become committed, or already
    /// are in a log where nobody knows that they are committed.
    made: BTreeMap<EntryId, Configuration>,
    /// How many configurations leaders have made.
    pub changes: u64,
}

/// A node that has won an election.
pub struct Elected<'a> {
    pub who: MemberId,
    pub term: Term,
    /// Its configuration in force.
    pub newest: &'a LoggedConfiguration,
    /// The last entry that was known to be committed in an earlier term.
    pub last: Option<EntryId>,
}

/// What a leader has committed in one step.
pub struct Commit<'a> {
    pub who: MemberId,
    pub entry: EntryId,
    /// Its configurations in force before and after the step: the leader may have gone on to the
    /// next one.
    pub before: &'a Configuration,
    pub after: &'a Configuration,
}

/// A configuration that a leader has appended.
pub struct Made<'a> {
    pub id: EntryId,
    pub configuration: &'a Configuration,
    /// How far the leader knows its log to be committed, and the term of the entry there.
    pub commit: EntryId,
    /// The index of a configuration that its log has between these two.
    pub between: Option<Index>,
}

/// Whether these are a majority of the voters of each half, counted without the product's help.
pub fn decide(configuration: &Configuration, these: &BTreeSet<MemberId>) -> bool {
    let founding = configuration.lineage() == 0;
    let is_one = |voter: &&&Member| {
        these.iter().any(|who| {
            who.id == voter.id && voter.folder.map_or(founding, |folder| folder == who.folder)
        })
    };
    let majority = |half: &[Member]| {
        let voters = half.iter().filter(|m| m.role == MemberRole::Voter);
        let voters: Vec<&Member> = voters.collect();
        2 * voters.iter().filter(is_one).count() > voters.len()
    };
    let outgoing = configuration.outgoing();
    majority(configuration.members()) && (outgoing.is_empty() || majority(outgoing))
}

/// Who votes in a half of a configuration: ids with folders.
fn voters(half: &[Member]) -> BTreeMap<NodeId, Option<FolderId>> {
    let voters = half.iter().filter(|m| m.role == MemberRole::Voter);
    voters.map(|voter| (voter.id, voter.folder)).collect()
}

fn fail<T>(check: &'static str, sentence: String) -> Result<T, Failure> {
    Err(Failure::new(check, sentence))
}

impl Members {
    /// A message leaves a node: it may say whom the node voted for.
    pub fn leaves(&mut self, envelope: &Envelope) {
        let from = MemberId {
            id: envelope.from,
            folder: envelope.from_folder,
        };
        if let Message::VoteReply { granted: true } = &envelope.message
            && let Some(folder) = envelope.to_folder
        {
            let id = envelope.to;
            self.voted(from, envelope.term, MemberId { id, folder });
        }
    }

    /// A folder has voted, durably.
    pub fn voted(&mut self, voter: MemberId, term: Term, candidate: MemberId) {
        self.votes.insert((term, voter), candidate);
    }

    /// A folder was admitted by its witnesses.
    pub fn admitted(&mut self, who: MemberId) {
        self.admitted.insert(who);
    }

    /// An entry is committed, as a node of this term is the first to know.
    pub fn committed(&mut self, entry: &Entry, term: Term) {
        let index = entry.id.index;
        self.made.retain(|made, _| made.index > index);
        if let Payload::Configuration(configuration) = &entry.payload {
            self.standing.extend(folders(configuration));
            self.committed.push(Known {
                index,
                term,
                configuration: (**configuration).clone(),
            });
        }
    }

    /// The newest committed configuration, if one was logged.
    pub fn newest(&self) -> Option<(Index, &Configuration)> {
        let newest = self.committed.last()?;
        Some((newest.index, &newest.configuration))
    }

    /// Those that leaders have made and that are not committed.
    pub fn pending(&self) -> impl Iterator<Item = &Configuration> {
        self.made.values()
    }

    /// Whether the folder stands in a committed configuration, or stood in one.
    pub fn has_stood(&self, who: MemberId) -> bool {
        self.standing.contains(&who)
    }

    /// The committed configuration that is in force at this index; `None` before the first one.
    fn at(&self, index: Index) -> Option<&Known> {
        let behind = self.committed.partition_point(|known| known.index <= index);
        self.committed.get(behind.checked_sub(1)?)
    }

    /// A node has been elected. `holds` tells whether a folder has an entry, or a snapshot of it,
    /// on its disk.
    pub fn elected(
        &mut self,
        elected: &Elected<'_>,
        holds: impl Fn(MemberId, EntryId) -> bool,
    ) -> Result<(), Failure> {
        let (who, term) = (elected.who, elected.term);
        let none = MemberId { id: 0, folder: 0 };
        let votes = self.votes.range((term, none)..(term + 1, none));
        let votes = votes.filter(|(_, candidate)| **candidate == who);
        let these: BTreeSet<MemberId> = votes.map(|((_, voter), _)| *voter).collect();
        let configuration = &elected.newest.configuration;
        if !decide(configuration, &these) {
            let sentence = format!("{who} leads term {term} of {configuration} with {these:?}");
            return fail(QUORUM, sentence);
        }
        self.founders_count(configuration, &these)?;
        if let Some(last) = elected.last
            && !these.iter().any(|voter| holds(*voter, last))
        {
            let sentence =
                format!("{who} leads term {term} with {these:?}, of which nobody has {last}");
            return fail(DISJOINT, sentence);
        }
        let earlier = self.committed.iter().rev().find(|known| known.term < term);
        match earlier.filter(|known| known.index > elected.newest.index) {
            None => Ok(()),
            Some(known) => fail(
                FOLLOWED,
                format!(
                    "{who} leads term {term} with the members of entry {}, and those of entry {} \
                     are committed since term {}",
                    elected.newest.index, known.index, known.term
                ),
            ),
        }
    }

    /// Until the log names the folders of the members, at most one folder of each id may be
    /// counted, in any election and for any commit: a node whose second folder counted as well
    /// could vote twice in a term.
    fn founders_count(
        &mut self,
        configuration: &Configuration,
        these: &BTreeSet<MemberId>,
    ) -> Result<(), Failure> {
        if configuration.lineage() > 0 {
            return Ok(());
        }
        for who in these {
            let first = *self.founders.entry(who.id).or_insert(who.folder);
            if first != who.folder {
                let sentence = format!("{who} counts, and another folder of it did before");
                return fail(FIRST_COMMITTED, sentence);
            }
        }
        Ok(())
    }

    /// A leader has committed entries that nobody knew to be committed; this is the last of them,
    /// or a configuration among them, which decides about itself. `holders` have it on their disks.
    pub fn commits(
        &mut self,
        commit: &Commit<'_>,
        holders: &BTreeSet<MemberId>,
    ) -> Result<(), Failure> {
        let (before, after) = (commit.before, commit.after);
        if !decide(after, holders) && !decide(before, holders) {
            let (who, entry) = (commit.who, commit.entry);
            let sentence = format!("{who} commits {entry} of {after}, which only {holders:?} have");
            return fail(QUORUM, sentence);
        }
        self.founders_count(after, holders)
    }

    /// A leader has appended a configuration.
    pub fn made(&mut self, made: &Made<'_>) -> Result<(), Failure> {
        if self.made.contains_key(&made.id) {
            return Ok(());
        }
        let (id, next) = (made.id, made.configuration);
        if let Some(between) = made.between {
            let sentence = format!(
                "the configuration {id} follows that of entry {between}, which is not committed"
            );
            return fail(ONE, sentence);
        }
        if made.commit.term != id.term {
            let sentence = format!("{id} is made with nothing of its term committed");
            return fail(ONE, sentence);
        }
        let former = self.at(made.commit.index).map(|known| &known.configuration);
        if !follows(former, next) {
            let former = former.map_or("the founders".into(), ToString::to_string);
            let sentence = format!("{id} goes from {former} to {next}");
            return fail(ONE, sentence);
        }
        for (id, folder) in voters(next.members()) {
            let Some(folder) = folder else {
                continue;
            };
            let who = MemberId { id, folder };
            let was_empty = former.is_none_or(|former| {
                let before = former.members().iter().find(|member| member.id == id);
                before.is_some_and(|member| member.folder.is_none())
            });
            let may_enter = was_empty && self.admitted.contains(&who);
            if !self.standing.contains(&who) && !may_enter {
                let sentence = format!("{who} is to vote from {} on and never learnt", made.id);
                return fail(FIRST_COMMITTED, sentence);
            }
        }
        self.made.insert(id, next.clone());
        self.changes += 1;
        Ok(())
    }

    /// The configuration by which a node goes, whose log is known to be committed up to `commit`.
    /// `behind` is the last configuration that its log has behind that.
    pub fn in_force(
        &self,
        n: usize,
        newest: &LoggedConfiguration,
        commit: Index,
        behind: Option<&Entry>,
    ) -> Result<(), Failure> {
        let behind = behind.and_then(|entry| match &entry.payload {
            Payload::Configuration(configuration) => Some((entry.id.index, &**configuration)),
            _ => None,
        });
        let committed = self.at(commit);
        let right = behind.or(committed.map(|known| (known.index, &known.configuration)));
        let is_right = match right {
            None => newest.index == 0,
            Some((index, right)) => newest.index == index && newest.configuration == *right,
        };
        if is_right {
            return Ok(());
        }
        let right = right.map_or(0, |(index, _)| index);
        let sentence = format!(
            "node {} goes by {} of entry {}, and its log by that of entry {right}",
            n + 1,
            newest.configuration,
            newest.index
        );
        fail(IN_FORCE, sentence)
    }

    /// A snapshot of the state after the entry `last` names these members.
    pub fn snapshot(
        &self,
        n: usize,
        last: EntryId,
        logged: &LoggedConfiguration,
    ) -> Result<(), Failure> {
        let is_right = match self.at(last.index) {
            None => logged.index == 0,
            Some(known) => {
                known.index == logged.index && known.configuration == logged.configuration
            }
        };
        if is_right {
            return Ok(());
        }
        let sentence = format!(
            "node {} has a snapshot of {last} with {} of entry {}",
            n + 1,
            logged.configuration,
            logged.index
        );
        fail(SNAPSHOT, sentence)
    }
}

/// The members of a configuration whose folders are known.
fn folders(configuration: &Configuration) -> impl Iterator<Item = MemberId> {
    configuration.members().iter().filter_map(|member| {
        let (id, folder) = (member.id, member.folder?);
        Some(MemberId { id, folder })
    })
}

/// Whether one change leads from a configuration to the next one. No `former`: from that of the
/// founders.
fn follows(former: Option<&Configuration>, next: &Configuration) -> bool {
    let after = voters(next.members());
    let Some(former) = former else {
        // The founders' folders are entered, and nothing else.
        return !next.is_joint();
    };
    let before = voters(former.members());
    if former.is_joint() {
        // The joint configuration is left.
        return !next.is_joint() && next.members() == former.members();
    }
    if next.is_joint() {
        return voters(next.outgoing()) == before;
    }
    // The voters stay, but for empty seats that are filled.
    let stays = |(id, folder): (&NodeId, &Option<FolderId>)| {
        let known = before.get(id);
        known.is_some_and(|known| known.is_none() || known == folder)
    };
    after.len() == before.len() && after.iter().all(stays)
}

#[cfg(test)]
mod tests;
