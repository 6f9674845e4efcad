//! A Clerk of a whole cluster in this process, all of whose members are replaced.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use bytes::Bytes;

use crate::raft::{MemberRole, NodeId};
use crate::testkit::{Cluster, address};
use crate::wire::members::ChangeRequest;

#[test]
fn a_clerk_under_load_goes_on_when_the_nodes_1_to_3_have_become_4_to_6() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk_over(cluster.transport(), [1, 2, 3], Default::default());
    let over = AtomicBool::new(false);
    let appended = thread::scope(|scope| {
        let append = || {
            let mut count = 0;
            while !over.load(SeqCst) {
                clerk.append("log", "x").unwrap();
                count += 1;
            }
            count
        };
        let appending = scope.spawn(append);
        for new in 4..=6 {
            let old = new - 3;
            cluster.add(new, MemberRole::Joining);
            let with_both: Vec<NodeId> = (old..=new).collect();
            cluster.wait_for_members(&with_both, &[]);
            cluster.change(&ChangeRequest::Remove(old));
            let without: Vec<NodeId> = (old + 1..=new).collect();
            cluster.wait_for_members(&without, &[]);
            // The Clerk has an answer of the members that are left before the machine goes.
            clerk.get("log").unwrap();
            cluster.crash(old);
        }
        over.store(true, SeqCst);
        appending.join().unwrap()
    });
    let log = clerk.get("log").unwrap();
    assert_eq!(log.as_ref().map(Bytes::len), Some(appended));
    let leader = clerk.leader().unwrap();
    assert!([4, 5, 6].map(address).contains(&leader), "{leader}");
}
