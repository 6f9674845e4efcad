//! The log as the writer sees it: the end of the last segment.
//!
//! **Writing.** A write of the core becomes one [record](super::record), written with one
//! `write_at` and made durable with one `sync_data`. The space for it was written and synced
//! before, in an earlier life of the file or with zeros, so that the sync has no metadata to write.
//! If the record does not fit into the segment, the next one is begun: a file is taken that is
//! [ready for it](super::spares), or made, the header written and synced under another name; then
//! the file gets its own name and the folder is synced, and only then is the record written. A
//! record that is larger than a segment gets one that is as large as needed.
//!
//! **Recovery** replays all records and changes nothing before all has been found in order. Then
//! it settles the end of the log: what it has read may have been in memory only, because the
//! process was killed before its sync or because a sync failed. So it writes the last record once
//! more, puts zeros in place of all that follows, for not even the file's length may have been
//! synced, and syncs. Both write what is there already, but for a torn record; so a crash at this
//! point changes nothing.
//!
//! **Deleting the start** once a snapshot covers it: whole segments go, oldest first, as long as no
//! entry in them lies behind the snapshot. The folder is synced after each one, so that no crash
//! can leave a gap; the header of the first one that is left says where the log goes on. Their
//! files [serve again](super::spares).

use std::collections::VecDeque;

use crate::raft::{Entry, EntryId, Index};
use crate::storage::Options;
use crate::storage::block::{self, BLOCK};
use crate::storage::disk::SECTOR;
use crate::storage::disk::{File, Folder};
use crate::storage::error::StorageError;
use crate::storage::voter::identity::Owner;

use super::outline::Outline;
use super::record;
use super::replay::{Last, Replay};
use super::sectors::{DATA, Marks, Sectors};
use super::segment::{self, Extent, Header};
use super::spares::{Ready, Spares};

/// The end of the log, open for writing.
pub(in crate::storage) struct Log {
    folder: Folder,
    options: Options,
    outline: Outline,
    file: File,
    header: Header,
    /// Where the next record goes.
    end: u64,
    /// The file is there up to here, durably, with no sector behind `end` that could be taken for
    /// one of a record.
    allocated: u64,
    /// The next record's number.
    sequence: u64,
    /// The segments, the one at the end included; its length is entered when it is left.
    extents: VecDeque<Extent>,
    spares: Spares,
    /// The record that is being written, and its sectors; kept for their memory.
    record: Vec<u8>,
    sectors: Sectors,
}

/// Segments at the start of the log that nobody needs any more, but whose files are still there.
/// Dropped, they stay until the next start finds them, as after a crash.
pub struct Unneeded {
    folder: Folder,
    spares: Spares,
    segments: Vec<Extent>,
}

impl Unneeded {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Takes the files out of the log, oldest first; returns how many bytes they have. Some are
    /// kept for new segments, the others removed. What was let go of earlier must have been removed
    /// before. It may take long: a file system takes milliseconds to free so many blocks.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove(self) -> Result<u64, StorageError> {
        let mut bytes = 0;
        for segment in self.segments {
            if !self.spares.keep(&segment)? {
                self.folder.remove(&segment::name(segment.number))?;
                self.folder.sync()?;
            }
            bytes += segment.file_bytes;
        }
        Ok(bytes)
    }
}

impl Log {
    /// Takes over from recovery: settles the end of the log.
    pub(in crate::storage) fn settle(
        folder: &Folder,
        options: Options,
        replay: Replay,
        mut last: Last,
    ) -> Result<Self, StorageError> {
        let (end, allocated) = (last.end as u64, last.len as u64);
        last.file
            .write(&last.record, end - last.record.len() as u64)?;
        last.file.allocate(end, allocated)?;
        last.file.sync()?;
        last.file.expect_whole_sectors();
        let spares = Spares::new(folder, options.segment_bytes.max(BLOCK as u64));
        Ok(Self {
            folder: folder.clone(),
            spares,
            options,
            outline: replay.outline,
            file: last.file,
            header: last.header,
            end,
            allocated,
            sequence: replay.sequence,
            extents: replay.extents,
            record: Vec::new(),
            sectors: Sectors::default(),
        })
    }

