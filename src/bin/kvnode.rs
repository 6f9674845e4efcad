//! The program `kvnode`, one node of a cluster, on the real disk: see [`raftkv::kvnode`].

use std::process::ExitCode;
use std::sync::Arc;

use raftkv::storage::RealDisk;

fn main() -> ExitCode {
    raftkv::kvnode::main(|folder| Ok(Arc::new(RealDisk::open(folder)?)))
}
