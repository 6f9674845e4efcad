//! Segments: the files that the log consists of.
//!
//! They are named `log-` and their number in twenty digits. The first number is 1; once a snapshot
//! covers the start of the log, the oldest segments are removed, and none between the others is
//! left out. A segment starts with a [block](super::block) whose magic is `rkvlog\0\n` and whose
//! body is, in this order: the owner as in the file [`identity`](super::identity); the segment's
//! number; its salt; the sequence number of its first record; term and index of the entry that
//! ends the log before it. [Records](super::record) follow from offset 4096 on, one directly
//! behind the other; then zeros up to the end of the file. A segment gets its name only when its
//! header is durable, so a segment without a valid header is damaged.
//!
//! A segment is begun when the next record does not fit into the one before it, and the next
//! record is written only when all before it are durable. So whatever precedes the last record of
//! the log was acknowledged, and only that one may be torn.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::raft::{Entry, EntryId, Index};

use super::identity::Owner;
use super::record;

/// What the block at the start of a segment is recognised by.
pub(super) const MAGIC: &[u8; 8] = b"rkvlog\0\n";

const PREFIX: &str = "log-";

/// The start of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The cluster, node and folder that the segment belongs to.
    pub(super) owner: Owner,
    /// The segment's number.
    pub(super) number: u64,
    /// A random number that all records of the segment repeat.
    pub(super) salt: u64,
    /// The sequence number of the segment's first record. Those below it are durable.
    pub(super) first_sequence: u64,
    /// The last entry of the log when the segment was begun, [`EntryId::ZERO`] if there was none.
    pub(super) previous: EntryId,
}

/// What a segment takes, and what it is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) number: u64,
    /// The highest index that any of its records holds, even if it was replaced since: a record
    /// that replaces it may be on its way still. 0 if all of them are void.
    pub(super) highest: Index,
    /// How many bytes its records have.
    pub(super) record_bytes: u64,
    /// How many bytes the file has.
    pub(super) file_bytes: u64,
}

/// Enters a record of `len` bytes that ends the last segment. If the log starts anew with it, what
/// precedes it is void.
pub(super) fn note_record(
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
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

/// The number of a segment's file; `None` if the name is not a segment's.
pub(super) fn number(file: &str) -> Option<u64> {
    let number = file.strip_prefix(PREFIX)?.parse().ok()?;
    (name(number) == file).then_some(number)
}

/// Something that cannot be the result of a crash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: usize,
    pub(super) problem: String,
}

/// Judges what follows the last valid record of the log, which ends at `end`: how many bytes of a
/// torn record there are. `sequence` is the number that this record has.
///
/// If there is a record with a higher number, this one had been acknowledged, for the other was
/// written when this one was durable. It is damaged then, and not torn.
///
/// Else it may not have been acknowledged, and a crash may have left any part of it out. But if
/// nothing of it is left out, no crash has made it invalid. Its space had been filled with zeros,
/// durably, before it was written: so what is missing after a crash are sectors of zeros, and
/// after a write that the system broke off, the end. A record that is bad and happens to contain
/// a sector of zeros is the one case in which damage is taken for a torn tail.
pub(super) fn torn_bytes(
    bytes: &[u8],
    end: usize,
    salt: u64,
    sequence: u64,
) -> Result<usize, Damage> {
    let damage = |problem| Damage {
        offset: end,
        problem,
    };
    let rest = &bytes[end..];
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else {
        return Ok(0);
    };
    if let Some((at, later)) = later_record(rest, salt, sequence) {
        return Err(damage(format!(
            "record {sequence} is not valid, but record {later} behind it at offset {} is, so it \
             had been acknowledged",
            end + at
        )));
    }
    let header = record::Header::read(rest, salt).filter(|header| header.sequence == sequence);
    // Without a valid header all that is known of the record's end is that it is behind it.
    let (len, least) = match header {
        Some(header) => (header.record_len(), header.record_len()),
        None => (record::HEADER, record::HEADER + 1),
    };
    let in_file = len <= rest.len();
    let cut_short = last + 1 < least;
    if in_file && (cut_short || record::has_unwritten_sector(bytes, end..end + len)) {
        return Ok(last + 1);
    }
    Err(damage(format!(
        "record {sequence} is not valid, and no part of it is missing as after a crash: it was \
         changed after it had been written"
    )))
}

/// The first header of a record with a number above `sequence`: where it is, and the number.
fn later_record(bytes: &[u8], salt: u64, sequence: u64) -> Option<(usize, u64)> {
    let places = (0..bytes.len()).step_by(record::ALIGNMENT);
    let headers = places.filter_map(|at| {
        let header = record::Header::read(&bytes[at..], salt)?;
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
