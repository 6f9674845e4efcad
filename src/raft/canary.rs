//! Canaries: the algorithm with one rule left out.
//!
//! A checker that has never caught anything proves nothing. The random clusters of the tests run
//! with each of these rules left out in turn, and must notice. Outside of tests every rule is kept:
//! the question is answered at compile time.

use super::config::Config;

/// A rule that a test can leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What is sent waits until the term and the vote are on disk.
    TermAndVoteDurableFirst,
    /// An acknowledgement waits until the entries are on disk.
    EntriesDurableFirst,
    /// The leader's own copy counts once it is on disk.
    OwnCopyDurableFirst,
    /// One vote in a term.
    OneVote,
    /// A vote goes only to a log as complete as one's own.
    CompleteLogsOnly,
    /// Only an entry of the leader's own term commits.
    OwnTermCommits,
    /// A follower commits no further than the append has verified.
    VerifiedCommits,
    /// Entries that match already stay, with all that follows them.
    MatchingEntriesStay,
    /// Reads wait for a round of confirmations.
    ReadsAreConfirmed,
    /// Reads wait for an entry of the leader's own term.
    ReadsAfterOwnEntry,
    /// Reads fail when leadership is lost.
    ReadsEnd,
    /// What may have been lost is asked again.
    QuestionsAreRepeated,
    /// Only a snapshot of something new is installed.
    NewsOnlyInstalled,
    /// A log that contradicts an installed snapshot goes.
    ConflictingLogGoes,
    /// Who sends in a term that has passed is told so.
    OutdatedAreTold,
}

impl Config {
    /// Whether this node keeps the rule, as all but canaries do.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Whether this node keeps the rule, as all but canaries do.
    #[cfg(not(any(test, feature = "sim")))]
    pub(super) const fn keeps(&self, _: Rule) -> bool {
        true
    }
}
