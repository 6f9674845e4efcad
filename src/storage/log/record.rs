//! Records: one for each write of the log, whatever number of entries it has.
//!
//! A record fills [sectors](super::sectors) of its own. This is what they hold, without their
//! marks. Numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | magic: `rkvR`, or `rkvS` where the log starts anew |
//! | 4 | 4 | length of the payload, without the zeros behind it |
//! | 8 | 8 | sequence number: 1 for the first record of the folder's life, then one more each |
//! | 16 | 8 | salt: the mark of the sectors |
//! | 24 | 4 | CRC-32C of all that follows the header |
//! | 28 | 4 | CRC-32C of the 28 bytes before it |
//! | 32 | | the payload |
//! | | | zeros, to the end of the last sector |
//!
//! The payload is a sequence of entries, each one as its length (4 bytes) and its encoding by
//! [`codec`]. They have consecutive indexes. If the first one's index lies within the log, they
//! replace the log from there on.
//!
//! With the magic `rkvS` the payload begins with term and index of an entry, 8 bytes each. A
//! snapshot of that entry has taken the place of the whole log: what precedes the record is void,
//! and the log starts behind that entry, with the entries that follow, if any. It is one record, so
//! no crash can split it.
//!
//! The salt and the sequence number let recovery tell a record from bytes that look like one: what
//! another file or another life left on the disk has another salt, and a copy of an older record,
//! say inside a client's value, has a lower number.

use crate::raft::{Entry, EntryId};
use crate::storage::disk::SECTOR;
use crate::wire::codec;

use super::sectors::{self, DATA, Marks};

/// How many bytes precede the payload.
pub(in crate::storage) const HEADER: usize = 32;

/// The first bytes of a record that continues the log.
const MAGIC: [u8; 4] = *b"rkvR";

/// The first bytes of a record with which the log starts anew.
const RESTART_MAGIC: [u8; 4] = *b"rkvS";

/// The largest encoding of one entry, in bytes: what is certain to decode, for values decode into
/// more memory than their encoding takes.
const MAX_ENTRY: usize = codec::DECODE_LIMIT / 2;

/// What the first bytes of a record say.
pub(in crate::storage) struct RecordHeader {
    pub(in crate::storage) sequence: u64,
    restarts: bool,
    payload_len: usize,
    payload_checksum: u32,
}

/// What a record says.
pub(in crate::storage) struct RecordContents {
    /// The entry behind which the log starts anew, if it does.
    pub(in crate::storage) restart: Option<EntryId>,
    /// The entries; none only if the log starts anew.
    pub(in crate::storage) entries: Vec<Entry>,
}

/// Puts entries into a record, in place of what is in `out`: as much as whole sectors hold. It
/// still needs its [`stamp`].
///
/// # Panics
/// If the entries are larger than what may enter a log.
pub(in crate::storage) fn fill(restart: Option<EntryId>, entries: &[Entry], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; HEADER]);
    if let Some(EntryId { term, index }) = restart {
        out.extend_from_slice(&term.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
    }
    for entry in entries {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        codec::encode(entry, out);
        let len = out.len() - start - 4;
        assert!(len <= MAX_ENTRY, "an entry over any limit reached the disk");
        out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    }
    let payload_len = u32::try_from(out.len() - HEADER).expect("a write stays below 4 GiB");
    out.resize(out.len().next_multiple_of(DATA), 0);
    let payload_checksum = crc32c::crc32c(&out[HEADER..]);
    out[..4].copy_from_slice(if restart.is_some() {
        &RESTART_MAGIC
    } else {
        &MAGIC
    });
    out[4..8].copy_from_slice(&payload_len.to_le_bytes());
    out[24..28].copy_from_slice(&payload_checksum.to_le_bytes());
}

/// Completes a record with what depends on its place in the log.
pub(in crate::storage) fn stamp(record: &mut [u8], sequence: u64, marks: Marks) {
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    record[16..24].copy_from_slice(&marks.present().to_le_bytes());
    let header_checksum = crc32c::crc32c(&record[..28]);
    record[28..HEADER].copy_from_slice(&header_checksum.to_le_bytes());
}

impl RecordHeader {
    /// Reads the header at the start of `bytes`; `None` if there is none of this life of the file.
    pub(in crate::storage) fn read(bytes: &[u8], marks: Marks) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let four = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
        let restarts = header[..4] == RESTART_MAGIC;
        let valid = (restarts || header[..4] == MAGIC)
            && eight(16) == marks.present()
            && four(28) == crc32c::crc32c(&header[..28]);
        valid.then(|| Self {
            sequence: eight(8),
            restarts,
            payload_len: four(4) as usize,
            payload_checksum: four(24),
        })
    }

    /// How many bytes the record takes, in sectors.
    pub(in crate::storage) fn record_len(&self) -> usize {
        (HEADER + self.payload_len).div_ceil(DATA) * SECTOR
    }

    /// The payload, if it is all there and intact. `bytes` start with the record; `data` is the
    /// memory that the payload is put together in.
    pub(in crate::storage) fn payload<'a>(
        &self,
        bytes: &[u8],
        marks: Marks,
        data: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let whole = sectors::gather(bytes.get(..self.record_len())?, marks, data);
        let intact = whole && crc32c::crc32c(&data[HEADER..]) == self.payload_checksum;
        intact.then(|| &data[HEADER..HEADER + self.payload_len])
    }

    /// What a payload of this record says.
    pub(in crate::storage) fn contents(&self, payload: &[u8]) -> Result<RecordContents, String> {
        let (restart, rest) = match self.restarts {
            false => (None, payload),
            true => {
                let (term, rest) = payload.split_first_chunk().ok_or("a term is cut off")?;
                let (index, rest) = rest.split_first_chunk().ok_or("an index is cut off")?;
                let (term, index) = (u64::from_le_bytes(*term), u64::from_le_bytes(*index));
                (Some(EntryId { term, index }), rest)
            }
        };
        let entries = entries(rest)?;
        Ok(RecordContents { restart, entries })
    }
}

fn entries(mut payload: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    while !payload.is_empty() {
        let (len, rest) = payload.split_first_chunk().ok_or("a length is cut off")?;
        let (entry, rest) = rest
            .split_at_checked(u32::from_le_bytes(*len) as usize)
            .ok_or("an entry is cut off")?;
        entries.push(codec::decode(entry).map_err(|error| error.to_string())?);
        payload = rest;
    }
    Ok(entries)
}
