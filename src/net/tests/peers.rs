use std::time::Instant;

use super::*;
use crate::raft::{Entry, EntryId, Payload};

/// A running node 1 with these peers.
pub(super) fn node_with(peers: &[(NodeId, SocketAddr)], limits: Limits) -> Node {
    let peers = peers.iter().map(|(id, address)| (*id, address.to_string()));
    let config = Config {
        peers: peers.collect(),
        limits,
        ..config(1)
    };
    Node::start(config, false)
}

/// Sends heartbeats from node 1, again and again as consensus does, until one arrives.
pub(super) fn deliver(from: &Node, to: &Node, id: NodeId) -> Envelope {
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        from.peers.send(&[heartbeat(1, id, round)]);
        if let Ok(Told::Peer(envelope)) = to.told.recv_timeout(Duration::from_millis(5)) {
            return envelope;
        }
        assert!(Instant::now() < deadline, "nothing arrives at node {id}");
    }
    unreachable!("the loop above has no end")
}

fn large(to: NodeId, bytes: usize) -> Envelope {
    let entry = Entry {
        id: EntryId { term: 1, index: 1 },
        time_ms: 0,
        payload: Payload::Command(vec![1; bytes].into()),
    };
    let message = Message::Append {
        prev: EntryId::ZERO,
        entries: vec![entry],
        commit: 0,
    };
    Envelope {
        message,
        ..heartbeat(1, to, 0)
    }
}

pub(super) fn peer_hello(from: NodeId) -> Hello {
    let machine = "none".into();
    hello(Caller::Peer(PeerHello {
        from,
        to: 1,
        machine,
        folder: from.into(),
        to_folder: None,
        address: String::new(),
        lineage: 0,
        configuration: 0,
        founding: 0,
    }))
}

#[test]
fn messages_arrive_in_order_each_at_its_node() {
    let (second, third) = (Node::start(config(2), false), Node::start(config(3), false));
    let peers = [(2, second.address), (3, third.address)];
    let first = node_with(&peers, Limits::default());
    deliver(&first, &second, 2);
    deliver(&first, &third, 3);
    let envelopes: Vec<Envelope> = (1000..1100)
        .flat_map(|round| [heartbeat(1, 2, round), heartbeat(1, 3, round)])
        .collect();
    first.peers.send(&envelopes);
    for (id, node) in [(2, &second), (3, &third)] {
        let arrived = node.told.iter().filter_map(|told| match told {
            Told::Peer(envelope) => Some(envelope),
            Told::Request(..) => None,
        });
        // `deliver` may have sent more heartbeats than the one that it waited for. These come
        // first.
        let arrived: Vec<Envelope> = arrived
            .skip_while(|envelope| *envelope != heartbeat(1, id, 1000))
            .take(100)
            .collect();
        let expected: Vec<Envelope> = (1000..1100).map(|r| heartbeat(1, id, r)).collect();
        assert_eq!(arrived, expected);
    }
}

#[test]
fn a_peer_that_comes_back_is_found_again() {
    let mut second = Node::start(config(2), false);
    let address = second.address;
    let first = node_with(&[(2, address)], Limits::default());
    for _ in 0..3 {
        deliver(&first, &second, 2);
        second.stop();
        let again = Config {
            listen: address,
            ..config(2)
        };
        second = Node::start(again, false);
    }
    deliver(&first, &second, 2);
}

#[test]
fn a_peer_given_by_name_is_found() {
    let second = Node::start(config(2), false);
    let by_name = Config {
        peers: vec![(2, format!("localhost:{}", second.address.port()))],
        ..config(1)
    };
    let first = Node::start(by_name, false);
    deliver(&first, &second, 2);
}

#[test]
fn a_peer_that_refuses_is_asked_again_until_it_welcomes() {
    let second = Node::start(config(2), false);
    second.refusing.store(true, Ordering::SeqCst);
    let first = node_with(&[(2, second.address)], Limits::default());
    for round in 0..20 {
        first.peers.send(&[heartbeat(1, 2, round)]);
        let told = second.told.recv_timeout(Duration::from_millis(5));
        assert!(told.is_err(), "a refused peer's message was delivered");
    }
    second.refusing.store(false, Ordering::SeqCst);
    deliver(&first, &second, 2);
}

