//! The proxy, with both ends of a connection in the hands of the test.

use std::io::{Read, Write};

use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// The two ends of a connection, and the proxy between them.
struct Pair {
    cable: Cable,
    caller: TcpStream,
    target: TcpStream,
    proxy: Proxy,
}

fn pair_over(cable: Cable) -> Pair {
    let (front, back) = (listener(), listener());
    let proxy = Proxy::start(front, back.local_addr().unwrap(), &cable, 7).unwrap();
    let caller = TcpStream::connect(proxy.address()).unwrap();
    let (target, _) = back.accept().unwrap();
    for socket in [&caller, &target] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    Pair {
        cable,
        caller,
        target,
        proxy,
    }
}

fn pair() -> Pair {
    pair_over(Cable::default())
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn receive(socket: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

/// Whether no byte arrives on the stream for a moment.
fn is_silent(socket: &mut TcpStream) -> bool {
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let silent = socket.read(&mut [0]).is_err();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    silent
}

/// Waits until the stream ends, with an error or without.
fn await_end(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    // A connection that is broken off may end with an error.
    let _ = socket.read_to_end(&mut rest);
}

#[test]
fn bytes_pass_unchanged_in_both_directions_and_so_does_the_end() {
    let mut pair = pair();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let (mut caller, sent) = (pair.caller.try_clone().unwrap(), bytes.clone());
    let writer = thread::spawn(move || {
        caller.write_all(&sent).unwrap();
        caller.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    pair.target.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == bytes);
    pair.target.write_all(b"answer").unwrap();
    assert_eq!(receive(&mut pair.caller, 6), b"answer");
}

#[test]
fn bytes_that_wait_arrive_when_the_flow_passes_again() {
    let mut pair = pair();
    pair.cable.set_way(Way::There, Quality::waiting());
    pair.caller.write_all(b"late").unwrap();
    assert!(is_silent(&mut pair.target));
    pair.target.write_all(b"back").unwrap();
    assert_eq!(receive(&mut pair.caller, 4), b"back");
    pair.cable.set(Quality::default());
    assert_eq!(receive(&mut pair.target, 4), b"late");
}

#[test]
fn a_connection_that_lost_bytes_is_broken_off_when_the_flow_passes_again() {
    let mut pair = pair();
    pair.cable.set(Quality::vanishing());
    pair.caller.write_all(b"lost").unwrap();
    assert!(is_silent(&mut pair.target));
    assert!(is_silent(&mut pair.caller), "it is still open");
    pair.cable.set(Quality::default());
    await_end(&mut pair.caller);
    await_end(&mut pair.target);
    assert_eq!(pair.cable.counts().lost, 1);
}

#[test]
fn a_chunk_is_delayed_within_its_bounds() {
    let mut pair = pair();
    let (mean, jitter) = (Duration::from_millis(75), Duration::from_millis(50));
    pair.cable.set(Quality::delayed(mean, jitter));
    for _ in 0..5 {
        let sent = Instant::now();
        pair.caller.write_all(b"x").unwrap();
        receive(&mut pair.target, 1);
        assert!(sent.elapsed() >= mean - jitter, "{:?}", sent.elapsed());
    }
}

#[test]
fn a_corrupted_chunk_differs_in_one_byte() {
    let mut pair = pair();
    pair.cable.set(Quality {
        corrupted_permille: 1000,
        ..Quality::default()
    });
    pair.caller.write_all(&[0; 100]).unwrap();
    let got = receive(&mut pair.target, 100);
    let counts = pair.cable.counts();
    let changed = got.iter().filter(|byte| **byte != 0).count() as u64;
    // The hundred bytes may have come as more than one chunk.
    assert!(changed >= 1 && changed <= counts.corrupted, "{counts:?}");
}

#[test]
fn a_broken_connection_ends_at_both_ends() {
    let mut pair = pair();
    pair.cable.set(Quality {
        broken_permille: 1000,
        ..Quality::default()
    });
    pair.caller.write_all(b"lost").unwrap();
    await_end(&mut pair.caller);
    await_end(&mut pair.target);
}

#[test]
fn a_throttled_direction_keeps_to_its_rate() {
    let mut pair = pair();
    pair.cable.set(Quality {
        bytes_per_second: 1 << 20,
        ..Quality::default()
    });
    let begun = Instant::now();
    // The last chunk is delivered when all chunks before it have taken their time.
    pair.caller.write_all(&[0; 128 << 10]).unwrap();
    receive(&mut pair.target, 128 << 10);
    let least = Duration::from_millis(125 - 16);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

#[test]
fn a_new_connection_waits_as_long_as_accepting_takes() {
    let (cable, delay) = (Cable::default(), Duration::from_millis(60));
    cable.set(Quality {
        accept_delay: delay,
        ..Quality::default()
    });
    let begun = Instant::now();
    let mut pair = pair_over(cable);
    pair.caller.write_all(b"x").unwrap();
    receive(&mut pair.target, 1);
    assert!(begun.elapsed() >= delay);
}

#[test]
fn a_target_that_does_not_read_holds_the_sender_back() {
    let mut pair = pair();
    pair.cable.set(Quality::waiting());
    let timeout = Some(Duration::from_millis(200));
    pair.caller.set_write_timeout(timeout).unwrap();
    let mut written = 0;
    while let Ok(len) = pair.caller.write(&[0; 1 << 16]) {
        written += len;
        // The bound is far more than the queue and the buffers of both sockets hold.
        assert!(written < 64 << 20, "the proxy takes whatever comes");
    }
}

#[test]
fn a_proxy_whose_target_is_gone_closes_the_connection() {
    let target = listener().local_addr().unwrap();
    let proxy = Proxy::start(listener(), target, &Cable::default(), 1).unwrap();
    let mut caller = TcpStream::connect(proxy.address()).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    await_end(&mut caller);
}

#[test]
fn a_dropped_proxy_ends_its_connections_also_those_that_wait() {
    let mut pair = pair();
    pair.cable.set(Quality::waiting());
    pair.caller.write_all(b"lost").unwrap();
    drop(pair.proxy);
    await_end(&mut pair.caller);
    await_end(&mut pair.target);
}

#[test]
fn a_refused_connection_ends_at_once() {
    let cable = Cable::default();
    cable.set(Quality {
        refused_permille: 1000,
        ..Quality::default()
    });
    let back = listener();
    let proxy = Proxy::start(listener(), back.local_addr().unwrap(), &cable, 1).unwrap();
    let mut caller = TcpStream::connect(proxy.address()).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    await_end(&mut caller);
    assert_eq!(cable.counts().connections, 0);
}
