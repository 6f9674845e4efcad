//! Tests that feed arbitrary bytes, in arbitrary pieces, to the protocols of a connection, without
//! sockets.

use mio::{Poll, Token, Waker};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::net::input::Input;
use crate::net::loop_signals::LoopSignals;
use crate::net::opening::Opening;
use crate::net::outlet::{Bounds, Outlet, WhenFull};
use crate::net::peer_side::Dialled;
use crate::net::protocol::{Close, Local, Next, Protocol, Stage, Turn};

/// A service that accepts everybody and keeps all messages.
#[derive(Default)]
struct Collector {
    requests: Vec<Request>,
    envelopes: Vec<Envelope>,
}

impl Service for Collector {
    fn welcomed(&mut self, _: &PeerWelcome, _: &str) {}

    fn absent(&mut self, _: NodeId) {}

    fn hello(&mut self, hello: &Hello, _: SocketAddr) -> Option<Welcome> {
        Some(welcome(hello, 1, Standing::Member))
    }

    fn peer(&mut self, envelope: Envelope) {
        self.envelopes.push(envelope);
    }

    fn request(&mut self, request: Request, _: ReplyTo) {
        self.requests.push(request);
    }

    fn flush(&mut self) {}
}

/// What came out of a connection's bytes: messages, the stage reached, and whether it was closed.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<Request>,
    envelopes: Vec<Envelope>,
    stage: Stage,
    closed: Option<std::mem::Discriminant<Close>>,
}

fn feed<'a>(first: Box<dyn Protocol>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let poll = Poll::new().unwrap();
    let signals = LoopSignals::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let config = config(1);
    let local = Local {
        id: 1,
        cluster: config.cluster,
        machine: config.machine,
        folder: config.folder,
        address: config.address,
        limits: config.limits,
        announced: Arc::new(Announced::new(config.founding)),
        directory: Arc::default(),
        signals: Arc::new(signals),
    };
    let outlet = Arc::new(Outlet::new(Bounds {
        queue: 0,
        when_full: WhenFull::BreakOff,
        keep: 0,
    }));
    let mut service = Collector::default();
    let (mut protocol, mut input) = (first, Input::default());
    let mut closed = None;
    'pieces: for piece in pieces {
        input.append(piece);
        let mut turn = Turn {
            service: &mut service,
            local: &local,
            outlet: &outlet,
            address: config.listen,
            room_for_client: true,
            messages_left: usize::MAX,
            delivered: false,
        };
        loop {
            match protocol.on_bytes(&mut input, &mut turn) {
                Ok(Next::Become(next)) => protocol = next,
                Ok(Next::Read) => break,
                Ok(Next::Yield | Next::Suspend) => panic!("not over any bound"),
                Err(why) => {
                    closed = Some(std::mem::discriminant(&why));
                    break 'pieces;
                }
            }
        }
    }
    Outcome {
        requests: service.requests,
        envelopes: service.envelopes,
        stage: protocol.stage(),
        closed,
    }
}

/// Valid bytes of three kinds: from a client, from a peer that dials, and from a peer that was
/// dialled.
fn good_streams() -> [Vec<u8>; 3] {
    let client = [
        opening(&hello(Caller::Client)),
        frame_of(&submit(1, "one")),
        frame_of(&submit(300, "three hundred")),
    ];
    let peer = hello(Caller::Peer(PeerHello {
        from: 2,
        to: 1,
        machine: "none".into(),
        folder: 2,
        to_folder: Some(1),
        address: "127.0.0.1:1".into(),
        lineage: 7,
        configuration: 8,
        founding: 9,
    }));
    let messages = [
        opening(&peer),
        frame_of(&heartbeat(2, 1, 1)),
        frame_of(&heartbeat(2, 1, 2)),
    ];
    let known = Some((Some(3), "127.0.0.1:1".into()));
    let standing = Standing::Stranger {
        configuration: 8,
        known,
    };
    let dialled = welcome(&peer, 2, standing);
    [client.concat(), messages.concat(), frame_of(&dialled)]
}

fn protocol(stream: usize) -> Box<dyn Protocol> {
    match stream {
        2 => Box::new(Dialled::new(2, Some(2), String::new())),
        _ => Box::new(Opening::default()),
    }
}

#[test]
fn good_streams_are_understood() {
    let [client, peer, dialled] = good_streams();
    let outcome = feed(protocol(0), [&client[..]]);
    assert_eq!((outcome.requests.len(), outcome.stage), (2, Stage::Client));
    let outcome = feed(protocol(1), [&peer[..]]);
    assert_eq!((outcome.envelopes.len(), outcome.stage), (2, Stage::Peer));
    let outcome = feed(protocol(2), [&dialled[..]]);
    assert_eq!((outcome.closed, outcome.stage), (None, Stage::Peer));
}

proptest! {
    #[test]
    fn damaged_streams_come_to_the_same_end_however_they_are_cut(
        stream in 0..3usize,
        damage in vec((any::<Index>(), any::<u8>()), 0..3),
        surplus in vec(any::<u8>(), 0..20),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let mut bytes = good_streams()[stream].clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(surplus);
        let whole = feed(protocol(stream), [&bytes[..]]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        prop_assert_eq!(feed(protocol(stream), pieces), whole);
    }

    #[test]
    fn random_frames_after_a_hello_harm_nobody(
        stream in 0..2usize,
        payloads in vec(vec(any::<u8>(), 0..40), 0..4),
    ) {
        let mut bytes = good_streams()[stream].clone();
        for payload in payloads {
            frame::put_with(&mut bytes, |out| out.extend(payload));
        }
        let outcome = feed(protocol(stream), [&bytes[..]]);
        prop_assert!(outcome.requests.len() + outcome.envelopes.len() >= 2);
    }
}
