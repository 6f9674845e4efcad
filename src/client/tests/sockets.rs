//! The TCP transport, and the Clerk over it, against small servers, where each test writes every
//! byte that the server sends.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::bounded;

use super::server::{Peer, Server, echo_of};
use crate::client::frames::Frames;
use crate::client::{CallError, Clerk, Error, Kind, Options, Stop, Tcp, Transport};
use crate::raft::RoleName;
use crate::wire::client::{Answer, Ask, Request, Response, Status};
use crate::wire::frame;
use crate::wire::handshake::Welcome;

/// A timeout that only a failing test reaches.
const LONG: Duration = Duration::from_secs(20);

fn query(text: &str) -> Ask {
    Ask::Query(Bytes::copy_from_slice(text.as_bytes()))
}

fn answer(text: &str) -> Result<Answer, CallError> {
    Ok(Answer::Reply(Bytes::copy_from_slice(text.as_bytes())))
}

fn send(tcp: &Tcp, address: &str, ask: &Ask, timeout: Duration) -> Result<Answer, CallError> {
    let answered = tcp.call(address, ask, 0, timeout, &Stop::never());
    answered.map(|answered| answered.answer)
}

fn call(tcp: &Tcp, server: &Server, text: &str) -> Result<Answer, CallError> {
    send(tcp, &server.address, &query(text), LONG)
}

fn call_in_thread(
    tcp: &Arc<Tcp>,
    server: &Server,
    text: &'static str,
) -> JoinHandle<Result<Answer, CallError>> {
    let (tcp, address) = (Arc::clone(tcp), server.address.clone());
    thread::spawn(move || send(&tcp, &address, &query(text), LONG))
}

fn tcp() -> Arc<Tcp> {
    Arc::new(Tcp::new(""))
}

fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[track_caller]
fn assert_not_sent(result: Result<Answer, CallError>, part: &str) {
    match result {
        Err(CallError::NotSent(why)) if why.contains(part) => {}
        other => panic!("{other:?} instead of not sent because of {part:?}"),
    }
}

#[track_caller]
fn assert_lost(result: Result<Answer, CallError>, part: &str) {
    match result {
        Err(CallError::Lost(why)) if why.contains(part) => {}
        other => panic!("{other:?} instead of lost because of {part:?}"),
    }
}

