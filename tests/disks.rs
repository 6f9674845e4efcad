//! Disks that are full, hang or rot: what the clients of a cluster notice, and what an operator is
//! told. And clocks that jump: the time of day comes from the disk, and nothing depends on it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use raftkv::client::{Clerk, Error, Options};
use raftkv::kv::{Kv, Limits};
use raftkv::node::Handle;
use raftkv::raft::NodeId;
use raftkv::storage::{Disk, DiskFile, SimDisk};
use raftkv::testkit::{Access, Cluster, HookedDisk};
use raftkv::wire::client::Ask;

/// Longer than anything in these tests takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);
/// The value of a put: so large that some tens of them fill what a disk has left.
static VALUE: [u8; 100_000] = [b'v'; 100_000];
/// Puts that write more than the first megabytes of a segment, after which the log begins to make
/// the next one ready.
const FIRST: usize = 30;

/// What a disk holds whose segment is made longer to 4 MiB, while a third of the next segment's
/// first 3 MiB are ready: so it is full while the present segment has a megabyte left.
const CAPACITY: u64 = 5_300_000;

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
        cluster.disk(id).set_capacity(Some(CAPACITY));
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

/// A cluster whose nodes read all of their files within two seconds.
fn verified_often(size: u64) -> Cluster {
    Cluster::start_with(
        size,
        || Kv::new(Limits::default()),
        |config| config.scrub = Some(Duration::from_secs(2)),
    )
}

/// The only segment of the log, as no test here writes so much that there are more.
const SEGMENT: &str = "log-00000000000000000001";
/// A byte of its first record.
const IN_A_RECORD: usize = 4096 + 40;

fn damage(cluster: &Cluster, id: NodeId) -> Option<String> {
    cluster.node(id).status().disk.damage
}

#[test]
fn a_bit_that_flips_in_the_log_of_a_leader_is_found_and_repaired_while_another_one_leads() {
    let cluster = verified_often(3);
    let clerk = clerk_for(&cluster, PATIENCE);
    for number in 0..20 {
        clerk
            .put(format!("before-{number}"), "v")
            .expect("all is well");
    }
    let rotten = cluster.wait_for_leader();
    let passes = |cluster: &Cluster| cluster.node(rotten).status().disk.verified_times;
    assert!(cluster.wait_until(PATIENCE, |cluster| passes(cluster) > 0));
    assert_eq!(damage(&cluster, rotten), None);
    cluster.disk(rotten).flip_bit(SEGMENT, IN_A_RECORD, 3);
    let (began, before) = (Instant::now(), passes(&cluster));
    let found = cluster.wait_for("the damage", |cluster| damage(cluster, rotten));
    println!("found after {:?}", began.elapsed());
    assert!(passes(&cluster) <= before + 1, "it was passed over");
    assert!(
        found.contains(SEGMENT) && found.contains("at offset 4096"),
        "{found}"
    );
    let moved = cluster.wait_until(PATIENCE, |cluster| {
        cluster.leader().is_some_and(|leader| leader != rotten)
    });
    assert!(moved, "the leader has a damaged log and leads on");
    // Two snapshots have to cover what is damaged, and they are of different entries.
    let repaired = cluster.wait_until(PATIENCE, |cluster| {
        clerk.put("meanwhile", "v").expect("the cluster goes on");
        damage(cluster, rotten).is_none()
    });
    assert!(repaired, "{:?}", damage(&cluster, rotten));
    println!("repaired after {:?}", began.elapsed());
    let names = cluster
        .disk(rotten)
        .list()
        .expect("a simulated folder can be listed");
    assert!(!names.iter().any(|name| name == SEGMENT), "{names:?}");

    cluster.wait_for_agreement();
    cluster.crash(rotten);
    cluster.restart(rotten);
    cluster.wait_for_agreement();
    for number in 0..20 {
        let got = clerk.get(format!("before-{number}")).expect("all is well");
        assert_eq!(got.as_deref(), Some(&b"v"[..]), "{number}");
    }
}

