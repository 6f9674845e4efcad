//! The node's snapshots: those that it takes, sends and gets.

use raftkv::raft::{EntryId, Index, Part, Room, SnapshotMeta, StoredSnapshot};

use super::Node;
use super::reached;

/// A snapshot of which parts have come in.
pub struct Incoming {
    meta: SnapshotMeta,
    received: u64,
}

impl Node {
    /// Has a snapshot of all that was executed. Its file has so many bytes, and at least one.
    pub fn snapshot_taken(&mut self, bytes: u64) {
        let applied = (self.applied - self.base.index) as usize;
        let Some(entry) = self.committed[..applied].last() else {
            return;
        };
        let snapshot = StoredSnapshot {
            meta: SnapshotMeta {
                last: entry.id,
                time_ms: entry.time_ms,
                configuration: self
                    .raft
                    .configuration_at(entry.id.index)
                    .expect("it is known")
                    .clone(),
            },
            bytes: bytes.max(1),
        };
        self.keep(&snapshot);
        self.raft.snapshot_taken(snapshot);
        reached("a snapshot is taken");
    }

    /// On disk there is one snapshot, the newest.
    fn keep(&mut self, snapshot: &StoredSnapshot) {
        if self.newest_index() < snapshot.meta.last.index {
            self.newest = Some(snapshot.clone());
        }
    }

    /// Up to where the newest snapshot goes.
    pub fn newest_index(&self) -> Index {
        let newest = self.newest.as_ref();
        newest.map_or(0, |newest| newest.meta.last.index)
    }

    /// Takes what is to be done with the files of snapshots.
    fn take_errands(&mut self) {
        let mut output = self.output(Room {
            parts: true,
            ..Room::NOTHING
        });
        self.to_store.append(&mut output.to_store);
        self.to_send.extend(output.to_send);
    }

    /// Reads a part that is to be sent; with `lost`, there is none.
    pub fn send_part(&mut self, lost: bool) {
        self.take_errands();
        let Some(request) = self.to_send.pop_front() else {
            return;
        };
        let gone = request.snapshot.clone();
        let there = self.newest.as_ref().filter(|newest| **newest == gone);
        match there.filter(|_| !lost) {
            Some(newest) => {
                assert!(request.length > 0, "a part without data");
                let end = request.offset.checked_add(request.length);
                assert!(end <= Some(newest.bytes), "a part beyond the end");
                let data = vec![0; request.length as usize];
                self.sent.push(request.message(data.into()));
            }
            None => {
                self.newest.take_if(|newest| *newest == gone);
                self.raft.snapshot_gone(request.to, &gone);
            }
        }
    }

    /// Stores what has come in. Any file that is there to its end counts as whole, for what is in
    /// it is checked by others. Only the time of the last entry is put right where the log has that
    /// entry: what a checksum guards may be of a future that nobody has seen, but it is not wrong.
    pub fn store_parts(&mut self) {
        self.take_errands();
        for part in std::mem::take(&mut self.to_store) {
            let last = part.meta.last;
            let end = part.offset.checked_add(part.data.len() as u64);
            assert!(!part.data.is_empty(), "a part without data");
            assert!(end <= Some(part.bytes), "a part beyond the end");
            assert!(
                last.term <= self.hard_state.term,
                "of a term that is not durable"
            );
            match self.store(part) {
                Ok(mut snapshot) => {
                    let known = self.raft.entry(last.index).filter(|entry| entry.id == last);
                    let time_ms = known.map_or(snapshot.meta.time_ms, |entry| entry.time_ms);
                    snapshot.meta.time_ms = time_ms;
                    self.keep(&snapshot);
                    self.raft.install(snapshot);
                }
                Err(received) => self.raft.part_stored(last, received),
            }
        }
    }

    /// The whole snapshot, or how much of it there is.
    fn store(&mut self, part: Part) -> Result<StoredSnapshot, u64> {
        let begun = self.incoming.take().filter(|begun| begun.meta == part.meta);
        let mut incoming = begun.unwrap_or(Incoming {
            meta: part.meta,
            received: 0,
        });
        let end = part.offset + part.data.len() as u64;
        if part.offset <= incoming.received {
            incoming.received = incoming.received.max(end);
        }
        if incoming.received >= part.bytes {
            return Ok(StoredSnapshot {
                meta: incoming.meta,
                bytes: part.bytes,
            });
        }
        let received = incoming.received;
        self.incoming = Some(incoming);
        Err(received)
    }

    /// The state machine takes over a snapshot.
    pub fn install(&mut self, meta: Option<SnapshotMeta>) {
        let Some(meta) = meta else {
            return;
        };
        let executed = self.base.index + self.committed.len() as Index;
        assert!(meta.last.index > executed, "a snapshot of the past");
        reached("a snapshot is installed");
        self.begin_behind(meta.last, meta.time_ms);
    }

    /// What was executed up to there is not known entry by entry.
    pub fn begin_behind(&mut self, last: EntryId, time_ms: u64) {
        (self.base, self.base_time_ms) = (last, time_ms);
        self.committed.clear();
        self.applied = last.index;
    }
}
