use super::peers::peer_hello;
use super::*;
use crate::net::outlet::{Bounds, Outlet, WhenFull};

/// How long to wait for something that must not happen.
const A_WHILE: Duration = Duration::from_millis(200);

#[test]
fn at_most_so_many_requests_of_a_client_are_in_flight_and_others_go_on() {
    let limits = Limits {
        max_in_flight: 8,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, false);
    let (mut flooding, mut other) = (node.client(), node.client());
    for id in 0..100 {
        flooding.ask(&submit(id, "x"));
    }
    let mut in_flight: Vec<ReplyTo> = (0..8).map(|_| node.next_request().1).collect();
    other.ask(&submit(1000, "x"));
    let (request, reply) = node.next_request();
    assert_eq!(request.id, 1000, "the ninth request was let through");
    reply.send(Answer::Busy);
    assert_eq!(other.answer().id, 1000);
    assert!(node.told.recv_timeout(A_WHILE).is_err());

    let mut answered = 0;
    while answered < 100 {
        let client = in_flight[0].client.clone();
        assert!(client.in_flight.load(Ordering::SeqCst) <= 8);
        in_flight.remove(0).send(Answer::Busy);
        answered += 1;
        in_flight.extend(node.told.try_iter().filter_map(|told| match told {
            Told::Request(_, reply) => Some(reply),
            Told::Peer(_) => None,
        }));
        if in_flight.is_empty() && answered < 100 {
            in_flight.push(node.next_request().1);
        }
    }
    for id in 0..100 {
        assert_eq!(flooding.answer().id, id);
    }
}

