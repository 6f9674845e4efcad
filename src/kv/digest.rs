//! A hash that is the same on every machine and in every build: FNV-1a with 64 bits.
//!
//! It works byte by byte, so the result cannot depend on how a value is cut into pieces. Replicas
//! compare digests to notice that their states differ by accident. It is no protection against
//! somebody who constructs a collision.

#[derive(Clone, Debug)]
pub(super) struct Digest(u64);

impl Digest {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes as they are. If their length is not fixed, add the length first with
    /// [`number`](Self::number). Otherwise two states would have the same digest if they differ
    /// only in where one field ends and the next one starts.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_vectors_hold() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut digest = Digest::new();
            digest.bytes(text.as_bytes());
            assert_eq!(digest.finish(), hash, "{text:?}");
        }
    }
}
