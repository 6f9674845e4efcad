//! Requests that the client reports as not sent must not be executed later.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::bounded;

use super::server::{Server, echo_of};
use crate::client::{CallError, Carrier, Stop, Tcp, Transport};
use crate::wire::client::{Ask, Request};

/// A timeout that only a failing test reaches.
const LONG: Duration = Duration::from_secs(20);

fn query(text: &str) -> Ask {
    Ask::Query(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn behind_a_frame_that_was_written_in_part_nothing_is_sent_on_the_same_connection() {
    let (go, may_read) = bounded::<()>(1);
    let server = Server::greeting(move |number, mut peer| {
        if number > 1 {
            let request: Request = peer.receive();
            return peer.answer(request.id, echo_of(&request.ask));
        }
        // The server reads nothing until the client has given up in the middle of its frame. Then
        // the server reads the bytes that were in the sockets' buffers, and the end of the stream.
        let _ = may_read.recv_timeout(LONG);
        let mut chunk = vec![0; 1 << 16];
        let mut first = true;
        while let Ok(count) = peer.stream.read(&mut chunk)
            && count > 0
        {
            // The first bytes belong to the header. All bytes of the large command are 7.
            let begin = if std::mem::take(&mut first) { 64 } else { 0 };
            if chunk[begin.min(count)..count].iter().any(|byte| *byte != 7) {
                return;
            }
        }
    });
    let tcp = Tcp::new("");
    let call = |ask: &Ask, timeout| {
        let answered = tcp.call(&server.address, ask, 0, timeout, &Stop::never());
        answered.map(|answered| answered.answer)
    };
    let large = Ask::Submit(vec![7; 16 << 20].into());
    let given_up = call(&large, Duration::from_millis(200));
    assert!(
        matches!(given_up, Err(CallError::NotSent(_))),
        "the server does not read"
    );
    go.send(()).unwrap();
    let next = call(&query("next"), LONG);
    let expected = Ok(echo_of(&query("next")));
    assert_eq!(next, expected, "a request left behind half of another one");
}

#[test]
fn a_request_that_was_said_not_to_be_sent_does_not_leave_with_a_late_greeting() {
    let (go, given_up) = bounded::<()>(1);
    let (tell, heard) = bounded(1);
    let server = Server::raw(move |_, mut peer| {
        let _ = peer.hear_hello();
        let _ = given_up.recv_timeout(LONG);
        let cluster = "test".to_string();
        peer.send(&crate::wire::handshake::Welcome::Accepted { cluster, id: 1 });
        let _ = tell.send(peer.try_receive::<Request>());
    });
    let mut carrier = Carrier::new(1, "").unwrap();
    let timeout = Duration::from_millis(60);
    carrier.ask(0, (0, &server.address), 7, (query("late"), 0), timeout);
    let (mut told, mut some) = (None, Vec::new());
    let deadline = carrier.now() + LONG;
    while told.is_none() {
        assert!(carrier.now() < deadline, "the request does not end");
        carrier.wait(deadline, &mut some).unwrap();
        told = some.pop();
    }
    let result = told.map(|told| told.result);
    assert!(
        matches!(result, Some(Err(CallError::NotSent(_)))),
        "the server has not greeted: {result:?}"
    );
    go.send(()).unwrap();
    // If the Carrier kept the connection, it would now send the request after the greeting.
    let request = loop {
        assert!(carrier.now() < deadline, "the connection stays open");
        carrier.wait(deadline, &mut some).unwrap();
        if let Ok(request) = heard.try_recv() {
            break request;
        }
    };
    assert_eq!(request, None, "a request that was \"not sent\" has left");
}
