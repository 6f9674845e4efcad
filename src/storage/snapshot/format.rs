//! The format of snapshot files, to the byte.
//!
//! A snapshot's file is named `snapshot-`, the index of its last entry in twenty digits, `-` and
//! that entry's term. Nodes send the file to each other as it is, so nothing in it tells which node
//! wrote it. Numbers are little-endian.
//!
//! 1. The header, a [block] with the magic `rkvsnap\n`. Its body is, in this order: the owner,
//!    which is the name of the cluster and the identity of the state machine; the last entry, its
//!    cluster time and the members; when the snapshot was written, in milliseconds since 1970; the
//!    salt, a random number; how pieces are compressed (0: as LZ4 blocks). In format 2 the members
//!    are three sets of ids: voters, voters before a change, learners. The latter two are always
//!    empty, and the voters are read as the founding configuration, without addresses.
//! 2. The state, cut into pieces of 65536 bytes and a last one that may be shorter, each as
//!
//!    | offset | bytes | what |
//!    | --- | --- | --- |
//!    | 0 | 4 | how many bytes of the file the piece takes after these 12, at least 1 |
//!    | 4 | 4 | how many bytes of the state the piece holds, before compression |
//!    | 8 | 4 | CRC-32C of the salt, the piece's number from 0 on (8 bytes each), the two lengths and the bytes |
//!    | 12 | | the bytes: the state, compressed if that makes it shorter |
//! 3. The footer, a block with the magic `rkvsend\n` in the last 4096 bytes of the file. Its body
//!    is, in this order: the salt, the number of pieces, the length of the state, and a CRC-32C of
//!    the checksums of all the pieces (4 bytes each).
//!
//! The checksum of a piece covers the salt and the piece's number. So a piece that was changed,
//! moved, or taken from another snapshot is noticed before a byte of it is used. The footer is read
//! first, so a file whose end is missing is noticed before the first piece is used. A missing piece
//! is noticed at the latest when the footer does not match the pieces.
//!
//! A crash leaves no incomplete file with such a name: see the invariants in `mod.rs`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::raft::{Configuration, EntryId, LoggedConfiguration, NodeId, SnapshotMeta};
use crate::storage::block::{self, BLOCK, BlockError, Body};
use crate::storage::disk::NamedFile;
use crate::storage::error::{SNAPSHOT_ADVICE, StorageError};
use crate::storage::voter::identity::Identity;
use crate::wire::codec::{self, DecodeError};

use super::SnapshotInfo;

/// How many bytes of the state each piece holds, except for the last one.
pub(in crate::storage) const PIECE: usize = 64 << 10;

/// The length of a piece's header, in bytes; the piece's bytes follow.
pub(super) const PIECE_HEADER: usize = 12;

const HEADER_MAGIC: &[u8; 8] = b"rkvsnap\n";
const FOOTER_MAGIC: &[u8; 8] = b"rkvsend\n";
const PREFIX: &str = "snapshot-";

/// The cluster and the kind of state machine that a snapshot belongs to. It belongs to no single
/// node, because nodes send snapshots to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct SnapshotOwner {
    /// The name of the cluster whose state the snapshot holds.
    pub(super) cluster: String,
    /// The identity of the state machine that wrote the state and can read it.
    pub(in crate::storage) machine: String,
}

impl From<&Identity> for SnapshotOwner {
    fn from(identity: &Identity) -> Self {
        Self {
            cluster: identity.cluster.clone(),
            machine: identity.machine.clone(),
        }
    }
}

/// How pieces are compressed. A piece that compression would not make smaller is stored as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Compression {
    /// The block format of LZ4. If values are half text and half random, it saves a third of the
    /// bytes, at some hundred MB a second.
    Lz4,
}

/// Compresses a piece of the state into the start of `out`; `None` if the result is not smaller.
pub(super) fn compress<'a>(state: &[u8], out: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    out.resize(lz4_flex::block::get_maximum_output_size(state.len()), 0);
    let len = lz4_flex::block::compress_into(state, out).ok()?;
    (len < state.len()).then(|| &out[..len])
}

/// Decompresses a piece of `state_len` bytes from `bytes`, which have passed their checksum. The
/// error says what does not fit.
pub(super) fn decompress(bytes: &[u8], state_len: usize) -> Result<Vec<u8>, String> {
    let mut state = vec![0; state_len];
    match lz4_flex::block::decompress_into(bytes, &mut state) {
        Ok(len) if len == state_len => Ok(state),
        Ok(len) => Err(format!("a piece has {len} bytes in place of {state_len}")),
        Err(error) => Err(format!("a piece cannot be decompressed: {error}")),
    }
}

/// The header of a snapshot's file: what the snapshot covers, and how its pieces are to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotHeader {
    pub(super) owner: SnapshotOwner,
    pub(super) meta: SnapshotMeta,
    /// When the snapshot was written, by the clock of the node that wrote it, in milliseconds since
    /// 1970.
    pub(super) created_ms: u64,
    /// A random number that every piece's checksum covers, so that no piece of another snapshot is
    /// valid in this one.
    pub(super) salt: u64,
    pub(super) compression: Compression,
}

/// The start of a snapshot as format 2 has it.
#[derive(Deserialize)]
struct SnapshotHeaderV2 {
    owner: SnapshotOwner,
    last: EntryId,
    time_ms: u64,
    voters: BTreeSet<NodeId>,
    _outgoing: BTreeSet<NodeId>,
    _learners: BTreeSet<NodeId>,
    created_ms: u64,
    salt: u64,
    compression: Compression,
}

