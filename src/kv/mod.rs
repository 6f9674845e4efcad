//! The key/value state machine.
//!
//! [`Kv`] is the state machine. It has three parts: [`Limits`] checks commands before they enter
//! the log, `sessions` makes sure that a repeated command is executed once, and `store` holds the
//! keys and values.
//!
//! Two properties hold for the whole state machine:
//! - It is deterministic: the same commands at the same indexes give the same state on every
//!   replica. Nothing in it reads a clock, a random number or the iteration order of a hash map.
//! - Its data structures are persistent: a clone takes constant time and shares its memory with
//!   the original. So a copy of one moment, a [`Snapshot`], can be written to disk while later
//!   commands are applied.
//!
//! Left out:
//! - The size of the whole store has no limit. All of it is in memory; the gauge `bytes` shows how
//!   much there is.
//! - A part of a value cannot be read. A value that grew by appends is copied into one piece for
//!   each read, so a read costs as much as the value is long.

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
