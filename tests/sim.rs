//! The simulator: seeds that must hold, the same trace for the same seed, and known-wrong variants
//! that must not get away with it. See `docs/testing.md`.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv::sim::{Canary, Options, Report, Trace, run};

/// For how long plain seeds are run, in seconds.
const SECONDS: u64 = 150;
/// How many of them are run at least.
const FEWEST: u64 = 400;

fn plain(seed: u64) -> Report {
    run(Options {
        seed,
        ..Options::default()
    })
}

#[track_caller]
fn must_hold(seed: u64) -> Report {
    let report = plain(seed);
    if let Some(failure) = &report.failure {
        panic!("seed {seed}: {failure}\nagain, with a trace: scripts/sim.sh --seed {seed}");
    }
    report
}

/// Seeds from 1 on, on all cores, for as long as `RAFTKV_SIM_SECONDS` says; at least the first
/// `FEWEST`, however slow the machine is.
#[test]
fn thousands_of_clusters_keep_every_promise_under_every_fault() {
    let seconds = std::env::var("RAFTKV_SIM_SECONDS");
    let seconds = seconds.map_or(Ok(SECONDS), |text| text.parse());
    let seconds = seconds.expect("RAFTKV_SIM_SECONDS is a number of seconds");
    let end = Instant::now() + Duration::from_secs(seconds);
    let next = AtomicU64::new(1);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > FEWEST && Instant::now() >= end {
                return reports;
            }
            reports.push(must_hold(seed));
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let reports: Vec<Report> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        let reports = joined.map(|reports| reports.expect("each seed held"));
        reports.flatten().collect()
    });
    println!("{} seeds held", reports.len());
    // What never happens is never tested.
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let per_hundred = |of| sum(of) * 100 / reports.len() as u64;
    assert!(per_hundred(|report| report.stats.replies) > 10_000);
    assert!(per_hundred(|report| report.stats.crashes) > 600);
    assert!(per_hundred(|report| report.stats.elections) > 400);
    assert!(per_hundred(|report| report.stats.disk_failures) > 30);
    assert!(per_hundred(|report| report.stats.snapshots) > 600);
    assert!(per_hundred(|report| report.stats.installs) > 50);
    assert!(per_hundred(|report| report.stats.cuts) > 80);
    assert!(sum(|report| report.stats.went_back) > 0);
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    let hash = |seed| {
        let trace = Trace::Hash;
        let options = Options {
            seed,
            trace,
            canary: None,
        };
        run(options).trace_hash
    };
    for seed in 1..=20 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(1), hash(2));
}

/// Runs seeds until the canary is caught.
#[track_caller]
fn is_caught(name: &str, within: u64) {
    let canary = Canary::named(name);
    assert!(canary.is_some(), "there is no canary {name}");
    let caught = (1..=within).find(|seed| {
        let seed = *seed;
        let trace = Trace::Off;
        let options = Options {
            seed,
            trace,
            canary,
        };
        run(options).failure.is_some()
    });
    assert!(
        caught.is_some(),
        "{name} was not caught within {within} seeds"
    );
}

/// A test for each canary, with the number of seeds within which it must be caught.
macro_rules! canaries {
    ($($test:ident $name:ident $within:literal)*) => {
        const CANARIES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $test() {
                is_caught(stringify!($name), $within);
            }
        )*
    };
}

canaries! {
    votes_that_leave_before_they_are_durable_are_noticed TermAndVoteDurableFirst 300
    acknowledgements_that_leave_before_the_entries_are_durable_are_noticed EntriesDurableFirst 300
    a_leader_that_counts_its_own_unsynced_log_is_noticed OwnCopyDurableFirst 2000
    two_votes_in_one_term_are_noticed OneVote 500
    questions_that_are_not_repeated_are_noticed QuestionsAreRepeated 500
    votes_for_any_log_are_noticed CompleteLogsOnly 100
    a_follower_that_commits_what_was_not_verified_is_noticed VerifiedCommits 100
    an_overtaken_append_that_cuts_the_log_is_noticed MatchingEntriesStay 100
    reads_that_nobody_confirmed_are_noticed ReadsAreConfirmed 3000
    reads_before_the_terms_first_commit_are_noticed ReadsAfterOwnEntry 500
    a_log_that_is_not_synced_is_noticed LogUnsynced 50
    a_vote_that_is_not_synced_is_noticed VoteUnsynced 50
    damage_that_is_cut_like_a_torn_tail_is_noticed CutsDamage 200
    a_new_head_with_an_old_tail_is_noticed KeepsOldTail 1000
    writing_on_after_a_failed_sync_is_noticed GoesOnAfterFailure 200
    a_reply_given_to_whoever_waits_for_the_index_is_noticed WaitsForIndexOnly 500
    a_refusal_of_what_is_under_way_is_noticed RefusesWhatIsUnderWay 3000
    a_repeat_that_is_executed_again_is_noticed ExecutesRepeats 100
    an_operation_of_an_expired_session_that_is_executed_is_noticed ExecutesWithoutSession 200
    followers_that_do_not_execute_are_noticed LeaderAppliesOnly 20
    reads_from_the_leaders_own_state_are_noticed LocalReads 300
    a_retry_under_a_new_number_is_noticed RetriesUnderNewNumber 100
    a_commit_by_counting_entries_of_earlier_terms_is_noticed OwnTermCommits 300
    a_snapshot_of_the_past_that_is_installed_is_noticed NewsOnlyInstalled 200
    a_log_that_contradicts_an_installed_snapshot_and_stays_is_noticed ConflictingLogGoes 1000
    a_snapshot_without_its_sessions_is_noticed SnapshotWithoutSessions 100
    a_log_that_is_cut_before_the_snapshots_name_is_durable_is_noticed RenameUnsynced 100
    a_damaged_snapshot_that_is_taken_for_whole_is_noticed TrustsSnapshots 3000
}

#[test]
fn every_canary_has_its_test() {
    for canary in Canary::all() {
        let name = canary.to_string();
        assert!(CANARIES.contains(&&*name), "{name} has no test");
    }
}
