//! Snapshots in whole clusters within this process: the log stays bounded, and who fell behind it
//! comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use raftkv::client::{Clerk, Options};
use raftkv::kv::{Command, Kv, Limits, Op, Reply};
use raftkv::machine::StateMachine;
use raftkv::node::{Config, Handle, Node, Outcome, Transport};
use raftkv::raft::{Envelope, LoggedConfiguration, Message, NodeId, Raft, RoleName};
use raftkv::storage::{Disk, Identity, Options as StorageOptions, SimDisk, Storage};
use raftkv::testkit::{Cluster, Link};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Small enough for a handful of writes to make a snapshot due.
const LOG_BYTES: u64 = 8 << 10;

const MS: Duration = Duration::from_millis(1);

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster(size: u64) -> Cluster {
    Cluster::start_with(
        size,
        || Kv::new(Limits::default()),
        |config| config.snapshot_log_bytes = Some(LOG_BYTES),
    )
}

fn write(cluster: &Cluster, from: u32, to: u32) {
    let clerk = cluster.clerk();
    for n in from..to {
        clerk
            .put(format!("key-{}", n % 50), format!("{n:0100}"))
            .unwrap();
    }
}

fn check(cluster: &Cluster, last: u32) {
    let clerk = cluster.clerk();
    for n in last - 50..last {
        let value = clerk.get(format!("key-{}", n % 50)).unwrap();
        assert_eq!(value, Some(format!("{n:0100}").into()));
    }
}

#[test]
fn every_node_takes_snapshots_and_its_log_stays_bounded() {
    let cluster = cluster(3);
    write(&cluster, 0, 1000);
    cluster.wait_for_agreement();
    for id in cluster.ids() {
        let status = cluster.node(id).status();
        assert!(status.snapshot_index > 0, "{status:?}");
        let held = status.last_index + 1 - status.first_index;
        assert!(held < 500, "{status:?}");
    }
    check(&cluster, 1000);
}

#[test]
fn a_node_that_fell_behind_the_log_gets_a_snapshot_and_goes_on_from_there() {
    let cluster = cluster(3);
    write(&cluster, 0, 10);
    let leader = cluster.wait_for_leader();
    let behind = cluster.ids().find(|id| *id != leader).unwrap();
    cluster.crash(behind);
    write(&cluster, 10, 1000);
    cluster.restart(behind);
    cluster.wait_for_agreement();
    assert!(cluster.node(behind).status().snapshot_index > 10);
    write(&cluster, 1000, 1100);
    cluster.wait_for_agreement();
    check(&cluster, 1100);
}

#[test]
fn a_cut_off_node_gets_a_snapshot_over_a_bad_network() {
    let cluster = cluster(3);
    let leader = cluster.wait_for_leader();
    let behind = cluster.ids().find(|id| *id != leader).unwrap();
    cluster.isolate(behind);
    write(&cluster, 0, 1000);
    cluster.set_all_links(Link {
        loss_permille: 100,
        twice_permille: 100,
        max_delay: MS * 5,
        ..Default::default()
    });
    cluster.wait_for_agreement();
    cluster.heal();
    check(&cluster, 1000);
}

#[test]
fn restarts_of_all_nodes_twice_in_a_row_begin_from_the_snapshot() {
    let cluster = cluster(3);
    write(&cluster, 0, 1000);
    for _ in 0..2 {
        cluster.ids().for_each(|id| cluster.crash(id));
        cluster.ids().for_each(|id| cluster.restart(id));
        cluster.wait_for_leader();
    }
    check(&cluster, 1000);
    write(&cluster, 1000, 1050);
    cluster.wait_for_agreement();
    check(&cluster, 1050);
}

#[test]
fn without_a_size_no_snapshot_is_ever_taken_and_the_log_stays_whole() {
    let cluster = Cluster::start_with(
        3,
        || Kv::new(Limits::default()),
        |config| config.snapshot_log_bytes = None,
    );
    write(&cluster, 0, 1000);
    cluster.wait_for_agreement();
    for id in cluster.ids() {
        let status = cluster.node(id).status();
        let snapshot = (status.snapshot_index, status.snapshot_pending);
        assert_eq!(snapshot, (0, false), "{status:?}");
        assert!(status.log_bytes > 1000 * 100, "{status:?}");
    }
}

/// The store behind a node that is alone, on a disk of its own.
fn alone(disk: &SimDisk) -> Handle<Kv> {
    let mut config = Config::new(1, [(1, "node-1:1".to_string())], "in memory");
    config.timing.heartbeat = MS * 10;
    config.timing.election = MS * 30;
    config.snapshot_log_bytes = None;
    let disk = Arc::new(disk.clone());
    let kv = Kv::new(Limits::default());
    let node = Node::start_on(config, kv, disk, Arc::new(Nowhere)).expect("the node starts");
    let leads = node.wait_until(PATIENCE, |raft| raft.role() == RoleName::Leader);
    assert!(leads, "alone it is elected");
    node
}

struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: Vec<Envelope>) {}
}

/// Appends to a few keys under one session, and has a snapshot taken. Returns the digest of the
/// state.
fn work(node: &Handle<Kv>, session: &mut u64, seqs: std::ops::Range<u64>) -> u64 {
    let run = |command: Command| {
        let pending = node.start(command.to_bytes(), PATIENCE).expect("it leads");
        pending.wait(PATIENCE)
    };
    if seqs.start == 1 {
        let Outcome::Reply(Reply::Opened(id)) = run(Command::OpenSession) else {
            panic!("no session");
        };
        *session = id;
    }
    for seq in seqs {
        let outcome = run(Command::Execute {
            session: *session,
            seq,
            lowest_unanswered: seq.saturating_sub(3).max(1),
            op: Op::Append {
                key: format!("key-{}", seq % 7).into(),
                value: format!("{seq},").into(),
            },
        });
        assert!(
            matches!(outcome, Outcome::Reply(Reply::Appended(_))),
            "{outcome:?}"
        );
    }
    let digest = node.with_machine(Kv::digest);
    assert!(node.take_snapshot());
    let has_all = || node.status().snapshot_index == node.status().applied;
    while node.status().snapshot_pending || !has_all() {
        thread::yield_now();
    }
    digest
}

/// The configuration in the newest snapshot of a node that has ended, and how many entries follow.
fn newest(disk: &SimDisk) -> (LoggedConfiguration, usize) {
    let identity = Identity {
        cluster: Config::new(1, [(1, String::new())], "").cluster,
        node: 1,
        machine: Kv::new(Limits::default()).identity(),
    };
    let opened = Storage::open(Arc::new(disk.clone()), &identity, StorageOptions::default());
    let (_, recovered) = opened.expect("the folder is whole");
    let info = recovered.snapshot.expect("one was taken");
    (info.meta.configuration, recovered.entries.len())
}

#[test]
fn from_the_log_or_from_a_snapshot_of_any_generation_comes_one_state_and_the_same_members() {
    let disk = SimDisk::new(1);
    let (mut applied, mut session) = (0, 0);
    let mut members = None;
    for generation in 0..3 {
        let node = alone(&disk);
        if generation > 0 {
            assert_eq!(node.with_machine(Kv::digest), applied, "from the snapshot");
        }
        let first = 1 + 20 * generation;
        applied = work(&node, &mut session, first..first + 20);
        node.shutdown();
        drop(node);
        let (logged, behind) = newest(&disk);
        assert_eq!((logged.configuration.voters().count(), behind), (1, 0));
        assert_eq!(*members.get_or_insert(logged.clone()), logged);
    }
    for name in disk.list().unwrap() {
        if name.starts_with("snapshot-") {
            disk.take_away(&name);
        }
    }
    let node = alone(&disk);
    let has_all = |raft: &Raft| raft.applied_index() == raft.last().index;
    assert!(node.wait_until(PATIENCE, has_all));
    assert_eq!(node.with_machine(Kv::digest), applied, "from the log alone");
}

#[test]
fn a_write_repeated_after_a_restart_from_a_snapshot_takes_effect_once() {
    let cluster = cluster(1);
    let clerk = cluster.clerk();
    clerk.append("log", "once").unwrap();
    // The session and its replies come back with the snapshot.
    write(&cluster, 0, 500);
    cluster.crash(1);
    cluster.restart(1);
    cluster.wait_for_leader();
    clerk.append("log", ", twice").unwrap();
    assert_eq!(
        clerk.get("log").unwrap().as_deref(),
        Some(&b"once, twice"[..])
    );
    assert_eq!(clerk.stats().sessions, 1);
}

/// How large the state is that takes long to send: eight windows of parts, four parts each.
const LARGE: usize = 8 << 20;

/// Gives the cluster a large state that one node, which is returned, has nothing of and cannot get
/// as a log any more. It is cut off.
fn fall_behind_a_large_state(cluster: &Cluster) -> NodeId {
    let leader = cluster.wait_for_leader();
    let behind = cluster.ids().find(|id| *id != leader).unwrap();
    cluster.isolate(behind);
    let clerk = cluster.clerk();
    // The sender must not be able to compress them away.
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for n in 0..LARGE >> 18 {
        let mut value = vec![0; 1 << 18];
        random.fill_bytes(&mut value);
        clerk.put(format!("large-{n}"), value).unwrap();
    }
    let leader = cluster.wait_for_leader();
    let node = cluster.node(leader);
    let reach = node.status().commit;
    cluster.wait_for("a snapshot of it all", |_| {
        let status = node.status();
        if status.snapshot_index < reach {
            node.take_snapshot();
        }
        (status.snapshot_index >= reach && status.first_index > reach - 4).then_some(())
    });
    behind
}

