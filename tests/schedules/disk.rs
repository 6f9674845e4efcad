//! Simulated disks that take no space ahead of the log.

use raftkv::storage::SimDisk;
use raftkv::testkit::{Access, HookedDisk};
use shuttle::sync::atomic::{AtomicBool, Ordering};

/// An empty disk.
pub fn quick() -> HookedDisk {
    HookedDisk::new(SimDisk::new(1), |_, _| ()).lean()
}

/// A disk that holds what another one does. Before it reads, writes or syncs, other threads may
/// go on.
pub fn slow(disk: &SimDisk) -> HookedDisk {
    let takes_a_while = |_: &str, access| {
        if access != Access::Open {
            // Lets the explorer choose who goes on. No lock of the node or of its files is held
            // here.
            AtomicBool::new(true).load(Ordering::SeqCst);
        }
    };
    HookedDisk::new(disk.fork(), takes_a_while).lean()
}
