//! A value: bytes that are cloned in O(1), take little more memory than their length, and are
//! cheap to append to.
//!
//! There are three forms:
//! - A small value is one allocation of exactly its length. It is copied when it is read or
//!   appended to; sharing it would take more memory and time than the copy.
//! - A large value that was put is a slice of the command that put it: the store, the log and the
//!   replies share the same bytes.
//! - A large value that was appended to is a rope: chunks in a persistent vector, and a tail that
//!   collects small additions until they are long enough for a chunk. So the cost of an append
//!   does not grow with the length of the value.

use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;

use super::digest::Digest;

/// The length at which a value counts as large, in bytes. In a rope, an addition of at least this
/// length becomes a chunk of its own; shorter additions are collected in the tail until the tail
/// has this length. A long addition ends the tail early, so the chunk before it may be shorter.
const CHUNK: usize = 4096;

/// A value in the map. The large forms are stored through a pointer to keep this type small: a node
/// of the map may be half empty, and its unused places take memory, too.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A value of fewer than [`CHUNK`] bytes, in an allocation of exactly its length.
    Small(Arc<[u8]>),
    Large(Arc<Large>),
}

#[derive(Clone, Debug)]
pub(super) enum Large {
    /// A value to which nothing has been appended since it was put or restored: one piece.
    Whole(Bytes),
    /// A value to which something has been appended: several pieces.
    Rope(Rope),
}

#[derive(Clone, Debug)]
pub(super) struct Rope {
    len: usize,
    chunks: Vector<Bytes>,
    /// The end of the value, from additions that were too short for a chunk. Shorter than
    /// [`CHUNK`].
    tail: Vec<u8>,
}

/// Returns the bytes of `part`, a slice of `source`, to be kept in the store. If `part` is at least
/// half of `source`, the result shares the memory of `source`, else it is a copy: a shared slice
/// keeps all of `source` in memory, which is a waste for a small part.
pub(super) fn keep(source: &Bytes, part: &[u8]) -> Bytes {
    if part.len() >= source.len() / 2 {
        source.slice_ref(part)
    } else {
        Bytes::copy_from_slice(part)
    }
}

impl Value {
    /// A value with the bytes of `part`, which is a slice of `source`.
    pub fn new(source: &Bytes, part: &[u8]) -> Self {
        match part.len() < CHUNK {
            true => Self::Small(part.into()),
            false => Self::large(Large::Whole(keep(source, part))),
        }
    }

    fn large(large: Large) -> Self {
        Self::Large(Arc::new(large))
    }

    /// The length of the value, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large(large) => match &**large {
                Large::Whole(bytes) => bytes.len(),
                Large::Rope(rope) => rope.len,
            },
        }
    }

    /// Appends `part`, a slice of `source`, to the value. A long part may be shared instead of
    /// copied.
    pub fn append(&mut self, source: &Bytes, part: &[u8]) {
        match self {
            Self::Small(bytes) if bytes.len() + part.len() < CHUNK => {
                *bytes = [bytes, part].concat().into();
            }
            Self::Small(bytes) => {
                let mut rope = Rope::from_tail(bytes);
                rope.append(source, part);
                *self = Self::large(Large::Rope(rope));
            }
            Self::Large(large) => Arc::make_mut(large).append(source, part),
        }
    }

    /// Returns the value in one piece. If the value is large and already in one piece, the result
    /// shares its memory; any other value is copied.
    pub fn to_bytes(&self) -> Bytes {
        if let Some(bytes) = self.shared() {
            return bytes.clone();
        }
        let mut bytes = Vec::with_capacity(self.len());
        self.pieces()
            .for_each(|piece| bytes.extend_from_slice(piece));
        bytes.into()
    }

    /// Returns the bytes of a large value that is in one piece, which a reader can share. `None`
    /// for a value in several pieces, and for a small value, which is cheaper to copy than to
    /// share.
    pub fn shared(&self) -> Option<&Bytes> {
        match self {
            Self::Small(_) => None,
            Self::Large(large) => match &**large {
                Large::Whole(bytes) => Some(bytes),
                Large::Rope(_) => None,
            },
        }
    }

    /// Whether the value consists of exactly these bytes.
    pub fn equals(&self, mut bytes: &[u8]) -> bool {
        self.len() == bytes.len()
            && self.pieces().all(|piece| {
                let (head, rest) = bytes.split_at(piece.len());
                bytes = rest;
                head == piece
            })
    }

    /// Adds the value to a digest. Equal values give the same digest, however they are cut into
    /// pieces.
    pub fn digest(&self, digest: &mut Digest) {
        digest.number(self.len() as u64);
        self.pieces().for_each(|piece| digest.bytes(piece));
    }

    /// The pieces that make up the value, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (chunks, last) = match self {
            Self::Small(bytes) => (None, &bytes[..]),
            Self::Large(large) => match &**large {
                Large::Whole(bytes) => (None, &bytes[..]),
                Large::Rope(rope) => (Some(&rope.chunks), &rope.tail[..]),
            },
        };
        let chunks = chunks.into_iter().flatten().map(|chunk| &chunk[..]);
        chunks.chain(std::iter::once(last))
    }
}

/// Makes a value of bytes that were read from a snapshot. Drops the spare capacity of the vector,
/// because the value may stay in memory for a long time.
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        match bytes.len() < CHUNK {
            true => Self::Small(bytes.into()),
            false => Self::large(Large::Whole(bytes.into_boxed_slice().into())),
        }
    }
}

