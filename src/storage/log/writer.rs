//! The writer of the log: appends records, begins segments, and cuts the start of the log.
//!
//! # Appending
//!
//! A write of the Raft core becomes one [record](super::record), which is written with one
//! `write_at` and made durable with one `sync_data`. The space for the record was written and
//! synced before, either with zeros or in an earlier life of the file. So the sync need not write
//! any metadata.
//!
//! If the record does not fit into the segment, a new segment is begun, in this order:
//!
//! 1. take a file that is [prepared](super::spares), or create one, under a name that ends in
//!    `.new`;
//! 2. write and sync the segment's header;
//! 3. rename the file, and sync the folder;
//! 4. write the record.
//!
//! A crash before the end of step 3 leaves a new segment without a record, or no new segment.
//! Either way the log has the entries that it had before. A record that is larger than a segment
//! gets a segment as large as it needs.
//!
//! A disk that is full shows in the first part, before the record is written: the file cannot be
//! made, or made longer. Nothing that a record is in was touched then, so the same write is simply
//! tried again later ([`StorageError::NoSpace`]). Any other failure leaves in doubt what the disk
//! holds, and so does any failure of a sync: the storage writes nothing more then.
//!
//! # Taking over at a start
//!
//! Recovery reads all records, and changes nothing on disk before it has read all of them without
//! an error. The bytes that it has read may be in the kernel's memory only: the last process may
//! have been killed before a sync, or a sync may have failed. The node is about to acknowledge
//! these entries to other nodes, so [`LogWriter::settle`] first makes them durable. It writes the
//! last record again, writes zeros over everything after that record, and syncs. The earlier
//! records are durable already, because a record is written only when all records before it are
//! durable.
//!
//! A crash during these writes is harmless. The last record is overwritten with the same bytes. The
//! zeros replace bytes that no record needs: a torn record, or unused space.
//!
//! # Cutting the start
//!
//! Once a snapshot covers a segment's entries, the segment is removed, the oldest first. The folder
//! is synced after each removal, so a crash may leave more segments than needed but no gap between
//! segments. The header of the first remaining segment names the entry that its first record
//! follows. Files of removed segments [become new segments](super::spares).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::raft::{Entry, EntryId, Index};
use crate::storage::Options;
use crate::storage::block::{self, BLOCK};
use crate::storage::disk::SECTOR;
use crate::storage::disk::{Folder, NamedFile};
use crate::storage::error::StorageError;
use crate::storage::scrub::LogFiles;
use crate::storage::voter::identity::FolderOwner;

use super::outline::Outline;
use super::record;
use super::replay::{LastSegment, Replay};
use super::sectors::{DATA, Marks, Sectors};
use super::segment::{self, Extent, SegmentHeader};
use super::spares::{ReadyFile, Spares};

/// The log of a running node, open for writing: appends records, and begins new segments.
pub(in crate::storage) struct LogWriter {
    folder: Folder,
    options: Options,
    outline: Outline,
    file: NamedFile,
    header: SegmentHeader,
    /// Where the next record will be written, in bytes from the start of the segment's file.
    end: u64,
    /// Up to where the file has durable space for records, in bytes, with `end <= allocated`. No
    /// sector from `end` on has the present segment's mark, so recovery takes no such sector for a
    /// part of a record.
    allocated: u64,
    /// The sequence number of the next record.
    sequence: u64,
    /// The segments, oldest first. Records go to the last segment, whose `file_bytes` are filled in
    /// when the next segment is begun.
    extents: VecDeque<Extent>,
    /// The same segments, for those who read the log meanwhile.
    files: Arc<LogFiles>,
    spares: Spares,
    /// Buffers for the record that is being written, and for its sectors. They are kept between
    /// writes, so that not every write allocates.
    record: Vec<u8>,
    sectors: Sectors,
}

/// Segments at the start of the log that a snapshot covers but whose files still exist. If this
/// value is dropped without [`remove`](Self::remove), the files stay, as after a crash. The next
/// start reads them as the start of the log. That is safe, because the later segments still
/// continue the log in these files.
pub struct Unneeded {
    folder: Folder,
    spares: Spares,
    segments: Vec<Extent>,
}

