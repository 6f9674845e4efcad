//! The encoding of all values on the wire and on disk. No other module uses `bincode`.
//!
//! Every value goes through [`encode`] and [`decode`]. They have one fixed configuration
//! (little-endian, variable-length integers) and one limit on memory, and accept no trailing bytes.
//!
//! The encoding, to the byte (bincode 2, `config::standard()`):
//!
//! | value | bytes |
//! | --- | --- |
//! | unsigned integer of 16 bits or more, length, enum variant (counted from 0) | below 251: one byte; else `fb` + 2, `fc` + 4, `fd` + 8 or `fe` + 16 bytes, little-endian, the shortest that holds it |
//! | `u8` | one byte |
//! | `bool` | one byte, 0 or 1 |
//! | `Option` | one byte, 0 or 1, then the value if 1 |
//! | string, byte string | length in bytes, then the bytes |
//! | list, set, map | number of items, then the items; a map's item is its key, then its value |
//! | struct, tuple | the fields in the order of their declaration, nothing between them |
//! | enum | the variant's number, then its fields |
//!
//! The bytes do not name their fields. So adding, removing or reordering a field changes the
//! format.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize};

/// How much memory a decoded value may take at most, in bytes. So damaged or hostile length fields
/// cannot make a node allocate more.
pub const DECODE_LIMIT: usize = 64 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_LIMIT>> =
    config::standard().with_limit::<DECODE_LIMIT>();

/// Why bytes cannot be decoded as a value of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not the encoding of a value of the expected type.
    #[error("the bytes do not decode: {0}")]
    Malformed(String),
    /// Some bytes are left over after the decoded value.
    #[error("{0} bytes are left over after the value")]
    Trailing(usize),
}

/// Appends the encoding of `value` to `out`.
///
/// # Panics
/// If a `Serialize` implementation fails. None in this crate does.
pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(value, out, config::standard())
        .expect("encoding into memory does not fail");
}

/// Returns the encoding of `value` in a new buffer.
pub fn to_bytes<T: Serialize>(value: &T) -> bytes::Bytes {
    let mut out = Vec::new();
    encode(value, &mut out);
    out.into()
}

/// Decodes a value that takes up all of `bytes`. The value may borrow from `bytes`: a `&[u8]`
/// inside the value is not copied.
///
/// # Errors
/// [`DecodeError`] if the bytes are malformed, claim too much memory, or go on after the end of the
/// value.
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, CONFIG)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        trailing => Err(DecodeError::Trailing(trailing)),
    }
}

/// Decodes a value at the start of `bytes`, and ignores trailing bytes.
///
/// # Errors
/// [`DecodeError`] if the bytes are malformed or claim too much memory.
pub fn decode_prefix<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bincode::serde::decode_from_slice(bytes, CONFIG) {
        Ok((value, _)) => Ok(value),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_decodes() {
        let value = (7u64, "seven".to_string(), vec![1u8, 2, 3]);
        let bytes = to_bytes(&value);
        assert_eq!(decode::<(u64, String, Vec<u8>)>(&bytes), Ok(value));
    }

    #[test]
    fn a_decoded_slice_borrows_from_the_encoding() {
        let bytes = to_bytes(&(7u64, bytes::Bytes::from_static(b"shared")));
        let (_, slice) = decode::<(u64, &[u8])>(&bytes).unwrap();
        assert_eq!(slice, b"shared");
        assert!(bytes.as_ptr_range().contains(&slice.as_ptr()));
    }

    #[test]
    fn a_byte_too_many_is_refused() {
        let mut bytes = to_bytes(&7u64).to_vec();
        bytes.push(0);
        assert_eq!(decode::<u64>(&bytes), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
        let bytes = to_bytes(&u64::MAX);
        let decoded = decode::<Vec<u8>>(&bytes);
        assert!(
            matches!(decoded, Err(DecodeError::Malformed(_))),
            "{decoded:?}"
        );
        let decoded = decode::<Vec<(u64, u64)>>(&bytes);
        assert!(
            matches!(decoded, Err(DecodeError::Malformed(_))),
            "{decoded:?}"
        );
    }
}