impl Large {
    fn append(&mut self, source: &Bytes, part: &[u8]) {
        match self {
            Self::Rope(rope) => rope.append(source, part),
            Self::Whole(bytes) => {
                let mut rope = Rope::from_chunk(bytes.clone());
                rope.append(source, part);
                *self = Self::Rope(rope);
            }
        }
    }
}

impl Rope {
    fn from_tail(tail: &[u8]) -> Self {
        Self {
            len: tail.len(),
            chunks: Vector::new(),
            tail: tail.to_vec(),
        }
    }

    fn from_chunk(chunk: Bytes) -> Self {
        Self {
            len: chunk.len(),
            chunks: Vector::unit(chunk),
            tail: Vec::new(),
        }
    }

    fn append(&mut self, source: &Bytes, part: &[u8]) {
        self.len += part.len();
        if part.len() >= CHUNK {
            self.cut_tail();
            self.chunks.push_back(keep(source, part));
        } else {
            self.tail.extend_from_slice(part);
            if self.tail.len() >= CHUNK {
                self.cut_tail();
            }
        }
    }

    /// Turns the tail into a chunk. The bytes are copied, so that the chunk has no spare capacity
    /// and the tail keeps its buffer for the next additions.
    fn cut_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Bytes::copy_from_slice(&self.tail));
            self.tail.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Value {
        let bytes = Bytes::copy_from_slice(bytes);
        Value::new(&bytes, &bytes)
    }

    fn digest_of(value: &Value) -> u64 {
        let mut digest = Digest::new();
        value.digest(&mut digest);
        digest.finish()
    }

    #[test]
    fn a_handle_takes_two_words() {
        assert_eq!(size_of::<Value>(), 2 * size_of::<usize>());
    }

    #[test]
    fn small_appends_gather_into_chunks_that_are_never_moved_again() {
        let line = Bytes::from(vec![b'x'; 64]);
        let mut value = whole(b"");
        let mut first_chunk = None;
        for _ in 0..(4 << 20) / line.len() {
            value.append(&line, &line);
            if first_chunk.is_none() && value.len() > CHUNK {
                first_chunk = value.pieces().next().map(<[u8]>::as_ptr);
            }
        }
        assert_eq!(value.len(), 4 << 20);
        assert_eq!(value.pieces().next().map(<[u8]>::as_ptr), first_chunk);
        // `pieces` yields all chunks, and last the tail, which is empty here.
        assert_eq!(value.pieces().count(), (4 << 20) / CHUNK + 1);
        assert!(value.equals(&vec![b'x'; 4 << 20]));
    }

    #[test]
    fn a_clone_keeps_its_content_and_shares_the_chunks() {
        let line = Bytes::from(vec![b'x'; 1000]);
        let mut value = whole(b"");
        (0..20).for_each(|_| value.append(&line, &line));
        let clone = value.clone();
        value.append(&line, b"");
        value.append(&line, &line[..1]);
        assert_eq!((clone.len(), value.len()), (20_000, 20_001));
        assert!(clone.equals(&[b'x'; 20_000]));
        let first = |value: &Value| value.pieces().next().map(<[u8]>::as_ptr);
        assert_eq!(first(&clone), first(&value));
    }

    #[test]
    fn a_part_is_shared_if_it_is_most_of_its_source_and_copied_otherwise() {
        let source = Bytes::from(vec![7; 1000]);
        let shares = |part: &[u8]| keep(&source, part).as_ptr() == part.as_ptr();
        assert!(shares(&source[10..]));
        assert!(shares(&source[..500]));
        assert!(!shares(&source[..499]));
        assert!(keep(&source, &source[..0]).is_empty());
    }

    #[test]
    fn a_large_part_becomes_a_chunk_without_a_copy() {
        let source = Bytes::from(vec![7; CHUNK + 10]);
        let mut value = whole(b"before");
        value.append(&source, &source[10..]);
        assert_eq!(
            value.pieces().nth(1).unwrap().as_ptr(),
            source[10..].as_ptr()
        );
        assert_eq!(value.len(), CHUNK + 6);
    }

    proptest! {
        #[test]
        fn what_a_value_is_does_not_depend_on_how_it_was_pieced_together(
            parts in prop::collection::vec((any::<u8>(), 0..2 * CHUNK), 1..12),
        ) {
            let parts: Vec<Vec<u8>> =
                parts.into_iter().map(|(byte, len)| vec![byte; len]).collect();
            let mut grown = whole(&parts[0]);
            for part in &parts[1..] {
                let part = Bytes::from(part.clone());
                grown.append(&part, &part);
            }
            let bytes = parts.concat();
            prop_assert_eq!(grown.len(), bytes.len());
            prop_assert_eq!(digest_of(&grown), digest_of(&whole(&bytes)));
            prop_assert!(grown.equals(&bytes));
            prop_assert_eq!(&grown.to_bytes()[..], &bytes[..]);
            if let Some(last) = bytes.last() {
                let mut other = bytes.clone();
                *other.last_mut().unwrap() = last.wrapping_add(1);
                prop_assert!(!grown.equals(&other));
                prop_assert!(!grown.equals(&bytes[1..]));
                prop_assert_ne!(digest_of(&grown), digest_of(&whole(&other)));
            }
        }
    }
}
