//! Tests of the lines that an event loop writes to the diagnostic log. Lines of different event
//! loops are kept apart by the thread that logs them.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::thread::ThreadId;

use super::*;

static LINES: LazyLock<Mutex<HashMap<ThreadId, Vec<String>>>> = LazyLock::new(Mutex::default);

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let line = format!("{}: {}", record.level(), record.args());
        let mut lines = LINES.lock().unwrap();
        lines.entry(thread::current().id()).or_default().push(line);
    }

    fn flush(&self) {}
}

/// The lines that an event loop has logged since the last call, from the level `info` up.
fn lines_of(node: &Node) -> Vec<String> {
    let thread = node.thread.as_ref().expect("running").thread().id();
    LINES.lock().unwrap().remove(&thread).unwrap_or_default()
}

fn collect() {
    // Setting the logger fails for all tests but the first, because it can be set only once.
    let _ = log::set_logger(&Collector);
    log::set_max_level(log::LevelFilter::Info);
}

#[test]
fn bad_input_leaves_one_line_that_names_the_caller_and_what_was_wrong() {
    collect();
    let node = Node::echoing();
    let mut wrong_cluster = hello(Caller::Client);
    wrong_cluster.cluster = "other".into();
    let bad_frame = [opening(&hello(Caller::Client)), vec![0xff; 12]].concat();
    let cases = [
        (b"GET / HTTP/1.1\r\n".to_vec(), "GET / HTTP/1.1\\r\\n"),
        (opening(&wrong_cluster), "another cluster"),
        (bad_frame, "over the limit"),
    ];
    for (bytes, what) in cases {
        let mut client = Remote::connect(node.address);
        client.write(&bytes);
        client.expect_closed();
        let address = client.socket.local_addr().unwrap().to_string();
        node.client().round_trip(1);
        let lines = lines_of(&node);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("WARN"), "{lines:?}");
        assert!(
            lines[0].contains(what) && lines[0].contains(&address),
            "{lines:?}"
        );
    }
}

#[test]
fn a_peer_that_cannot_be_reached_or_refuses_is_logged_once_and_not_at_each_attempt() {
    collect();
    let second = Node::start(config(2), false);
    second.refusing.store(true, Ordering::SeqCst);
    let with_peer = Config {
        peers: vec![(2, second.address.to_string())],
        ..config(1)
    };
    let first = Node::start(with_peer, false);
    let refusals = |lines: &[String]| lines.iter().filter(|l| l.contains("refuse")).count();
    // Wait until the other node has refused several attempts.
    let mut refused = 0;
    while refused < 4 {
        assert!(second.told.recv_timeout(Duration::from_millis(5)).is_err());
        refused += refusals(&lines_of(&second));
    }
    let lines = lines_of(&first);
    assert_eq!((lines.len(), refusals(&lines)), (1, 1), "{lines:?}");
    assert!(lines[0].contains("node 2 at") && lines[0].contains("another cluster"));
}
