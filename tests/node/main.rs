//! One node on its own threads, driven through its public interface: what it does with time, with
//! the files of its log and its snapshots, and with a state machine that takes long.
//!
//! A whole cluster hides most of it: an election that comes too early, a file that is never
//! removed or a request that waits too long costs something, but breaks no promise. Each test here
//! is the check for a wrong variant of the product in `verify/canaries`.

mod files;
mod probe;
mod slowness;
mod snapshots;
mod time;
