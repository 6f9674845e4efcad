//! One node of a raftkv cluster, as a program.

use std::process::ExitCode;
use std::sync::Arc;

use raftkv::storage::RealDisk;

fn main() -> ExitCode {
    raftkv::kvnode::main(|folder| Ok(Arc::new(RealDisk::open(folder)?)))
}
