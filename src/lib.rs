//! A replicated key/value store on its own Raft.

#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod kv;
pub mod machine;
pub mod net;
pub mod node;
pub mod raft;
pub mod storage;
pub mod testkit;
pub mod wire;
