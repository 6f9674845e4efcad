//! Where a peer is: an IP address, or a host name that stands for one or more.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use super::loop_signals::LoopSignals;
use crate::raft::NodeId;

/// A peer's address as given, and what it stands for.
///
/// To look a name up can take seconds and cannot be interrupted, so a short-lived thread called
/// `resolve` does it: at most one at a time for each peer, and none for a peer given by IP address.
/// The addresses of one answer are tried one after the other. Then the name is looked up again, for
/// it may stand for another machine by now. The thread is not joined when the loop ends, for it
/// owns nothing but a reference to the place where it leaves its answer.
pub(super) enum Address {
    Fixed(SocketAddr),
    Name {
        text: String,
        /// The addresses of the last answer that were not tried yet, the next one last.
        untried: Vec<SocketAddr>,
    },
}

/// What to do for the next dial.
pub(super) enum Lookup {
    /// Dial this.
    Dial(SocketAddr),
    /// Wait: the answer will come through [`LoopSignals::hand_in`].
    Resolving,
    /// No thread could be started.
    Failed(io::Error),
}

impl Address {
    /// `None` if the text is not of the form `HOST:PORT`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Address::Fixed(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let sound = !host.is_empty() && !host.contains([':', ' ', '/']);
        (sound && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| Address::Name {
            text: text.to_string(),
            untried: Vec::new(),
        })
    }

    /// The next address to dial for `peer`.
    pub(super) fn next(&mut self, peer: NodeId, signals: &Arc<LoopSignals>) -> Lookup {
        let (text, untried) = match self {
            Address::Fixed(address) => return Lookup::Dial(*address),
            Address::Name { text, untried } => (text.clone(), untried),
        };
        if let Some(address) = untried.pop() {
            return Lookup::Dial(address);
        }
        let signals = signals.clone();
        let lookup = move || {
            let found = text.to_socket_addrs().map(Iterator::collect);
            signals.hand_in((peer, found));
        };
        match thread::Builder::new().name("resolve".into()).spawn(lookup) {
            Ok(_) => Lookup::Resolving,
            Err(error) => Lookup::Failed(error),
        }
    }

    /// The answer to a look-up has come. Returns the address to dial first.
    pub(super) fn resolved(&mut self, mut found: Vec<SocketAddr>) -> Option<SocketAddr> {
        found.reverse();
        let first = found.pop();
        if let Address::Name { untried, .. } = self {
            *untried = found;
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for good in [
            "127.0.0.1:1",
            "[::1]:7001",
            "localhost:7001",
            "node-1.example.org:80",
        ] {
            assert!(Address::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            ":7001",
            "localhost",
            "localhost:",
            "localhost:70000",
            "localhost:0",
            "::1:x",
            "a b:1",
        ] {
            assert!(Address::parse(bad).is_none(), "{bad}");
        }
    }
}
