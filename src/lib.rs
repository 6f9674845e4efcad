//! A replicated key/value store on its own Raft.

pub mod client;
pub mod kv;
pub mod machine;
pub mod net;
pub mod node;
pub mod raft;
#[cfg(feature = "sim")]
pub mod sim;
pub mod storage;
pub mod testkit;
pub mod wire;
