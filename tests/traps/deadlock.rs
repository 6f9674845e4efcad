//! The apply thread waiting for a handler that waits for the core that waits for the apply thread.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::bounded;
use parking_lot::{Condvar, Mutex};
use raftkv::machine::{At, Gate, StateMachine};
use raftkv::node::{End, Outcome};
use raftkv::raft::NodeId;
use raftkv::testkit::Cluster;
use raftkv::wire::client::{Doubt, Status};

use super::support::{LONG, others, wait_for_leader_among, within};

/// A door that all machines stop at while it is closed.
#[derive(Clone)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn closed() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut open = self.0.0.lock();
        while !*open {
            self.0.1.wait(&mut open);
        }
    }
}

/// Opens the door however the test ends: a node cannot stop while its machine is at work.
impl Drop for Door {
    fn drop(&mut self) {
        if thread::panicking() {
            self.open();
        }
    }
}

/// Counts the commands that got through the door.
struct Slow {
    door: Arc<Door>,
    count: u64,
}

impl StateMachine for Slow {
    type Reply = u64;
    type Snapshot = u64;

    fn identity(&self) -> String {
        "slow".to_string()
    }

    fn gate(&self) -> Gate {
        Arc::new(|_| Ok(()))
    }

    fn apply(&mut self, _: At, _: &Bytes) -> u64 {
        self.door.pass();
        self.count += 1;
        self.count
    }

    fn query(&self, _: &Bytes) -> u64 {
        self.count
    }

    fn encode_reply(reply: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&reply.to_le_bytes());
    }

    fn snapshot(&self) -> u64 {
        self.count
    }

    fn write_snapshot(count: &u64, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&count.to_le_bytes())
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        Ok(Self {
            door: self.door.clone(),
            count: u64::from_le_bytes(bytes),
        })
    }

    fn digest(&self) -> u64 {
        self.count
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("count", self.count)]
    }
}

const SHORT: Duration = Duration::from_millis(200);

fn slow_cluster() -> (Cluster<Slow>, Door) {
    let door = Door::closed();
    let inside = Arc::new(door.clone());
    let cluster = Cluster::start(3, move || Slow {
        door: inside.clone(),
        count: 0,
    });
    (cluster, door)
}

/// What a node says of itself. From a thread of its own, so that a node that says nothing fails the
/// test instead of holding it up.
fn status(cluster: &Cluster<Slow>, id: NodeId) -> Status {
    let node = cluster.node(id);
    let (sender, receiver) = bounded(1);
    thread::spawn(move || drop(sender.send(node.status())));
    let status = receiver.recv_timeout(LONG);
    status.unwrap_or_else(|_| panic!("node {id} does not tell its status"))
}

/// Has 32 threads submit 10 commands each, and ask beside it, all with a short deadline. Returns
/// how many commands the log has taken.
fn storm(cluster: &Cluster<Slow>, leader: NodeId) -> usize {
    let node = cluster.node(leader);
    thread::scope(|scope| {
        let one = || {
            let mut taken = 0;
            for _ in 0..10 {
                let Ok(pending) = node.start("command", SHORT) else {
                    continue;
                };
                taken += 1;
                let end = within(SHORT, || pending.wait(SHORT));
                let timeout = Outcome::Ended(End::Unknown(Doubt::Timeout));
                assert_eq!(end, timeout, "a reply from a machine that has not moved");
            }
            let answer = within(SHORT, || node.query("", SHORT));
            assert!(matches!(answer, Outcome::Ended(_)), "{answer:?}");
            taken
        };
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

#[test]
fn a_state_machine_that_does_not_move_stops_nothing_but_its_replies() {
    let (cluster, door) = slow_cluster();
    let leader = cluster.wait_for_leader();
    let term = cluster.node(leader).status().term;
    let taken = storm(&cluster, leader);
    assert!(taken > 0);
    // Time went on meanwhile, and the cluster with it: the leader is in office, what it took is
    // committed everywhere, and everybody can say so.
    cluster.wait_for("all commands to be committed everywhere", |cluster| {
        let commits = cluster.ids().map(|id| status(cluster, id).commit);
        (commits.min() > Some(taken as u64)).then_some(())
    });
    let status = status(&cluster, leader);
    assert_eq!((status.term, status.leader), (term, Some(leader)));
    assert_eq!(status.gauges, [("count".to_string(), 0)]);

    door.open();
    cluster.wait_for_agreement();
    let count = cluster.node(leader).query("", LONG);
    assert_eq!(count, Outcome::Reply(taken as u64));
}

#[test]
fn elections_go_on_while_no_state_machine_moves() {
    let (cluster, door) = slow_cluster();
    let old = cluster.wait_for_leader();
    let before = cluster.node(old).start("before", LONG).ok().unwrap();
    cluster.isolate(old);
    let rest = others(&cluster, old);
    let next = wait_for_leader_among(&cluster, &rest);
    let after = cluster.node(next).start("after", LONG).ok().unwrap();
    cluster.heal();
    cluster.wait_for("all to follow the new leader", |cluster| {
        let follows = |id| status(cluster, id).leader == Some(next);
        cluster.ids().all(follows).then_some(())
    });
    door.open();
    assert!(matches!(after.wait(LONG), Outcome::Reply(_)));
    assert!(!matches!(before.wait(LONG), Outcome::Reply(2..)));
    cluster.wait_for_agreement();
}
