//! Sectors, and the marks by which recovery tells sectors that a crash left unwritten from sectors
//! that were changed later.
//!
//! A disk writes a sector of 512 bytes as a whole or not at all. A crash in the middle of a write
//! leaves some of the sectors written and the others as they were before. To tell the two apart,
//!
//! - no sector holds parts of two records, and
//! - each sector consists of 504 bytes of the record and a mark, a number of 8 bytes.
//!
//! A file may become a segment more than once: the file of a segment that is no longer needed
//! becomes a new segment, without being overwritten first. Each use is a *life* of the file. All
//! sectors that are written in one life have the same mark, and each life has another mark. So the
//! mark of a sector says what happened to the sector:
//!
//! | mark | what it means |
//! | --- | --- |
//! | that of the present life | the sector was written since the file became this segment |
//! | zero | the sector was not written since the file was filled with zeros |
//! | that of an earlier life | the sector was not written since that life |
//! | any other | something else than a crash has changed the sector: it is damaged |

use serde::{Deserialize, Serialize};

use crate::storage::disk::SECTOR;

const MARK: usize = size_of::<u64>();

/// How many bytes of a record a sector holds, beside its mark.
pub(in crate::storage) const DATA: usize = SECTOR - MARK;

/// How many times a file may be used as a segment; then it is removed. The bound keeps recovery
/// short, because recovery compares an unwritten sector with the marks of all earlier uses.
const LIVES: u32 = 1000;

/// Computes the marks of a file's sectors: another mark for each use of the file as a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct Marks {
    /// A random number, drawn when the file was created, from which the marks are computed.
    file: u64,
    /// How many times the file was a segment before its present use.
    life: u32,
}

/// What a sector's mark tells about the sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectorState {
    /// The sector has been written since the file became the present segment.
    Written,
    /// The sector has not been written since the file became the present segment: it still has
    /// zeros or bytes of an earlier segment.
    Unwritten,
    /// The mark fits neither the present segment nor an earlier one of this file, so something else
    /// than a crash has changed the sector.
    Spoilt,
}

impl Marks {
    pub(in crate::storage) fn of_new_file(file: u64) -> Self {
        Self { file, life: 0 }
    }

    /// The marks for the next use of the file as a segment; `None` if the file must not be used
    /// again.
    pub(super) fn of_next_life(self) -> Option<Self> {
        let life = self.life + 1;
        (life < LIVES).then_some(Self { life, ..self })
    }

    /// The mark of all sectors that are written in the present segment.
    pub(super) fn present(self) -> u64 {
        self.of_life(self.life)
    }

    /// The mark for one use of the file as a segment. The formula is the finalizer of splitmix64.
    /// It maps different numbers to different numbers, so each use gets another mark. A result of
    /// zero becomes 1, because zero marks a sector that was filled with zeros.
    fn of_life(self, life: u32) -> u64 {
        let z = self.file ^ u64::from(life);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }

    /// Judges the sector at the start of `bytes` by its mark. A sector that is cut short by the end
    /// of the file has no mark, and counts as changed by something else than a crash.
    pub(super) fn state(self, bytes: &[u8]) -> SectorState {
        let was_before = |mark| mark == 0 || (0..self.life).any(|life| self.of_life(life) == mark);
        match mark(bytes) {
            Some(mark) if mark == self.present() => SectorState::Written,
            Some(mark) if was_before(mark) => SectorState::Unwritten,
            _ => SectorState::Spoilt,
        }
    }

    /// Where the last sector ends that was written in the present segment, in bytes; 0 if there is
    /// none.
    pub(super) fn end_of_written(self, bytes: &[u8]) -> usize {
        let present = Some(self.present());
        let mut sectors = bytes.chunks(SECTOR);
        let last = sectors.rposition(|sector| mark(sector) == present);
        last.map_or(0, |last| (last + 1) * SECTOR)
    }
}

/// The mark of the sector at the start of `bytes`; `None` if the sector is incomplete.
fn mark(bytes: &[u8]) -> Option<u64> {
    let mark = bytes.get(DATA..SECTOR)?.first_chunk()?;
    Some(u64::from_le_bytes(*mark))
}

/// Copies the record's bytes out of these sectors into `data`, without the marks. Returns false if
/// a sector is cut short or does not have the present segment's mark; then `data` must not be used.
pub(super) fn gather(sectors: &[u8], marks: Marks, data: &mut Vec<u8>) -> bool {
    data.clear();
    let present = Some(marks.present());
    sectors.chunks(SECTOR).all(|sector| {
        data.extend_from_slice(&sector[..DATA.min(sector.len())]);
        mark(sector) == present
    })
}

