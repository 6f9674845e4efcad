//! The key/value state machine.

mod command;

pub use command::{Command, Item, Op, Page, Query, Reply, Scan, SessionId};