/// It was intact when it was written. Nobody would notice that it no longer is until somebody needs
/// it, and then it must not be refused again and again.
#[test]
fn a_leaders_snapshot_that_has_gone_bad_is_set_aside_and_another_one_sent() {
    let cluster = cluster(3);
    let behind = fall_behind_a_large_state(&cluster);
    let leader = cluster.wait_for_leader();
    let disk = cluster.disk(leader);
    let named = |end: &str| {
        let mut names = disk.list().unwrap();
        names.retain(|name| name.starts_with("snapshot-") && name.ends_with(end));
        names.sort();
        names
    };
    let newest = named("").pop().expect("one was taken");
    disk.flip_bit(&newest, LARGE / 2, 3);
    cluster.heal();
    cluster.wait_for_agreement();
    assert!(cluster.node(behind).status().snapshot_index > 0);
    assert_eq!(named(".damaged"), [format!("{newest}.damaged")]);
}

/// Mends the network. From now on messages to this node take this long.
fn slow_down(cluster: &Cluster, node: NodeId, delay: Duration) {
    cluster.heal();
    let slow = Link {
        min_delay: delay,
        max_delay: delay,
        ..Link::default()
    };
    for from in cluster.ids().filter(|id| *id != node) {
        cluster.network().set_link(from, node, slow);
    }
}

/// Whether the leader is sending a snapshot to this node, of which it has a part and not all.
fn is_midway(cluster: &Cluster, node: NodeId) -> bool {
    let leader = cluster.leader().map(|leader| cluster.node(leader).status());
    let sending = leader.into_iter().flat_map(|status| status.sending);
    let mut to_node = sending.filter(|(to, ..)| *to == node);
    to_node.any(|(_, received, bytes)| 0 < received && received < bytes)
}

#[test]
fn sending_a_large_snapshot_neither_causes_an_election_nor_stops_writes() {
    let cluster = Cluster::start_with(
        3,
        || Kv::new(Limits::default()),
        |config| {
            config.snapshot_log_bytes = Some(LOG_BYTES);
            // So that only the transfer can cause an election, and not a busy machine. It takes
            // longer still.
            config.timing.election = MS * 1000;
        },
    );
    let behind = fall_behind_a_large_state(&cluster);
    let term = cluster.node(behind).status().term;
    let leader = cluster.wait_for_leader();
    assert_eq!(cluster.node(leader).status().term, term);
    slow_down(&cluster, behind, MS * 300);
    cluster.wait_for("the transfer", |cluster| {
        is_midway(cluster, behind).then_some(())
    });
    let clerk = cluster.clerk();
    let mut meanwhile = 0;
    while is_midway(&cluster, behind) {
        clerk.append("log", format!("{meanwhile} ")).unwrap();
        meanwhile += 1;
    }
    assert!(meanwhile >= 10, "{meanwhile} writes during the transfer");
    cluster.wait_for_agreement();
    assert!(cluster.node(behind).status().snapshot_index > 0);
    for id in cluster.ids() {
        assert_eq!(cluster.node(id).status().term, term, "node {id}");
    }
    let expected: String = (0..meanwhile).map(|n| format!("{n} ")).collect();
    assert_eq!(clerk.get("log").unwrap(), Some(expected.into()));
}

