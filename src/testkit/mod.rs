//! A whole cluster within one process: real nodes and threads, disks in memory, and a network
//! whose links can be cut, delayed and made lossy, one direction at a time. For clusters of real
//! processes, a [`Proxy`] that does the like to their connections.
//!
//! For tests of this store, and of any other state machine on the same log.
//!
//! ```
//! use raftkv::testkit::Cluster;
//!
//! let cluster = Cluster::of_stores(3);
//! let clerk = cluster.clerk();
//! clerk.put("greeting", "hello")?;
//!
//! let leader = cluster.wait_for_leader();
//! cluster.crash(leader);
//! clerk.append("greeting", ", world")?;
//! assert_eq!(clerk.get("greeting")?.as_deref(), Some(&b"hello, world"[..]));
//! # Ok::<(), raftkv::client::Error>(())
//! ```

mod cluster;
mod network;
mod proxy;
mod recorder;
mod transport;

pub use cluster::Cluster;
pub use network::{Filter, Link, Network};
pub use proxy::{Cable, Counts, Flow, Proxy, Quality, RETRANSMISSION, Way};
pub use recorder::{Executed, Journal, Recorder};
pub use transport::{ClientLink, Unreliable};
