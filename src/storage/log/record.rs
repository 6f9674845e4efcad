//! Records: one for each write of the log, however many entries the write has.
//!
//! A record fills whole [sectors](super::sectors). The table shows the bytes of a record without
//! the marks of its sectors. Numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | magic: `rkvR`, or `rkvS` where the log starts anew |
//! | 4 | 4 | length of the payload, without the zeros after it |
//! | 8 | 8 | sequence number: 1 for the first record of the folder's life, then one more each |
//! | 16 | 8 | salt: the mark of the sectors |
//! | 24 | 4 | CRC-32C of all that follows the header |
//! | 28 | 4 | CRC-32C of the 28 bytes before it |
//! | 32 | | the payload |
//! | | | zeros, to the end of the last sector |
//!
//! The payload is a sequence of entries, each one as its length (4 bytes) and its encoding by
//! [`codec`]. Their indexes are consecutive. If the index of the first entry lies within the log,
//! the entries replace the log from that index on.
//!
//! With the magic `rkvS` the payload begins with term and index of an entry, 8 bytes each. A
//! snapshot that ends with this entry has taken the place of the whole log. Replay ignores all
//! records before this one, and the log starts anew: its first entry is the one after that entry.
//! The record may hold the first entries of the new log, too. The new start and these entries share
//! one record, so a crash keeps both or neither.
//!
//! Salt and sequence number let recovery tell a record from bytes that only look like one. Bytes
//! from another file, or from an earlier life of this file, have another salt. A copy of an older
//! record, for example inside a value that a client has stored, has a lower sequence number.
//!
//! # What a crash may leave on disk
//!
//! A crash may leave any of the last record's sectors unwritten. The header has a checksum of its
//! own and lies in the first sector, so the crash leaves the whole header or none of it. The
//! payload's checksum also covers the zeros after the payload, so a record is valid only if all of
//! its sectors are there and unchanged. Recovery cuts an invalid last record off, or reports it as
//! damage: see `torn_bytes` in `segment.rs`.

use crate::raft::{Entry, EntryId, Payload};
use crate::storage::disk::SECTOR;
use crate::wire::codec;

use super::sectors::{self, DATA, Marks};
use super::segment::Damage;

/// The length of a record's header, in bytes; the payload follows.
pub(super) const HEADER: usize = 32;

/// The first bytes of a record that continues the log.
const MAGIC: [u8; 4] = *b"rkvR";

/// The first bytes of a record with which the log starts anew after a snapshot.
const RESTART_MAGIC: [u8; 4] = *b"rkvS";

/// The largest encoding of one entry, in bytes. A decoded entry takes more memory than its
/// encoding, and decoding fails above [`codec::DECODE_LIMIT`]. Encodings of up to half of that
/// limit are certain to decode.
const MAX_ENTRY: usize = codec::DECODE_LIMIT / 2;

/// The header of a record, which lies in its first sector.
pub(super) struct RecordHeader {
    pub(super) sequence: u64,
    restarts: bool,
    payload_len: usize,
    payload_checksum: u32,
}

/// The decoded payload of a record: a new start of the log, entries, or both.
pub(super) struct RecordContents {
    /// If the log starts anew with this record: the last entry of the snapshot that takes the place
    /// of all earlier entries. `None` if the record continues the log.
    pub(super) restart: Option<EntryId>,
    /// The entries in the record. There is at least one, unless the log starts anew.
    pub(super) entries: Vec<Entry>,
}

/// Builds a record in `out`, padded with zeros to fill whole sectors. The sequence number, the salt
/// and the header's checksum are left out: [`stamp`] adds them.
///
/// # Panics
/// If an entry is so large that decoding it could fail. Commands of that size are refused before
/// they enter the log.
pub(super) fn fill(restart: Option<EntryId>, entries: &[Entry], out: &mut Vec<u8>) {
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

/// Completes a record with the sequence number, the salt of the file that it is written to, and the
/// header's checksum.
pub(super) fn stamp(record: &mut [u8], sequence: u64, marks: Marks) {
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    record[16..24].copy_from_slice(&marks.present().to_le_bytes());
    let header_checksum = crc32c::crc32c(&record[..28]);
    record[28..HEADER].copy_from_slice(&header_checksum.to_le_bytes());
}

/// Verifies the records at the start of `bytes`, of which the first one has this sequence number.
/// `left` is how many bytes of records the file has from there on. Returns how many bytes and
/// records are whole, and, if that is none because `bytes` end within the first record, how many
/// bytes are needed.
pub(in crate::storage) fn check_records(
    bytes: &[u8],
    left: u64,
    sequence: u64,
    marks: Marks,
) -> Result<(u64, u64, u64), Damage> {
    let (mut at, mut records, mut data) = (0, 0, Vec::new());
    while at < bytes.len() {
        let rest = &bytes[at..];
        let damage = |problem: &str| Damage {
            offset: at,
            problem: format!(
                "record {} is not valid any more: {problem}",
                sequence + records
            ),
        };
        let header = RecordHeader::read(rest, marks);
        let header = header.filter(|header| header.sequence == sequence + records);
        let header = header.ok_or_else(|| damage("its header has changed"))?;
        let len = header.record_len();
        if len as u64 > left - at as u64 {
            return Err(damage("it would be longer than the log"));
        }
        if len > rest.len() {
            let needed = if at == 0 { len as u64 } else { 0 };
            return Ok((at as u64, records, needed));
        }
        if header.payload(rest, marks, &mut data).is_none() {
            return Err(damage("its checksum does not match its contents"));
        }
        (at, records) = (at + len, records + 1);
    }
    Ok((at as u64, records, 0))
}

impl RecordHeader {
    /// Reads the record header at the start of `bytes`. `None` if there is no valid header, or if
    /// the header was written when the file was an earlier segment.
    pub(super) fn read(bytes: &[u8], marks: Marks) -> Option<Self> {
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

    /// How many bytes of the file the record takes: whole sectors, including their marks.
    pub(super) fn record_len(&self) -> usize {
        (HEADER + self.payload_len).div_ceil(DATA) * SECTOR
    }

    /// The payload of this record, put together in `data` from the sectors at the start of `bytes`.
    /// `None` if one of the record's sectors is missing or changed.
    pub(super) fn payload<'a>(
        &self,
        bytes: &[u8],
        marks: Marks,
        data: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let whole = sectors::gather(bytes.get(..self.record_len())?, marks, data);
        let intact = whole && crc32c::crc32c(&data[HEADER..]) == self.payload_checksum;
        intact.then(|| &data[HEADER..HEADER + self.payload_len])
    }

    /// Decodes the payload of this record. The error says what in the payload makes no sense.
    pub(super) fn contents(&self, payload: &[u8]) -> Result<RecordContents, String> {
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
        let entry: Entry = codec::decode(entry).map_err(|error| error.to_string())?;
        if let Payload::Configuration(configuration) = &entry.payload {
            configuration.validate()?;
        }
        entries.push(entry);
        payload = rest;
    }
    Ok(entries)
}