#[test]
fn a_node_that_crashes_in_the_middle_of_a_transfer_gets_the_snapshot_from_the_beginning() {
    let cluster = cluster(3);
    let behind = fall_behind_a_large_state(&cluster);
    let beginnings = Arc::new(AtomicU64::new(0));
    let seen = beginnings.clone();
    cluster.network().set_filter(move |envelope| {
        if let Message::Snapshot { offset: 0, .. } = envelope.message {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        true
    });
    slow_down(&cluster, behind, MS * 50);
    for _ in 0..2 {
        cluster.wait_for("the transfer", |cluster| {
            is_midway(cluster, behind).then_some(())
        });
        // Before the crash: a disk that fails makes the node say that it has nothing left.
        let before = beginnings.load(Ordering::Relaxed);
        cluster.crash(behind);
        cluster.restart(behind);
        assert_eq!(cluster.node(behind).status().snapshot_index, 0);
        cluster.wait_for("a new beginning", |_| {
            (beginnings.load(Ordering::Relaxed) > before).then_some(())
        });
    }
    cluster.heal();
    cluster.wait_for_agreement();
    assert!(cluster.node(behind).status().snapshot_index > 0);
}

#[test]
fn a_leader_that_crashes_in_the_middle_of_a_transfer_is_replaced_as_the_sender() {
    let cluster = cluster(3);
    let behind = fall_behind_a_large_state(&cluster);
    slow_down(&cluster, behind, MS * 50);
    cluster.wait_for("the transfer", |cluster| {
        is_midway(cluster, behind).then_some(())
    });
    let leader = cluster.wait_for_leader();
    cluster.crash(leader);
    // The node that is behind cannot be elected, but its vote is needed.
    cluster.clerk().put("after", "the crash").unwrap();
    cluster.heal();
    cluster.wait_for_agreement();
    assert!(cluster.node(behind).status().snapshot_index > 0);
    cluster.restart(leader);
    cluster.wait_for_agreement();
}

/// Appends to a key of its own until it is told to stop. Returns how often.
fn append(clerk: &Clerk, key: &str, stop: &AtomicBool) -> u64 {
    let mut appended = 0;
    while !stop.load(Ordering::Relaxed) {
        clerk.append(key, format!("{appended} ")).unwrap();
        appended += 1;
    }
    appended
}

/// Runs `disturb` while clients append and snapshots are taken at every opportunity; then nothing
/// may be lost or doubled, and all nodes must be equal.
fn under_load(cluster: &Cluster, disturb: impl FnOnce(&mut ChaCha8Rng)) {
    let stop = AtomicBool::new(false);
    let options = || Options {
        deadline: Duration::from_secs(30),
        ..Options::default()
    };
    let clerks: Vec<Clerk> = (0..3).map(|_| cluster.clerk_with(options())).collect();
    let keys = ["a", "b", "c"];
    cluster.while_taking_snapshots(1, || {
        let appended: Vec<u64> = thread::scope(|scope| {
            let work = |(clerk, key)| {
                let stop = &stop;
                scope.spawn(move || append(clerk, key, stop))
            };
            let clients: Vec<_> = clerks.iter().zip(keys).map(work).collect();
            disturb(&mut ChaCha8Rng::seed_from_u64(3));
            stop.store(true, Ordering::Relaxed);
            let joined = clients.into_iter().map(|client| client.join().unwrap());
            joined.collect()
        });
        cluster.wait_for_agreement();
        for ((clerk, key), appended) in clerks.iter().zip(keys).zip(appended) {
            assert!(appended > 0);
            let expected: String = (0..appended).map(|n| format!("{n} ")).collect();
            assert_eq!(clerk.get(key).unwrap(), Some(expected.into()));
        }
    });
}

fn let_time_pass(cluster: &Cluster, ms: u64) {
    cluster.wait_until(Duration::from_millis(ms), |_| false);
}

#[test]
fn crashes_of_all_nodes_while_snapshots_are_taken_lose_nothing_and_repeat_nothing() {
    let cluster = cluster(3);
    under_load(&cluster, |random| {
        let mut newest = 0;
        for _ in 0..20 {
            // At times in the middle of an election or of coming back, at times after much work.
            let ms = [60, 400, 900][random.next_u64() as usize % 3];
            let_time_pass(&cluster, random.next_u64() % ms);
            cluster.ids().for_each(|id| cluster.crash(id));
            cluster.ids().for_each(|id| cluster.restart(id));
            let statuses = cluster.ids().map(|id| cluster.node(id).status());
            newest = newest.max(statuses.map(|s| s.snapshot_index).max().unwrap_or(0));
        }
        assert!(newest > 0, "no crash came after a snapshot");
    });
}

#[test]
fn snapshots_back_to_back_race_with_installs_and_the_last_one_wins() {
    let cluster = cluster(3);
    // To whom a snapshot was sent, and up to where it goes.
    let sent = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = sent.clone();
    cluster.network().set_filter(move |envelope| {
        if let Message::Snapshot { meta, .. } = &envelope.message {
            noted.lock().insert((envelope.to, meta.last.index));
        }
        true
    });
    under_load(&cluster, |random| {
        for _ in 0..20 {
            let victim = random.next_u64() % 3 + 1;
            cluster.isolate(victim);
            let_time_pass(&cluster, 100 + random.next_u64() % 300);
            // It may be cut off again before it has the snapshot, or while it takes it over.
            slow_down(&cluster, victim, MS * (random.next_u64() % 30) as u32);
            let_time_pass(&cluster, random.next_u64() % 300);
        }
        cluster.heal();
    });
    // Else nothing has raced.
    let sent = sent.lock().len();
    assert!(sent >= 15, "{sent} snapshots were sent");
}
