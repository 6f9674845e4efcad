//! `kvcli`: the store in a terminal, in a script and in a pipe.

pub mod catalog;
pub mod command;
pub mod grammar;
pub mod help;
pub mod output;
pub mod status;
