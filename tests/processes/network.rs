//! Networks that delay, lose, change and swallow what nodes and clients send each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use raftkv::raft::{NodeId, RoleName, Term};
use raftkv::testkit::{Cable, Counts, Process, Quality};
use raftkv::wire::client::Status;

use super::cluster::{Cluster, PATIENCE, clerk_at, text};
use super::load::Load;

type Cables = BTreeMap<(NodeId, NodeId), Cable>;

/// Nodes that find each other over cables only, and have a leader.
fn cabled(size: u64, options: &[&str]) -> (Cluster, Cables) {
    let mut cables = Cables::new();
    let cluster = Cluster::start_as(size, |cluster| {
        cables = cluster.link_all().unwrap();
        for id in cluster.ids() {
            cluster.give(id, options);
        }
    });
    cluster.leader();
    (cluster, cables)
}

fn set_all(cables: &Cables, quality: Quality) {
    cables.values().for_each(|cable| cable.set(quality));
}

fn counts(cables: &Cables) -> Counts {
    let mut total = Counts::default();
    for counts in cables.values().map(Cable::counts) {
        total.corrupted += counts.corrupted;
        total.lost += counts.lost;
    }
    total
}

fn status(cluster: &Cluster, id: NodeId) -> Status {
    let clerk = cluster.clerk();
    clerk.status_of(&cluster.address(id).to_string()).unwrap()
}

/// The highest term of the nodes that are up.
fn term(cluster: &Cluster) -> Term {
    let statuses = cluster.clerk().status().into_iter();
    let terms = statuses.filter_map(|server| Some(server.result.ok()?.term));
    terms.max().unwrap()
}

#[test]
fn bytes_that_change_between_nodes_end_their_connection_and_the_cluster_goes_on() {
    let (cluster, cables) = cabled(3, &[]);
    let load = Load::start(&cluster, 4);
    set_all(
        &cables,
        Quality {
            corrupted_permille: 30,
            ..Quality::default()
        },
    );
    while counts(&cables).corrupted < 20 {
        load.await_more(10);
    }
    set_all(&cables, Quality::default());
    load.await_more(100);
    load.stop().check(&cluster.clerk());
    let lines = cluster.ids().into_iter().map(|id| cluster.node(id).lines());
    let lines: Vec<_> = lines.flatten().collect();
    let noticed = |line: &&String| line.contains("checksum");
    assert!(lines.iter().any(|line| noticed(&line)), "{lines:#?}");
}

/// The cables are each node's own: only the node that dials over them knows their addresses.
#[test]
fn clients_are_told_where_a_leader_listens_and_not_how_a_node_reaches_it() {
    let (cluster, _) = cabled(3, &[]);
    let leader = cluster.leader();
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        let clerk = clerk_at(vec![cluster.address(id).to_string()], PATIENCE);
        clerk.put("key", "value").unwrap();
        let told = clerk.leader().unwrap();
        assert!(cluster.addresses().contains(&told), "{told}");
    }
}

#[test]
fn clients_whose_bytes_are_changed_or_lost_have_each_write_executed_once() {
    // Of one node whose address in the list of members is the cable's, so that nobody tells a
    // client of another way than over the cable.
    let cable = Cable::default();
    let mut proxy = None;
    let cluster = Cluster::start_as(1, |cluster| {
        let way = cluster.proxy(1, &cable).unwrap();
        cluster.announce(1, way.address());
        proxy = Some(way);
    });
    let proxy = proxy.expect("made before the node was started");
    let load = Load::start_at(4, &[proxy.address()]);
    cable.set(Quality {
        corrupted_permille: 50,
        broken_permille: 50,
        ..Quality::default()
    });
    while cable.counts().lost < 20 || cable.counts().corrupted < 20 {
        load.await_more(5);
    }
    cable.set(Quality::default());
    load.stop().check(&cluster.clerk());
}

#[test]
fn delays_of_75_ms_give_or_take_50_cost_time_and_no_elections() {
    let (cluster, cables) = cabled(3, &[]);
    let load = Load::start(&cluster, 4);
    load.await_more(50);
    let before = term(&cluster);
    let (mean, jitter) = (Duration::from_millis(75), Duration::from_millis(50));
    set_all(&cables, Quality::delayed(mean, jitter));
    load.await_more(60);
    let elections = term(&cluster) - before;
    // None, unless the machine itself stands still for a moment.
    assert!(elections <= 1, "{elections} elections");
    load.stop().check(&cluster.clerk());
}

