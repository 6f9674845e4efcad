//! Reads the log and the snapshots of a running node again, a little at a time, and verifies them.
//!
//! A node reads its log only when it starts, and a snapshot only to send it or to take its state
//! over. So a bit that flips in a file that was written long ago would show when the node needs the
//! file: when it is too late to make another one. A [`Scrub`] reads all files again and again. It
//! changes nothing.
//!
//! It may run on any thread beside the one that writes the log. What it reads is durable: of the
//! segment that is being written, it reads up to the end of the last durable record. The file of a
//! segment that was cut off the log may be overwritten at any time. So bytes count as damaged only
//! if their segment is still a part of the log after they were read, and if they are bad again when
//! they are read a second time, past what the kernel remembers of the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::raft::EntryId;

use super::block::BLOCK;
use super::disk::{Folder, NamedFile};
use super::error::StorageError;
use super::log::segment::{self, Damage, SegmentHeader};
use super::log::{check_records, replay};
use super::snapshot::{SnapshotReader, Snapshots};
use super::voter::identity::FolderOwner;

/// How many bytes of a segment are read at a time, if no record is longer.
const CHUNK: u64 = 64 << 10;

/// The segments of a log that is being written, by their numbers. The writer of the log keeps it up
/// to date, and whoever reads the log meanwhile looks here what to read.
#[derive(Default)]
pub(super) struct LogFiles(Mutex<BTreeMap<u64, LogFile>>);

#[derive(Clone, Copy, Default)]
struct LogFile {
    /// Up to here, in bytes from the start of the file, there are durable records.
    end: u64,
    /// The segment holds damage: the log goes on in the next one, so that this one can be cut.
    is_given_up: bool,
}

impl LogFiles {
    /// The segment has durable records up to `end`.
    pub(super) fn note(&self, number: u64, end: u64) {
        self.0.lock().entry(number).or_default().end = end;
    }

    /// The segment is no part of the log any more. To be called before its file is changed.
    pub(super) fn remove(&self, number: u64) {
        self.0.lock().remove(&number);
    }

    /// Whether the log has to go on in another segment than this one.
    pub(super) fn is_given_up(&self, number: u64) -> bool {
        let files = self.0.lock();
        files.get(&number).is_some_and(|file| file.is_given_up)
    }

    fn give_up(&self, number: u64) {
        if let Some(file) = self.0.lock().get_mut(&number) {
            file.is_given_up = true;
        }
    }

    fn end(&self, number: u64) -> Option<u64> {
        self.0.lock().get(&number).map(|file| file.end)
    }

    /// The first segment from `number` on.
    fn next(&self, number: u64) -> Option<u64> {
        let files = self.0.lock();
        files.range(number..).next().map(|(number, _)| *number)
    }

    fn bytes(&self) -> u64 {
        self.0.lock().values().map(|file| file.end).sum()
    }
}

/// What a step of a [`Scrub`] has found.
#[derive(Debug)]
pub enum Scrubbed {
    /// So many bytes were read, and they are whole.
    Whole(u64),
    /// All of the log and all snapshots have been read. The next step begins again.
    All,
    /// Something is damaged. The next step goes on behind it.
    Damaged(DamagedPart, StorageError),
    /// A file cannot be read. The next step goes on behind it.
    Unread(StorageError),
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagedPart {
    /// The segment of the log that has this number.
    Segment(u64),
    /// The snapshot that ends with this entry.
    Snapshot(EntryId),
}

/// Reads the log and the snapshots of a data folder, and verifies them.
pub struct Scrub {
    folder: Folder,
    owner: FolderOwner,
    log: Arc<LogFiles>,
    snapshots: Snapshots,
    at: Place,
    buffer: Vec<u8>,
}

/// How far a pass has come.
enum Place {
    /// It goes on with the first segment from this number on.
    BeforeSegment(u64),
    InSegment(OpenSegment),
    /// It goes on with the first snapshot behind this one.
    BehindSnapshot(EntryId),
    InSnapshot(EntryId, Box<SnapshotReader>),
}

struct OpenSegment {
    file: NamedFile,
    header: SegmentHeader,
    /// Up to here the segment has been verified, in bytes from the start of the file.
    at: u64,
    /// The sequence number of the record there.
    sequence: u64,
}

impl Scrub {
    pub(super) fn new(
        folder: &Folder,
        owner: &FolderOwner,
        log: Arc<LogFiles>,
        snapshots: Snapshots,
    ) -> Self {
        Self {
            folder: folder.clone(),
            owner: owner.clone(),
            log,
            snapshots,
            at: Place::BeforeSegment(0),
            buffer: Vec::new(),
        }
    }

    /// How many bytes there are to read at present, from the start to the end.
    pub fn bytes(&self) -> u64 {
        let snapshots = self.snapshots.list();
        self.log.bytes() + snapshots.iter().map(|info| info.bytes).sum::<u64>()
    }

    /// Whether the segment is still a part of the log.
    pub fn is_in_log(&self, number: u64) -> bool {
        self.log.end(number).is_some()
    }

    /// Has the log go on in another segment than this one, so that this one can be cut off as soon
    /// as snapshots cover it.
    pub fn give_up(&self, number: u64) {
        self.log.give_up(number);
    }

