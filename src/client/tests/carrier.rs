//! The Carrier against small servers, where each test writes every byte that the server sends.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::server::{Server, echo_of};
use crate::client::{CallError, Carrier, Told};
use crate::wire::client::{Answer, Ask, Request, Response};
use crate::wire::frame;
use crate::wire::handshake::Welcome;

/// A timeout that only a failing test reaches.
const LONG: Duration = Duration::from_secs(20);

fn query(tag: usize) -> Ask {
    Ask::Query(Bytes::from(tag.to_string()))
}

fn ask(carrier: &mut Carrier, address: &str, tag: usize) {
    carrier.ask(tag, (0, address), tag, (query(tag), 0), LONG);
}

/// Waits until this many requests have ended. Returns the result of each, by its tag.
#[track_caller]
fn told(carrier: &mut Carrier, count: usize) -> BTreeMap<usize, Result<Answer, CallError>> {
    let (mut all, mut some) = (BTreeMap::new(), Vec::new());
    let deadline = carrier.now() + LONG;
    while all.len() < count {
        assert!(carrier.now() < deadline, "{} of {count}", all.len());
        carrier.wait(deadline, &mut some).unwrap();
        for Told { tag, result, .. } in some.drain(..) {
            let result = result.map(|answered| answered.answer);
            assert!(all.insert(tag, result).is_none(), "{tag} ended twice");
        }
    }
    all
}

#[track_caller]
fn assert_not_sent(result: &Result<Answer, CallError>, part: &str) {
    match result {
        Err(CallError::NotSent(why)) if why.contains(part) => {}
        other => panic!("{other:?} instead of not sent because of {part:?}"),
    }
}

