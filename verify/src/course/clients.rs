//! Clients of the key/value service: what a scenario has them do.

use std::time::Duration;

use bytes::Bytes;

use super::Arena;
use crate::sim::lab::Call;
use crate::sim::{Action, End, Record};
use raftkv::kv::{Op, Reply};

/// No call may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// An arena with clients, from 0 on, each of which does one thing at a time.
pub trait Service: Arena {
    /// How many clients there are.
    fn clients(&self) -> usize;

    /// Puts these servers on one side and all others on the other. Clients reach both sides.
    fn split(&mut self, side: &[usize]);

    /// Lets a client reach these servers and no others.
    fn connect_client(&mut self, client: usize, servers: &[usize]);

    /// Whether a client that asks a server which is cut off or down hears of that after up to seven
    /// seconds, instead of a tenth of one.
    fn set_long_delays(&mut self, long_delays: bool);

    /// A client begins an operation.
    fn begin(&mut self, client: usize, action: Action) -> Call;

    /// What is known of an operation.
    fn record(&self, call: Call) -> &Record;

    /// How many requests the clients have sent; each operation takes one or more.
    fn attempts(&self) -> u64;

    /// The size of the state in a server's newest snapshot, in bytes; zero without one.
    fn snapshot_bytes(&self, server: usize) -> u64;

    /// Waits until all servers, which are connected by now, have come to the same state, and
    /// asserts that the history of all clients is linearizable.
    ///
    /// # Panics
    /// If not.
    fn check_history(&mut self);
}

/// Every [`Service`] has these.
pub trait Calls: Service {
    /// The reply to a call, once it has one.
    ///
    /// # Panics
    /// If the call failed: none may.
    fn reply(&self, call: Call) -> Option<&Reply> {
        let record = self.record(call);
        match &record.end {
            None => None,
            Some((_, End::Reply(reply))) => Some(reply),
            Some((_, end)) => panic!("{:?} ended {end:?}", record.action),
        }
    }

    /// Waits for the reply to a call.
    ///
    /// # Panics
    /// If there is none for long, or the call fails.
    fn await_reply(&mut self, call: Call) -> Reply {
        let ended = self.run_until(PATIENCE, |service| service.reply(call).is_some());
        assert!(ended, "no reply to {:?}", self.record(call).action);
        self.reply(call).expect("there is one").clone()
    }

    /// Carries out an operation.
    ///
    /// # Panics
    /// If there is no reply for long, or the call fails.
    fn execute(&mut self, client: usize, op: Op) -> Reply {
        let call = self.begin(client, Action::Execute(op));
        self.await_reply(call)
    }

    /// Sets a value.
    ///
    /// # Panics
    /// If that takes long, or fails.
    fn put(&mut self, client: usize, key: &str, value: &str) {
        assert_eq!(self.execute(client, put(key, value)), Reply::Done);
    }

    /// Appends to a value.
    ///
    /// # Panics
    /// If that takes long, or fails.
    fn append(&mut self, client: usize, key: &str, value: &str) {
        let reply = self.execute(client, append(key, value));
        assert!(matches!(reply, Reply::Appended(_)), "{reply:?}");
    }

    /// Reads a value; a missing one is empty.
    ///
    /// # Panics
    /// If that takes long, or fails.
    fn get(&mut self, client: usize, key: &str) -> String {
        let call = self.begin(client, get(key));
        value_in(&self.await_reply(call))
    }
}

impl<S: Service> Calls for S {}

/// The operation that sets a value.
pub(super) fn put(key: &str, value: &str) -> Op {
    let (key, value) = (own(key), own(value));
    Op::Put { key, value }
}

/// The operation that appends to a value.
pub(super) fn append(key: &str, value: &str) -> Op {
    let (key, value) = (own(key), own(value));
    Op::Append { key, value }
}

/// The read of a value.
pub(super) fn get(key: &str) -> Action {
    Action::Get(own(key))
}

/// The value that a reply to a get shows; a missing one is empty.
pub(super) fn value_in(reply: &Reply) -> String {
    match reply {
        Reply::Value(value) => {
            String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
        }
        other => panic!("a get is answered {other:?}"),
    }
}

fn own(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