    /// Reads and verifies about 64 KiB more: one piece of a snapshot, or some records; at least one
    /// record, however long it is.
    pub fn step(&mut self) -> Scrubbed {
        let at = std::mem::replace(&mut self.at, Place::BeforeSegment(0));
        match at {
            Place::BeforeSegment(from) => match self.log.next(from) {
                Some(number) => self.open_segment(number),
                None => {
                    self.at = Place::BehindSnapshot(EntryId::ZERO);
                    Scrubbed::Whole(0)
                }
            },
            Place::InSegment(open) => self.read_segment(open),
            Place::BehindSnapshot(last) => self.open_snapshot(last),
            Place::InSnapshot(last, reader) => self.read_snapshot(last, reader),
        }
    }

    fn open_segment(&mut self, number: u64) -> Scrubbed {
        let opened = self.folder.open(&segment::name(number)).and_then(|file| {
            file.forget(0, BLOCK as u64);
            self.buffer.resize(BLOCK, 0);
            file.read(&mut self.buffer, 0)?;
            let header = replay::read_header(&file, &self.buffer, number, &self.owner)?;
            Ok((file, header))
        });
        match opened {
            Ok((file, header)) => {
                self.at = Place::InSegment(OpenSegment {
                    at: BLOCK as u64,
                    sequence: header.first_sequence,
                    file,
                    header,
                });
                Scrubbed::Whole(BLOCK as u64)
            }
            Err(error) => self.bad_segment(number, error),
        }
    }

    /// Judges an error in a segment, and goes on with the next one.
    fn bad_segment(&mut self, number: u64, error: StorageError) -> Scrubbed {
        self.at = Place::BeforeSegment(number + 1);
        match error {
            // It was cut off the log, and its file may have been removed or overwritten.
            _ if self.log.end(number).is_none() => Scrubbed::Whole(0),
            StorageError::Io { .. } if !is_missing(&error) => Scrubbed::Unread(error),
            _ => Scrubbed::Damaged(DamagedPart::Segment(number), error.while_running()),
        }
    }

    fn read_segment(&mut self, mut open: OpenSegment) -> Scrubbed {
        let number = open.header.number;
        let left = match self.log.end(number) {
            Some(end) if open.at < end => end - open.at,
            _ => {
                self.at = Place::BeforeSegment(number + 1);
                return Scrubbed::Whole(0);
            }
        };
        let mut checked = self.read_records(&open, left);
        if matches!(checked, Err(StorageError::Damaged { .. })) {
            checked = self.read_records(&open, left);
        }
        match checked {
            Ok((bytes, records)) => {
                open.at += bytes;
                open.sequence += records;
                self.at = Place::InSegment(open);
                Scrubbed::Whole(bytes)
            }
            Err(error) => self.bad_segment(number, error),
        }
    }

    /// Reads some records of the `left` bytes that follow. Returns how many bytes and records are
    /// whole.
    fn read_records(&mut self, open: &OpenSegment, left: u64) -> Result<(u64, u64), StorageError> {
        let mut len = left.min(CHUNK);
        loop {
            // What the kernel remembers of the file is not what the disk has. And other files shall
            // not be forgotten because of this one.
            open.file.forget(open.at, len);
            self.buffer.resize(len as usize, 0);
            open.file.read(&mut self.buffer, open.at)?;
            open.file.forget(open.at, len);
            let damaged = |damage: Damage| {
                let offset = open.at as usize + damage.offset;
                replay::damaged_in(&open.file)(Damage { offset, ..damage })
            };
            let marks = open.header.marks;
            let checked = check_records(&self.buffer, left, open.sequence, marks);
            match checked.map_err(damaged)? {
                (0, 0, needed) => len = needed,
                (bytes, records, _) => return Ok((bytes, records)),
            }
        }
    }

    fn open_snapshot(&mut self, behind: EntryId) -> Scrubbed {
        let list = self.snapshots.list();
        let next = list.iter().find(|info| info.meta.last > behind);
        let Some(last) = next.map(|info| info.meta.last) else {
            self.at = Place::BeforeSegment(0);
            return Scrubbed::All;
        };
        match self.snapshots.open(last) {
            Ok(reader) => {
                self.at = Place::InSnapshot(last, Box::new(reader));
                Scrubbed::Whole(2 * BLOCK as u64)
            }
            Err(error) => self.bad_snapshot(last, error),
        }
    }

    fn read_snapshot(&mut self, last: EntryId, mut reader: Box<SnapshotReader>) -> Scrubbed {
        // A snapshot that has gone out of use is not held open, so that the disk gets its space.
        if !self.counts(last) {
            self.at = Place::BehindSnapshot(last);
            return Scrubbed::Whole(0);
        }
        match reader.verify_next() {
            Ok(Some(bytes)) => {
                self.at = Place::InSnapshot(last, reader);
                Scrubbed::Whole(bytes)
            }
            Ok(None) => {
                self.at = Place::BehindSnapshot(last);
                Scrubbed::Whole(0)
            }
            Err(error) => self.bad_snapshot(last, error),
        }
    }

    fn bad_snapshot(&mut self, last: EntryId, error: StorageError) -> Scrubbed {
        self.at = Place::BehindSnapshot(last);
        match error {
            _ if !self.counts(last) => Scrubbed::Whole(0),
            StorageError::Io { .. } => Scrubbed::Unread(error),
            _ => Scrubbed::Damaged(DamagedPart::Snapshot(last), error.while_running()),
        }
    }

    fn counts(&self, last: EntryId) -> bool {
        let list = self.snapshots.list();
        list.iter().any(|info| info.meta.last == last)
    }
}

/// Whether a file ends before bytes that were durable in it, or is not there at all.
fn is_missing(error: &StorageError) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    let StorageError::Io { source, .. } = error else {
        return false;
    };
    matches!(source.kind(), NotFound | UnexpectedEof)
}