#[test]
fn with_half_of_all_packets_and_connections_lost_the_work_goes_on() {
    let (cluster, cables) = cabled(3, &[]);
    let load = Load::start(&cluster, 4);
    set_all(
        &cables,
        Quality {
            stalled_permille: 500,
            refused_permille: 500,
            broken_permille: 10,
            ..Quality::default()
        },
    );
    while counts(&cables).lost < 10 {
        load.await_more(10);
    }
    set_all(&cables, Quality::default());
    load.await_more(100);
    load.stop().check(&cluster.clerk());
}

/// Whatever `swallowed` says of the links from and to the leader: another node leads, and the old
/// leader gives way while the fault lasts.
fn another_takes_over(swallowed: impl Fn(NodeId, (NodeId, NodeId)) -> bool, why: &str) {
    let (cluster, cables) = cabled(3, &[]);
    let load = Load::start(&cluster, 2);
    load.await_more(20);
    let old = cluster.leader();
    for (pair, cable) in &cables {
        if swallowed(old, *pair) {
            cable.set(Quality::vanishing());
        }
    }
    cluster.node(old).line(why);
    load.await_more(50);
    assert_ne!(status(&cluster, old).role, RoleName::Leader);
    assert_ne!(cluster.leader(), old);
    set_all(&cables, Quality::default());
    load.await_more(50);
    load.stop().check(&cluster.clerk());
}

#[test]
fn a_leader_whose_messages_vanish_is_replaced_and_steps_down() {
    // It does not know until it hears of a higher term, or notices that nobody answers.
    another_takes_over(|leader, (from, _)| from == leader, "follower in term");
}

#[test]
fn a_leader_that_hears_nobody_steps_down_by_itself() {
    let why = "no quorum answered for an election timeout";
    another_takes_over(|leader, (_, to)| to == leader, why);
}

#[test]
fn a_snapshot_for_a_follower_behind_a_slow_link_disturbs_nobody() {
    let options = ["--snapshot-log-bytes", "1000000"];
    let (mut cluster, cables) = cabled(3, &options);
    let leader = cluster.leader();
    let slow = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.kill([slow]).unwrap();
    let clerk = cluster.clerk();
    // Does not compress: each value is another part of one long sequence.
    let mut state = 1u32;
    for number in 0..40 {
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let value: Vec<u8> = bytes.take(100_000).collect();
        clerk.put(format!("large-{number}"), value).unwrap();
    }
    cluster.node(leader).line("snapshot up to");
    set_all(&cables, Quality::default());
    cables[&(leader, slow)].set(Quality {
        bytes_per_second: 1 << 20,
        ..Quality::default()
    });
    let load = Load::start(&cluster, 4);
    load.await_more(20);
    let before = term(&cluster);
    cluster.restart([slow]).unwrap();
    cluster.node(slow).line("received");
    assert_eq!(term(&cluster), before, "an election");
    let expected = load.stop();
    expected.check(&cluster.clerk());
    let gap = expected.longest_gap();
    assert!(gap < Duration::from_secs(3), "{gap:?}");
}

#[test]
fn a_client_that_was_frozen_goes_on_where_it_was_and_nobody_else_notices() {
    const LINES: usize = 3000;
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 2);
    let mut commands = String::new();
    for number in 0..LINES {
        writeln!(commands, "append frozen {number};").unwrap();
    }
    let file = cluster.folder().join("commands");
    std::fs::write(&file, &commands).unwrap();
    let mut client = cluster.cli();
    client.stdin(std::fs::File::open(&file).unwrap());
    let client = Process::spawn(client.args(["-o", "raw", "--stop-on-error"])).unwrap();
    let reader = cluster.clerk();
    while reader.get("frozen").unwrap().is_none() {
        load.await_more(1);
    }
    client.signal("STOP").unwrap();
    load.await_more(500);
    client.signal("CONT").unwrap();
    assert_eq!(client.end().unwrap().status.code(), Some(0));
    let value = reader.get("frozen").unwrap().unwrap();
    let expected: String = (0..LINES).map(|number| format!("{number};")).collect();
    assert_eq!(text(&value), expected);
    load.stop().check(&cluster.clerk());
}
