//! The address of a peer: an IP address, or a host name that stands for one or more IP addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use super::directory::DialerId;
use super::loop_signals::LoopSignals;

/// The address of a peer as it was configured. For a host name, also the IP addresses that the last
/// look-up of the name found.
///
/// A look-up of a name can take seconds and cannot be interrupted. So the event loop leaves it to a
/// short-lived thread called `resolve`, of which each dialer has at most one at a time. The
/// addresses from one look-up are tried one after the other. Then the name is looked up again,
/// because it may refer to another machine by now. The event loop does not join this thread when
/// the loop ends: the thread owns nothing but a reference to [`LoopSignals`], where it leaves the
/// addresses.
pub(super) enum Address {
    Fixed(SocketAddr),
    Name {
        text: String,
        /// The addresses from the last look-up that have not been tried. The next one to try is
        /// last.
        untried: Vec<SocketAddr>,
    },
}

/// The event loop's next step to dial a peer.
pub(super) enum Lookup {
    /// The event loop dials this address.
    Dial(SocketAddr),
    /// The event loop waits until a thread has looked the name up. [`LoopSignals::hand_in`] brings
    /// the result.
    Resolving,
    /// The thread that would look the name up could not be started.
    Failed(io::Error),
}

impl Address {
    /// Parses an address; `None` if the text is not of the form `HOST:PORT`.
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

    /// The next address to dial for `dialer`. If all addresses from the last look-up have been
    /// tried, starts a thread that looks the name up again.
    pub(super) fn next(&mut self, dialer: DialerId, signals: &Arc<LoopSignals>) -> Lookup {
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
            signals.hand_in((dialer, found));
        };
        match thread::Builder::new().name("resolve".into()).spawn(lookup) {
            Ok(_) => Lookup::Resolving,
            Err(error) => Lookup::Failed(error),
        }
    }

    /// Stores the addresses that a look-up has found. Returns the first one to dial; `None` if
    /// there is no address.
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
