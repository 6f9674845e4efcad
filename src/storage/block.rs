//! Blocks: the format of the small files, and of the heads of segments and snapshots.
//!
//! A block has 4096 bytes. Numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 8 | magic: which kind of block it is |
//! | 8 | 4 | version of the folder's format, [`FORMAT`] |
//! | 12 | 4 | length of the body, at most 4076 |
//! | 16 | | the body, in the encoding of [`codec`] |
//! | | | zeros |
//! | 4092 | 4 | CRC-32C of all that precedes it |
//!
//! Only the body differs between versions of the format. So an older version can tell that a newer
//! version wrote the folder.
//!
//! A crash in the middle of writing a block leaves some of its sectors as they were. Then the
//! checksum does not match, and the block is not valid. Each source file that writes blocks says
//! how its file survives that.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::codec::{self, DecodeError};

/// The size of a block in bytes.
pub(super) const BLOCK: usize = 4096;

/// The version of the data folder's format that this code writes.
pub(super) const FORMAT: u32 = 3;

/// The oldest version that it reads.
pub(super) const OLDEST: u32 = 2;

const BODY: usize = 16;
const CHECKSUM: usize = BLOCK - 4;

/// Why bytes that were read from a file are not a block of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlockError {
    #[error("it has {0} bytes where {BLOCK} were expected")]
    Short(usize),
    #[error("its checksum does not match its contents")]
    Checksum,
    #[error("it is another kind of file")]
    Magic,
    #[error("it has the format {0}, and this version reads {OLDEST} to {FORMAT}")]
    Format(u32),
    #[error("its contents make no sense ({0})")]
    Body(String),
}

/// What a block can hold.
pub(super) trait Body: DeserializeOwned {
    /// Decodes the body of a block of this version: [`OLDEST`] to [`FORMAT`]. A kind of block that
    /// looked different in an earlier version converts it here.
    fn decode(_format: u32, bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

/// Encodes a value as a block.
///
/// # Panics
/// If the encoded value does not fit into a block. All values that become blocks have a bounded
/// size.
pub(super) fn seal<T: Serialize>(magic: &[u8; 8], value: &T) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    block.extend_from_slice(magic);
    block.extend_from_slice(&FORMAT.to_le_bytes());
    block.extend_from_slice(&[0; 4]);
    codec::encode(value, &mut block);
    assert!(block.len() <= CHECKSUM, "a block's body has a bounded size");
    let len = (block.len() - BODY) as u32;
    block[12..BODY].copy_from_slice(&len.to_le_bytes());
    block.resize(CHECKSUM, 0);
    let checksum = crc32c::crc32c(&block);
    block.extend_from_slice(&checksum.to_le_bytes());
    block
}

/// Checks the block at the start of `bytes` and decodes the value in it.
pub(super) fn unseal<T: Body>(magic: &[u8; 8], bytes: &[u8]) -> Result<T, BlockError> {
    let block = bytes.get(..BLOCK).ok_or(BlockError::Short(bytes.len()))?;
    if crc32c::crc32c(&block[..CHECKSUM]) != number(block, CHECKSUM) {
        return Err(BlockError::Checksum);
    }
    if block[..8] != *magic {
        return Err(BlockError::Magic);
    }
    let format = format_of(block);
    if !(OLDEST..=FORMAT).contains(&format) {
        return Err(BlockError::Format(format));
    }
    let body = block[BODY..CHECKSUM].get(..number(block, 12) as usize);
    let body = body.ok_or_else(|| BlockError::Body("its length is out of bounds".into()))?;
    T::decode(format, body).map_err(|error| BlockError::Body(error.to_string()))
}

/// The version that a whole block was written by.
pub(super) fn format_of(block: &[u8]) -> u32 {
    number(block, 8)
}

/// The four bytes at `offset` of a block, as a little-endian number.
fn number(block: &[u8], offset: usize) -> u32 {
    let bytes = [0, 1, 2, 3].map(|i| block[offset + i]);
    u32::from_le_bytes(bytes)
}

/// For tests: replaces the version of the format in a block, and its checksum.
#[cfg(test)]
pub(super) fn with_format(mut block: Vec<u8>, format: u32) -> Vec<u8> {
    block[8..12].copy_from_slice(&format.to_le_bytes());
    let checksum = crc32c::crc32c(&block[..CHECKSUM]);
    block[CHECKSUM..BLOCK].copy_from_slice(&checksum.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"a block!";

    impl Body for String {}
    impl Body for u64 {}
    impl Body for (u64, u64) {}

    #[test]
    fn a_flipped_bit_anywhere_in_a_block_is_noticed() {
        let good = seal(MAGIC, &"seven");
        assert_eq!(unseal(MAGIC, &good), Ok("seven".to_string()));
        for bit in 0..8 * BLOCK {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal::<String>(MAGIC, &bad), Err(BlockError::Checksum));
        }
    }

    #[test]
    fn a_block_of_another_kind_another_format_or_a_missing_part_is_told_apart() {
        let block = seal(MAGIC, &7u64);
        assert_eq!(unseal::<u64>(b"another!", &block), Err(BlockError::Magic));
        assert_eq!(
            unseal::<u64>(MAGIC, &block[1..]),
            Err(BlockError::Short(BLOCK - 1))
        );
        let body = unseal::<(u64, u64)>(MAGIC, &block);
        assert!(matches!(body, Err(BlockError::Body(_))), "{body:?}");
        for other in [OLDEST - 1, FORMAT + 1] {
            let block = with_format(block.clone(), other);
            assert_eq!(unseal::<u64>(MAGIC, &block), Err(BlockError::Format(other)));
        }
        let old = with_format(block, OLDEST);
        assert_eq!(unseal::<u64>(MAGIC, &old), Ok(7));
    }
}
