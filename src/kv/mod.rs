//! The key/value state machine.
//!
//! [`Kv`] puts it together: [`Limits`] guards what may enter the log, `sessions` sees to it that a
//! command that arrives twice is executed once, `store` holds the keys and their values. All of
//! it is deterministic: the same commands at the same indexes give the same state on every replica.
//! All of it is persistent in the sense of data structures: a clone costs next to nothing, so that
//! a copy of one moment, a [`Snapshot`], can be written to disk while later commands are applied.
//!
//! What it does not do: bound the store as a whole (everything is in memory; the gauge `bytes`
//! tells how much); read a part of a value (a grown value is copied into one piece for each read).

mod command;
mod digest;
mod key;
mod limits;
mod replicated;
mod scan;
mod session;
mod sessions;
mod snapshot;
mod store;
mod value;

pub use command::{Command, CommandOf, Op, OpOf, Query, Reply, SessionId};
pub use limits::{Limits, LimitsError, MAX_MESSAGE};
pub use replicated::Kv;
pub use scan::{Item, Page, Scan};
pub use snapshot::Snapshot;
