//! Disks that are full or hang: what the clients of a cluster notice, and what an operator is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use raftkv::client::{Clerk, Error, Options};
use raftkv::kv::{Kv, Limits};
use raftkv::node::Handle;
use raftkv::raft::NodeId;
use raftkv::storage::{Disk, SimDisk};
use raftkv::testkit::{Access, Cluster, HookedDisk};
use raftkv::wire::client::Ask;

/// Longer than anything in these tests takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);
/// The value of a put: so large that some tens of them fill what a disk has left.
static VALUE: [u8; 100_000] = [b'v'; 100_000];
/// Puts that write more than the first megabytes of a segment, after which the log begins to make
/// the next one ready.
const FIRST: usize = 30;

/// A client that gives up after a while.
fn clerk_for(cluster: &Cluster, deadline: Duration) -> Clerk {
    cluster.clerk_with(Options {
        deadline,
        ..Options::default()
    })
}

/// The disk has no more space than so many bytes.
fn leave(disk: &SimDisk, bytes: u64) {
    let names = disk.list().expect("a simulated folder can be listed");
    let files = names.iter().filter_map(|name| disk.contents(name));
    let used: u64 = files.map(|bytes| bytes.len() as u64).sum();
    disk.set_capacity(Some(used + bytes));
}

fn no_space(node: &Handle<Kv>) -> Option<String> {
    node.status().disk.no_space
}

fn put_first(clerk: &Clerk) {
    for number in 0..FIRST {
        clerk
            .put(format!("first-{number}"), VALUE)
            .expect("there is space");
    }
}

#[test]
fn where_only_the_leaders_disk_is_full_another_one_leads_and_no_client_notices() {
    let cluster = Cluster::of_stores(3);
    let clerk = clerk_for(&cluster, PATIENCE);
    put_first(&clerk);
    let full = cluster.wait_for_leader();
    leave(&cluster.disk(full), 100_000);
    let is_full = |cluster: &Cluster| no_space(&cluster.node(full)).is_some();
    for number in 0..200 {
        clerk
            .put(format!("more-{number}"), VALUE)
            .expect("another one has space");
        if is_full(&cluster) {
            break;
        }
    }
    assert!(is_full(&cluster), "it had space enough");
    let moved = cluster.wait_until(PATIENCE, |cluster| {
        cluster.leader().is_some_and(|leader| leader != full)
    });
    assert!(moved, "the leader has a full disk and leads on");
    clerk.put("at the next leader", "v").expect("it has space");

    // It is asked to lead, and does not.
    let leader = cluster.leader().expect("one leads");
    cluster
        .node(leader)
        .ask(&Ask::Transfer(Some(full)), Duration::from_secs(1));
    clerk
        .put("after the order to campaign", "v")
        .expect("it has space");
    assert_ne!(cluster.leader(), Some(full));

    cluster.disk(full).set_capacity(None);
    let is_over = |cluster: &Cluster| !is_full(cluster);
    assert!(
        cluster.wait_until(PATIENCE, is_over),
        "{:?}",
        no_space(&cluster.node(full))
    );
    cluster.wait_for_agreement();
}

