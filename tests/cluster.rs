//! Whole clusters within this process: real nodes and threads, a network that can be cut.

use std::thread;

use raftkv::raft::NodeId;
use raftkv::testkit::Cluster;

#[test]
fn what_is_written_is_read_by_everybody_and_every_replica_executes_it() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    clerk.put("a", "1").unwrap();
    assert_eq!(clerk.append("a", "23").unwrap(), 3);
    assert_eq!(
        cluster.clerk().get("a").unwrap().as_deref(),
        Some(&b"123"[..])
    );
    cluster.wait_for_agreement();
}

#[test]
fn many_clients_appending_to_one_key_lose_and_repeat_nothing() {
    let cluster = Cluster::of_stores(3);
    thread::scope(|scope| {
        for client in 0..5 {
            let clerk = cluster.clerk();
            scope.spawn(move || {
                for n in 0..20 {
                    clerk.append("log", format!("<{client}:{n}>")).unwrap();
                }
            });
        }
    });
    let value = cluster.clerk().get("log").unwrap().unwrap();
    let value = String::from_utf8(value.to_vec()).unwrap();
    for client in 0..5 {
        let places: Vec<_> = (0..20)
            .map(|n| {
                value
                    .match_indices(&format!("<{client}:{n}>"))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert!(
            places.iter().all(|found| found.len() == 1),
            "client {client}"
        );
        assert!(
            places.is_sorted_by_key(|found| found[0].0),
            "client {client}"
        );
    }
}

#[test]
fn a_crashed_leader_loses_nothing_and_comes_back() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    for round in 0..5 {
        clerk.append("key", format!("{round},")).unwrap();
        let leader = cluster.wait_for_leader();
        cluster.crash(leader);
        clerk.append("key", format!("{round};")).unwrap();
        cluster.restart(leader);
    }
    let value = clerk.get("key").unwrap().unwrap();
    assert_eq!(&value[..], b"0,0;1,1;2,2;3,3;4,4;");
    cluster.wait_for_agreement();
}

#[test]
fn every_node_tells_where_its_time_goes() {
    let cluster = Cluster::of_stores(3);
    let clerk = cluster.clerk();
    let passed = |id: NodeId, names: &[&str]| {
        let stages = cluster.node(id).status().stages;
        let stages = stages.into_iter().filter(|stage| stage.count > 0);
        let passed: Vec<_> = stages.map(|stage| stage.name).collect();
        names.iter().all(|name| passed.iter().any(|p| p == name))
    };
    // Some is noted only after the answer has left.
    cluster.wait_for("all stages", |cluster| {
        clerk.put("key", "value").unwrap();
        clerk.get("key").unwrap();
        let leader = cluster.wait_for_leader();
        let all = cluster.ids().all(|id| match id == leader {
            true => passed(
                id,
                &["queue", "write", "sync", "round", "heartbeat", "apply"],
            ),
            false => passed(id, &["queue", "write", "sync", "apply"]),
        });
        all.then_some(())
    });
    for stage in cluster
        .ids()
        .flat_map(|id| cluster.node(id).status().stages)
    {
        let in_order = stage.p50_ns <= stage.p99_ns && stage.p99_ns <= stage.max_ns;
        assert!(in_order && stage.max_ns < 60_000_000_000, "{stage:?}");
    }
}
