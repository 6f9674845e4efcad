//! `kvcli bench`: load on a cluster, and what became of it.
//!
//! 1. [`args`] reads the options and refuses what makes no sense;
//! 2. [`load`] says what is asked next, of which key, from a seed;
//! 3. [`clients`] are honest clients of the product: each with a session, numbers its writes, and
//!    repeats what got lost as [`Call`](crate::client::Call) says; [`driver`] has all of them run
//!    in one thread over a [`Carrier`](crate::client::Carrier), in closed or open loop;
//! 4. [`measure`] keeps the latencies, [`report`] writes them down, [`chart`] draws them.
//!
//! The generator shares the machine with the nodes when it runs beside them, so that each
//! microsecond that it takes is one that they lack. Hence one thread, and few allocations.

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
