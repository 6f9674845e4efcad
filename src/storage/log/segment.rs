//! Segments: the files that the log consists of.
//!
//! They are named `log-` and their number in twenty digits. The first number is 1; once a snapshot
//! covers the start of the log, the oldest segments are removed, and none between the others is
//! left out. A segment starts with a [block](crate::storage::block) whose magic is `rkvlog\0\n`
//! and whose body is, in this order: the owner as in the file `identity`; the segment's
//! number; the file's random number and how often it was used before, which give the [marks of its
//! sectors](super::sectors); the sequence number of its first record; term and index of the entry
//! that ends the log before it. [Records](super::record) follow from offset 4096 on, one directly
//! behind the other; then sectors that were not written in the file's present life. A segment gets
//! its name only when its header is durable, so a segment without a valid header is damaged.
//!
//! A segment is begun when the next record does not fit into the one before it, and the next
//! record is written only when all before it are durable. So whatever precedes the last record of
//! the log was acknowledged, and only that one may be torn.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::raft::{Entry, EntryId, Index};
use crate::storage::disk::SECTOR;
use crate::storage::voter::identity::Owner;

use super::record;
use super::sectors::{Marks, State};

/// What the block at the start of a segment is recognised by.
pub(in crate::storage) const MAGIC: &[u8; 8] = b"rkvlog\0\n";

const PREFIX: &str = "log-";

/// The start of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct Header {
    /// The cluster, node and folder that the segment belongs to.
    pub(in crate::storage) owner: Owner,
    /// The segment's number.
    pub(in crate::storage) number: u64,
    /// How written sectors are told from others.
    pub(in crate::storage) marks: Marks,
    /// The sequence number of the segment's first record. Those below it are durable.
    pub(in crate::storage) first_sequence: u64,
    /// The last entry of the log when the segment was begun, [`EntryId::ZERO`] if there was none.
    pub(in crate::storage) previous: EntryId,
}

/// What a segment takes, and what it is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Extent {
    pub(in crate::storage) number: u64,
    /// The highest index that any of its records holds, even if it was replaced since: a record
    /// that replaces it may be on its way still. 0 if all of them are void.
    pub(in crate::storage) highest: Index,
    /// How many bytes its records have.
    pub(in crate::storage) record_bytes: u64,
    /// How many bytes the file has.
    pub(in crate::storage) file_bytes: u64,
    /// How written sectors are told from others.
    pub(in crate::storage) marks: Marks,
}

/// Enters a record of `len` bytes that ends the last segment. If the log starts anew with it, what
/// precedes it is void.
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

/// Something that cannot be the result of a crash.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::storage) struct Damage {
    pub(in crate::storage) offset: usize,
    pub(in crate::storage) problem: String,
}

/// Judges what follows the last valid record of the log, which ends at `end`: how many bytes of a
/// torn record there are. `sequence` is the number that this record has.
///
/// If there is a record with a higher number, this one had been acknowledged, for the other was
/// written when this one was durable. It is damaged then, and not torn.
///
/// Else it may not have been acknowledged, and a crash may have left out any of its sectors. But if
/// none of them is left out, no crash has made it invalid.
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
    let header = record::Header::read(rest, marks).filter(|header| header.sequence == sequence);
    let is_missing = match header {
        Some(header) => has_unwritten_sector(rest, header.record_len(), marks),
        // It is in the first sector. A mark that was spoilt, where no header is, is not the
        // record's: of that one the crash would have left nothing but a mark.
        None => rest.is_empty() || marks.state(rest) != State::Written,
    };
    if is_missing {
        return Ok(marks.end_of_written(rest));
    }
    Err(damage(format!(
        "record {sequence} is not valid, and no part of it is missing as after a crash: it was \
         changed after it had been written"
    )))
}

/// Whether the first `len` bytes are there and one of their sectors was never written.
fn has_unwritten_sector(bytes: &[u8], len: usize, marks: Marks) -> bool {
    // Its space was there before it was written: no crash makes a file end before a record does.
    let sectors = bytes.get(..len).map(|record| record.chunks(SECTOR));
    let states = sectors.map(|mut sectors| sectors.any(|s| marks.state(s) == State::Unwritten));
    states.unwrap_or(false)
}

/// The first header of a record with a number above `sequence`: where it is, and the number.
fn later_record(bytes: &[u8], marks: Marks, sequence: u64) -> Option<(usize, u64)> {
    let places = (0..bytes.len()).step_by(SECTOR);
    let headers = places.filter_map(|at| {
        let header = record::Header::read(&bytes[at..], marks)?;
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