#[test]
fn many_requests_share_few_connections_and_each_gets_its_own_answer() {
    let server = Server::echo();
    let mut carrier = Carrier::new(3, "").unwrap();
    for round in 0..3 {
        for tag in 0..500 {
            ask(&mut carrier, &server.address, tag + round);
        }
        for (tag, result) in told(&mut carrier, 500) {
            assert_eq!(result, Ok(echo_of(&query(tag))));
        }
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn requests_and_answers_larger_than_any_buffer_arrive_whole() {
    let server = Server::echo();
    let mut carrier = Carrier::new(1, "").unwrap();
    let large = |tag: u8| Ask::Query(Bytes::from(vec![tag; 3 << 20]));
    for tag in 0..3 {
        carrier.ask(0, (0, &server.address), tag.into(), (large(tag), 0), LONG);
    }
    for (tag, result) in told(&mut carrier, 3) {
        assert_eq!(result, Ok(echo_of(&large(tag as u8))));
    }
}

#[test]
fn a_request_that_fits_in_no_frame_is_not_sent() {
    let server = Server::echo();
    let mut carrier = Carrier::new(1, "").unwrap();
    let ask = Ask::Query(Bytes::from(vec![0; frame::MAX_PAYLOAD]));
    carrier.ask(0, (0, &server.address), 1, (ask, 0), LONG);
    assert_not_sent(&told(&mut carrier, 1)[&1], "more than can be sent");
}

#[test]
fn an_answer_byte_by_byte_is_read() {
    let server = Server::greeting(|_, mut peer| {
        let request: Request = peer.receive();
        let (id, answer) = (request.id, echo_of(&request.ask));
        let mut bytes = Vec::new();
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
        peer.try_receive::<Request>();
    });
    let mut carrier = Carrier::new(1, "").unwrap();
    ask(&mut carrier, &server.address, 7);
    assert_eq!(told(&mut carrier, 1)[&7], Ok(echo_of(&query(7))));
}

#[test]
fn what_a_server_does_not_take_is_certainly_not_sent() {
    let refusing = Server::raw(|_, mut peer| {
        peer.hear_hello();
        peer.send(&Welcome::Refused("the cluster is called \"blue\"".into()));
    });
    let web = Server::raw(|_, mut peer| {
        peer.hear_hello();
        let page = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        peer.stream.write_all(page).unwrap();
    });
    let mute = Server::raw(|_, mut peer| {
        peer.hear_hello();
        // The server has not greeted, so the client must not have sent a request.
        assert_eq!(peer.try_receive::<Request>(), None);
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = closed.local_addr().unwrap().to_string();
    drop(closed);
    for (address, part) in [
        (&refusing.address, "the server refuses: the cluster is"),
        (&web.address, "this is no server of this version"),
        (&mute.address, "does not greet"),
        (&dead, "connection refused"),
        (&"no such host:1".to_string(), ""),
    ] {
        let mut carrier = Carrier::new(1, "").unwrap();
        ask(&mut carrier, address, 1);
        assert_not_sent(&told(&mut carrier, 1)[&1], part);
    }
}

#[test]
fn servers_of_two_clusters_are_told_apart() {
    let servers = ["blue", "green"].map(|name| {
        Server::raw(move |_, mut peer| {
            peer.greet(name);
            while let Some(request) = peer.try_receive::<Request>() {
                peer.answer(request.id, echo_of(&request.ask));
            }
        })
    });
    let mut carrier = Carrier::new(1, "").unwrap();
    carrier.ask(0, (0, &servers[0].address), 1, (query(1), 0), LONG);
    assert_eq!(told(&mut carrier, 1)[&1], Ok(echo_of(&query(1))));
    carrier.ask(0, (1, &servers[1].address), 2, (query(2), 0), LONG);
    assert_not_sent(
        &told(&mut carrier, 1)[&2],
        "cluster \"green\", not to \"blue\"",
    );
}

#[test]
fn a_connection_that_breaks_loses_what_was_sent_and_the_next_request_opens_another() {
    let server = Server::greeting(|number, mut peer| {
        let _: (Request, Request) = match number {
            1 => (peer.receive(), peer.receive()),
            _ => {
                let request: Request = peer.receive();
                return peer.answer(request.id, echo_of(&request.ask));
            }
        };
    });
    let mut carrier = Carrier::new(1, "").unwrap();
    ask(&mut carrier, &server.address, 1);
    ask(&mut carrier, &server.address, 2);
    for result in told(&mut carrier, 2).into_values() {
        assert!(matches!(result, Err(CallError::Lost(_))), "{result:?}");
    }
    ask(&mut carrier, &server.address, 3);
    assert_eq!(told(&mut carrier, 1)[&3], Ok(echo_of(&query(3))));
    assert_eq!(server.connections(), 2);
}

/// The kernel reports the last data and the end of the stream in one event, and reports neither of
/// them again. A Carrier that read the data only would wait for the second answer until the
/// request's time is up.
#[test]
fn an_end_that_comes_together_with_an_answer_is_noticed_at_once() {
    let (heard_both, both) = mpsc::sync_channel(1);
    let (go, may_end) = mpsc::sync_channel::<()>(1);
    let (has_ended, ended) = mpsc::sync_channel(1);
    let may_end = Mutex::new(may_end);
    let server = Server::greeting(move |number, mut peer| {
        let first: Request = peer.receive();
        if number > 1 {
            return peer.answer(first.id, echo_of(&first.ask));
        }
        let _: Request = peer.receive();
        heard_both.send(()).unwrap();
        may_end.lock().recv().unwrap();
        peer.answer(first.id, echo_of(&first.ask));
        drop(peer);
        has_ended.send(()).unwrap();
    });
    let mut carrier = Carrier::new(1, "").unwrap();
    ask(&mut carrier, &server.address, 1);
    ask(&mut carrier, &server.address, 2);
    let mut none = Vec::new();
    let deadline = carrier.now() + LONG;
    while both.try_recv().is_err() {
        assert!(carrier.now() < deadline, "the requests do not arrive");
        carrier.wait(deadline, &mut none).unwrap();
        assert!(none.is_empty(), "{none:?}");
    }
    // Both the answer and the end of the stream arrive before the next wait.
    go.send(()).unwrap();
    ended.recv_timeout(LONG).unwrap();
    let told = told(&mut carrier, 2);
    assert_eq!(told[&1], Ok(echo_of(&query(1))));
    let closed = Err(CallError::Lost("the server closed the connection".into()));
    assert_eq!(told[&2], closed);
}

#[test]
fn garbage_instead_of_an_answer_loses_the_request() {
    for (part, id) in [("never sent", 9), ("never sent", 0)] {
        let server = Server::greeting(move |_, mut peer| {
            let _: Request = peer.receive();
            peer.answer(id, Answer::Busy);
            peer.try_receive::<Request>();
        });
        let mut carrier = Carrier::new(1, "").unwrap();
        ask(&mut carrier, &server.address, 1);
        match &told(&mut carrier, 1)[&1] {
            Err(CallError::Lost(why)) if why.contains(part) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_request_ends_in_time_and_its_late_answer_harms_nobody() {
    let server = Server::greeting(|_, mut peer| {
        let first: Request = peer.receive();
        peer.answer(first.id, echo_of(&first.ask));
        let (late, next): (Request, Request) = (peer.receive(), peer.receive());
        peer.answer(late.id, echo_of(&late.ask));
        peer.answer(next.id, echo_of(&next.ask));
        peer.try_receive::<Request>();
    });
    let mut carrier = Carrier::new(1, "").unwrap();
    ask(&mut carrier, &server.address, 1);
    assert_eq!(told(&mut carrier, 1)[&1], Ok(echo_of(&query(1))));
    let moment = Duration::from_millis(60);
    carrier.ask(0, (0, &server.address), 2, (query(2), 0), moment);
    let late = Err(CallError::Lost("its time ran out".into()));
    assert_eq!(told(&mut carrier, 1)[&2], late);
    ask(&mut carrier, &server.address, 3);
    assert_eq!(told(&mut carrier, 1)[&3], Ok(echo_of(&query(3))));
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_connection_that_stays_silent_for_a_whole_request_is_replaced() {
    let server = Server::greeting(|number, mut peer| {
        while let Some(request) = peer.try_receive::<Request>() {
            if number > 1 || request.ask == query(1) {
                peer.answer(request.id, echo_of(&request.ask));
            }
        }
    });
    let mut carrier = Carrier::new(1, "").unwrap();
    ask(&mut carrier, &server.address, 1);
    told(&mut carrier, 1);
    let while_silent = Duration::from_millis(350);
    carrier.ask(0, (0, &server.address), 2, (query(2), 0), while_silent);
    assert!(told(&mut carrier, 1)[&2].is_err());
    ask(&mut carrier, &server.address, 3);
    assert_eq!(told(&mut carrier, 1)[&3], Ok(echo_of(&query(3))));
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_wait_for_nothing_ends_at_its_time_and_not_before() {
    let mut carrier = Carrier::new(1, "").unwrap();
    let mut none = Vec::new();
    for us in [100, 1500, 7300] {
        let until = carrier.now() + Duration::from_micros(us);
        carrier.wait(until, &mut none).unwrap();
        assert!(carrier.now() >= until, "{us} us");
        assert!(none.is_empty());
    }
}
