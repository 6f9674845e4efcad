//! Segments: the files that the log consists of.
//!
//! A segment's name is `log-` and its number in twenty digits. The first segment has the number 1.
//! Once a snapshot covers the start of the log, the oldest segments are removed; the others keep
//! their numbers, without a gap.
//!
//! A segment starts with a [block](crate::storage::block) whose magic is `rkvlog\0\n`. The body of
//! the block is, in this order:
//!
//! 1. the owner, as in the file `identity`;
//! 2. the number of the segment;
//! 3. the random number of the file, and how many lives the file had before: they give the
//!    [marks of its sectors](super::sectors);
//! 4. the sequence number of the segment's first record;
//! 5. term and index of the last entry of the log when the segment was begun.
//!
//! [Records](super::record) follow from offset 4096 on, one directly behind the other. Behind the
//! last record there may be sectors that were not written in the file's present life.
//!
//! # What a crash may leave behind
//!
//! - *While a segment is begun:* the header is written and synced under a name that ends in `.new`,
//!   then the file is renamed, then the folder is synced. So the segment is there with a valid
//!   header, or it is not there under its name and the start removes it. A segment without a valid
//!   header is therefore damaged.
//! - *While a record is written:* any part of its sectors. The next record is written only when
//!   this one is durable, so only the last record of the log can be incomplete, and it was not
//!   acknowledged. A segment is begun only when all records before it are durable, so the
//!   incomplete record is in the last segment. Recovery removes it: see [`torn_bytes`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::raft::{Entry, EntryId, Index};
use crate::storage::disk::SECTOR;
use crate::storage::voter::identity::FolderOwner;

use super::record;
use super::sectors::{Marks, SectorState};

/// What the block at the start of a segment is recognised by.
pub(in crate::storage) const MAGIC: &[u8; 8] = b"rkvlog\0\n";

const PREFIX: &str = "log-";

/// The start of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct SegmentHeader {
    /// The cluster, node and folder that the segment belongs to.
    pub(in crate::storage) owner: FolderOwner,
    /// The segment's number.
    pub(in crate::storage) number: u64,
    /// The marks of the file, of which the present one is in every sector of a record.
    pub(in crate::storage) marks: Marks,
    /// The sequence number of the segment's first record. All records with a lower one were durable
    /// when the segment was begun.
    pub(in crate::storage) first_sequence: u64,
    /// The last entry of the log when the segment was begun, [`EntryId::ZERO`] if there was none.
    pub(in crate::storage) previous: EntryId,
}

/// How much space a segment takes, and up to which entry it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Extent {
    pub(in crate::storage) number: u64,
    /// The highest index of an entry in any of its records, 0 if the log started anew behind all of
    /// them. An entry counts even when a later record has replaced it: the segment is removed only
    /// when a snapshot covers this index, and that also covers whatever replaced the entry there.
    pub(in crate::storage) highest: Index,
    /// How many bytes its records have.
    pub(in crate::storage) record_bytes: u64,
    /// How many bytes the file has.
    pub(in crate::storage) file_bytes: u64,
    /// The marks of the file.
    pub(in crate::storage) marks: Marks,
}

/// Notes that a record of `len` bytes was added to the last segment. If the log starts anew with
/// the record (`restart`), no entry in an earlier record is needed any more.
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

/// The name of a segment's file.
pub(in crate::storage) fn name(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

/// The number of a segment's file; `None` if the name is not a segment's.
pub(in crate::storage) fn number(file: &str) -> Option<u64> {
    let number = file.strip_prefix(PREFIX)?.parse().ok()?;
    (name(number) == file).then_some(number)
}

/// Bytes that no crash can have left behind.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::storage) struct Damage {
    pub(in crate::storage) offset: usize,
    pub(in crate::storage) problem: String,
}

/// Decides whether the bytes behind the last valid record are the rest of a torn record, which may
/// be cut, or damage. `end` is where the last valid record ends in `bytes`, which are the whole
/// segment; `sequence` is the number that the next record has. Returns how many bytes behind `end`
/// belong to a torn record, 0 if nothing was written there.
///
/// 1. A record header with a higher number follows: damage. That record was written when record
///    `sequence` was durable. So record `sequence` may have been acknowledged, and cutting it could
///    lose what this node promised to others.
/// 2. Otherwise record `sequence` was the last one. If one of its sectors was never written, its
///    write was interrupted, its sync did not return, and nobody was told of it: it may be cut.
/// 3. If all of its sectors were written, the record was complete, and it is not valid now. No
///    crash does that, and it may have been acknowledged: damage.
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
        // Without a header the length of the record is not known, and only its first sector, in
        // which the header would be, can be judged. If the mark is the present one, the sector was
        // written with a header: damage. If it is an old one, the sector was not written. If it is
        // of no life at all, the sector was not written either, and its old mark was changed: had
        // it been written, header and mark would have been valid, and a change of the mark alone
        // would have left the header. (That both were changed cannot be told from this.)
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

/// Whether the file holds all `len` bytes of the record and one of their sectors was never written.
fn has_unwritten_sector(bytes: &[u8], len: usize, marks: Marks) -> bool {
    // The space for a record is durable before the record is written. So no crash leaves a file
    // that ends within a record; a file that does was cut short later, and that is damage.
    let sectors = bytes.get(..len).map(|record| record.chunks(SECTOR));
    let states =
        sectors.map(|mut sectors| sectors.any(|s| marks.state(s) == SectorState::Unwritten));
    states.unwrap_or(false)
}

/// Finds the first valid header of a record whose number is above `sequence`: returns its offset in
/// `bytes`, and the number. Records start at sectors, so only those places are looked at.
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
