//! Segments: the files that the log consists of.
//!
//! A segment's name is `log-` and its number in twenty digits. The first segment has the number 1.
//! Once a snapshot covers the start of the log, the oldest segments are removed. The other segments
//! keep their numbers, without a gap.
//!
//! A segment starts with a [block](crate::storage::block) whose magic is `rkvlog\0\n`. The body of
//! the block is, in this order:
//!
//! 1. the owner, as in the file `identity`;
//! 2. the number of the segment;
//! 3. the random number of the file, and how many lives the file had before: from these the [marks
//!    of its sectors](super::sectors) are computed;
//! 4. the sequence number of the segment's first record;
//! 5. term and index of the last entry of the log when the segment was begun.
//!
//! [Records](super::record) follow from offset 4096 on, without space between them. The last record
//! may be followed by sectors that were not written in the file's present life.
//!
//! # What a crash may leave on disk
//!
//! - *While a segment is begun:* The header is written and synced under a name that ends in `.new`.
//!   Then the file is renamed and the folder is synced. So a file with a segment's name has a valid
//!   header, unless it was damaged later. A file whose name ends in `.new` is removed by the next
//!   start.
//! - *While a record is written:* Any of the record's sectors may be missing. The next record is
//!   written only when this one is durable. So only the last record of the log can be incomplete,
//!   and that record was not acknowledged. A segment is begun only when all records before it are
//!   durable, so the incomplete record is in the last segment. Recovery removes it: see
//!   [`torn_bytes`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::raft::{Entry, EntryId, Index};
use crate::storage::block::{self, BLOCK, Body};
use crate::storage::disk::{Folder, SECTOR};
use crate::storage::voter::identity::FolderOwner;

use super::record;
use super::sectors::{Marks, SectorState};

/// The first bytes of a segment, by which its header is recognised.
pub(in crate::storage) const MAGIC: &[u8; 8] = b"rkvlog\0\n";

const PREFIX: &str = "log-";

impl Body for SegmentHeader {}

/// The header of a segment, at the start of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct SegmentHeader {
    /// The cluster, node and folder that the segment belongs to.
    pub(in crate::storage) owner: FolderOwner,
    /// The number of the segment, which is also in the file's name.
    pub(in crate::storage) number: u64,
    /// The marks of the sectors of this file. Recovery knows by them which sectors were written
    /// since the file became this segment.
    pub(in crate::storage) marks: Marks,
    /// The sequence number of the segment's first record. All records with lower numbers were
    /// durable when the segment was begun.
    pub(in crate::storage) first_sequence: u64,
    /// The last entry of the log when the segment was begun; [`EntryId::ZERO`] if the log was
    /// empty.
    pub(in crate::storage) previous: EntryId,
}

/// How much space a segment takes, and the highest index in it, which decides when the segment may
/// be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Extent {
    pub(in crate::storage) number: u64,
    /// The highest index of an entry in the segment's records; 0 if there is no entry, or if the
    /// log has started anew since then. An entry counts even if a later record has replaced it. The
    /// segment is removed only when a snapshot covers this index, and then the snapshot also covers
    /// the replacement.
    pub(in crate::storage) highest: Index,
    /// How many bytes of the segment are records.
    pub(in crate::storage) record_bytes: u64,
    /// The length of the segment's file in bytes.
    pub(in crate::storage) file_bytes: u64,
    /// The marks of the sectors of this file. A later segment in the same file needs other marks.
    pub(in crate::storage) marks: Marks,
}

/// Called for each record in the order of the log: adds its `len` bytes and its highest index to
/// the last segment. If the log starts anew with this record (`restart`), the entries of all
/// earlier records are no longer needed.
pub(in crate::storage) fn note_record(
    extents: &mut VecDeque<Extent>,
    restart: Option<EntryId>,
    entries: &[Entry],
    len: u64,
) {
    if restart.is_some() {
        extents.iter_mut().for_each(|extent| extent.highest = 0);
    }
    if let Some(extent) = extents.back_mut() {
        let highest = entries.last().map_or(0, |entry| entry.id.index);
        extent.highest = extent.highest.max(highest);
        extent.record_bytes += len;
    }
}

