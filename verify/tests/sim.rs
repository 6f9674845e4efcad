//! The simulator: seeds that must hold, and the same trace for the same seed. The wrong variants of
//! the product that it must notice are in `verify/canaries`. See `docs/testing.md`.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv_verify::sim::{Options, Report, Scenario, Trace, run};

/// For how long plain seeds are run, in seconds.
const SECONDS: u64 = 150;
/// How many of them are run at least.
const FEWEST: u64 = 400;
/// How many seeds are run in which members change all the time.
const MEMBERS: u64 = 100;

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
    assert!(per_hundred(|report| report.stats.waits_for_space) > 10);
    assert!(per_hundred(|report| report.stats.rot_found) > 5);
    assert!(per_hundred(|report| report.stats.rot_repaired) > 2);
    assert!(per_hundred(|report| report.stats.snapshots) > 600);
    assert!(per_hundred(|report| report.stats.installs) > 50);
    assert!(per_hundred(|report| report.stats.cuts) > 80);
    assert!(sum(|report| report.stats.went_back) > 0);
    assert!(per_hundred(|report| report.stats.corrupted) > 100);
    assert!(per_hundred(|report| report.stats.rotted) > 100);
    assert!(per_hundred(|report| report.stats.failed_reads) > 100);
    assert!(per_hundred(|report| report.stats.wiped) > 10);
    assert!(per_hundred(|report| report.stats.admitted) > 100);
    assert!(sum(|report| report.stats.refused) > 0);
    assert!(per_hundred(|report| report.stats.changes) > 100);
    let latest = reports.iter().map(|report| report.stats.led_after_us).max();
    println!("led after {} us at the latest", latest.unwrap_or(0));
}

/// Members that change all the time: see `Plan::play_members`.
#[test]
fn clusters_whose_members_change_all_the_time_keep_every_promise() {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(1);
    let work = || {
        let mut changes = 0;
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed <= MEMBERS
        {
            let report = run(Options {
                seed,
                scenario: Scenario::Members,
                ..Options::default()
            });
            if let Some(failure) = &report.failure {
                let again = "again, with a trace: scripts/sim.sh --members --seed";
                panic!("seed {seed}: {failure}\n{again} {seed}");
            }
            changes += report.stats.changes;
        }
        changes
    };
    let changes: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|changes| changes.expect("each seed held")).sum()
    });
    // What never happens is never tested.
    assert!(changes / MEMBERS > 20, "{changes} changes of members");
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    let hash = |seed| {
        let trace = Trace::Hash;
        let options = Options {
            seed,
            trace,
            ..Options::default()
        };
        run(options).trace_hash
    };
    for seed in 1..=20 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(1), hash(2));
}
