//! Bytes that no client and no node would send: their connection is closed with one line in the
//! log, and nobody else notices.

use std::sync::Arc;

use raftkv::kv::{Kv, Limits};
use raftkv::machine::StateMachine;
use raftkv::raft::FolderId;
use raftkv::storage::{ReadOnlyDisk, inspect};
use raftkv::wire::client::{Answer, Ask, Response};
use raftkv::wire::frame::{self, MAX_PAYLOAD};
use raftkv::wire::handshake::{Caller, MAGIC, MAX_HELLO, PeerHello, Standing, VERSION, Welcome};

use super::cluster::{Cluster, text};
use super::load::Load;
use super::raw::{Raw, frame_of, hello, opening, request};

/// What is sent, and what the line in the log says about it.
type Case = (Vec<u8>, &'static str);

/// The start of a frame that claims a length.
fn header(len: usize) -> Vec<u8> {
    [&(len as u32).to_le_bytes()[..], &[0; 8]].concat()
}

/// A frame whose checksum holds and whose payload means nothing.
fn nonsense() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_with(&mut bytes, |out| out.extend([255; 40]));
    bytes
}

fn damaged(mut frame: Vec<u8>) -> Vec<u8> {
    *frame.last_mut().unwrap() ^= 1;
    frame
}

/// What can be wrong before it is known who calls.
fn openings() -> Vec<Case> {
    let good = opening(&hello("", Caller::Client));
    let after_magic = |bytes: Vec<u8>| [MAGIC.to_vec(), bytes].concat();
    let mut newer = hello("", Caller::Client);
    newer.version = VERSION + 1;
    vec![
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "GET / HTTP/1.1"),
        (vec![0; 100], "does not speak this protocol"),
        (MAGIC[..5].to_vec(), "in the middle of a message, after 5"),
        (
            good[..good.len() - 1].to_vec(),
            "in the middle of a message",
        ),
        (after_magic(header(MAX_HELLO + 1)), "over the limit of 4096"),
        (damaged(good), "checksum"),
        (after_magic(nonsense()), "no hello"),
        (
            opening(&newer),
            "version 5 of the protocol, this node version 4",
        ),
        (opening(&hello("blue", Caller::Client)), "not of \"blue\""),
    ]
}

/// What node 2 with this folder says of itself to node 1.
fn node_2(folder: FolderId) -> PeerHello {
    PeerHello {
        from: 2,
        to: 1,
        machine: Kv::new(Limits::default()).identity(),
        folder,
        to_folder: None,
        address: String::new(),
        lineage: 0,
        configuration: 0,
        founding: 0,
    }
}

/// What a node says first.
fn peer(cluster: &str, peer: PeerHello) -> Vec<u8> {
    opening(&hello(cluster, Caller::Peer(peer)))
}

/// What nodes of another cluster, or with other settings, would say. `folder` is the number of node
/// 2's data folder.
fn strangers(folder: FolderId) -> Vec<Case> {
    let good = node_2(folder);
    let twin = PeerHello {
        from: 1,
        ..good.clone()
    };
    let astray = PeerHello {
        to: 3,
        ..good.clone()
    };
    let means_another = PeerHello {
        to_folder: Some(folder),
        ..good.clone()
    };
    let other_machine = PeerHello {
        machine: "other".into(),
        ..good.clone()
    };
    let opened = peer("raftkv", good.clone());
    vec![
        (peer("blue", good), "not of \"blue\""),
        (peer("raftkv", twin), "give each node an id of its own"),
        (peer("raftkv", astray), "this is node 1, not node 3"),
        (peer("raftkv", other_machine), "node 2 runs \"other\""),
        (peer("raftkv", means_another), "and this one has the folder"),
        ([opened.clone(), nonsense()].concat(), "decode"),
        ([opened, header(MAX_PAYLOAD + 1)].concat(), "over the limit"),
    ]
}