    /// Makes the entries durable, in place of those from the first one's index on; or, with a
    /// restart, in place of the whole log and behind that entry. Calls `written` between the write
    /// and its sync.
    ///
    /// # Panics
    /// If they cannot follow the log: recovery would refuse to read them.
    pub(in crate::storage) fn append(
        &mut self,
        restart: Option<EntryId>,
        entries: &[Entry],
        written: impl FnOnce(),
    ) -> Result<(), StorageError> {
        let previous = self.outline.last();
        if let Some(base) = restart {
            self.outline = Outline::after(base);
        }
        if (restart.is_none() || !entries.is_empty())
            && let Err(problem) = self.outline.append(entries)
        {
            panic!("a write reached the disk that does not continue the log: {problem}");
        }
        record::fill(restart, entries, &mut self.record);
        let len = (self.record.len() / DATA * SECTOR) as u64;
        if self.end > BLOCK as u64 && self.end + len > self.options.segment_bytes {
            self.roll(previous)?;
        }
        self.reserve(len)?;
        let marks = self.header.marks;
        record::stamp(&mut self.record, self.sequence, marks);
        self.sectors.fill(&self.record, marks);
        self.file.write(self.sectors.as_bytes(), self.end)?;
        written();
        self.file.sync()?;
        self.end += len;
        self.sequence += 1;
        segment::note_record(&mut self.extents, restart, entries, len);
        self.spares.keep_step(self.header.number + 1, self.end);
        Ok(())
    }

    /// How many bytes all the records have together.
    pub(in crate::storage) fn record_bytes(&self) -> u64 {
        let extents = self.extents.iter();
        extents.map(|extent| extent.record_bytes).sum()
    }

    /// Lets go of the oldest segments as long as they hold nothing behind the index.
    pub(in crate::storage) fn let_go(&mut self, up_to: Index) -> Unneeded {
        let mut segments = Vec::new();
        while self.extents.len() > 1
            && let Some(oldest) = self.extents.front()
            && oldest.highest <= up_to
        {
            segments.extend(self.extents.pop_front());
        }
        Unneeded {
            folder: self.folder.clone(),
            spares: self.spares.clone(),
            segments,
        }
    }

    /// Goes on in a new segment.
    fn roll(&mut self, previous: EntryId) -> Result<(), StorageError> {
        let number = self.header.number + 1;
        let ready = self.spares.take(number);
        let marks = match &ready {
            Some(ready) => ready.marks,
            None => Marks::of_new_file(self.folder.unique_id()),
        };
        let header = Header {
            owner: self.header.owner.clone(),
            number,
            marks,
            first_sequence: self.sequence,
            previous,
        };
        let (file, allocated) = match ready {
            Some(Ready { file, len, .. }) => (begin_again(&self.folder, file, &header)?, len),
            None => (
                create_segment(&self.folder, &header, &self.options)?,
                first_allocation(&self.options),
            ),
        };
        self.file = file;
        self.file.expect_whole_sectors();
        if let Some(left) = self.extents.back_mut() {
            left.file_bytes = self.allocated;
        }
        self.extents.push_back(Extent {
            number,
            highest: 0,
            record_bytes: 0,
            file_bytes: 0,
            marks,
        });
        self.header = header;
        self.end = BLOCK as u64;
        self.allocated = allocated;
        Ok(())
    }

    /// Makes the segments that will be needed next ready.
    pub(in crate::storage) fn spares(&self) -> Spares {
        self.spares.clone()
    }

    /// Sees to it that the next `len` bytes are zeros, durably.
    fn reserve(&mut self, len: u64) -> Result<(), StorageError> {
        let needed = self.end + len;
        if needed <= self.allocated {
            return Ok(());
        }
        let step = needed.next_multiple_of(self.options.allocate_bytes.max(1));
        let allocated = step.min(self.options.segment_bytes).max(needed);
        self.file.allocate(self.allocated, allocated)?;
        self.file.sync()?;
        self.allocated = allocated;
        Ok(())
    }
}

/// Creates the first segment.
pub(in crate::storage) fn create(
    folder: &Folder,
    owner: &Owner,
    options: &Options,
) -> Result<(), StorageError> {
    let header = Header {
        owner: owner.clone(),
        number: 1,
        marks: Marks::of_new_file(folder.unique_id()),
        first_sequence: 1,
        previous: EntryId::ZERO,
    };
    create_segment(folder, &header, options).map(drop)
}

fn create_segment(
    folder: &Folder,
    header: &Header,
    options: &Options,
) -> Result<File, StorageError> {
    folder.create(&segment::name(header.number), |file| {
        file.write(&block::seal(segment::MAGIC, header), 0)?;
        file.allocate(BLOCK as u64, first_allocation(options))
    })
}

/// Makes a file that is there already a segment.
fn begin_again(folder: &Folder, file: File, header: &Header) -> Result<File, StorageError> {
    file.write(&block::seal(segment::MAGIC, header), 0)?;
    file.sync()?;
    folder.finish_file(file, &segment::name(header.number))
}

/// How long a segment is when it is created, in bytes.
fn first_allocation(options: &Options) -> u64 {
    let allocated = options.allocate_bytes.min(options.segment_bytes);
    allocated.max(BLOCK as u64)
}