#[test]
fn a_snapshot_in_which_a_bit_flips_is_set_aside_and_another_one_taken_though_nobody_writes() {
    let cluster = verified_often(1);
    let clerk = clerk_for(&cluster, PATIENCE);
    clerk.put("key", VALUE).expect("all is well");
    let node = cluster.node(1);
    assert!(node.take_snapshot());
    let taken = |cluster: &Cluster| cluster.node(1).status().snapshot_index > 0;
    assert!(cluster.wait_until(PATIENCE, taken));
    let index = node.status().snapshot_index;
    let disk = cluster.disk(1);
    let named = |ending: &str| {
        let names = disk.list().expect("a simulated folder can be listed");
        let is_named = |name: &String| name.starts_with("snapshot-") && name.ends_with(ending);
        names.into_iter().find(is_named)
    };
    let name = named("").expect("it was taken");
    disk.flip_bit(&name, 5000, 1);
    let aside = cluster.wait_for("the damage", |_| named(".damaged"));
    assert_eq!(aside, format!("{name}.damaged"));
    let is_repaired = |cluster: &Cluster| damage(cluster, 1).is_none();
    assert!(
        cluster.wait_until(PATIENCE, is_repaired),
        "{:?}",
        damage(&cluster, 1)
    );
    assert_eq!(
        node.status().snapshot_index,
        index,
        "there is one of the same entry again"
    );
    drop(node);
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!(cluster.node(1).status().snapshot_index, index);
    let got = clerk.get("key").expect("all is well");
    assert_eq!(got.as_deref(), Some(&VALUE[..]));
}

/// A disk with a clock that a test sets. A node gets the time of day from nowhere else:
/// `tests/tidy` sees to that.
struct Clocked(SimDisk, Arc<AtomicU64>);

impl Disk for Clocked {
    fn folder(&self) -> &Path {
        self.0.folder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn unique_id(&self) -> u64 {
        self.0.unique_id()
    }

    fn now_ms(&self) -> u64 {
        self.1.load(Ordering::SeqCst)
    }
}

const HOUR_MS: u64 = 3_600_000;

#[test]
fn clocks_that_jump_by_hours_at_any_of_the_nodes_change_nothing() {
    let noon = 500_000 * HOUR_MS;
    let clocks: Vec<Arc<AtomicU64>> = (0..3).map(|_| Arc::new(noon.into())).collect();
    let hands = clocks.clone();
    let cluster = Cluster::start_on(
        3,
        || Kv::new(Limits::default()),
        |_| {},
        move |id, disk| Arc::new(Clocked(disk, clocks[id as usize - 1].clone())),
    );
    let clerk = clerk_for(&cluster, PATIENCE);
    clerk.put("key", "0").expect("all is well");
    let leader = cluster.wait_for_leader();
    let term = cluster.node(leader).status().term;
    // Each of the three clocks stays, jumps forward, or jumps back.
    let jumps = [noon, noon + 30 * HOUR_MS, noon - 30 * HOUR_MS];
    for combination in 0..27 {
        let mut rest = combination;
        for hand in &hands {
            hand.store(jumps[rest % 3], Ordering::SeqCst);
            rest /= 3;
        }
        let value = combination.to_string();
        clerk.put("key", &value).expect("nothing has happened");
        let got = clerk.get("key").expect("nothing has happened");
        assert_eq!(got.as_deref(), Some(value.as_bytes()));
        // One session, or a new one would be refused what the old one has in doubt.
        assert_eq!(clerk.stats().sessions, 1, "the session has expired");
        for id in cluster.ids() {
            let status = cluster.node(id).status();
            assert_eq!((status.term, status.leader), (term, Some(leader)));
            let most = if status.snapshot_index == 0 {
                0
            } else {
                60 * HOUR_MS
            };
            assert!(status.snapshot_age_ms <= most, "{}", status.snapshot_age_ms);
            assert!(status.uptime_ms < HOUR_MS, "{}", status.uptime_ms);
            cluster.node(id).take_snapshot();
        }
    }
    let snapshots = |cluster: &Cluster| {
        let mut statuses = cluster.ids().map(|id| cluster.node(id).status());
        statuses.all(|status| status.snapshot_index > 0)
    };
    assert!(cluster.wait_until(PATIENCE, snapshots));
    // Who starts with another time of day than it stopped with finds all that it had.
    let restarted = leader % 3 + 1;
    cluster.crash(restarted);
    hands[restarted as usize - 1].store(0, Ordering::SeqCst);
    cluster.restart(restarted);
    cluster.wait_for_agreement();
    assert_eq!(cluster.node(restarted).status().snapshot_age_ms, 0);
    assert_eq!(cluster.node(leader).status().term, term);
}
