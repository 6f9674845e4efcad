//! Known-wrong variants of the product. A checker that catches none of them proves nothing.

use std::fmt;

use crate::{kv, node, raft, storage};

/// What is wrong on purpose in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The core does not keep a rule.
    Without(raft::Rule),
    /// The data folder.
    Storage(storage::Canary),
    /// The replica.
    Replica(node::Canary),
    /// The store.
    Kv(kv::Canary),
    /// The log is not synced.
    LogUnsynced,
    /// Term and vote are not synced.
    VoteUnsynced,
    /// The name of a snapshot is not durable when the log behind it is cut.
    RenameUnsynced,
    /// Followers do not execute what is committed.
    LeaderAppliesOnly,
    /// A leader answers reads from its own state at once.
    LocalReads,
    /// A client gives an operation a new number when it repeats it.
    RetriesUnderNewNumber,
}

impl Canary {
    /// All of them.
    pub fn all() -> Vec<Self> {
        use kv::Canary::{ExecutesRepeats, ExecutesWithoutSession, SnapshotWithoutSessions};
        use node::Canary::{RefusesWhatIsUnderWay, WaitsForIndexOnly};
        use raft::Rule::{
            CompleteLogsOnly, ConflictingLogGoes, EntriesDurableFirst, MatchingEntriesStay,
            NewsOnlyInstalled, OneVote, OwnCopyDurableFirst, OwnTermCommits, QuestionsAreRepeated,
            ReadsAfterOwnEntry, ReadsAreConfirmed, TermAndVoteDurableFirst, VerifiedCommits,
        };
        use storage::Canary::{CutsDamage, GoesOnAfterFailure, KeepsOldTail, TrustsSnapshots};
        let rules = [
            TermAndVoteDurableFirst,
            EntriesDurableFirst,
            OwnCopyDurableFirst,
            OneVote,
            CompleteLogsOnly,
            OwnTermCommits,
            VerifiedCommits,
            MatchingEntriesStay,
            ReadsAreConfirmed,
            ReadsAfterOwnEntry,
            QuestionsAreRepeated,
            NewsOnlyInstalled,
            ConflictingLogGoes,
        ];
        let storage = [
            CutsDamage,
            KeepsOldTail,
            GoesOnAfterFailure,
            TrustsSnapshots,
        ];
        let mut all: Vec<Self> = rules.map(Self::Without).into();
        all.extend(storage.map(Self::Storage));
        all.extend([WaitsForIndexOnly, RefusesWhatIsUnderWay].map(Self::Replica));
        let kv = [
            ExecutesRepeats,
            ExecutesWithoutSession,
            SnapshotWithoutSessions,
        ];
        all.extend(kv.map(Self::Kv));
        all.extend([
            Self::LogUnsynced,
            Self::VoteUnsynced,
            Self::RenameUnsynced,
            Self::LeaderAppliesOnly,
            Self::LocalReads,
            Self::RetriesUnderNewNumber,
        ]);
        all
    }

    /// The canary of this name, as [`Display`](fmt::Display) writes it.
    pub fn named(name: &str) -> Option<Self> {
        Self::all()
            .into_iter()
            .find(|canary| canary.to_string() == name)
    }

    pub(super) fn rule(self) -> Option<raft::Rule> {
        match self {
            Self::Without(rule) => Some(rule),
            _ => None,
        }
    }

    pub(super) fn storage(self) -> Option<storage::Canary> {
        match self {
            Self::Storage(canary) => Some(canary),
            _ => None,
        }
    }

    pub(super) fn replica(self) -> Option<node::Canary> {
        match self {
            Self::Replica(canary) => Some(canary),
            _ => None,
        }
    }

    pub(super) fn kv(self) -> Option<kv::Canary> {
        match self {
            Self::Kv(canary) => Some(canary),
            _ => None,
        }
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Without(rule) => write!(f, "{rule:?}"),
            Self::Storage(canary) => write!(f, "{canary:?}"),
            Self::Replica(canary) => write!(f, "{canary:?}"),
            Self::Kv(canary) => write!(f, "{canary:?}"),
            own => write!(f, "{own:?}"),
        }
    }
}