/// Sectors to be written. Their memory is aligned to whole sectors, so that the kernel can hand it
/// to the disk without copying it into the page cache first.
#[derive(Default)]
pub(in crate::storage) struct Sectors {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Sectors {
    /// Replaces the contents by `data`, cut into sectors of 504 bytes, each followed by the present
    /// segment's mark.
    ///
    /// # Panics
    /// If the length of `data` is not a multiple of 504: the caller has to pad it with zeros.
    pub(in crate::storage) fn fill(&mut self, data: &[u8], marks: Marks) {
        assert!(data.len().is_multiple_of(DATA), "a sector would be left");
        self.len = data.len() / DATA * SECTOR;
        if self.memory.len() < self.len + SECTOR {
            self.memory.resize(self.len + SECTOR, 0);
        }
        self.start = self.memory.as_ptr().align_offset(SECTOR).min(SECTOR);
        let sectors = self.memory[self.start..][..self.len].chunks_exact_mut(SECTOR);
        let mark = marks.present().to_le_bytes();
        for (sector, data) in sectors.zip(data.chunks_exact(DATA)) {
            sector[..DATA].copy_from_slice(data);
            sector[DATA..].copy_from_slice(&mark);
        }
    }

    pub(in crate::storage) fn as_bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn filled(data: &[u8], marks: Marks) -> Vec<u8> {
        let mut sectors = Sectors::default();
        sectors.fill(data, marks);
        sectors.as_bytes().to_vec()
    }

    #[test]
    fn what_was_distributed_comes_together_in_the_same_life_only() {
        let marks = Marks::of_new_file(7);
        let data: Vec<u8> = (0..3 * DATA).map(|i| (i % 251) as u8).collect();
        let sectors = filled(&data, marks);
        assert_eq!(sectors.len(), 3 * SECTOR);
        let mut back = vec![1, 2, 3];
        assert!(gather(&sectors, marks, &mut back));
        assert_eq!(back, data);
        let next = marks.of_next_life().expect("the second of many lives");
        assert!(!gather(&sectors, next, &mut back));
        assert!(!gather(&sectors[..1535], marks, &mut back));
        let mut old = sectors.clone();
        old[1024..].copy_from_slice(&filled(&data[1008..], next));
        assert!(!gather(&old, marks, &mut back));
    }

    #[test]
    fn memory_is_aligned_whatever_was_in_it_before() {
        let mut sectors = Sectors::default();
        for count in [1, 300, 2, 301] {
            sectors.fill(&vec![9; count * DATA], Marks::of_new_file(1));
            assert_eq!(sectors.as_bytes().len(), count * SECTOR);
            assert!(sectors.as_bytes().as_ptr().addr().is_multiple_of(SECTOR));
        }
    }

    #[test]
    fn a_sector_is_of_the_present_life_of_an_earlier_one_or_spoilt() {
        let first = Marks::of_new_file(7);
        let second = first.of_next_life().expect("the second of many lives");
        let sector = filled(&[5; DATA], first);
        assert_eq!(first.state(&sector), SectorState::Written);
        assert_eq!(second.state(&sector), SectorState::Unwritten);
        assert_eq!(second.state(&[0; SECTOR]), SectorState::Unwritten);
        let later = filled(&[5; DATA], second);
        assert_eq!(first.state(&later), SectorState::Spoilt);
        assert_eq!(first.state(&sector[1..]), SectorState::Spoilt);
        for bit in 0..64 {
            let mut sector = sector.clone();
            sector[DATA + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(second.state(&sector), SectorState::Spoilt);
        }
        let both = [sector, later, vec![0; SECTOR]].concat();
        assert_eq!(first.end_of_written(&both), SECTOR);
        assert_eq!(second.end_of_written(&both), 2 * SECTOR);
        assert_eq!(second.end_of_written(&both[1024..]), 0);
    }

    #[test]
    fn each_life_has_its_own_mark_and_there_are_not_too_many() {
        let mut marks = Some(Marks::of_new_file(0));
        let mut seen = BTreeSet::from([0]);
        while let Some(present) = marks {
            assert!(seen.insert(present.present()));
            marks = present.of_next_life();
        }
        assert_eq!(seen.len(), 1 + LIVES as usize);
    }
}
