//! Reads the log back at a start: segment after segment, record after record, in the order in which
//! they were written.
//!
//! Every record of every segment is checked, and nothing on disk is changed. Reading ends at the
//! first invalid record. [`segment::torn_bytes`] decides whether the bytes from there on are damage
//! or the rest of a write that a crash interrupted.
//!
//! Only the entries after the last one of the snapshot from which the node starts are kept in
//! memory. The log on disk reaches back further, to the snapshot before. So the log on disk may be
//! as large as the whole state, and keeping all of it would take that much memory at each start,
//! for nothing.

use std::collections::VecDeque;

use crate::raft::{Entry, EntryId, Index};
use crate::storage::Options;
use crate::storage::block::{self, BLOCK};
use crate::storage::disk::{Folder, NamedFile};
use crate::storage::error::{LOG_ADVICE, StorageError};
use crate::storage::voter::identity::FolderOwner;

use super::outline::Outline;
use super::record::{self, RecordContents};
use super::sectors::Marks;
use super::segment::{self, Damage, Extent, SegmentHeader};

/// The log as far as replay has read it.
pub(in crate::storage) struct Replay {
    /// The log's entries, in order and without a gap. Entries up to `covered`, and up to the
    /// outline's base, are left out.
    pub(in crate::storage) entries: Vec<Entry>,
    /// The last index that is covered by the snapshot from which the node starts; 0 without a
    /// snapshot.
    covered: Index,
    pub(in crate::storage) outline: Outline,
    /// The size of each segment, and the highest index in it; oldest segment first.
    pub(in crate::storage) extents: VecDeque<Extent>,
    /// The sequence number that the next record must have to be valid.
    pub(in crate::storage) sequence: u64,
    options: Options,
}

/// The last segment of the log, and where in it the log ends.
pub(in crate::storage) struct LastSegment {
    pub(in crate::storage) file: NamedFile,
    pub(in crate::storage) header: SegmentHeader,
    /// The length of the last segment's file in bytes.
    pub(in crate::storage) len: usize,
    /// Where in the file the last valid record ends and the next one will be written.
    pub(in crate::storage) end: usize,
    /// The bytes of the last valid record, which the start writes again; empty if the segment has
    /// no valid record.
    pub(in crate::storage) record: Vec<u8>,
    /// How many bytes of a torn record follow the last valid one; 0 if there is no torn record.
    pub(in crate::storage) torn: usize,
}

