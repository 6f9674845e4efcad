//! Tests of what a node tells others about the members: its peers when it dials them, its clients
//! with their answers, and those who only ask who it is.

use super::contacts::{called, listener};
use super::peers::{deliver, peer_hello};
use super::*;
use crate::raft::{Contact, Index};
use crate::wire::members::MemberList;

fn list(index: Index) -> MemberList {
    MemberList {
        index,
        lineage: 77,
        members: vec![(1, "one:1".into()), (4, "four:4".into())],
    }
}

/// Asks something with the list of this index at hand, and returns the list that comes with the
/// answer.
fn told(client: &mut Remote, known: Index) -> Option<MemberList> {
    let request = Request {
        known,
        ..submit(1, "x")
    };
    client.ask(&request);
    client.answer().members.map(|list| *list)
}

#[test]
fn a_client_is_told_the_members_once_and_only_if_it_has_an_older_list() {
    let node = Node::echoing();
    let mut client = node.client();
    assert_eq!(told(&mut client, 0), None, "nothing is announced yet");
    node.announced.announce(list(5));
    assert_eq!(told(&mut client, 0), Some(list(5)));
    assert_eq!(told(&mut client, 0), None, "it was told on this connection");
    assert_eq!(told(&mut node.client(), 5), None);
    assert_eq!(told(&mut node.client(), 4), Some(list(5)));
    node.announced.announce(list(6));
    node.announced.announce(list(5));
    assert_eq!(told(&mut client, 5), Some(list(6)));
    assert_eq!(told(&mut client, 6), None);
}

#[test]
fn answers_that_are_sent_at_once_carry_the_members_only_once() {
    let node = Node::start(config(1), false);
    node.announced.announce(list(5));
    let mut client = node.client();
    for id in 0..20 {
        client.ask(&submit(id, "x"));
    }
    let requests: Vec<ReplyTo> = (0..20).map(|_| node.next_request().1).collect();
    thread::scope(|threads| {
        for reply in requests {
            threads.spawn(|| reply.send(Answer::Busy));
        }
    });
    let lists = (0..20).filter(|_| client.answer().members.is_some());
    assert_eq!(lists.count(), 1);
}

#[test]
fn a_peer_learns_who_calls_it() {
    let second = Node::start(config(2), false);
    let (listener, address) = listener();
    let announcing = Config {
        address: "first:1".into(),
        founding: 9,
        ..config(1)
    };
    let first = Node::start(announcing, false);
    let dial = |sequence, address: SocketAddr, folder| {
        let contact = Contact {
            id: 2,
            folder,
            address: address.to_string(),
        };
        first.peers.set(sequence, vec![contact]);
    };
    dial(1, address, None);
    let (_, founding) = called(&listener);
    let expected = PeerHello {
        from: 1,
        to: 2,
        machine: "none".into(),
        folder: 1,
        to_folder: None,
        address: "first:1".into(),
        lineage: 0,
        configuration: 0,
        founding: 9,
    };
    assert_eq!(founding, expected);
    first.announced.announce(list(5));
    dial(2, address, Some(2));
    // The connection broke; the next one says what is announced by now.
    let (_, logged) = called(&listener);
    let expected = PeerHello {
        to_folder: Some(2),
        lineage: 77,
        configuration: 5,
        founding: 0,
        ..expected
    };
    assert_eq!(logged, expected);
    dial(3, second.address, Some(2));
    deliver(&first, &second, 2);
    let (welcome, address) = first.welcomes.recv_timeout(PATIENCE).unwrap();
    assert_eq!((welcome.id, welcome.folder), (2, 2));
    assert_eq!(address, second.address.to_string());
}

#[test]
fn a_node_with_another_folder_than_expected_gets_no_message() {
    let second = Node::start(config(2), false);
    let first = Node::start(config(1), false);
    let contact = Contact {
        id: 2,
        folder: Some(20),
        address: second.address.to_string(),
    };
    first.peers.set(1, vec![contact]);
    let envelope = Envelope {
        to_folder: None,
        ..heartbeat(1, 2, 0)
    };
    for _ in 0..20 {
        first.peers.send(std::slice::from_ref(&envelope));
        let told = second.told.recv_timeout(Duration::from_millis(5));
        assert!(told.is_err(), "the folder is not the one that was meant");
    }
    assert!(first.welcomes.try_recv().is_err());
}

#[test]
fn a_message_with_other_folders_than_the_greeting_ends_the_connection() {
    let node = Node::start(config(1), false);
    let from_other = Envelope {
        from_folder: 3,
        ..heartbeat(2, 1, 0)
    };
    let to_other = Envelope {
        to_folder: Some(7),
        ..heartbeat(2, 1, 0)
    };
    for wrong in [from_other, to_other] {
        let mut peer = Remote::open(node.address, &peer_hello(2));
        peer.write(&frame_of(&wrong));
        peer.expect_closed();
    }
    let mut good = Remote::open(node.address, &peer_hello(2));
    let by_id = Envelope {
        to_folder: None,
        ..heartbeat(2, 1, 7)
    };
    good.write(&frame_of(&by_id));
    match node.told.recv_timeout(PATIENCE) {
        Ok(Told::Peer(envelope)) => assert_eq!(envelope, by_id),
        _ => panic!("the good message did not come first"),
    }
}

#[test]
fn a_probe_is_told_who_answers_and_that_is_the_end() {
    let node = Node::start(config(1), false);
    let mut probe = Remote::connect(node.address);
    probe.write(&opening(&hello(Caller::Probe { to: 1 })));
    match probe.read::<Welcome>().unwrap() {
        Welcome::Peer(welcome) => assert_eq!((welcome.id, welcome.folder), (1, 1)),
        other => panic!("{other:?}"),
    }
    probe.expect_closed();
    // It takes no place among the strangers, and is not dialled.
    assert!(
        node.peers
            .directory
            .change(|lists| lists.strangers.is_empty())
    );
}
