//! A disk in memory that counts what is read, and whose changes to one file can be made to hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::storage::{Disk, SimDisk};
use crate::testkit::{Access, HookedDisk};

pub(in crate::node) struct WatchedDisk {
    disk: Arc<HookedDisk>,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    read: AtomicU64,
    hanging: Mutex<Hanging>,
    changed: Condvar,
}

#[derive(Default)]
struct Hanging {
    /// The writes to files whose names begin with this hang.
    prefix: Option<String>,
    /// How many writes hang now.
    writes: usize,
}

impl WatchedDisk {
    pub fn new() -> Self {
        let watch = Arc::<Watch>::default();
        let watching = watch.clone();
        let disk = HookedDisk::new(SimDisk::new(1), move |name, access| match access {
            Access::Read(bytes) => drop(watching.read.fetch_add(bytes as u64, Ordering::SeqCst)),
            Access::Write => watching.wait(name),
            Access::Open | Access::Sync => {}
        });
        let disk = Arc::new(disk);
        Self { disk, watch }
    }

    /// The disk for a node.
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// How many bytes have been read from files so far.
    pub fn bytes_read(&self) -> u64 {
        self.watch.read.load(Ordering::SeqCst)
    }

    /// Lets writes to files whose names begin with `prefix` hang, until the returned value is
    /// dropped.
    pub fn hang(&self, prefix: &str) -> Hang {
        self.watch.hanging.lock().prefix = Some(prefix.to_string());
        Hang(self.watch.clone())
    }

    /// Waits until a write hangs.
    pub fn wait_for_hanging_write(&self) {
        let mut hanging = self.watch.hanging.lock();
        while hanging.writes == 0 {
            self.watch.changed.wait(&mut hanging);
        }
    }
}

/// Lets writes hang until it is dropped.
#[must_use]
pub(in crate::node) struct Hang(Arc<Watch>);

impl Drop for Hang {
    fn drop(&mut self) {
        self.0.hanging.lock().prefix = None;
        self.0.changed.notify_all();
    }
}

impl Watch {
    fn wait(&self, name: &str) {
        let hangs = |hanging: &Hanging| {
            let prefix = hanging.prefix.as_deref();
            prefix.is_some_and(|prefix| name.starts_with(prefix))
        };
        let mut hanging = self.hanging.lock();
        if hangs(&hanging) {
            hanging.writes += 1;
            self.changed.notify_all();
            while hangs(&hanging) {
                self.changed.wait(&mut hanging);
            }
            hanging.writes -= 1;
        }
    }
}
