use std::time::Instant;

use super::*;

#[test]
fn requests_are_answered() {
    let node = Node::echoing();
    let mut client = node.client();
    for id in 0..10 {
        client.round_trip(id);
    }
}

#[test]
fn ten_thousand_requests_sent_at_once_are_all_answered_in_order() {
    let node = Node::echoing();
    let mut client = node.client();
    let mut sender = client.socket.try_clone().unwrap();
    let bytes: Vec<u8> = (0..10_000)
        .flat_map(|id: u64| frame_of(&submit(id, id.to_string())))
        .collect();
    let sending = thread::spawn(move || sender.write_all(&bytes).unwrap());
    for id in 0..10_000 {
        let answer = Answer::Reply(id.to_string().into());
        assert_eq!(
            client.answer(),
            Response {
                id,
                answer,
                members: None
            }
        );
    }
    sending.join().unwrap();
}

#[test]
fn a_message_of_the_largest_size_goes_both_ways_between_small_ones() {
    let node = Node::echoing();
    let mut client = node.client();
    let large = Bytes::from(vec![7; frame::MAX_PAYLOAD - 64]);
    client.round_trip(1);
    client.ask(&submit(2, large.clone()));
    assert_eq!(client.answer().answer, Answer::Reply(large));
    client.round_trip(3);
}

#[test]
fn it_does_not_matter_where_the_bytes_are_cut() {
    let node = Node::echoing();
    let mut bytes = opening(&hello(Caller::Client));
    bytes.extend(frame_of(&submit(1, "one")));
    bytes.extend(frame_of(&submit(2, "two")));
    for cut in 1..bytes.len() {
        let mut client = Remote::connect(node.address);
        client.write(&bytes[..cut]);
        // After a round trip on another connection, the loop has read the first part.
        node.client().round_trip(0);
        client.write(&bytes[cut..]);
        let _: Welcome = client.read().unwrap();
        assert_eq!(
            (client.answer().id, client.answer().id),
            (1, 2),
            "cut at {cut}"
        );
    }
    let mut client = Remote::connect(node.address);
    for byte in bytes {
        client.write(&[byte]);
    }
    let _: Welcome = client.read().unwrap();
    assert_eq!((client.answer().id, client.answer().id), (1, 2));
}

#[test]
fn bad_bytes_close_their_connection_and_no_other() {
    let node = Node::echoing();
    let mut bystander = node.client();
    let good = opening(&hello(Caller::Client));
    let after_hello = |bytes: &[u8]| [&good, bytes].concat();
    let mut bad_checksum = frame_of(&submit(1, "x"));
    *bad_checksum.last_mut().unwrap() ^= 1;
    let mut long_hello = MAGIC.to_vec();
    frame::put(&vec![0u8; 5000], &mut long_hello);
    let mut no_hello = MAGIC.to_vec();
    frame::put(&(VERSION, 77u8), &mut no_hello);
    let cases: [(&str, Vec<u8>); 8] = [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("one wrong byte", b"R".to_vec()),
        ("magic wrong at its end", b"raftkv\0\r".to_vec()),
        ("a hello over its limit", long_hello),
        ("a hello that does not decode", no_hello),
        (
            "a length over the limit",
            after_hello(&[0xff; frame::HEADER_LEN]),
        ),
        ("a bad checksum", after_hello(&bad_checksum)),
        (
            "a request that does not decode",
            after_hello(&frame_of(&"?")),
        ),
    ];
    for (id, (what, bytes)) in cases.into_iter().enumerate() {
        eprintln!("{what}");
        let mut client = Remote::connect(node.address);
        client.write(&bytes);
        client.expect_closed();
        bystander.round_trip(id as u64);
    }
}

#[test]
fn whoever_is_refused_reads_why_and_is_disconnected() {
    let node = Node::echoing();
    let mut wrong_cluster = hello(Caller::Client);
    wrong_cluster.cluster = "other".into();
    let mut wrong_version = hello(Caller::Client);
    wrong_version.version = VERSION + 1;
    for (hello, why) in [
        (wrong_cluster, "another cluster"),
        (wrong_version, "version"),
    ] {
        let mut client = Remote::connect(node.address);
        // The other side may send requests before it is welcomed. They must not keep it from
        // reading why it was refused.
        client.write(&opening(&hello));
        client.ask(&submit(1, vec![1; 100_000]));
        match client.read().unwrap() {
            Welcome::Refused(text) => assert!(text.contains(why), "{text}"),
            welcome => panic!("{welcome:?}"),
        }
        client.expect_closed();
    }
}

