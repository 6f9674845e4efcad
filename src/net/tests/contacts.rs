//! Tests of whom a node dials: contacts that change while it runs, and strangers that call.

use super::peers::{deliver, node_with, peer_hello};
use super::*;
use crate::net::directory::MAX_STRANGERS;
use crate::raft::{Contact, FolderId};
use crate::wire::members::MemberList;

fn contact(id: NodeId, folder: Option<FolderId>, address: SocketAddr) -> Contact {
    Contact {
        id,
        folder,
        address: address.to_string(),
    }
}

/// Waits for the next node that dials a port, and takes its hello.
pub(super) fn called(listener: &TcpListener) -> (Remote, PeerHello) {
    let mut remote = Remote::accept(listener);
    let mut magic = [0; MAGIC.len()];
    remote.socket.read_exact(&mut magic).unwrap();
    let hello: Hello = remote.read().unwrap();
    match hello.caller {
        Caller::Peer(peer) => (remote, peer),
        other => panic!("{other:?}"),
    }
}

pub(super) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A hello of a node that is no contact, and that is reached at this address.
fn stranger(from: NodeId, address: SocketAddr) -> Hello {
    let mut hello = peer_hello(from);
    if let Caller::Peer(peer) = &mut hello.caller {
        peer.address = address.to_string();
    }
    hello
}

/// A hello of node 2, reached at this address, whose newest committed members have this index.
fn later(configuration: u64, address: SocketAddr) -> Hello {
    let mut hello = stranger(2, address);
    if let Caller::Peer(peer) = &mut hello.caller {
        peer.configuration = configuration;
    }
    hello
}

/// A list of members with this index.
fn members(index: u64) -> MemberList {
    MemberList {
        index,
        lineage: 7,
        members: Vec::new(),
    }
}

/// An answer to a node with this folder.
fn answer(to: NodeId, folder: FolderId) -> Envelope {
    Envelope {
        to_folder: Some(folder),
        ..heartbeat(1, to, 9)
    }
}

#[test]
fn a_contact_with_another_address_is_dialled_there_and_no_connection_of_others_breaks() {
    let (old, old_address) = listener();
    let (new, new_address) = listener();
    let (third, third_address) = listener();
    let first = node_with(&[(2, old_address), (3, third_address)], Limits::default());
    let (mut at_old, _) = called(&old);
    let (mut at_third, _) = called(&third);
    let moved = contact(2, None, new_address);
    let stays = contact(3, Some(3), third_address);
    first.peers.set(1, vec![moved, stays]);
    let (_at_new, hello) = called(&new);
    assert_eq!((hello.to, hello.to_folder), (2, None));
    at_old.expect_closed();
    // The connection to node 3 has outlived the change, although its folder has become known.
    first.peers.send(&[heartbeat(1, 3, 5)]);
    assert_eq!(at_third.read::<Envelope>().unwrap(), heartbeat(1, 3, 5));
}

#[test]
fn a_contact_with_another_folder_is_dialled_anew_and_gets_no_message_for_the_former_one() {
    let (second, address) = listener();
    let first = node_with(&[], Limits::default());
    first.peers.set(1, vec![contact(2, Some(20), address)]);
    let (mut former, hello) = called(&second);
    assert_eq!(hello.to_folder, Some(20));
    first.peers.send(&[answer(2, 21), answer(2, 20)]);
    let arrived: Envelope = former.read().unwrap();
    assert_eq!(arrived, answer(2, 20), "the one for folder 21 is left out");
    first.peers.set(2, vec![contact(2, Some(21), address)]);
    former.expect_closed();
    let (mut latter, hello) = called(&second);
    assert_eq!(hello.to_folder, Some(21));
    first.peers.send(&[answer(2, 20), answer(2, 21)]);
    let arrived: Envelope = latter.read().unwrap();
    assert_eq!(arrived, answer(2, 21));
}

