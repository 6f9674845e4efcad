//! What a running node tells those who call it, and what it makes of what others tell it.

use std::net::TcpListener;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use super::disk::WatchedDisk;
use super::handshakes::{Raw, node, node_among, peer, peer_hello, standing};
use super::*;
use crate::raft::{FolderId, Index, NodeId};
use crate::wire::client::Ask;
use crate::wire::handshake::{Caller, PeerHello, PeerWelcome, Standing, Welcome};
use crate::wire::members::ChangeRequest;

/// Another node, as the test plays it.
struct Other {
    id: NodeId,
    listener: TcpListener,
}

impl Other {
    fn new(id: NodeId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { id, listener }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Waits until the node calls, and welcomes it so.
    fn welcomes(&self, standing: Standing) -> (Raw, PeerHello) {
        let (sender, accepted) = sync_channel(1);
        let listener = self.listener.try_clone().unwrap();
        // Nobody waits for a thread to which nobody connects.
        std::thread::spawn(move || sender.send(listener.accept()));
        let accepted = accepted.recv_timeout(PATIENCE).expect("the node calls");
        let mut raw = Raw::on(accepted.unwrap().0);
        let hello = raw.called();
        raw.send(&Welcome::Peer(PeerWelcome {
            cluster: "raftkv".to_string(),
            id: self.id,
            machine: hello.machine.clone(),
            folder: self.id.into(),
            lineage: 0,
            is_blank: false,
            standing,
        }));
        (raw, hello)
    }
}

fn stranger(configuration: Index, known: Option<FolderId>) -> Standing {
    Standing::Stranger {
        configuration,
        known: known.map(|folder| (Some(folder), "127.0.0.1:9".to_string())),
    }
}

fn refusal(mut raw: Raw) -> String {
    match raw.receive() {
        Welcome::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_caller_that_means_another_folder_or_machine_is_refused() {
    let node = node(&WatchedDisk::new());
    let folder = node.hub.with_raft(|raft| raft.member().folder);
    let meant = |to_folder| PeerHello {
        to_folder: Some(to_folder),
        ..peer_hello(2, 7)
    };
    let why = refusal(Raw::open(&node, Caller::Peer(meant(folder ^ 1))));
    assert!(why.contains("lost its folder, or runs twice"), "{why}");
    let other = PeerHello {
        machine: "another one".to_string(),
        ..meant(folder)
    };
    let why = refusal(Raw::open(&node, Caller::Peer(other)));
    assert!(why.contains("\"another one\""), "{why}");
    let welcome = Raw::open(&node, Caller::Peer(meant(folder))).receive();
    assert_eq!(*standing(&welcome), Standing::Witness);
}

#[test]
fn nodes_that_were_given_different_lists_refuse_each_other() {
    let node = node(&WatchedDisk::new());
    let other_list = PeerHello {
        founding: 7,
        ..peer_hello(2, 7)
    };
    let why = refusal(Raw::open(&node, Caller::Peer(other_list)));
    assert!(why.contains("the same list"), "{why}");
}

#[test]
fn a_probe_is_told_which_folder_is_here_and_whether_it_is_blank() {
    let node = node(&WatchedDisk::new());
    let folder = node.hub.with_raft(|raft| raft.member().folder);
    match Raw::open(&node, Caller::Probe { to: 1 }).receive() {
        Welcome::Peer(welcome) => {
            assert_eq!((welcome.id, welcome.folder), (1, folder));
            assert_eq!(welcome.machine, "a test's machine");
            assert!(welcome.is_blank);
        }
        other => panic!("{other:?}"),
    }
    let why = refusal(Raw::open(&node, Caller::Probe { to: 2 }));
    assert!(why.contains("this is node 1, not node 2"), "{why}");
}

/// A node that is a member with its folder, or is none, has not been written down by whoever says
/// so.
#[test]
fn a_node_is_admitted_only_by_those_who_say_that_they_are_witnesses() {
    let (second, third) = (Other::new(2), Other::new(3));
    let node = node_among(&WatchedDisk::new(), [second.port(), third.port()]);
    let is_admitted = || node.hub.with_raft(|raft| raft.is_admitted());
    for standing in [Standing::Member, stranger(0, Some(9))] {
        let one = second.welcomes(standing.clone());
        let other = third.welcomes(standing);
        let own = node.hub.with_raft(|raft| raft.member().folder);
        assert_eq!((one.1.folder, other.1.folder), (own, own));
    }
    // The node has dialled them again, so it has read what they said before.
    let _one = second.welcomes(Standing::Witness);
    let other = third.welcomes(stranger(0, None));
    drop(other);
    let (_other, _) = third.welcomes(Standing::Member);
    assert!(!is_admitted(), "it needs both");
    drop(_other);
    let _other = third.welcomes(Standing::Witness);
    let deadline = Instant::now() + PATIENCE;
    while !is_admitted() {
        assert!(Instant::now() < deadline, "it is not admitted by both");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_that_hears_that_the_cluster_exists_founds_it_no_more_after_a_restart_either() {
    let disk = WatchedDisk::new();
    let (second, third) = (Other::new(2), Other::new(3));
    let node = node_among(&disk, [second.port(), third.port()]);
    let welcome = Raw::open(&node, peer(3, 30)).receive();
    assert_eq!(*standing(&welcome), Standing::Witness);
    let (_second, hello) = second.welcomes(stranger(5, None));
    assert_ne!(hello.founding, 0);
    let deadline = Instant::now() + PATIENCE;
    while *standing(&Raw::open(&node, peer(3, 30)).receive()) == Standing::Witness {
        assert!(Instant::now() < deadline, "it still founds");
    }
    let (_third, hello) = third.welcomes(Standing::Witness);
    assert_eq!(hello.to, 3);
    // The thread `peers` ends when it has written that the node founds no more.
    let founds = || node.hub.founds.load(std::sync::atomic::Ordering::SeqCst);
    while founds() {
        assert!(Instant::now() < deadline, "it is not written down");
        std::thread::yield_now();
    }
    node.shutdown();
    let again = node_among(&disk, [second.port(), third.port()]);
    let welcome = Raw::open(&again, peer(2, 20)).receive();
    assert_eq!(*standing(&welcome), Standing::Member);
    assert_eq!(third.welcomes(Standing::Member).1.founding, 0);
}

/// It is started where it is to be, and moved afterwards. Whoever does not know it, such as a node
/// that it lets in, has its answers sent to where it says that it is.
#[test]
fn a_node_that_was_moved_while_it_runs_tells_those_that_do_not_know_it() {
    let mut config = Config::new(1, [(1, "127.0.0.1:1".to_string())], "in memory");
    config.listen = Some("127.0.0.1:0".to_string());
    let machine = Machine(Box::new(|| {}), |_| Ok(()));
    let node = Node::serve(config, machine, &WatchedDisk::new().disk()).unwrap();
    let moved = node.address().unwrap().to_string();
    let change = ChangeRequest::Move {
        id: 1,
        address: moved.clone(),
    };
    let ask = Ask::Change {
        change,
        force: false,
    };
    let deadline = Instant::now() + PATIENCE;
    while node.hub.address_of(1).as_ref() != Some(&moved) {
        let answer = node.ask(&ask, PATIENCE);
        // At first the folder of the founder is being entered into the log.
        assert!(Instant::now() < deadline, "{answer:?}");
    }
    let other = Other::new(5);
    let caller = PeerHello {
        address: format!("127.0.0.1:{}", other.port()),
        founding: 0,
        ..peer_hello(5, 5)
    };
    let _caller = Raw::open(&node, Caller::Peer(caller));
    assert_eq!(other.welcomes(Standing::Member).1.address, moved);
}
