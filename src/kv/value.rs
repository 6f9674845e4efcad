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

/// `part`, which lies within `source`, as bytes to keep: shared if it is at least half of the source,
/// else copied. A small part that shares would hold on to the memory of all the source.
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