impl Body for SnapshotHeader {
    fn decode(format: u32, bytes: &[u8]) -> Result<Self, DecodeError> {
        if format > 2 {
            let header: Self = codec::decode(bytes)?;
            let validated = header.meta.configuration.configuration.validate();
            return validated.map(|()| header).map_err(DecodeError::Malformed);
        }
        let old: SnapshotHeaderV2 = codec::decode(bytes)?;
        let voters = old.voters.into_iter().map(|id| (id, String::new()));
        Ok(Self {
            owner: old.owner,
            meta: SnapshotMeta {
                last: old.last,
                time_ms: old.time_ms,
                configuration: LoggedConfiguration::founding(Configuration::founding(voters)),
            },
            created_ms: old.created_ms,
            salt: old.salt,
            compression: old.compression,
        })
    }
}

/// The footer of a snapshot's file, by which missing pieces are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Footer {
    salt: u64,
    /// How many pieces the snapshot has.
    pieces: u64,
    /// The length of the state in bytes, before compression.
    state_bytes: u64,
    /// A checksum of the checksums of all pieces, in order.
    checksum: u32,
}

impl SnapshotHeader {
    pub(super) fn seal(&self) -> Vec<u8> {
        block::seal(HEADER_MAGIC, self)
    }

    /// Reads the header of a snapshot's file. The snapshot may belong to any cluster.
    pub(super) fn read(file: &NamedFile) -> Result<Self, StorageError> {
        read_block(file, HEADER_MAGIC, 0, "header")
    }

    /// A sentence that says why the snapshot does not belong to this cluster and state machine;
    /// `None` if it does.
    pub(super) fn stranger(&self, owner: &SnapshotOwner) -> Option<String> {
        let SnapshotOwner { cluster, machine } = &self.owner;
        if *cluster != owner.cluster {
            let wanted = &owner.cluster;
            return Some(format!("it is of cluster {cluster:?}, not of {wanted:?}"));
        }
        (*machine != owner.machine).then(|| {
            let wanted = &owner.machine;
            format!("it is of the state machine {machine:?}, not of {wanted:?}")
        })
    }

    pub(super) fn info(&self, bytes: u64) -> SnapshotInfo {
        SnapshotInfo {
            meta: self.meta.clone(),
            bytes,
            created_ms: self.created_ms,
        }
    }
}

impl Body for Footer {}

impl Footer {
    /// The footer of a snapshot to which no piece has been added yet.
    pub(super) fn of(header: &SnapshotHeader) -> Self {
        Self {
            salt: header.salt,
            pieces: 0,
            state_bytes: 0,
            checksum: 0,
        }
    }

    pub(super) fn seal(&self) -> Vec<u8> {
        block::seal(FOOTER_MAGIC, self)
    }

    /// Reads the footer of a file of `len` bytes, which must be at least one block.
    pub(super) fn read(file: &NamedFile, len: u64) -> Result<Self, StorageError> {
        read_block(file, FOOTER_MAGIC, len - BLOCK as u64, "footer")
    }

    /// Counts one more piece in the footer, and returns the piece's checksum. `lengths` are the
    /// first 8 bytes of the piece's header.
    pub(super) fn add(&mut self, lengths: &[u8], state_len: usize, bytes: &[u8]) -> u32 {
        let mut checksum = crc32c::crc32c(&self.salt.to_le_bytes());
        for part in [&self.pieces.to_le_bytes(), lengths, bytes] {
            checksum = crc32c::crc32c_append(checksum, part);
        }
        self.pieces += 1;
        self.state_bytes += state_len as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &checksum.to_le_bytes());
        checksum
    }
}

/// The name of the file of the snapshot that ends with the entry `last`.
pub(in crate::storage) fn name(last: EntryId) -> String {
    format!("{PREFIX}{:020}-{}", last.index, last.term)
}

/// The last entry of the snapshot with this file name; `None` if the name is not a snapshot's.
pub(in crate::storage) fn last_of(file: &str) -> Option<EntryId> {
    let (index, term) = file.strip_prefix(PREFIX)?.split_once('-')?;
    let (index, term) = (index.parse().ok()?, term.parse().ok()?);
    let last = EntryId { term, index };
    (name(last) == file).then_some(last)
}

/// The error that a snapshot's file is damaged at this offset, in bytes.
pub(super) fn damaged(file: &NamedFile, offset: u64, problem: impl Into<String>) -> StorageError {
    StorageError::Damaged {
        path: file.path().to_path_buf(),
        offset,
        problem: problem.into(),
        advice: SNAPSHOT_ADVICE,
    }
}

fn read_block<T: Body>(
    file: &NamedFile,
    magic: &[u8; 8],
    offset: u64,
    what: &str,
) -> Result<T, StorageError> {
    let mut bytes = vec![0; BLOCK];
    file.read(&mut bytes, offset)?;
    block::unseal(magic, &bytes).map_err(|error| match error {
        BlockError::Format(_) => StorageError::WrongFolder {
            folder: file.path().to_path_buf(),
            problem: error.to_string(),
            advice: "Run the version of kvnode that wrote it",
        },
        other => damaged(file, offset, format!("its {what} is not valid: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_would_give_are_snapshots() {
        let last = EntryId { term: 3, index: 12 };
        assert_eq!(name(last), "snapshot-00000000000000000012-3");
        assert_eq!(last_of(&name(last)), Some(last));
        for other in [
            "snapshot-12-3",
            "snapshot-00000000000000000012-03",
            "snapshot-00000000000000000012-3.damaged",
            "snapshot-00000000000000000012",
            "log-00000000000000000012",
        ] {
            assert_eq!(last_of(other), None, "{other}");
        }
    }
}
