//! Whole clusters within one process, for tests of this store and of any other replicated state
//! machine.
//!
//! A [`Cluster`] has real nodes with their threads, disks in memory that lose power, and a network
//! whose links can be cut, delayed and made lossy, each direction apart. For clusters of real
//! processes there is a [`Proxy`], which does the same to TCP connections.
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
mod hooked_disk;
mod network;
mod proxy;
mod recorder;
mod transport;

pub use cluster::Cluster;
pub use hooked_disk::{Access, HookedDisk};
pub use network::{Filter, Link, Network};
pub use proxy::{Cable, Counts, Flow, Proxy, Quality, RETRANSMISSION, Way};
pub use recorder::{Executed, Journal, Recorder};
pub use transport::{ClientLink, Unreliable};
