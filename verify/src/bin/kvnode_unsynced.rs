//! `kvnode` on a disk that loses what was not synced when the process is killed: for tests only.

use std::process::ExitCode;
use std::sync::Arc;

use raftkv_verify::soak::UnsyncedDisk;

fn main() -> ExitCode {
    raftkv::kvnode::main(|folder| Ok(Arc::new(UnsyncedDisk::open(folder)?)))
}
