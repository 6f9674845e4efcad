//! `kvcli`: the store in a terminal, in a script and in a pipe.
//!
//! A command passes through these files, in this order:
//!
//! 1. [`args`] reads the arguments of the process. Commands come in one of three ways: [`piped`]
//!    handles a single command and a pipe, [`shell`] handles a terminal, with [`completion`] while
//!    the user types.
//! 2. [`grammar`] splits a line into words, and [`command`] makes a command of the words. Each
//!    command has a row in the [`catalog`], from which [`help`] is made, too.
//! 3. [`session`] executes the command through a [`Clerk`](crate::client::Clerk); [`interrupt`]
//!    cancels it on Ctrl-C.
//! 4. [`output`] writes the answer. [`status`] prepares the state of the cluster, [`snapshot`]
//!    waits for snapshots, and [`member`] shows and changes the members.
//!
//! [`bench`](mod@bench) is separate, with other options: it puts load on the cluster.

pub mod args;
pub mod bench;
pub mod catalog;
pub mod command;
pub mod completion;
pub mod grammar;
pub mod help;
pub mod interrupt;
pub mod member;
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