#[test]
fn while_all_disks_are_full_reads_go_on_and_writes_say_why_not_until_there_is_space() {
    let cluster = Cluster::of_stores(3);
    let clerk = clerk_for(&cluster, PATIENCE);
    put_first(&clerk);
    for id in cluster.ids() {
        leave(&cluster.disk(id), 100_000);
    }
    let hasty = clerk_for(&cluster, Duration::from_secs(2));
    let mut refused = None;
    for number in 0..200 {
        match hasty.put(format!("more-{number}"), VALUE) {
            Ok(()) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the disks are full");
    assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
    let said = refused.to_string();
    assert!(
        said.contains("no space for the log") && said.contains("log-0"),
        "{said}"
    );
    assert!(said.contains("on node "), "it does not say where: {said}");
    // A second one fails as well, and no node has ended.
    let again = hasty.put("small", "v").expect_err("the disks are full");
    assert!(matches!(again, Error::NoSpace { .. }), "{again}");
    let got = clerk.get("first-0").expect("reads go on");
    assert_eq!(got.as_deref(), Some(&VALUE[..]));
    let full = |id: &NodeId| no_space(&cluster.node(*id)).is_some();
    assert!(cluster.ids().filter(full).count() > 0);

    // The leader goes down: another one is elected, and reads go on, for a vote takes no space.
    let leader = cluster.leader().expect("one leads");
    cluster.crash(leader);
    let got = clerk
        .get("first-1")
        .expect("reads go on at the next leader");
    assert_eq!(got.as_deref(), Some(&VALUE[..]));
    cluster.restart(leader);

    for id in cluster.ids() {
        cluster.disk(id).set_capacity(None);
    }
    clerk
        .put("small", "v")
        .expect("there is space, and nobody had to say so");
    cluster.wait_for_agreement();
}

/// The nodes whose writes and syncs of the log hang.
#[derive(Default)]
struct Hanging {
    nodes: Mutex<Vec<NodeId>>,
    changed: Condvar,
}

impl Hanging {
    fn set(&self, nodes: &[NodeId]) {
        *self.nodes.lock() = nodes.to_vec();
        self.changed.notify_all();
    }

    fn wait(&self, node: NodeId) {
        let mut nodes = self.nodes.lock();
        while nodes.contains(&node) {
            self.changed.wait(&mut nodes);
        }
    }
}

/// Lets all disks go on when a test ends, however it does: else no node could be stopped.
struct Release(Arc<Hanging>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.set(&[]);
    }
}

/// A cluster of three whose disks a test can let hang.
fn with_hanging_disks() -> (Cluster, Release) {
    let hanging = Arc::<Hanging>::default();
    let release = Release(hanging.clone());
    let cluster = Cluster::start_on(
        3,
        || Kv::new(Limits::default()),
        |_| {},
        move |id, disk| {
            let hanging = hanging.clone();
            Arc::new(HookedDisk::new(disk, move |name, access| {
                if name.starts_with("log-") && matches!(access, Access::Write | Access::Sync) {
                    hanging.wait(id);
                }
            }))
        },
    );
    (cluster, release)
}

#[test]
fn when_the_disk_of_the_leader_hangs_another_one_leads_and_no_client_waits_for_it() {
    let (cluster, release) = with_hanging_disks();
    let clerk = clerk_for(&cluster, PATIENCE);
    clerk.put("key", "before").expect("all is well");
    let hung = cluster.wait_for_leader();
    let began = Instant::now();
    release.0.set(&[hung]);
    let (mut longest, mut puts) = (Duration::ZERO, 0);
    let mut led_after = None;
    while led_after.is_none_or(|after| began.elapsed() < 2 * after) {
        let asked = Instant::now();
        clerk
            .put("key", format!("{puts}"))
            .expect("the others have disks");
        longest = longest.max(asked.elapsed());
        puts += 1;
        let moved = cluster.leader().is_some_and(|leader| leader != hung);
        if moved && led_after.is_none() {
            led_after = Some(began.elapsed());
        }
        assert!(
            began.elapsed() < PATIENCE,
            "the leader has a disk that hangs, and leads on"
        );
    }
    let led_after = led_after.expect("the loop has ended");
    println!(
        "another node led {led_after:?} after the disk began to hang; of {puts} puts the slowest \
         took {longest:?}"
    );
    let status = cluster.node(hung).status();
    assert!(status.disk.write_ms >= 1000, "{:?}", status.disk);
    let next = cluster.leader().expect("one leads");
    assert!(cluster.node(next).status().disk.write_ms < status.disk.write_ms);

    release.0.set(&[]);
    cluster.wait_for_agreement();
    let is_well = |cluster: &Cluster| cluster.node(hung).status().disk.write_ms == 0;
    assert!(cluster.wait_until(PATIENCE, is_well));
}

#[test]
fn the_disk_of_a_follower_that_hangs_slows_nobody_and_shows_in_its_status() {
    let (cluster, release) = with_hanging_disks();
    let clerk = clerk_for(&cluster, PATIENCE);
    clerk.put("key", "before").expect("all is well");
    let leader = cluster.wait_for_leader();
    let hung = leader % 3 + 1;
    release.0.set(&[hung]);
    let shows = |cluster: &Cluster| cluster.node(hung).status().disk.write_ms > 500;
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    while !shows(&cluster) {
        let asked = Instant::now();
        clerk.put("key", "meanwhile").expect("two disks are enough");
        longest = longest.max(asked.elapsed());
        assert!(began.elapsed() < PATIENCE, "the status does not show it");
    }
    println!("the slowest put took {longest:?}");
    assert_eq!(cluster.leader(), Some(leader));
    assert!(longest < Duration::from_millis(500), "{longest:?}");
}

#[test]
fn where_a_majority_of_the_disks_hangs_the_leader_leads_on_and_reads_are_answered() {
    let (cluster, release) = with_hanging_disks();
    let clerk = clerk_for(&cluster, PATIENCE);
    clerk.put("key", "before").expect("all is well");
    let leader = cluster.wait_for_leader();
    let term = cluster.node(leader).status().term;
    release.0.set(&[leader, leader % 3 + 1]);
    let hasty = clerk_for(&cluster, Duration::from_millis(100));
    hasty
        .put("key", "in doubt")
        .expect_err("one disk is no majority");
    let hangs = |cluster: &Cluster| cluster.node(leader).status().disk.write_ms > 2000;
    assert!(cluster.wait_until(PATIENCE, hangs));
    let status = cluster.node(leader).status();
    assert_eq!((cluster.leader(), status.term), (Some(leader), term));
    let got = clerk.get("key").expect("reads need no disk");
    assert_eq!(got.as_deref(), Some(&b"before"[..]));
}