/// The name of the file of segment `number`.
pub(in crate::storage) fn name(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

/// The owner that the segment's file of this name has in its header; `None` if that cannot be read.
pub(in crate::storage) fn owner(folder: &Folder, name: &str) -> Option<FolderOwner> {
    let mut bytes = vec![0; BLOCK];
    folder.open(name).ok()?.read(&mut bytes, 0).ok()?;
    let header: SegmentHeader = block::unseal(MAGIC, &bytes).ok()?;
    Some(header.owner)
}

/// The number of the segment with this file name; `None` if the name is not a segment's.
pub(in crate::storage) fn number(file: &str) -> Option<u64> {
    let number = file.strip_prefix(PREFIX)?.parse().ok()?;
    (name(number) == file).then_some(number)
}

/// Damage in a segment: bytes that no crash can be the cause of.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::storage) struct Damage {
    pub(in crate::storage) offset: usize,
    pub(in crate::storage) problem: String,
}

/// Decides whether the bytes after the last valid record are a torn record, which may be cut off,
/// or damage. `bytes` are the whole segment, `end` is where its last valid record ends, and
/// `sequence` is the sequence number of the record that would follow. Returns how many bytes from
/// `end` on belong to a torn record; 0 if nothing was written there.
///
/// 1. If the header of a record with a higher number follows, the bytes are damaged. That later
///    record was written only when record `sequence` was durable. So record `sequence` may have
///    been acknowledged, and cutting it off could lose what this node promised to others.
/// 2. Otherwise record `sequence` was the last one. If one of its sectors was never written, the
///    write was interrupted before its sync returned. Nobody was told of the record, so it may be
///    cut off.
/// 3. If all of its sectors were written, the record was complete but is not valid now. No crash
///    does that, and the record may have been acknowledged: the bytes are damaged.
pub(in crate::storage) fn torn_bytes(
    bytes: &[u8],
    end: usize,
    marks: Marks,
    sequence: u64,
) -> Result<usize, Damage> {
    let damage = |problem| Damage {
        offset: end,
        problem,
    };
    let rest = &bytes[end..];
    if let Some((at, later)) = later_record(rest, marks, sequence) {
        return Err(damage(format!(
            "record {sequence} is not valid, but record {later} behind it at offset {} is, so it \
             had been acknowledged",
            end + at
        )));
    }
    let header =
        record::RecordHeader::read(rest, marks).filter(|header| header.sequence == sequence);
    let is_missing = match header {
        Some(header) => has_unwritten_sector(rest, header.record_len(), marks),
        // Without a header the length of the record is unknown, so only its first sector, where the
        // header would be, can be judged. If the sector has the present mark, it was written with a
        // header, and losing the header is damage. If it has an old mark, it was not written. If
        // its mark belongs to no life of this file, the sector was not written either, and its old
        // mark was changed: if the sector had been written, a change of the mark alone would have
        // left a valid header. (A change of both header and mark goes unnoticed here.)
        None => rest.is_empty() || marks.state(rest) != SectorState::Written,
    };
    if is_missing {
        return Ok(marks.end_of_written(rest));
    }
    Err(damage(format!(
        "record {sequence} is not valid, and no part of it is missing as after a crash: it was \
         changed after it had been written"
    )))
}

/// Whether the file has all `len` bytes of a record, and at least one of the record's sectors was
/// never written.
fn has_unwritten_sector(bytes: &[u8], len: usize, marks: Marks) -> bool {
    // The space for a record is durable before the record is written, so no crash leaves a file
    // that ends within a record. A file that does was cut short later, which is damage.
    let sectors = bytes.get(..len).map(|record| record.chunks(SECTOR));
    let states =
        sectors.map(|mut sectors| sectors.any(|s| marks.state(s) == SectorState::Unwritten));
    states.unwrap_or(false)
}

/// Finds the first valid record header with a sequence number above `sequence`. Returns the
/// header's offset in `bytes`, and its sequence number. Only the starts of sectors are looked at,
/// because every record starts there.
fn later_record(bytes: &[u8], marks: Marks, sequence: u64) -> Option<(usize, u64)> {
    let places = (0..bytes.len()).step_by(SECTOR);
    let headers = places.filter_map(|at| {
        let header = record::RecordHeader::read(&bytes[at..], marks)?;
        Some((at, header.sequence))
    });
    headers.into_iter().find(|(_, number)| *number > sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_would_give_are_segments() {
        assert_eq!(number(&name(7)), Some(7));
        assert_eq!(number(&name(u64::MAX)), Some(u64::MAX));
        for other in ["log-7", "log-+0000000000000000007", "log-", "vote", ""] {
            assert_eq!(number(other), None, "{other}");
        }
        assert_eq!(number(&format!("{}.new", name(7))), None);
    }
}
