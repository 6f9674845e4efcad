//! Whole clusters, for tests of this store and of any other replicated state machine.
//!
//! A [`Cluster`] lives within one process. It has real nodes with their threads, disks in memory
//! that lose power, and a network whose links can be cut, delayed and made lossy, each direction
//! apart. A [`ProcessCluster`] runs `kvnode`, or another program with its options, once for each
//! node, and can kill, freeze and stop these processes. A [`Proxy`] does to TCP connections what
//! the network of a [`Cluster`] does to messages. A [`HookedDisk`] lets a test count or delay the
//! accesses to files.
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
mod processes;
mod proxy;
mod recorder;
mod transport;
mod way;

pub use cluster::{Cluster, address};
pub use hooked_disk::{Access, HookedDisk};
pub use network::{Filter, Link, Network};
pub use processes::{End, Process, ProcessCluster, free_addresses, program, signal};
pub use proxy::{Cable, Counts, Flow, Proxy, Quality, RETRANSMISSION, Way};
pub use recorder::{Executed, Journal, Recorder};
pub use transport::{ClientLink, Unreliable};