/// The numbers of the segments in the folder, in ascending order.
fn numbers(folder: &Folder) -> Result<Vec<u64>, StorageError> {
    let names = folder.list()?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment::number(n)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads the log and keeps the entries above `covered`, the last index of the snapshot from which
/// the node starts. Recovery must have verified this snapshot before, because the entries that it
/// covers are dropped here. Changes nothing on disk.
pub(in crate::storage) fn read(
    folder: &Folder,
    owner: &FolderOwner,
    options: &Options,
    covered: Index,
) -> Result<(Replay, LastSegment), StorageError> {
    let numbers = numbers(folder)?;
    let mut replay = Replay::new(options, covered);
    // The oldest segments are removed first. So the first segment may have any number, but if a
    // later number is missing, that is damage. `recovery.rs` checks whether the log starts early
    // enough for the snapshot.
    let first = numbers.first().copied().unwrap_or(1);
    let mut bytes = Vec::new();
    let mut last: Option<LastSegment> = None;
    let mut start_of_last = BLOCK;
    for (number, expected) in numbers.into_iter().zip(first..) {
        if number != expected {
            return Err(missing(folder, expected));
        }
        let file = folder.open(&segment::name(number))?;
        file.read_all(&mut bytes)?;
        let header = read_header(&file, &bytes, number, owner)?;
        if number == first && number > 1 {
            replay = Replay {
                options: replay.options,
                covered,
                ..Replay::starting_with(&header)
            };
        }
        if header.first_sequence != replay.sequence || header.previous != replay.outline.last() {
            return Err(replay.not_continued(&file, &header, last.as_ref()));
        }
        let (start, end) = replay
            .records(number, &bytes, header.marks)
            .map_err(damaged_in(&file))?;
        last = Some(LastSegment {
            file,
            header,
            len: bytes.len(),
            end,
            record: Vec::new(),
            torn: 0,
        });
        start_of_last = start;
    }
    let mut last = last.ok_or_else(|| missing(folder, 1))?;
    last.record = bytes[start_of_last..last.end].to_vec();
    last.torn = torn_bytes(&last, &bytes, replay.sequence)?;
    Ok((replay, last))
}

fn torn_bytes(last: &LastSegment, bytes: &[u8], sequence: u64) -> Result<usize, StorageError> {
    segment::torn_bytes(bytes, last.end, last.header.marks, sequence)
        .map_err(damaged_in(&last.file))
}

impl LastSegment {
    /// A sentence that tells the operator that a torn record will be cut off; `None` if there is no
    /// torn record.
    pub(in crate::storage) fn note(&self) -> Option<String> {
        let Self {
            file, end, torn, ..
        } = self;
        (*torn > 0).then(|| {
            format!(
                "cut a torn tail of {torn} bytes at {}:{end}: the last write before the crash, \
                 which had not been acknowledged",
                file.path().display()
            )
        })
    }
}

impl Replay {
    /// Begins to replay a log whose earlier segments were removed; `header` is that of its first
    /// remaining segment.
    pub(in crate::storage) fn starting_with(header: &SegmentHeader) -> Self {
        Self {
            outline: Outline::cut_behind(header.previous),
            sequence: header.first_sequence,
            ..Self::new(&Options::default(), 0)
        }
    }

    /// Begins to replay a log that still has its first record. Keeps the entries above `covered`,
    /// the last index of the snapshot to start from.
    pub(in crate::storage) fn new(options: &Options, covered: Index) -> Self {
        Self {
            entries: Vec::new(),
            covered,
            outline: Outline::after(EntryId::ZERO),
            extents: VecDeque::new(),
            sequence: 1,
            options: options.clone(),
        }
    }

    /// Replays the records of a segment up to the first invalid one. Returns where the last valid
    /// record starts and ends. If there is none, both are where the segment's header ends.
    pub(in crate::storage) fn records(
        &mut self,
        number: u64,
        bytes: &[u8],
        marks: Marks,
    ) -> Result<(usize, usize), Damage> {
        self.extents.push_back(Extent {
            number,
            highest: 0,
            record_bytes: 0,
            file_bytes: bytes.len() as u64,
            marks,
        });
        let (mut start, mut end) = (BLOCK, BLOCK);
        let mut data = Vec::new();
        while let Some(header) = record::RecordHeader::read(&bytes[end..], marks)
            && header.sequence == self.sequence
            && let Some(payload) = header.payload(&bytes[end..], marks, &mut data)
        {
            // The checksums are right, so this is a record as the node once wrote it. If such a
            // record cannot follow the log, no crash explains that, and it is damage.
            self.record(&header, payload).map_err(|problem| Damage {
                offset: end,
                problem: format!("record {} makes no sense: {problem}", header.sequence),
            })?;
            self.sequence += 1;
            (start, end) = (end, end + header.record_len());
        }
        Ok((start, end))
    }

    fn record(&mut self, header: &record::RecordHeader, payload: &[u8]) -> Result<(), String> {
        let RecordContents { restart, entries } = header.contents(payload)?;
        if let Some(base) = restart {
            self.outline = Outline::after(base);
            self.entries.clear();
        }
        if restart.is_none() || !entries.is_empty() {
            self.outline.append(&entries)?;
            self.drop_from(entries[0].id.index);
        }
        let len = header.record_len() as u64;
        segment::note_record(&mut self.extents, restart, &entries, len);
        let covered = self.covered;
        let held = entries.into_iter().filter(|e| e.id.index > covered);
        self.entries.extend(held);
        Ok(())
    }

    /// Drops the entries from this index on. Their place in the list is not the index itself,
    /// because the list lacks the entries that the snapshot covers, so it has to be searched.
    fn drop_from(&mut self, index: Index) {
        let kept = self.entries.partition_point(|e| e.id.index < index);
        self.entries.truncate(kept);
    }

    /// The error when a segment does not start where the segment before it ends. A segment is begun
    /// only when all records before it are durable. So if its header counts more records than
    /// replay has read, a record at the end of the earlier segment is damaged and not torn.
    fn not_continued(
        &self,
        file: &NamedFile,
        header: &SegmentHeader,
        before: Option<&LastSegment>,
    ) -> StorageError {
        match before {
            Some(before) if header.first_sequence > self.sequence => {
                damaged_in(&before.file)(Damage {
                    offset: before.end,
                    problem: format!(
                        "record {} is not valid, but the log goes on with record {} in the next \
                     segment, so it had been acknowledged",
                        self.sequence, header.first_sequence
                    ),
                })
            }
            _ => damaged_in(file)(Damage {
                offset: 0,
                problem: format!(
                    "it starts with record {} after entry {}, but the log before it ends with \
                     record {} and entry {}",
                    header.first_sequence,
                    header.previous,
                    self.sequence - 1,
                    self.outline.last()
                ),
            }),
        }
    }
}

pub(in crate::storage) fn read_header(
    file: &NamedFile,
    bytes: &[u8],
    number: u64,
    owner: &FolderOwner,
) -> Result<SegmentHeader, StorageError> {
    let damaged = |problem: String| damaged_in(file)(Damage { offset: 0, problem });
    let header: SegmentHeader = block::unseal(segment::MAGIC, bytes)
        .map_err(|error| damaged(format!("its header is not valid: {error}")))?;
    if header.owner != *owner {
        return Err(damaged(format!(
            "it belongs to {}, and this is the folder of {owner}: it was copied here",
            header.owner
        )));
    }
    if header.number != number {
        return Err(damaged(format!(
            "it is segment {} under another name",
            header.number
        )));
    }
    Ok(header)
}

pub(in crate::storage) fn missing(folder: &Folder, number: u64) -> StorageError {
    StorageError::Damaged {
        path: folder.path().join(segment::name(number)),
        offset: 0,
        problem: "this part of the log is missing".into(),
        advice: LOG_ADVICE,
    }
}

pub(in crate::storage) fn damaged_in(file: &NamedFile) -> impl FnOnce(Damage) -> StorageError {
    let path = file.path().to_path_buf();
    move |damage| StorageError::Damaged {
        path,
        offset: damage.offset as u64,
        problem: damage.problem,
        advice: LOG_ADVICE,
    }
}
