//! A value: bytes that are shared with the log, cloned in no time, and grow cheaply at the end.
//!
//! A value that was put is a slice of the command that put it. A value that grew is a rope: full
//! chunks in a persistent vector, and a tail that collects small additions until they make a chunk.
//! So an append costs the same whether the value has a hundred bytes or eight million.

use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;

use super::digest::Digest;

/// From this length on, in bytes, an addition becomes a chunk of its own; shorter ones are
/// collected until they reach it. No chunk is shorter, save a tail that such an addition cut off.
const CHUNK: usize = 4096;

#[derive(Clone, Debug)]
pub(super) struct Value(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Whole(Bytes),
    Rope(Arc<Rope>),
}

#[derive(Clone, Debug, Default)]
struct Rope {
    len: usize,
    chunks: Vector<Bytes>,
    /// The end of the value, shorter than [`CHUNK`].
    tail: Vec<u8>,
}

/// `part`, which lies within `source`, as bytes to keep: shared if it is at least half of the
/// source, else copied. A small part that shares would hold on to the memory of all the source.
pub(super) fn keep(source: &Bytes, part: &[u8]) -> Bytes {
    if part.len() >= source.len() / 2 {
        source.slice_ref(part)
    } else {
        Bytes::copy_from_slice(part)
    }
}

impl Value {
    /// The value that is `part`, which lies within `source`.
    pub fn new(source: &Bytes, part: &[u8]) -> Self {
        Self(Repr::Whole(keep(source, part)))
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Whole(bytes) => bytes.len(),
            Repr::Rope(rope) => rope.len,
        }
    }

    /// Adds `part`, which lies within `source`, to the end.
    pub fn append(&mut self, source: &Bytes, part: &[u8]) {
        if let Repr::Whole(whole) = &self.0 {
            let mut rope = Rope::default();
            rope.append(whole, whole);
            self.0 = Repr::Rope(Arc::new(rope));
        }
        if let Repr::Rope(rope) = &mut self.0 {
            Arc::make_mut(rope).append(source, part);
        }
    }

    /// The value in one piece: shared where it is one already, else copied.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Repr::Whole(bytes) => bytes.clone(),
            Repr::Rope(rope) => {
                let mut bytes = Vec::with_capacity(rope.len);
                self.pieces()
                    .for_each(|piece| bytes.extend_from_slice(piece));
                bytes.into()
            }
        }
    }

    /// Whether the value is equal to `bytes`.
    pub fn equals(&self, mut bytes: &[u8]) -> bool {
        self.len() == bytes.len()
            && self.pieces().all(|piece| {
                let (head, rest) = bytes.split_at(piece.len());
                bytes = rest;
                head == piece
            })
    }

    /// Adds the value to a digest. Values that are equal add the same.
    pub fn digest(&self, digest: &mut Digest) {
        digest.number(self.len() as u64);
        self.pieces().for_each(|piece| digest.bytes(piece));
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (chunks, tail) = match &self.0 {
            Repr::Whole(bytes) => (None, &bytes[..]),
            Repr::Rope(rope) => (Some(&rope.chunks), &rope.tail[..]),
        };
        let chunks = chunks.into_iter().flatten().map(|chunk| &chunk[..]);
        chunks.chain(std::iter::once(tail))
    }
}

impl Rope {
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

    /// Turns the tail into a chunk. The chunk is copied, so that it takes up no more memory than it
    /// has bytes, and the tail keeps its buffer.
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
        // All chunks, and an empty tail.
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
