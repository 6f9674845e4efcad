//! A replicated key/value store on its own Raft: linearizable, durable, exactly once.
//!
//! Three or five nodes keep one copy of the data each. A client sees one store that survives the
//! loss of a minority of the nodes, loses no acknowledged write, and executes each write exactly
//! once, however often the network makes the client repeat it.
//!
//! The crate is the store's servers and client, and the parts that they are made of:
//!
//! | module | what | knows of |
//! | --- | --- | --- |
//! | [`client`] | [`Clerk`](client::Clerk): finds the leader, repeats, numbers its writes | `kv`, `wire` |
//! | [`node`] | [`Node`](node::Node): threads that carry between the parts below | all below |
//! | [`net`] | one event loop for peers and clients | `wire` |
//! | [`storage`] | the log, term and vote on a [`Disk`](storage::Disk) | `raft`'s types |
//! | [`kv`] | the store and its sessions, a state machine | [`machine`] |
//! | [`raft`] | consensus, pure | nothing |
//! | [`wire`] | frames, handshake, messages | `raft`'s types |
//! | [`testkit`] | whole clusters within one process | all |
//!
//! To replicate something else than this store, implement
//! [`StateMachine`](machine::StateMachine) and hand it to [`Node::start`](node::Node::start).
//!
//! ```
//! use raftkv::testkit::Cluster;
//!
//! let cluster = Cluster::of_stores(3);
//! let clerk = cluster.clerk();
//! clerk.put("config/limit", "100")?;
//! assert_eq!(clerk.get("config/limit")?.as_deref(), Some(&b"100"[..]));
//! # Ok::<(), raftkv::client::Error>(())
//! ```

#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod kv;
#[cfg(feature = "cli")]
pub mod kvnode;
pub mod machine;
pub mod net;
pub mod node;
pub mod raft;
pub mod storage;
pub mod testkit;
pub mod wire;