impl Unneeded {
    /// Whether there are no segments whose files could be removed.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Takes the files out of the log, oldest first, and returns how many bytes they have together.
    /// Some files are kept to become new segments, the others are removed. Earlier segments must
    /// have been removed before, or a crash could leave a gap. This may take milliseconds for each
    /// segment, because the file system has to free its blocks.
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

impl LogWriter {
    /// Makes a writer of the log that recovery has read, and makes all of that log durable: see
    /// "Taking over at a start" at the head of this file.
    pub(in crate::storage) fn settle(
        folder: &Folder,
        options: Options,
        replay: Replay,
        mut last: LastSegment,
    ) -> Result<Self, StorageError> {
        let (end, allocated) = (last.end as u64, last.len as u64);
        last.file
            .write(&last.record, end - last.record.len() as u64)?;
        last.file.allocate(end, allocated)?;
        last.file.sync()?;
        last.file.expect_whole_sectors();
        let spares = Spares::new(folder, options.segment_bytes.max(BLOCK as u64));
        let files = Arc::<LogFiles>::default();
        for extent in &replay.extents {
            files.note(extent.number, BLOCK as u64 + extent.record_bytes);
        }
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
            files,
            record: Vec::new(),
            sectors: Sectors::default(),
        })
    }

    /// Writes the entries as one record, which is durable when this returns. The entries replace
    /// the log's entries from the index of the first one on. With `restart`, the entries replace
    /// the whole log, whose first entry is then the one after `restart`. Calls `written` after the
    /// record is written and before it is synced.
    ///
    /// After a crash before this returns, the record is there as a whole, or recovery cuts it off
    /// as torn. So the log is the old one or the new one, never a mixture.
    ///
    /// # Panics
    /// If the entries cannot follow the log. Then Raft's rules have been broken, and recovery would
    /// refuse the record.
    pub(in crate::storage) fn append(
        &mut self,
        restart: Option<EntryId>,
        entries: &[Entry],
        written: impl FnOnce(),
    ) -> Result<(), StorageError> {
        record::fill(restart, entries, &mut self.record);
        let len = (self.record.len() / DATA * SECTOR) as u64;
        // First of all, so that nothing has changed if there is no space.
        self.make_room(len)?;
        if let Some(base) = restart {
            self.outline = Outline::after(base);
        }
        if (restart.is_none() || !entries.is_empty())
            && let Err(problem) = self.outline.append(entries)
        {
            panic!("a write reached the disk that does not continue the log: {problem}");
        }
        let marks = self.header.marks;
        record::stamp(&mut self.record, self.sequence, marks);
        self.sectors.fill(&self.record, marks);
        self.file.write(self.sectors.as_bytes(), self.end)?;
        written();
        self.file.sync()?;
        self.end += len;
        self.sequence += 1;
        self.files.note(self.header.number, self.end);
        segment::note_record(&mut self.extents, restart, entries, len);
        self.spares.keep_step(self.header.number + 1, self.end);
        Ok(())
    }

    /// How many bytes the records of all segments have together, which the node's status shows.
    pub(in crate::storage) fn record_bytes(&self) -> u64 {
        let extents = self.extents.iter();
        extents.map(|extent| extent.record_bytes).sum()
    }

    /// Takes the oldest segments that hold no entry above `up_to` out of the list of segments, and
    /// returns them. Their files stay. The last segment always stays in the list, because it says
    /// where the log ends.
    pub(in crate::storage) fn let_go(&mut self, up_to: Index) -> Unneeded {
        let mut segments = Vec::new();
        while self.extents.len() > 1
            && let Some(oldest) = self.extents.front()
            && oldest.highest <= up_to
        {
            self.files.remove(oldest.number);
            segments.extend(self.extents.pop_front());
        }
        Unneeded {
            folder: self.folder.clone(),
            spares: self.spares.clone(),
            segments,
        }
    }

    /// Makes sure that there is space for a record of `len` bytes: begins the next segment if the
    /// record does not fit into the present one, and makes the segment's file longer if needed.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] if there is no space. Then nothing that a record is in has been
    /// touched, and this may be called again: what a failed attempt has written lies behind
    /// `allocated`, or in a file whose name ends in `.new`, and the next attempt writes over it.
    /// Any other error leaves the log in doubt.
    fn make_room(&mut self, len: u64) -> Result<(), StorageError> {
        let mut made = self.try_to_make_room(len);
        while matches!(made, Err(StorageError::NoSpace { .. })) && self.spares.release() {
            // What was ready for the next segments has made room.
            made = self.try_to_make_room(len);
        }
        match &made {
            Ok(()) => self.spares.log_goes_on(),
            Err(error @ StorageError::NoSpace { .. }) => {
                self.spares.log_waits(self.header.number + 1, error);
            }
            Err(_) => {}
        }
        made
    }

    fn try_to_make_room(&mut self, len: u64) -> Result<(), StorageError> {
        let is_full = self.end + len > self.options.segment_bytes;
        if self.end > BLOCK as u64 && (is_full || self.files.is_given_up(self.header.number)) {
            self.roll(self.outline.last())
                .map_err(StorageError::or_no_space)?;
        }
        self.reserve(len).map_err(StorageError::or_no_space)
    }

    /// Begins a new segment; `previous` is the last entry in the segments before it. All earlier
    /// records are durable, because each append ends with a sync.
    fn roll(&mut self, previous: EntryId) -> Result<(), StorageError> {
        let number = self.header.number + 1;
        let ready = self.spares.take(number);
        let marks = match &ready {
            Some(ready) => ready.marks,
            None => Marks::of_new_file(self.folder.unique_id()),
        };
        let header = SegmentHeader {
            owner: self.header.owner.clone(),
            number,
            marks,
            first_sequence: self.sequence,
            previous,
        };
        let (file, allocated) = match ready {
            Some(ReadyFile { file, len, .. }) => (begin_again(&self.folder, file, &header)?, len),
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
        self.files.note(number, self.end);
        self.allocated = allocated;
        Ok(())
    }

    /// The segments of the log, for those who read the log meanwhile.
    pub(in crate::storage) fn files(&self) -> Arc<LogFiles> {
        self.files.clone()
    }

    /// Returns the handle with which the files of the next segments are prepared. Another thread
    /// than the one that writes the log should do this, because filling files with zeros is slow.
    pub(in crate::storage) fn spares(&self) -> Spares {
        self.spares.clone()
    }

    /// Makes sure that the file has durable space for a record of `len` bytes after the last
    /// record. So a crash while the record is written cannot leave a file that ends within the
    /// record. The bytes are zeros or an older segment's sectors, which recovery does not take for
    /// parts of a record.
    fn reserve(&mut self, len: u64) -> Result<(), StorageError> {
        let needed = self.end + len;
        if needed <= self.allocated {
            return Ok(());
        }
        let step = needed.next_multiple_of(self.options.allocate_bytes.max(1));
        let wanted = step.min(self.options.segment_bytes).max(needed);
        let extended = self.extend(wanted);
        match extended.map_err(StorageError::or_no_space) {
            // The last space of a disk is for this record, and not for later ones.
            Err(StorageError::NoSpace { .. }) if wanted > needed => self.extend(needed),
            other => other,
        }
    }

    fn extend(&mut self, to: u64) -> Result<(), StorageError> {
        self.file.allocate(self.allocated, to)?;
        self.file.sync()?;
        self.allocated = to;
        Ok(())
    }
}

