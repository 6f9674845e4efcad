//! Frames, which separate the messages on a stream of bytes.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | length of the payload in bytes, little-endian; at most [`MAX_PAYLOAD`], and less where the context says so |
//! | 4 | 4 | CRC-32C (Castagnoli) of the payload, little-endian |
//! | 8 | 4 | CRC-32C of the eight bytes before, little-endian |
//! | 12 | length | the payload: one value in the encoding of [`codec`] |
//!
//! The header has a checksum of its own. Without it, a length that has changed on the way would
//! make the receiver wait for bytes that never come: the connection would look healthy, but no
//! message would arrive any more.
//!
//! Frames follow each other without padding. After a damaged frame the start of the next one is
//! unknown, so damage ends the connection.

use serde::Serialize;

use super::codec;

/// The length of a frame's header in bytes; the payload follows.
pub const HEADER_LEN: usize = 12;

/// The largest payload that is sent or accepted, in bytes. There is room for a compare-and-swap
/// with two values and a key of the default limits.
pub const MAX_PAYLOAD: usize = 18 << 20;

/// Why received bytes are not a frame. The start of the next frame is unknown then, so the
/// connection has to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame's header claims a length over the limit.
    #[error("a frame of {len} bytes is over the limit of {limit}")]
    TooLong {
        /// The length that the frame claims, in bytes.
        len: usize,
        /// The largest length that is accepted here, in bytes.
        limit: usize,
    },
    /// The frame's header does not fit its own checksum: it was changed on the way.
    #[error("a frame's header has the checksum {actual:08x} instead of {expected:08x}")]
    Header {
        /// The header's checksum, as the frame states it.
        expected: u32,
        /// The checksum computed from the header's other bytes, as they arrived.
        actual: u32,
    },
    /// The frame's payload does not fit its checksum: it was changed on the way.
    #[error("a frame's payload has the checksum {actual:08x} instead of {expected:08x}")]
    Checksum {
        /// The payload's checksum, as the frame states it.
        expected: u32,
        /// The checksum computed from the payload that arrived.
        actual: u32,
    },
}

/// Appends one frame to `out`, with `value` as its payload.
pub fn put<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    put_with(out, |out| codec::encode(value, out));
}

/// Appends one frame to `out`; `fill` appends the frame's payload.
pub fn put_with(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    fill(out);
    let payload = &out[start + HEADER_LEN..];
    debug_assert!(payload.len() <= MAX_PAYLOAD, "a frame over the limit");
    let (len, checksum) = (payload.len() as u32, crc32c::crc32c(payload));
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    let of_header = crc32c::crc32c(&out[start..start + 8]);
    out[start + 8..start + HEADER_LEN].copy_from_slice(&of_header.to_le_bytes());
}

/// Splits off the first frame of `bytes`. Returns the frame's payload, and the length of the whole
/// frame in bytes. `None` if the frame is not complete yet.
///
/// # Errors
/// [`FrameError`] if the bytes are not a frame. A bad header is reported before the payload has
/// arrived.
pub fn split(bytes: &[u8], limit: usize) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let number = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let len = number(0) as usize;
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    let (expected, actual) = (number(8), crc32c::crc32c(&header[..8]));
    if actual != expected {
        return Err(FrameError::Header { expected, actual });
    }
    let Some(payload) = rest.get(..len) else {
        return Ok(None);
    };
    let (expected, actual) = (number(4), crc32c::crc32c(payload));
    if actual != expected {
        return Err(FrameError::Checksum { expected, actual });
    }
    Ok(Some((payload, HEADER_LEN + len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(value: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&value, &mut bytes);
        bytes
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut bytes = frame_of("one");
        let first = bytes.len();
        bytes.extend(frame_of("two"));
        for cut in 0..first {
            assert_eq!(split(&bytes[..cut], MAX_PAYLOAD), Ok(None), "{cut} bytes");
        }
        let (payload, used) = split(&bytes, MAX_PAYLOAD).unwrap().unwrap();
        assert_eq!(codec::decode::<String>(payload).unwrap(), "one");
        let (payload, _) = split(&bytes[used..], MAX_PAYLOAD).unwrap().unwrap();
        assert_eq!(codec::decode::<String>(payload).unwrap(), "two");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_and_never_waited_behind() {
        let good = frame_of("a payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let result = split(&bad, MAX_PAYLOAD);
            assert!(result.is_err(), "bit {bit}: {result:?}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_header_alone() {
        let header = [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            split(&header, 100),
            Err(FrameError::TooLong {
                len: 0x7fff_ffff,
                limit: 100
            })
        );
    }
}
