//! Tests that can fail: known-wrong variants of the product, each of which a test of the course
//! must notice. And the same seed is the same run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raftkv::sim::lab::Lab;
use raftkv::sim::{Canary, Trace};

use super::seeds::Test;
use super::{agreement, elections, faults, kv, persistence, raft_snapshots, state_machine};

/// Runs the test until it fails.
#[track_caller]
fn is_noticed(name: &str, servers: usize, clients: usize, body: fn(&mut Lab), within: u64) {
    let canary = Canary::named(name);
    assert!(canary.is_some(), "there is no canary {name}");
    let test = Test {
        servers,
        clients,
        body,
    };
    let fails = |seed: &u64| {
        let run = || test.from(*seed, canary, Trace::Off);
        catch_unwind(AssertUnwindSafe(run)).is_err()
    };
    let noticed = (1..=within).find(fails);
    assert!(
        noticed.is_some(),
        "{name} was not noticed within {within} seeds"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let churn = Test {
        servers: 5,
        clients: 0,
        body: faults::unreliable_churn,
    };
    let hash = |seed| churn.from(seed, None, Trace::Hash);
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}

/// For each known-wrong variant a test that must notice it, on so many servers and with so many
/// clients, within so many seeds.
macro_rules! canaries {
    ($($name:ident $canary:ident $body:path, $servers:literal $clients:literal $within:literal;)*)
    => {
        $(
            #[test]
            fn $name() {
                is_noticed(stringify!($canary), $servers, $clients, $body, $within);
            }
        )*
    };
}

canaries! {
    acknowledged_entries_that_are_not_durable
        EntriesDurableFirst state_machine::restart_replay, 3 0 20;
    a_leader_that_counts_its_own_unsynced_log
        OwnCopyDurableFirst state_machine::restart_submit, 3 0 400;
    two_votes_in_a_term OneVote elections::many_elections, 7 0 40;
    votes_for_any_log CompleteLogsOnly persistence::persist_2, 5 0 10;
    commits_of_what_was_not_verified VerifiedCommits agreement::rejoin, 3 0 10;
    an_overtaken_append_that_cuts_the_log
        MatchingEntriesStay faults::unreliable_agree, 5 0 10;
    questions_that_are_not_repeated
        QuestionsAreRepeated raft_snapshots::snapshot_install_unreliable, 3 0 10;
    a_log_that_is_not_synced LogUnsynced persistence::persist_1, 3 0 10;
    a_vote_that_is_not_synced VoteUnsynced persistence::persist_3, 3 0 20;
    a_reply_for_whoever_waits_for_the_index
        WaitsForIndexOnly state_machine::leader_partition, 3 0 10;
    repeats_that_are_executed ExecutesRepeats kv::unreliable_one_key, 3 5 10;
    retries_under_a_new_number RetriesUnderNewNumber kv::unreliable_one_key, 3 5 10;
    followers_that_do_not_execute LeaderAppliesOnly agreement::basic_agree, 3 0 5;
    reads_of_a_leaders_own_state
        LocalReads kv::persist_partition_unreliable_linearizable, 7 15 10;
}