/// Creates the first segment of a new log.
pub(in crate::storage) fn create(
    folder: &Folder,
    owner: &FolderOwner,
    options: &Options,
) -> Result<(), StorageError> {
    let header = SegmentHeader {
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
    header: &SegmentHeader,
    options: &Options,
) -> Result<NamedFile, StorageError> {
    folder.create(&segment::name(header.number), |file| {
        file.write(&block::seal(segment::MAGIC, header), 0)?;
        file.allocate(BLOCK as u64, first_allocation(options))
    })
}

/// Makes a prepared file the log's next segment, with this header. The header is durable before the
/// file gets the segment's name.
fn begin_again(
    folder: &Folder,
    file: NamedFile,
    header: &SegmentHeader,
) -> Result<NamedFile, StorageError> {
    let written = file.write(&block::seal(segment::MAGIC, header), 0);
    if let (Err(_), Some(name)) = (&written, file.path().file_name()) {
        // Nobody knows this file any more. If removing fails as well, the next start removes it.
        let _ = folder.remove(&name.to_string_lossy());
    }
    written?;
    file.sync()?;
    folder.finish_file(file, &segment::name(header.number))
}

/// The length of a new segment's file, in bytes.
fn first_allocation(options: &Options) -> u64 {
    let allocated = options.allocate_bytes.min(options.segment_bytes);
    allocated.max(BLOCK as u64)
}