#[test]
fn answers_in_any_order_reach_those_who_asked() {
    let server = Server::greeting(|_, mut peer| {
        let mut requests: Vec<Request> = (0..3).map(|_| peer.receive()).collect();
        requests.sort_by_key(|request| std::cmp::Reverse(request.id));
        for Request { id, ask, .. } in requests {
            peer.answer(id, echo_of(&ask));
        }
    });
    let tcp = tcp();
    let calls = ["one", "two", "three"].map(|text| (text, call_in_thread(&tcp, &server, text)));
    for (text, call) in calls {
        assert_eq!(call.join().unwrap(), answer(text));
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn many_threads_share_one_connection() {
    let server = Server::echo();
    let tcp = tcp();
    thread::scope(|scope| {
        for thread in 0..16 {
            let (tcp, server) = (&tcp, &server);
            scope.spawn(move || {
                for number in 0..100 {
                    let text = format!("{thread} asks {number}");
                    assert_eq!(call(tcp, server, &text), answer(&text));
                }
            });
        }
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_request_says_how_long_the_server_may_take() {
    let server = Server::greeting(|_, mut peer| {
        let request: Request = peer.receive();
        peer.answer(request.id, Answer::Invalid(request.timeout_ms.to_string()));
    });
    let Ok(Answer::Invalid(timeout_ms)) = call(&tcp(), &server, "?") else {
        panic!("no answer");
    };
    let timeout_ms: u128 = timeout_ms.parse().unwrap();
    let limit = LONG.as_millis();
    assert!(
        timeout_ms > limit / 2 && timeout_ms < limit,
        "{timeout_ms} ms"
    );
}

#[test]
fn an_answer_byte_by_byte_and_two_in_one_piece_are_read_alike() {
    let server = Server::greeting(|_, mut peer| {
        let request: Request = peer.receive();
        let mut bytes = Vec::new();
        let (id, answer) = (request.id, echo_of(&request.ask));
        frame::put(
            &Response {
                id,
                answer,
                members: None,
            },
            &mut bytes,
        );
        for byte in bytes {
            peer.stream.write_all(&[byte]).unwrap();
        }
        let (first, second): (Request, Request) = (peer.receive(), peer.receive());
        let mut bytes = Vec::new();
        for Request { id, ask, .. } in [first, second] {
            let answer = echo_of(&ask);
            frame::put(
                &Response {
                    id,
                    answer,
                    members: None,
                },
                &mut bytes,
            );
        }
        peer.stream.write_all(&bytes).unwrap();
        peer.try_receive::<Request>();
    });
    let tcp = tcp();
    assert_eq!(call(&tcp, &server, "in pieces"), answer("in pieces"));
    let together = ["one", "two"].map(|text| (text, call_in_thread(&tcp, &server, text)));
    for (text, call) in together {
        assert_eq!(call.join().unwrap(), answer(text));
    }
}

#[test]
fn a_partial_frame_survives_reads_that_run_out_of_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _): (_, SocketAddr) = listener.accept().unwrap();
    let value = "x".repeat(100_000);
    let mut bytes = Vec::new();
    frame::put(&value, &mut bytes);
    let mut frames = Frames::new();
    let moment = Duration::from_millis(1);
    for piece in [&bytes[..3], &bytes[3..60_000], &bytes[60_000..99_999]] {
        sender.write_all(piece).unwrap();
        for _ in 0..20 {
            frames.read(&receiver, moment).unwrap();
            assert_eq!(frames.next::<String>(frame::MAX_PAYLOAD), Ok(None));
        }
    }
    sender.write_all(&bytes[99_999..]).unwrap();
    let deadline = Instant::now() + LONG;
    let read = loop {
        frames.read(&receiver, moment).unwrap();
        if let Some(read) = frames.next::<String>(frame::MAX_PAYLOAD).unwrap() {
            break read;
        }
        assert!(Instant::now() < deadline, "the frame never came");
    };
    assert_eq!(read, value);
}

#[test]
fn a_connection_that_closes_midway_loses_all_who_wait_and_the_next_call_opens_another() {
    let server = Server::greeting(|number, mut peer| match number {
        1 => {
            let (one, _): (Request, Request) = (peer.receive(), peer.receive());
            let (id, answer) = (one.id, echo_of(&one.ask));
            let mut bytes = Vec::new();
            frame::put(
                &Response {
                    id,
                    answer,
                    members: None,
                },
                &mut bytes,
            );
            peer.stream.write_all(&bytes[..bytes.len() - 1]).unwrap();
        }
        _ => {
            let request: Request = peer.receive();
            peer.answer(request.id, echo_of(&request.ask));
        }
    });
    let tcp = tcp();
    let calls = ["one", "two"].map(|text| call_in_thread(&tcp, &server, text));
    for call in calls {
        assert_lost(call.join().unwrap(), "");
    }
    assert_eq!(call(&tcp, &server, "three"), answer("three"));
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_refused_handshake_and_a_closed_port_are_certainly_not_sent() {
    let refusing = Server::raw(|_, mut peer| {
        peer.hear_hello();
        peer.send(&Welcome::Refused("the cluster is called \"blue\"".into()));
    });
    let tcp = tcp();
    assert_not_sent(
        call(&tcp, &refusing, "?"),
        "the server refuses: the cluster is called",
    );
    let refused = send(&tcp, &dead_address(), &query("?"), LONG);
    assert_not_sent(refused, "connection refused");
}

#[test]
fn a_server_of_another_kind_is_recognised_at_the_handshake() {
    let web = Server::raw(|_, mut peer| {
        peer.hear_hello();
        peer.stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    assert_not_sent(call(&tcp(), &web, "?"), "this is no server of this version");
    let mute = Server::raw(|_, mut peer| {
        peer.hear_hello();
        peer.try_receive::<Request>();
    });
    let moment = Duration::from_millis(300);
    let greeting = send(&tcp(), &mute.address, &query("?"), moment);
    assert_not_sent(greeting, "does not greet");
}

#[test]
fn garbage_instead_of_an_answer_loses_the_call_and_closes_the_connection() {
    type Garbage = fn(&mut Peer, u64);
    let scripts: [(&str, Garbage); 4] = [
        ("over the limit", |peer, _| {
            peer.stream.write_all(&[0xff; 64]).unwrap()
        }),
        ("checksum", |peer, _| {
            let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
            peer.stream.write_all(&bytes).unwrap()
        }),
        ("do not decode", |peer, _| peer.send(&"no response")),
        ("never sent", |peer, id| peer.answer(id + 1, Answer::Busy)),
    ];
    for (part, garbage) in scripts {
        let (closed, is_closed) = bounded(1);
        let server = Server::greeting(move |_, mut peer| {
            let request: Request = peer.receive();
            garbage(&mut peer, request.id);
            closed
                .send(peer.try_receive::<Request>().is_none())
                .unwrap();
        });
        assert_lost(call(&tcp(), &server, "?"), part);
        assert_eq!(is_closed.recv_timeout(LONG), Ok(true), "{part}");
    }
}

#[test]
fn a_call_ends_in_time_and_its_late_answer_harms_nobody() {
    let server = Server::greeting(|_, mut peer| {
        let first: Request = peer.receive();
        peer.answer(first.id, echo_of(&first.ask));
        let (late, next): (Request, Request) = (peer.receive(), peer.receive());
        peer.answer(late.id, echo_of(&late.ask));
        peer.answer(next.id, echo_of(&next.ask));
        peer.try_receive::<Request>();
    });
    let tcp = tcp();
    assert_eq!(call(&tcp, &server, "first"), answer("first"));
    let begun = Instant::now();
    let moment = Duration::from_millis(60);
    let late = send(&tcp, &server.address, &query("late"), moment);
    assert_lost(late, "its time ran out");
    assert!(begun.elapsed() < LONG / 2);
    assert_eq!(call(&tcp, &server, "next"), answer("next"));
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_that_stays_silent_for_a_whole_request_is_replaced() {
    let server = Server::greeting(|number, mut peer| {
        while let Some(request) = peer.try_receive::<Request>() {
            if number > 1 || request.ask == query("first") {
                peer.answer(request.id, echo_of(&request.ask));
            }
        }
    });
    let tcp = tcp();
    assert_eq!(call(&tcp, &server, "first"), answer("first"));
    let while_silent = Duration::from_millis(350);
    let silent = send(&tcp, &server.address, &query("one"), while_silent);
    assert_lost(silent, "its time ran out");
    assert_eq!(call(&tcp, &server, "two"), answer("two"));
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_server_that_does_not_read_gets_no_whole_request_so_it_was_not_sent() {
    let (_keep, until_the_end) = bounded::<()>(1);
    let server = Server::greeting(move |_, mut peer| {
        let first: Request = peer.receive();
        peer.answer(first.id, echo_of(&first.ask));
        let _ = until_the_end.recv();
    });
    let large = Ask::Submit(vec![7; 16 << 20].into());
    let moment = Duration::from_millis(200);
    let tcp = tcp();
    assert_eq!(call(&tcp, &server, "first"), answer("first"));
    let result = send(&tcp, &server.address, &large, moment);
    assert_not_sent(result, "its time ran out");
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_replaced_before_it_is_used() {
    let server = Server::greeting(|_, mut peer| {
        let request: Request = peer.receive();
        peer.answer(request.id, echo_of(&request.ask));
    });
    let tcp = tcp();
    assert_eq!(call(&tcp, &server, "one"), answer("one"));
    let deadline = Instant::now() + LONG;
    while tcp.is_connected(&server.address) {
        assert!(
            Instant::now() < deadline,
            "the end of the connection goes unnoticed"
        );
        thread::yield_now();
    }
    assert_eq!(call(&tcp, &server, "two"), answer("two"));
    assert_eq!(server.connections(), 2);
}

#[test]
fn servers_of_two_clusters_in_one_list_are_told_apart() {
    let [blue, green] = ["blue", "green"].map(|cluster| {
        Server::raw(move |_, mut peer| {
            peer.greet(cluster);
            let request: Request = peer.receive();
            peer.answer(request.id, echo_of(&request.ask));
        })
    });
    let tcp = tcp();
    assert_eq!(call(&tcp, &blue, "?"), answer("?"));
    assert_not_sent(
        call(&tcp, &green, "?"),
        "belongs to cluster \"green\", not to \"blue\"",
    );
}

#[test]
fn a_cancelled_call_ends_while_it_waits_for_an_answer() {
    let (asked, is_asked) = bounded(1);
    let server = Server::greeting(move |_, mut peer| {
        while peer.try_receive::<Request>().is_some() {
            asked.send(()).unwrap();
        }
    });
    let options = Options {
        deadline: 2 * LONG,
        attempt_timeout: 2 * LONG,
        ..Options::default()
    };
    let clerk = Clerk::with_options([&server.address], options).unwrap();
    let canceller = clerk.canceller();
    thread::scope(|scope| {
        let calls = [0; 3].map(|_| scope.spawn(|| clerk.get("k")));
        for _ in &calls {
            is_asked.recv_timeout(LONG).unwrap();
        }
        let begun = Instant::now();
        canceller.cancel();
        for call in calls {
            let maybe_executed = false;
            assert_eq!(
                call.join().unwrap(),
                Err(Error::Cancelled { maybe_executed })
            );
        }
        assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_write_that_nobody_answers_ends_by_the_deadline_as_unavailable() {
    let server = Server::greeting(|_, mut peer| while peer.try_receive::<Request>().is_some() {});
    let options = Options {
        deadline: Duration::from_millis(150),
        attempt_timeout: Duration::from_millis(40),
        ..Options::default()
    };
    let clerk = Clerk::with_options([&server.address], options).unwrap();
    let begun = Instant::now();
    let error = clerk.put("k", "v").unwrap_err();
    // No session could be opened, so the write itself was never sent and is not in doubt.
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    assert!(clerk.stats().attempts >= 2, "{:?}", clerk.stats());
}

#[test]
fn the_status_of_all_servers_comes_without_a_leader_and_with_one_dead() {
    let status_of = |id, members: Vec<(u64, String)>| Status {
        id,
        cluster: "test".into(),
        role: RoleName::Follower,
        term: 7,
        leader: None,
        members,
        learners: Vec::new(),
        active: Vec::new(),
        commit: 0,
        applied: 0,
        last_index: 0,
        first_index: 1,
        log_bytes: 0,
        snapshot_index: 0,
        snapshot_bytes: 0,
        snapshot_age_ms: 0,
        sending: Vec::new(),
        uptime_ms: 0,
        gauges: Vec::new(),
        snapshot_pending: false,
        snapshot_written: 0,
        stages: Vec::new(),
        disk: Default::default(),
    };
    let serve = |status: Status| {
        Server::greeting(move |_, mut peer| {
            while let Some(Request { id, .. }) = peer.try_receive() {
                peer.answer(id, Answer::Status(Box::new(status.clone())));
            }
        })
    };
    let two = serve(status_of(2, Vec::new()));
    let dead = dead_address();
    let members = vec![
        (1, "another.name.for.one:7001".to_string()),
        (2, two.address.clone()),
        (3, dead.clone()),
    ];
    let one = serve(status_of(1, members));
    let clerk = Clerk::connect([&one.address]).unwrap();
    let mut heard: Vec<_> = clerk
        .status()
        .into_iter()
        .map(|server| (server.address, server.result.map(|status| status.id)))
        .collect();
    heard.sort_by(|a, b| a.0.cmp(&b.0));
    let refused = CallError::NotSent("connection refused".into());
    let mut expected = vec![
        (one.address.clone(), Ok(1)),
        (two.address.clone(), Ok(2)),
        (dead, Err(refused)),
    ];
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(heard, expected);
}
