//! `kvcli bench`: puts load on a cluster, and measures the latencies of its answers.
//!
//! 1. [`args`] reads the options and refuses those that do not fit together.
//! 2. `load` draws the next request and its key from a seed.
//! 3. `clients` do what a [`Clerk`](crate::client::Clerk) does: each has a session, numbers its
//!    writes, and repeats lost requests as [`Call`](crate::client::Call) says. `driver` runs all
//!    of them in one thread over a [`Carrier`](crate::client::Carrier), in closed or open loop.
//! 4. `measure` keeps the latencies, `report` writes them down, `chart` draws them.
//!
//! If the load generator runs on the same machine as the nodes, it takes processor time from the
//! nodes. So it has one thread, and allocates little.

pub mod args;
mod chart;
mod clients;
mod driver;
mod load;
mod measure;
mod progress;
mod report;
mod run;

pub use run::run;
