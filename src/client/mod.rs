//! The client: a [`Clerk`] finds the leader, sends a request again when the answer got lost, and
//! has each write executed exactly once, however often it had to be sent.
//!
//! The parts that decide are pure. They know no clock, socket, thread or global randomness, so that
//! a simulator can drive them:
//! - [`Call`] is one call from its first attempt to its end.
//! - [`Routes`] is what the client knows of the servers.
//! - [`Session`] gives out the numbers that make a repeated write recognisable.
//!
//! The parts that act decide nothing. A [`Clerk`] blocks the caller's thread and hands requests to
//! a [`Transport`]; [`Tcp`] is the one for real servers. A [`Carrier`] lets one thread keep many
//! requests under way.
//!
//! There is no background thread: the thread that makes a call does all of its work.

mod call;
mod carrier;
mod clerk;
mod connection;
mod error;
mod frames;
mod members;
mod options;
mod routes;
mod session;
mod shared;
mod status;
mod tcp;
mod transport;

#[cfg(test)]
mod tests;

pub use call::{Call, Heard, Nature, Next};
pub use carrier::{Carrier, Told};
pub use clerk::{Canceller, CasOutcome, Clerk, Pages};
pub use error::{Error, Kind, LastWord, Word};
pub use members::MembersChanged;
pub use options::{Options, Stats};
pub use routes::{MAX_SERVERS, MadeAnew, Routes};
pub use session::{Issue, Session, Ticket, WINDOW};
pub use status::{ServerStatus, SnapshotBegun};
pub use tcp::Tcp;
pub use transport::{Answered, CallError, Stop, Transport};