#[test]
fn a_contact_that_is_dropped_loses_its_connection_and_is_not_dialled_again() {
    let (second, address) = listener();
    let (third, third_address) = listener();
    let first = node_with(&[(2, address)], Limits::default());
    let (mut at_second, _) = called(&second);
    first.peers.set(1, vec![contact(3, Some(3), third_address)]);
    at_second.expect_closed();
    called(&third);
    assert!(!first.peers.is_connected(2));
    second.set_nonblocking(true).unwrap();
    let again = second.accept().map(|_| ());
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_list_of_contacts_that_comes_late_does_not_take_the_place_of_a_newer_one() {
    let (second, address) = listener();
    let (third, third_address) = listener();
    let first = node_with(&[], Limits::default());
    first.peers.set(2, vec![contact(2, Some(2), address)]);
    let (mut at_second, _) = called(&second);
    first.peers.set(1, vec![contact(3, Some(3), third_address)]);
    // The loop has seen the list by the time that it welcomes somebody.
    drop(first.client());
    first.peers.send(&[heartbeat(1, 2, 0)]);
    at_second.read::<Envelope>().unwrap();
    third.set_nonblocking(true).unwrap();
    let dialled = third.accept().map(|_| ());
    assert_eq!(dialled.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// Each finds the other node of the cluster at the address that it has for the third one.
#[test]
fn nodes_with_swapped_addresses_get_nothing_until_the_addresses_are_right() {
    let (second, third) = (Node::start(config(2), false), Node::start(config(3), false));
    let first = node_with(&[], Limits::default());
    let list = |at_second: SocketAddr, at_third: SocketAddr| {
        vec![
            contact(2, Some(2), at_second),
            contact(3, Some(3), at_third),
        ]
    };
    first.peers.set(1, list(third.address, second.address));
    for round in 0..20 {
        first
            .peers
            .send(&[heartbeat(1, 2, round), heartbeat(1, 3, round)]);
        for node in [&second, &third] {
            let told = node.told.recv_timeout(Duration::from_millis(2));
            assert!(told.is_err(), "a message arrived at the wrong node");
        }
    }
    first.peers.set(2, list(second.address, third.address));
    deliver(&first, &second, 2);
    deliver(&first, &third, 3);
}

#[test]
fn a_stranger_is_answered_where_it_says_it_is_until_its_own_connection_ends() {
    let (home, address) = listener();
    let node = node_with(&[], Limits::default());
    let caller = Remote::open(node.address, &stranger(7, address));
    let (mut back, hello) = called(&home);
    assert_eq!((hello.from, hello.to, hello.to_folder), (1, 7, Some(7)));
    node.peers.send(&[answer(7, 8), answer(7, 7)]);
    assert_eq!(back.read::<Envelope>().unwrap(), answer(7, 7));
    drop(caller);
    back.expect_closed();
}

/// A node that is to join knows members by what they say of themselves only, and may have to take
/// another way to them.
#[test]
fn a_stranger_to_which_this_node_has_a_way_of_its_own_is_answered_there() {
    let (home, address) = listener();
    let (nowhere, dead) = listener();
    drop(nowhere);
    let config = Config {
        reach: BTreeMap::from([(7, address.to_string())]),
        ..config(1)
    };
    let node = Node::start(config, false);
    let _caller = Remote::open(node.address, &stranger(7, dead));
    let (mut back, hello) = called(&home);
    assert_eq!((hello.to, hello.to_folder), (7, Some(7)));
    node.peers.send(&[answer(7, 7)]);
    assert_eq!(back.read::<Envelope>().unwrap(), answer(7, 7));
}

/// It was moved while this node was down, and leads: what this node has to say has to go where it
/// is now, or this node never gets the entry that says so.
#[test]
fn a_contact_that_has_moved_since_this_node_heard_of_members_is_answered_where_it_is() {
    let (old, old_address) = listener();
    drop(old);
    let (new, new_address) = listener();
    let node = node_with(&[], Limits::default());
    node.announced.announce(members(4));
    node.peers.set(1, vec![contact(2, Some(2), old_address)]);
    let _caller = Remote::open(node.address, &later(5, new_address));
    let (mut at_new, hello) = called(&new);
    assert_eq!((hello.to, hello.to_folder), (2, Some(2)));
    node.peers.send(&[answer(2, 2)]);
    assert_eq!(at_new.read::<Envelope>().unwrap(), answer(2, 2));
    // The entry comes.
    node.announced.announce(members(5));
    node.peers.set(2, vec![contact(2, Some(2), new_address)]);
    at_new.expect_closed();
    let (mut at_new, _) = called(&new);
    node.peers.send(&[answer(2, 2)]);
    assert_eq!(at_new.read::<Envelope>().unwrap(), answer(2, 2));
}

/// This node has its own way to the contact, and the address that all others have leads nowhere.
#[test]
fn a_contact_that_cannot_be_reached_where_it_says_is_answered_as_before() {
    let (home, address) = listener();
    let (nowhere, dead) = listener();
    drop(nowhere);
    let node = node_with(&[], Limits::default());
    node.peers.set(1, vec![contact(2, Some(2), address)]);
    let (mut at_home, _) = called(&home);
    let mut caller = Remote::open(node.address, &later(5, dead));
    caller.write(&frame_of(&heartbeat(2, 1, 3)));
    // By now the loop knows the caller.
    assert!(node.told.recv_timeout(PATIENCE).is_ok());
    node.peers.send(&[answer(2, 2)]);
    assert_eq!(at_home.read::<Envelope>().unwrap(), answer(2, 2));
}

/// A new leader has the id of a contact and another folder: the configuration that has it is not
/// known here yet.
#[test]
fn a_stranger_with_the_id_of_a_contact_gets_its_own_answers() {
    let (old, old_address) = listener();
    let (new, new_address) = listener();
    let node = node_with(&[], Limits::default());
    node.peers.set(1, vec![contact(2, Some(20), old_address)]);
    let (mut at_old, _) = called(&old);
    let mut hello = stranger(2, new_address);
    if let Caller::Peer(peer) = &mut hello.caller {
        peer.folder = 21;
    }
    let _caller = Remote::open(node.address, &hello);
    let (mut at_new, _) = called(&new);
    node.peers.send(&[answer(2, 21), answer(2, 20)]);
    assert_eq!(at_new.read::<Envelope>().unwrap(), answer(2, 21));
    assert_eq!(at_old.read::<Envelope>().unwrap(), answer(2, 20));
    // The configuration comes.
    node.peers.set(2, vec![contact(2, Some(21), new_address)]);
    at_old.expect_closed();
    at_new.expect_closed();
    let (_again, hello) = called(&new);
    assert_eq!(hello.to_folder, Some(21));
}

#[test]
fn a_contact_that_still_calls_when_it_is_dropped_is_answered_as_a_stranger() {
    let (home, address) = listener();
    let node = node_with(&[], Limits::default());
    node.peers.set(1, vec![contact(2, Some(2), address)]);
    let _caller = Remote::open(node.address, &stranger(2, address));
    let (mut as_contact, _) = called(&home);
    node.peers.set(2, Vec::new());
    as_contact.expect_closed();
    let (mut as_stranger, _) = called(&home);
    node.peers.send(&[answer(2, 2)]);
    assert_eq!(as_stranger.read::<Envelope>().unwrap(), answer(2, 2));
}

#[test]
fn a_stranger_too_many_is_refused_until_another_one_is_gone() {
    let (_home, address) = listener();
    let node = node_with(&[], Limits::default());
    let open = |id| Remote::open(node.address, &stranger(id, address));
    let mut callers: Vec<Remote> = (0..MAX_STRANGERS)
        .map(|n| open(100 + n as NodeId))
        .collect();
    // One that is answered already may call again.
    callers.push(open(100));
    let ask = |id| {
        let mut caller = Remote::connect(node.address);
        caller.write(&opening(&stranger(id, address)));
        caller.read::<Welcome>().unwrap()
    };
    match ask(99) {
        Welcome::Refused(why) => assert!(why.starts_with("16 nodes"), "{why}"),
        other => panic!("{other:?}"),
    }
    // The connection ends here before the event loop sees it, so the place is not free at once.
    drop(callers.swap_remove(5));
    let deadline = std::time::Instant::now() + PATIENCE;
    while matches!(ask(99), Welcome::Refused(_)) {
        assert!(
            std::time::Instant::now() < deadline,
            "the place stays taken"
        );
    }
}

#[test]
fn a_stranger_whose_address_is_none_is_let_in_and_gets_no_answers() {
    let node = node_with(&[], Limits::default());
    let mut caller = Remote::open(node.address, &peer_hello(7));
    caller.write(&frame_of(&heartbeat(7, 1, 3)));
    match node.told.recv_timeout(PATIENCE) {
        Ok(Told::Peer(envelope)) => assert_eq!(envelope, heartbeat(7, 1, 3)),
        _ => panic!("the message does not arrive"),
    }
    node.peers.send(&[answer(7, 7)]);
}

/// It learns so only from a welcome, and a welcome comes only with a new connection.
#[test]
fn a_peer_that_has_become_a_stranger_has_to_call_again() {
    let (_home, address) = listener();
    let node = node_with(&[], Limits::default());
    let mut sequence = 0;
    let mut change = || {
        sequence += 1;
        let second = contact(2, Some(2), address);
        node.peers.set(sequence, vec![second]);
    };
    let still_heard = |caller: &mut Remote, round| {
        caller.write(&frame_of(&heartbeat(2, 1, round)));
        match node.told.recv_timeout(PATIENCE) {
            Ok(Told::Peer(envelope)) => assert_eq!(envelope, heartbeat(2, 1, round)),
            _ => panic!("no message in round {round}"),
        }
    };
    let stands = |configuration| {
        let known = None;
        let standing = Standing::Stranger {
            configuration,
            known,
        };
        *node.standing.lock().unwrap() = standing;
    };
    let mut member = Remote::open(node.address, &stranger(2, address));
    change();
    still_heard(&mut member, 1);
    // The configuration that lacks it may be taken back.
    stands(0);
    still_heard(&mut member, 2);
    change();
    member.expect_closed();
    let mut uncertain = Remote::open(node.address, &stranger(2, address));
    change();
    still_heard(&mut uncertain, 3);
    // It is committed.
    stands(7);
    change();
    uncertain.expect_closed();
    let mut knows = Remote::open(node.address, &stranger(2, address));
    change();
    still_heard(&mut knows, 4);
}
