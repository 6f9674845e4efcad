//! `kvcli`: the store in a terminal, in a script and in a pipe.
//!
//! A line goes through these files, in this order:
//!
//! 1. [`args`] reads the process's arguments and picks one of three ways in: a single command and
//!    a pipe are both [`piped`], a terminal is [`shell`], with [`completion`] while typing;
//! 2. [`grammar`] splits the line into words, [`command`] makes them a command by its row in the
//!    [`catalog`], from which [`help`] is made, too;
//! 3. [`session`] executes the command through the [`Clerk`](crate::client::Clerk), and
//!    [`interrupt`] cancels it;
//! 4. [`output`] writes the answer, with [`status`] for the state of the cluster;
//!    [`snapshot`] waits for snapshots.
//!
//! [`bench`] is a way in of its own, with options of its own: it puts load on the cluster.

pub mod args;
pub mod bench;
pub mod catalog;
pub mod command;
pub mod completion;
pub mod grammar;
pub mod help;
pub mod interrupt;
pub mod output;
pub mod piped;
pub mod session;
pub mod shell;
pub mod snapshot;
mod stages;
pub mod status;

#[cfg(test)]
mod tests;

pub use args::main;
