//! The client: a [`Clerk`] finds the leader, repeats what got lost, and has each write executed
//! exactly once.
//!
//! What decides is pure and knows no clock, socket, thread or global randomness, so that a
//! simulator can drive it: [`Call`] is one call from its first attempt to its end, [`Routes`] what
//! is known of the servers, [`Session`] the numbers that make a repeated write recognisable. What
//! does is thin: [`Clerk`] blocks the caller's thread and hands requests to a [`Transport`], of
//! which [`Tcp`] is the real one.
//! [`Carrier`] is for one thread that keeps many requests under way.
//!
//! There is no background thread: a call is carried by the thread that makes it.

mod call;
mod carrier;
mod clerk;
mod connection;
mod error;
mod frames;
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
pub use options::{Options, Stats};
pub use routes::{MAX_SERVERS, Routes};
pub use session::{Issue, Session, Ticket, WINDOW};
pub use status::{ServerStatus, SnapshotBegun};
pub use tcp::Tcp;
pub use transport::{CallError, Stop, Transport};
