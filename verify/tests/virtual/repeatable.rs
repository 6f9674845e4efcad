//! The same seed is the same run.

use raftkv_verify::course::faults;
use raftkv_verify::sim::Trace;

use super::seeds::Test;

#[test]
fn the_same_seed_gives_the_same_run() {
    let churn = Test {
        servers: 5,
        clients: 0,
        body: faults::unreliable_churn,
    };
    let hash = |seed| churn.from(seed, Trace::Hash);
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
