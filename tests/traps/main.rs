//! The traps that builders of replicated stores have fallen into: each has a test here that fails
//! if this one falls into it, too.

mod deadlock;
mod endings;
mod support;
