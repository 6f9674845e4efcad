//! That the checker would notice: each rule of the algorithm left out in turn.

use super::failure;
use crate::raft::canary::Rule;

/// Each with the number of seeds within which its absence must be noticed.
const CANARIES: [(Rule, u64); 13] = [
    (Rule::TermAndVoteDurableFirst, 20),
    (Rule::EntriesDurableFirst, 20),
    (Rule::OwnCopyDurableFirst, 20),
    (Rule::OneVote, 20),
    (Rule::CompleteLogsOnly, 20),
    (Rule::OwnTermCommits, 20),
    (Rule::VerifiedCommits, 40),
    (Rule::MatchingEntriesStay, 20),
    (Rule::ReadsAreConfirmed, 200),
    (Rule::ReadsAfterOwnEntry, 40),
    (Rule::ReadsEnd, 20),
    (Rule::QuestionsAreRepeated, 20),
    // Pre-vote leaves few nodes stuck at a higher term.
    (Rule::OutdatedAreTold, 300),
];

#[test]
fn every_rule_is_missed_when_it_is_left_out() {
    for (rule, seeds) in CANARIES {
        let found = (0..seeds).find_map(|seed| {
            let found = failure(seed, |config| config.without = Some(rule));
            found.err().map(|sentence| (seed, sentence))
        });
        let Some((seed, sentence)) = found else {
            panic!("{seeds} seeds without {rule:?}, and nothing was noticed");
        };
        let sentence = sentence.lines().next().unwrap_or_default();
        println!("{rule:?} is missed by seed {seed}: {sentence}");
    }
}
