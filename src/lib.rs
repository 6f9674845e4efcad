//! A replicated key/value store on its own Raft: linearizable, durable, exactly once.
//!
//! Three or five nodes each keep a copy of all data. A client sees one store that survives the loss
//! of a minority of the nodes, loses no acknowledged write, and executes each write exactly once,
//! even if the network makes the client send it several times.
//!
//! The crate has the servers and the client of the store, and the parts that they are made of:
//!
//! | module | what | knows of |
//! | --- | --- | --- |
//! | [`client`] | [`Clerk`](client::Clerk): finds the leader, repeats lost requests, numbers its writes | `kv`, `wire` |
//! | [`node`] | [`Node`](node::Node): the threads of a node, which carry bytes between the parts below | all below |
//! | [`net`] | one event loop for peers and clients | `wire` |
//! | [`storage`] | the log, term and vote on a [`Disk`](storage::Disk) | `raft`'s types |
//! | [`kv`] | the store and its sessions, a state machine | [`machine`] |
//! | [`raft`] | consensus, pure | nothing |
//! | [`wire`] | frames, handshake, messages | `raft`'s types |
//! | [`testkit`] | whole clusters for tests, within one process or of several | all |
//!
//! To replicate something other than this store, implement [`StateMachine`](machine::StateMachine)
//! and start a node with it: [`Node::start`](node::Node::start). `docs/architecture.md` leads
//! through the code, and `docs/glossary.md` explains the words that have a special meaning in it.
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