#[test]
fn a_request_that_is_dropped_unanswered_is_not_in_flight_for_ever() {
    let limits = Limits {
        max_in_flight: 1,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, false);
    let mut client = node.client();
    for id in 0..50 {
        client.ask(&submit(id, "x"));
    }
    for id in 0..50 {
        let (request, reply) = node.next_request();
        assert_eq!(request.id, id);
        drop(reply);
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    const ANSWER: usize = 64 << 10;
    const BOUND: usize = 1 << 20;
    const REQUESTS: u64 = 1000;
    let limits = Limits {
        client_queue_bytes: BOUND,
        max_in_flight: 4,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, false);
    let (mut deaf, mut other) = (node.client(), node.client());
    for id in 0..REQUESTS {
        deaf.ask(&submit(id, "x"));
    }
    let large = Answer::Reply(vec![0; ANSWER].into());
    let mut served = 0;
    // The loop can only stop reading from this client, so the test waits until no more requests
    // come.
    while let Ok(Told::Request(_, reply)) = node.told.recv_timeout(A_WHILE) {
        let client = reply.client.clone();
        reply.send(large.clone());
        served += 1;
        let queued = client.outlet.queued();
        assert!(queued <= BOUND + 4 * (ANSWER + 32), "{queued} bytes wait");
    }
    assert!(served < REQUESTS, "all requests were read");
    other.ask(&submit(1, "x"));
    node.next_request().1.send(Answer::Busy);
    assert_eq!(other.answer().id, 1);

    let reading = thread::spawn(move || {
        for id in 0..REQUESTS {
            assert_eq!(deaf.answer().id, id);
        }
    });
    for _ in served..REQUESTS {
        node.next_request().1.send(large.clone());
    }
    reading.join().unwrap();
}

#[test]
fn answers_far_past_the_bound_cost_the_client_its_connection_only() {
    let limits = Limits {
        client_queue_bytes: 1 << 20,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, false);
    let (mut deaf, mut other) = (node.client(), node.client());
    for id in 0..100 {
        deaf.ask(&submit(id, "x"));
    }
    let replies: Vec<ReplyTo> = (0..100).map(|_| node.next_request().1).collect();
    let client = replies[0].client.clone();
    for reply in replies {
        reply.send(Answer::Reply(vec![0; 1 << 20].into()));
        assert!(client.outlet.queued() <= 9 << 20);
    }
    assert_eq!(
        client.outlet.queued(),
        0,
        "given up, and the memory with it"
    );
    deaf.expect_closed();
    other.ask(&submit(1, "x"));
    node.next_request().1.send(Answer::Busy);
    assert_eq!(other.answer().id, 1);
}

#[test]
fn a_flood_of_requests_does_not_keep_another_client_waiting() {
    const FLOOD: u64 = 4000;
    let node = Node::start_with_room(1, config(1), false);
    let (mut flooding, mut other) = (node.client(), node.client());
    // The test service blocks the loop until all these requests, and then the other client's
    // request, have arrived.
    for id in 0..FLOOD {
        flooding.ask(&submit(id, "x"));
    }
    other.ask(&submit(FLOOD, "x"));
    let before = (0..).find(|_| node.next_request().0.id == FLOOD);
    assert!(before < Some(1100), "{before:?} requests came first");
}

#[test]
fn clients_over_their_number_are_told_so_and_peers_still_get_in() {
    let limits = Limits {
        max_clients: 2,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, true);
    let mut clients = [node.client(), node.client()];
    let mut third = Remote::connect(node.address);
    third.write(&opening(&hello(Caller::Client)));
    match third.read().unwrap() {
        Welcome::Refused(why) => assert!(why.contains("2 clients"), "{why}"),
        welcome => panic!("{welcome:?}"),
    }
    third.expect_closed();
    let peer = peer_hello(2);
    let _peer = Remote::open(node.address, &peer);
    clients.iter_mut().for_each(|client| client.round_trip(1));

    let [gone, _stays] = clients;
    drop(gone);
    // There is room for another client only when the loop has noticed that the first one is gone.
    let again = (0..1000).any(|_| {
        let mut client = Remote::connect(node.address);
        client.write(&opening(&hello(Caller::Client)));
        matches!(client.read().unwrap(), Welcome::Accepted { .. })
    });
    assert!(again, "the place of a client that left stays taken");
}

#[test]
fn callers_over_the_number_of_connections_are_sent_away_until_one_closes() {
    let limits = Limits {
        max_clients: 0,
        ..Limits::default()
    };
    let node = Node::with_limits(limits, true);
    let silent: Vec<Remote> = (0..64).map(|_| Remote::connect(node.address)).collect();
    Remote::connect(node.address).expect_closed();
    drop(silent);
    let peer = opening(&peer_hello(2));
    let again = (0..1000).any(|_| {
        let mut remote = Remote::connect(node.address);
        remote.socket.write_all(&peer).is_ok() && matches!(remote.read(), Ok(Welcome::Peer(_)))
    });
    assert!(again, "nobody is let in any more");
}

#[test]
fn a_full_outlet_that_makes_no_progress_is_broken_off_and_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let outlet_of = |when_full| {
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let outlet = Outlet::new(Bounds {
            queue: 1000,
            when_full,
            keep: 0,
        });
        outlet.open(Arc::new(mio::net::TcpStream::from_std(socket)), Vec::new());
        outlet
    };
    let fill = |outlet: &Outlet| {
        let chunk = vec![0u8; 1 << 20];
        // Fill the kernel's buffers first, and then the outlet's own.
        let filled = (0..1000).any(|_| {
            outlet.send([&chunk]);
            outlet.queued() >= 1000
        });
        assert!(filled);
        outlet.send([&chunk]);
    };
    let patient = outlet_of(WhenFull::Drop(PATIENCE));
    fill(&patient);
    assert!(patient.is_open() && patient.queued() < 3 << 20);
    assert_eq!(patient.close(), None);

    let impatient = outlet_of(WhenFull::Drop(Duration::ZERO));
    fill(&impatient);
    assert!(!impatient.is_open());
    let why = impatient.close().expect("a reason");
    assert!(why.contains("it took none of the"), "{why}");
}