/// What a client can do wrong once it is welcomed.
fn requests() -> Vec<Case> {
    let hello = opening(&hello("raftkv", Caller::Client));
    let good = frame_of(&request(Ask::Status));
    let half = good[..good.len() / 2].to_vec();
    let cases = [
        (half, "in the middle of a message"),
        (header(MAX_PAYLOAD + 1), "over the limit"),
        (header(u32::MAX as usize), "over the limit"),
        (damaged(good), "checksum"),
        (nonsense(), "decode"),
    ];
    let with_hello = |(bytes, what)| ([hello.clone(), bytes].concat(), what);
    cases.into_iter().map(with_hello).collect()
}

#[test]
fn bad_bytes_close_their_connection_with_one_line_and_nobody_else_notices() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 2);
    let folder = inspect(Arc::new(ReadOnlyDisk::new(cluster.data(2))))
        .unwrap()
        .folder;
    let cases = [openings(), strangers(folder), requests()].concat();
    let mut callers = Vec::new();
    for (bytes, what) in cases {
        let mut raw = Raw::connect(cluster.address(1));
        raw.write(&bytes);
        raw.finish();
        raw.rest();
        let address = format!("{}: ", raw.address());
        let line = cluster.node(1).line(&address);
        assert!(
            line.contains("WARN") && line.contains(what),
            "{what}: {line}"
        );
        callers.push(address);
        load.await_more(2);
    }
    let lines = cluster.node(1).lines();
    for caller in callers {
        let about = lines.iter().filter(|line| line.contains(&caller));
        assert_eq!(about.count(), 1, "{caller} {lines:#?}");
    }
    load.stop().check(&cluster.clerk());
}

/// A node that is no member may be a leader of which this node has not heard: so it is let in, and
/// told what this node knows of it.
#[test]
fn a_node_that_is_no_member_or_has_another_folder_is_told_so_and_counts_for_nobody() {
    let cluster = Cluster::start_settled(3);
    let members = cluster.members(1).configuration;
    for (from, is_known) in [(2, true), (9, false)] {
        let mut raw = Raw::connect(cluster.address(1));
        let stranger = PeerHello { from, ..node_2(77) };
        raw.write(&peer("raftkv", stranger));
        let Welcome::Peer(welcome) = raw.receive() else {
            panic!("node {from} is refused");
        };
        let Standing::Stranger {
            configuration,
            known,
        } = welcome.standing
        else {
            panic!("node {from} is a member: {welcome:?}");
        };
        assert_eq!(configuration, members.index);
        let contact = members.configuration.contact(from);
        let expected = contact.map(|it| (it.folder, it.address.clone()));
        assert_eq!((expected.is_some(), known), (is_known, expected));
    }
    assert_eq!(cluster.members(1).configuration, members);
    cluster.clerk().put("key", "value").unwrap();
}

#[test]
fn a_refused_caller_is_told_why() {
    let cluster = Cluster::start(1);
    let mut raw = Raw::connect(cluster.address(1));
    raw.write(&opening(&hello("blue", Caller::Client)));
    raw.finish();
    let rest = raw.rest();
    let (payload, _) = frame::split(&rest, MAX_HELLO).unwrap().unwrap();
    assert!(String::from_utf8_lossy(payload).contains("of cluster \"raftkv\", not of \"blue\""));
    let output = cluster.run(&["--cluster-name", "blue", "--timeout", "1s", "get", "k"]);
    assert_eq!(output.status.code(), Some(3));
    let error = text(&output.stderr);
    assert!(error.contains("\"blue\""), "{error}");
}

#[test]
fn a_command_that_means_nothing_is_refused_and_never_enters_the_log() {
    let cluster = Cluster::start(1);
    cluster.leader();
    let mut raw = Raw::open(cluster.address(1));
    raw.send(Ask::Submit(vec![255; 40].into()));
    let answer = raw.receive::<Response>().answer;
    assert!(matches!(&answer, Answer::Invalid(_)), "{answer:?}");
    cluster.clerk().put("key", "value").unwrap();
}
