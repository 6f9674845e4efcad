//! Takes snapshots as often as the course does, and measures their size.
//!
//! The product takes a snapshot when the log since the last snapshot is as large as that snapshot's
//! file, which has at least 8 KiB. The course takes one after every 10 entries, or after 1,000
//! bytes of log. So the lab asks each server for a snapshot that often. A server takes it beside
//! its other work, of the entries that it has applied by then.

use super::Lab;
use raftkv::raft::{Entry, Index, Raft};
use raftkv::storage::Disk;

/// When a server is asked for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// After so many entries.
    Entries(u64),
    /// When the log weighs so many bytes, each entry 32 beside its command.
    Bytes(usize),
}

/// What a snapshot's file of one piece takes beside the state, in bytes: a block at either end, and
/// what precedes the piece.
pub(crate) const FRAME: u64 = 2 * 4096 + 12;

impl Lab {
    /// From now on servers take snapshots.
    pub fn snapshot(&mut self, every: Every) {
        self.every = Some(every);
    }

    /// Asks those servers for a snapshot for which it is time.
    pub(super) fn take_snapshots(&mut self) {
        let Some(every) = self.every else {
            return;
        };
        for server in 0..self.servers() {
            let Some(applied) = self.with_raft(server, Raft::applied_index) else {
                continue;
            };
            if applied == self.looked[server] {
                continue;
            }
            let is_time = match every {
                Every::Entries(entries) => applied >= self.snapshot_index(server) + entries,
                Every::Bytes(bytes) => self.log_bytes(server) >= bytes,
            };
            if !is_time {
                self.looked[server] = applied;
                continue;
            }
            let wanted = self.world.input(server, |hub, _| {
                hub.input(|replica| {
                    if !replica.snapshot_pending() {
                        replica.want_snapshot();
                    }
                });
            });
            if let Err(failure) = wanted {
                panic!("{failure}");
            }
        }
    }

    /// The last entry of a server's newest snapshot; zero if it has none.
    pub fn snapshot_index(&self, server: usize) -> Index {
        let newest = self.with_raft(server, |raft| raft.newest_snapshot().cloned());
        newest.flatten().map_or(0, |newest| newest.meta.last.index)
    }

    /// The size of a server's newest snapshot in its file, in bytes, without its frame.
    pub fn snapshot_bytes(&self, server: usize) -> u64 {
        let newest = self.with_raft(server, |raft| raft.newest_snapshot().cloned());
        newest.flatten().map_or(0, |newest| newest.bytes - FRAME)
    }

    /// The weight of the log that a server holds, in bytes; zero if the server is down.
    pub fn log_bytes(&self, server: usize) -> usize {
        let bytes = self.with_raft(server, |raft| {
            let entries = raft.first_index()..=raft.last().index;
            let entries = entries.filter_map(|index| raft.entry(index));
            entries.map(Entry::weight).sum()
        });
        bytes.unwrap_or(0)
    }

    /// The size of the files of a server's log, in bytes.
    pub fn log_file_bytes(&self, server: usize) -> usize {
        let disk = &self.world.nodes[server].disk;
        let names = disk.list().unwrap_or_default();
        let is_of_log = |name: &&String| name.starts_with("log-") && !name.ends_with(".new");
        let logs = names.iter().filter(is_of_log);
        logs.filter_map(|name| disk.contents(name))
            .map(|bytes| bytes.len())
            .sum()
    }

    /// How many snapshots servers have taken from others in place of their state.
    pub fn installs(&self) -> u64 {
        self.world.stats.installs
    }
}
