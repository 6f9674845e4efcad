//! The traps that builders of replicated stores have fallen into: each has a test here that fails
//! if this one falls into it, too.

mod deadlock;
mod disks;
mod endings;
mod exactly_once;
mod execution;
mod idle;
mod index_reuse;
mod messages;
mod pace;
mod support;
