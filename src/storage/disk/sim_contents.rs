//! What a file of a simulated disk holds: the bytes that were written, those that are durable, and
//! which of their bits have flipped.

use std::collections::BTreeSet;
use std::ops::Range;

use super::SECTOR;
use super::sim_disk::{Outcome, kept, next};

/// The contents of a file, under whatever names it goes by.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) written: Vec<u8>,
    durable: Vec<u8>,
    /// The writes since the last sync, in order: the offset and the bytes of each.
    pending: Vec<(usize, Vec<u8>)>,
    /// Which bits have flipped since their bytes were last written: first those of the field
    /// `written`, then those of the field `durable`.
    pub(super) flipped: FlippedBits,
    durably_flipped: FlippedBits,
}

/// Bits of a file: the offset of each one's byte, and its place in the byte.
type FlippedBits = BTreeSet<(usize, u8)>;

impl Contents {
    /// A file that holds this, durably.
    pub(super) fn durable(bytes: &[u8]) -> Self {
        Self {
            written: bytes.to_vec(),
            durable: bytes.to_vec(),
            ..Self::default()
        }
    }

    /// Flips one bit, durably. The file must reach beyond the offset.
    pub(super) fn flip(&mut self, offset: usize, bit: u8) {
        self.written[offset] ^= 1 << bit;
        toggle(&mut self.flipped, (offset, bit));
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= 1 << bit;
            toggle(&mut self.durably_flipped, (offset, bit));
        }
    }

    /// What was not synced can still be read, but it becomes durable only if it is written again.
    pub(super) fn sync_failed(&mut self) {
        self.pending.clear();
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        overwrite(&mut self.written, bytes, offset);
        mend(&mut self.flipped, offset..offset + bytes.len());
        self.pending.push((offset, bytes.to_vec()));
    }

    /// What is left of it after a power failure.
    pub(super) fn after_crash(&self, outcome: Outcome, random: &mut u64) -> Self {
        let (mut bytes, mut flipped) = (self.durable.clone(), self.durably_flipped.clone());
        for (offset, written) in &self.pending {
            let torn = outcome == Outcome::Chance && next(random).is_multiple_of(2);
            let whole = kept(outcome, random);
            for piece in sectors(*offset, written.len()) {
                let kept = if torn { kept(outcome, random) } else { whole };
                if kept {
                    let at = piece.start;
                    overwrite(&mut bytes, &written[at - offset..piece.end - offset], at);
                    mend(&mut flipped, piece);
                }
            }
        }
        Self {
            written: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
            flipped: flipped.clone(),
            durably_flipped: flipped,
        }
    }

    pub(super) fn sync(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            overwrite(&mut self.durable, &bytes, offset);
            mend(&mut self.durably_flipped, offset..offset + bytes.len());
        }
    }
}

/// Cuts the range of `len` bytes from `offset` on at the borders of sectors.
fn sectors(offset: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = offset + len;
    (offset / SECTOR..end.div_ceil(SECTOR))
        .map(move |sector| offset.max(sector * SECTOR)..end.min((sector + 1) * SECTOR))
}

fn overwrite(file: &mut Vec<u8>, bytes: &[u8], offset: usize) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

/// These bytes were written: no bit in them is a flipped one any more.
fn mend(flipped: &mut FlippedBits, written: Range<usize>) {
    flipped.retain(|(offset, _)| !written.contains(offset));
}

/// A bit that flips twice is as it was.
fn toggle(flipped: &mut FlippedBits, bit: (usize, u8)) {
    if !flipped.remove(&bit) {
        flipped.insert(bit);
    }
}