#[test]
fn whoever_does_not_say_who_it_is_is_disconnected() {
    let limits = Limits {
        handshake: Duration::from_millis(30),
        ..Limits::default()
    };
    let node = Node::with_limits(limits, true);
    let mut bystander = node.client();
    let mut silent = Remote::connect(node.address);
    let mut slow = Remote::connect(node.address);
    slow.write(&MAGIC);
    silent.expect_closed();
    slow.expect_closed();
    bystander.round_trip(1);
}

#[test]
fn any_thread_may_answer_in_any_order() {
    let node = Node::start(config(1), false);
    let mut client = node.client();
    for id in 1..=3 {
        client.ask(&submit(id, "x"));
    }
    let mut replies = Replies::new();
    let (_, first) = node.next_request();
    let (_, second) = node.next_request();
    let (_, third) = node.next_request();
    thread::scope(|scope| {
        scope.spawn(|| third.send(Answer::Busy)).join().unwrap();
        second.queue(Answer::Busy, &mut replies);
        first.queue(Answer::Busy, &mut replies);
        scope.spawn(move || replies.flush()).join().unwrap();
    });
    assert_eq!([0; 3].map(|_| client.answer().id), [3, 2, 1]);
}

#[test]
fn an_answer_to_a_client_that_has_gone_is_dropped() {
    let node = Node::start(config(1), false);
    let mut client = node.client();
    client.ask(&submit(1, "x"));
    client.ask(&submit(2, "x"));
    let (_, first) = node.next_request();
    let (_, second) = node.next_request();
    drop(client);
    // When a later client is served, the loop has seen that the first one closed its connection.
    let mut other = node.client();
    other.ask(&submit(9, "x"));
    let (_, reply) = node.next_request();
    first.send(Answer::Busy);
    second.queue(Answer::Busy, &mut Replies::new());
    reply.send(Answer::Busy);
    assert_eq!(other.answer().id, 9);
}

#[test]
fn stopping_sends_what_waits_closes_and_takes_no_longer_than_that() {
    let limits = Limits {
        linger: 4 * PATIENCE,
        ..Limits::default()
    };
    let mut node = Node::with_limits(limits, false);
    let mut client = node.client();
    client.ask(&submit(1, "x"));
    client.ask(&submit(2, "x"));
    // One answer is larger than what the kernel takes at once, and the other is not flushed.
    let large = Answer::Reply(vec![1; 16 << 20].into());
    node.next_request().1.send(large.clone());
    let mut replies = Replies::new();
    let (_, second) = node.next_request();
    second.queue(Answer::Busy, &mut replies);
    let reading = thread::spawn(move || {
        assert_eq!(client.answer().answer, large);
        assert_eq!(client.answer().answer, Answer::Busy);
        client.expect_closed();
    });
    let before = Instant::now();
    node.stop();
    assert!(before.elapsed() < PATIENCE);
    reading.join().unwrap();
    assert!(std::net::TcpStream::connect(node.address).is_err());
}

#[test]
fn stopping_waits_for_a_client_that_does_not_read_no_longer_than_it_may() {
    let mut node = Node::start(config(1), false);
    let mut client = node.client();
    client.ask(&submit(1, "x"));
    let large = Answer::Reply(vec![1; 16 << 20].into());
    node.next_request().1.send(large);
    node.stop();
    assert!(client.read::<Response>().is_err(), "sent without a reader");
}

#[test]
fn a_port_in_use_is_told_as_such() {
    let node = Node::echoing();
    let taken = Config {
        listen: node.address,
        ..config(2)
    };
    let error = Net::bind(taken).err().expect("the port is taken");
    assert!(matches!(error, NetError::AddressInUse { .. }), "{error}");
    assert!(
        error.to_string().contains(&node.address.to_string()),
        "{error}"
    );
}

#[test]
fn an_idle_loop_sleeps() {
    let other = Node::start(config(2), true);
    let with_peer = Config {
        peers: vec![(2, other.address.to_string())],
        ..config(1)
    };
    let node = Node::start(with_peer, false);
    let mut client = node.client();
    client.ask(&submit(1, "x"));
    node.next_request().1.send(Answer::Busy);
    client.answer();
    // The opening of connections may cause some more wake-ups.
    let slept = (0..10).any(|_| {
        let before = node.wakeups();
        assert!(node.told.recv_timeout(Duration::from_millis(500)).is_err());
        node.wakeups() == before
    });
    assert!(slept, "the loop wakes up for nothing");
    assert!(node.peers.is_connected(2));
}