#[test]
fn a_peer_that_does_not_read_is_bounded_and_dialled_anew_and_delays_no_other() {
    const MESSAGE: usize = 256 << 10;
    const BOUND: usize = 4 << 20;
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let third = Node::start(config(3), false);
    let limits = Limits {
        peer_queue_bytes: BOUND,
        peer_stall: Duration::from_secs(1),
        ..Limits::default()
    };
    let peers = [(2, deaf.local_addr().unwrap()), (3, third.address)];
    let first = node_with(&peers, limits);
    let _never_read = deaf.accept().unwrap();
    deliver(&first, &third, 3);

    deaf.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let messages = vec![large(2, MESSAGE); 16];
    let (mut fullest, mut times) = (0, Vec::new());
    // Go on until the first node gives the connection up and dials again.
    while deaf.accept().is_err() {
        first.peers.send(&messages);
        fullest = fullest.max(first.peers.directory.contact(2).unwrap().queued());
        let sent = Instant::now();
        deliver(&first, &third, 3);
        times.push(sent.elapsed());
        assert!(Instant::now() < deadline, "the deaf peer is never given up");
    }
    assert!(fullest >= BOUND, "the test does not reach the bound");
    // A busy machine may delay some heartbeats, but waiting for the deaf peer would delay all of
    // them. The peer is given up after a second, and a heartbeat is due after 50 ms.
    times.sort_unstable();
    let (usual, longest) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(
        usual < Duration::from_millis(50),
        "{usual:?} behind a deaf peer"
    );
    assert!(
        longest < Duration::from_secs(1),
        "{longest:?} behind a deaf peer"
    );
    assert!(fullest <= BOUND + MESSAGE + 64, "{fullest} bytes wait");
}

#[test]
fn a_message_that_its_sender_may_not_send_closes_the_connection() {
    let node = Node::start(config(1), false);
    let mut good = Remote::open(node.address, &peer_hello(2));
    for wrong in [heartbeat(3, 1, 0), heartbeat(2, 3, 0)] {
        let mut peer = Remote::open(node.address, &peer_hello(2));
        peer.write(&frame_of(&wrong));
        peer.expect_closed();
    }
    good.write(&frame_of(&heartbeat(2, 1, 7)));
    match node.told.recv_timeout(PATIENCE) {
        Ok(Told::Peer(envelope)) => assert_eq!(envelope, heartbeat(2, 1, 7)),
        _ => panic!("the good peer's message did not come first"),
    }
}

#[test]
fn another_node_at_a_peers_address_is_not_taken_for_it() {
    let third = Node::start(config(3), false);
    let first = node_with(&[(2, third.address)], Limits::default());
    // Node 1 takes the address of node 3 for that of node 2. So it has to close each connection,
    // and no message may be delivered.
    for round in 0..50 {
        first.peers.send(&[heartbeat(1, 2, round)]);
        let told = third.told.recv_timeout(Duration::from_millis(5));
        assert!(
            told.is_err(),
            "a message for node 2 was delivered to node 3"
        );
    }
}

#[test]
fn a_list_of_peers_with_mistakes_is_refused() {
    let of = |peers: &[(NodeId, &str)]| {
        let peers = peers.iter().map(|(id, address)| (*id, address.to_string()));
        let peers = peers.collect();
        Net::bind(Config { peers, ..config(1) }).err()
    };
    let twice = of(&[(2, "127.0.0.1:1"), (2, "127.0.0.1:2")]);
    assert!(matches!(twice, Some(NetError::PeerTwice { id: 2 })));
    let no_port = of(&[(2, "127.0.0.1")]);
    assert!(matches!(no_port, Some(NetError::PeerAddress { id: 2, .. })));
    assert!(of(&[(1, "me"), (2, "127.0.0.1:1")]).is_none());
}
