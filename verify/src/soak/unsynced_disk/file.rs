//! A file whose unsynced sectors are in memory.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use raftkv::storage::DiskFile;

/// What reaches a file as a whole or not at all, in bytes.
pub(super) const SECTOR: u64 = 512;

/// The most sectors that a sync writes at once.
const RUN: u64 = 64;

/// One in so many writes, and changes of names, is followed by some that go on to the real disk
/// before any sync.
pub(super) const EARLY: u64 = 4;

/// A file, by whatever name.
pub(super) struct Kept {
    real: Box<dyn DiskFile>,
    state: Mutex<Contents>,
}

struct Contents {
    /// The length that the process sees, in bytes.
    len: u64,
    /// The length of the real file, in bytes.
    real_len: u64,
    /// The sectors that differ from those of the real file, by their number.
    pending: BTreeMap<u64, [u8; SECTOR as usize]>,
    /// Something could not be written, so nothing is known about the file any more.
    failed: bool,
    chance: Chance,
}

/// A [`Kept`] that is open.
pub(super) struct UnsyncedFile(pub(super) Arc<Kept>);

impl Kept {
    pub(super) fn new(real: Box<dyn DiskFile>, chance: &mut Chance) -> io::Result<Arc<Self>> {
        let len = real.len()?;
        let state = Mutex::new(Contents {
            len,
            real_len: len,
            pending: BTreeMap::new(),
            failed: false,
            chance: Chance(chance.next()),
        });
        Ok(Arc::new(Self { real, state }))
    }

    /// Fills the buffer from the real file as far as that reaches, and with zeros behind it.
    fn read_real(&self, contents: &Contents, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let there = contents.real_len.saturating_sub(offset);
        let (real, behind) = buffer.split_at_mut(there.min(buffer.len() as u64) as usize);
        behind.fill(0);
        self.real.read_at(real, offset)
    }

    /// A sector as the process sees it.
    fn sector(&self, contents: &Contents, number: u64) -> io::Result<[u8; SECTOR as usize]> {
        let mut sector = [0; SECTOR as usize];
        match contents.pending.get(&number) {
            Some(pending) => sector = *pending,
            None => self.read_real(contents, &mut sector, number * SECTOR)?,
        }
        Ok(sector)
    }

    /// Writes sectors to the real file, each run at once.
    fn write_out(&self, contents: &mut Contents, runs: &[Range<u64>]) -> io::Result<()> {
        for run in runs {
            let sectors = run.clone().filter_map(|n| contents.pending.get(&n));
            let mut bytes: Vec<u8> = sectors.flatten().copied().collect();
            let start = run.start * SECTOR;
            bytes.truncate((contents.len - start).min(bytes.len() as u64) as usize);
            if let Err(error) = self.real.write_at(&bytes, start) {
                contents.failed = true;
                return Err(error);
            }
            contents.real_len = contents.real_len.max(start + bytes.len() as u64);
            for number in run.clone() {
                contents.pending.remove(&number);
            }
        }
        Ok(())
    }
}

impl Contents {
    /// All pending sectors, in runs of chance length and in an order of chance.
    fn runs(&mut self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut most = 0;
        for number in self.pending.keys() {
            match runs.last_mut() {
                Some(run) if run.end == *number && run.end - run.start < most => run.end += 1,
                _ => {
                    most = 1 + self.chance.below(RUN);
                    runs.push(*number..number + 1);
                }
            }
        }
        for at in (1..runs.len()).rev() {
            runs.swap(at, self.chance.below(at as u64 + 1) as usize);
        }
        runs
    }
}

impl DiskFile for UnsyncedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state.lock().len)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let contents = self.0.state.lock();
        let end = offset + buffer.len() as u64;
        if end > contents.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.read_real(&contents, buffer, offset)?;
        let sectors = offset / SECTOR..end.div_ceil(SECTOR);
        for (number, sector) in contents.pending.range(sectors) {
            let start = number * SECTOR;
            let common = start.max(offset)..(start + SECTOR).min(end);
            let within = |from: u64| (common.start - from) as usize..(common.end - from) as usize;
            buffer[within(offset)].copy_from_slice(&sector[within(start)]);
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut contents = self.0.state.lock();
        let end = offset + bytes.len() as u64;
        for number in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = number * SECTOR;
            let common = start.max(offset)..(start + SECTOR).min(end);
            let within = |from: u64| (common.start - from) as usize..(common.end - from) as usize;
            let mut sector = match common.end - common.start {
                SECTOR => [0; SECTOR as usize],
                _ => self.0.sector(&contents, number)?,
            };
            sector[within(start)].copy_from_slice(&bytes[within(offset)]);
            contents.pending.insert(number, sector);
        }
        contents.len = contents.len.max(end);
        if contents.chance.below(EARLY) == 0 {
            let mut runs = contents.runs();
            let some = contents.chance.below(runs.len() as u64 + 1) as usize;
            runs.truncate(some);
            self.0.write_out(&mut contents, &runs)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut contents = self.0.state.lock();
        if contents.failed {
            return Err(io::Error::other("an earlier write of the file failed"));
        }
        let runs = contents.runs();
        self.0.write_out(&mut contents, &runs)?;
        self.0.real.sync_data()
    }
}

/// The generator splitmix64, as good as any for this.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
