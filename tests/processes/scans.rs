//! Reads with large answers, many at once.

use std::thread;

use raftkv::client::Clerk;
use raftkv::kv::Scan;
use raftkv::raft::Term;

use super::cluster::{Cluster, PATIENCE};
use super::load::Load;

/// How many clients scan at once.
const SCANS: usize = 40;
/// How many pages each of them reads.
const PAGES: usize = 4;

/// Several times what one page takes, and much less than what as many pages as there are clients
/// take one after the other.
const ELECTION: &str = "500";

fn highest_term(clerk: &Clerk) -> Option<Term> {
    let told = clerk.status().into_iter();
    told.filter_map(|server| Some(server.result.ok()?.term))
        .max()
}

/// The thread that answers heartbeats also reads what clients ask. It must leave large answers to
/// another one, and they must not keep a writer from its turn.
#[test]
fn many_scans_at_once_depose_no_leader_and_stop_no_writer() {
    let cluster = Cluster::start_with(3, &["--election-ms", ELECTION]);
    let filled = cluster.run(&[
        "bench",
        "--prefill",
        "-c",
        "64",
        "-k",
        "5k",
        "-n",
        "1",
        "-w",
        "0",
    ]);
    assert!(filled.status.success(), "{filled:?}");
    let clerk = cluster.clerk();
    let before = highest_term(&clerk);
    let load = Load::start(&cluster, 1);
    load.await_more(10);
    thread::scope(|scope| {
        for _ in 0..SCANS {
            scope.spawn(|| {
                let clerk = cluster.clerk();
                for _ in 0..PAGES {
                    let page = clerk.scan(Scan::prefix("b")).unwrap();
                    assert_eq!(page.items.len(), 5000);
                }
            });
        }
        load.await_more(10);
    });
    load.await_more(10);
    let written = load.stop();
    written.check(&clerk);
    assert_eq!(highest_term(&clerk), before, "there was an election");
    let gap = written.longest_gap();
    assert!(gap < PATIENCE / 4, "a writer waited for {gap:?}");
}
