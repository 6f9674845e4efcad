//! Segments: the files that the log consists of.
//!
//! They are named `log-` and their number in twenty digits; the first number is 1 and none is left
//! out. A segment starts with a [block](super::block) whose magic is `rkvlog\0\n` and whose body
//! is [`Header`]. [Records](super::record) follow from offset 4096 on, one directly behind the
//! other; then zeros up to the end of the file. A segment gets its name only when its header is
//! durable, so a segment without a valid header is damaged.
//!
//! A segment is begun when the next record does not fit into the one before it, and the next
//! record is written only when all before it are durable. So whatever precedes the last record of
//! the log was acknowledged, and only that one may be torn.

use serde::{Deserialize, Serialize};

use crate::raft::EntryId;

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

/// Judges what follows the last valid record of the log: how many bytes of a torn record there are.
///
/// `sequence` is the number that the next record would have. It was never acknowledged if it is
/// the last that was written, and then a crash may have left any of its sectors unwritten. It was
/// acknowledged if a record with a higher number exists, for that one was written after it was
/// durable. And no crash is needed to explain that nothing is there.
pub(super) fn torn_bytes(
    bytes: &[u8],
    end: usize,
    salt: u64,
    sequence: u64,
) -> Result<usize, Damage> {
    let rest = bytes.get(end..).unwrap_or_default();
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else {
        return Ok(0);
    };
    for at in (end..bytes.len()).step_by(record::ALIGNMENT) {
        let later = record::Header::read(&bytes[at..], salt);
        if let Some(later) = later.filter(|later| later.sequence > sequence) {
            return Err(Damage {
                offset: end,
                problem: format!(
                    "record {sequence} is not valid, but record {} behind it at offset {at} is, \
                     so it had been acknowledged",
                    later.sequence
                ),
            });
        }
    }
    let header = record::Header::read(rest, salt).filter(|header| header.sequence == sequence);
    let len = header.map_or(record::HEADER, |header| header.record_len());
    // Its space had been filled with zeros, durably, before the record was written. So what is
    // missing after a crash are sectors, and after a write that the system broke off, the end.
    // With a header that is not valid, all that is known of the end is that it is behind it.
    let in_file = end + len <= bytes.len();
    let cut_short = last + 1 < len.max(record::HEADER + 1);
    if in_file && (cut_short || record::has_unwritten_sector(bytes, end..end + len)) {
        Ok(last + 1)
    } else {
        Err(Damage {
            offset: end,
            problem: format!(
                "record {sequence} is not valid, and no part of it is missing as after a crash: \
                 it was changed after it had been written"
            ),
        })
    }
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
