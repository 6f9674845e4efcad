//! Tests that can fail: known-wrong variants of the product, each of which a test of the course
//! must notice. And the same seed is the same run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raftkv::sim::lab::Lab;
use raftkv::sim::{Canary, Trace};

use super::seeds::Test;

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
        body: super::faults::unreliable_churn,
    };
    let hash = |seed| churn.from(seed, None, Trace::Hash);
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
