//! A disk that keeps what was not synced in the memory of the process, so that `kill -9` does what
//! a power failure does.
//!
//! The kernel keeps what a killed process has written: on a real disk, `kill -9` loses nothing, and
//! a node that forgets to sync looks well. On this disk it loses what the head of
//! `storage/disk.rs` permits, and no more:
//!
//! - What was written to a file stays in memory until `sync_data`. Any of it may reach the real
//!   file before, in units of 512 bytes: after each write, chance picks some. A sync writes in
//!   pieces of chance size and in an order of chance, so a kill in the middle of it leaves a torn
//!   write.
//! - What was created, renamed or removed is so for this process only, until `sync_dir`. Some of it
//!   may be carried out before, in any order that the names permit. A new file lives in a folder
//!   beside the data folder until its name is carried out; what a killed process leaves there is
//!   removed by the next one.
//!
//! The real syncs are called as well, so that a sync takes as long as it does on the real disk.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use raftkv::storage::{Disk, DiskFile, RealDisk, StorageError};

/// What reaches a file as a whole or not at all, in bytes.
const SECTOR: u64 = 512;

/// The most sectors that a sync writes at once.
const RUN: u64 = 64;

/// One in so many writes, and changes of names, is followed by some that go on to the real disk
/// before any sync.
const EARLY: u64 = 4;

/// A data folder whose changes are real once they are synced.
pub struct UnsyncedDisk {
    real: RealDisk,
    /// The folder of the files whose names are not carried out yet.
    nameless: RealDisk,
    names: Mutex<Names>,
}

struct Names {
    /// The folder as this process sees it.
    files: BTreeMap<String, Arc<Kept>>,
    /// What the real folder lacks of that, oldest first.
    pending: VecDeque<Change>,
    /// How many files were created: each has a number for a name until it has its own.
    created: u64,
    /// A change could not be carried out, so nothing is known about the folder any more.
    failed: bool,
    chance: Chance,
}

/// A change of the folder that was not carried out yet.
enum Change {
    /// The file of this number, from the other folder, gets its name.
    Create(u64, String),
    Rename(String, String),
    Remove(String),
}

/// A file, by whatever name.
struct Kept {
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

struct UnsyncedFile(Arc<Kept>);

impl UnsyncedDisk {
    /// Opens a data folder, and creates it if it is missing. The folder beside it has the same name
    /// with `.unsynced` behind it.
    ///
    /// # Errors
    /// As [`RealDisk::open`].
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        let real = RealDisk::open(folder)?;
        let mut beside = OsString::from(folder.file_name().unwrap_or_default());
        beside.push(".unsynced");
        let beside = folder.with_file_name(beside);
        let nameless = RealDisk::open(&beside)?;
        let at = |path: &Path, operation| {
            let path = path.to_path_buf();
            move |source| StorageError::Io {
                path,
                operation,
                source,
            }
        };
        let left = nameless.list().map_err(at(&beside, "list the folder"))?;
        for name in left {
            let removed = nameless.remove(&name);
            removed.map_err(at(&beside.join(name), "remove"))?;
        }
        let mut chance = Chance(real.unique_id());
        let mut files = BTreeMap::new();
        for name in real.list().map_err(at(folder, "list the folder"))? {
            let kept = real
                .open(&name)
                .and_then(|file| Kept::new(file, &mut chance));
            let kept = kept.map_err(at(&folder.join(&name), "open"))?;
            files.insert(name, kept);
        }
        let names = Mutex::new(Names {
            files,
            pending: VecDeque::new(),
            created: 0,
            failed: false,
            chance,
        });
        Ok(Self {
            real,
            nameless,
            names,
        })
    }

    /// Enters a change that the process has seen; with some chance, one or more are carried out.
    fn note(&self, names: &mut Names, change: Change) -> io::Result<()> {
        names.pending.push_back(change);
        while !names.pending.is_empty() && names.chance.below(EARLY) == 0 {
            let wanted = names.chance.below(names.pending.len() as u64) as usize;
            let pending = &names.pending;
            let waits = pending.iter().take(wanted).any(|earlier| {
                let mut earlier = earlier.names();
                earlier.any(|name| pending[wanted].names().any(|own| own == name))
            });
            self.carry_out(names, if waits { 0 } else { wanted })?;
        }
        Ok(())
    }

    /// Carries out the pending change of this number.
    fn carry_out(&self, names: &mut Names, number: usize) -> io::Result<()> {
        let Some(change) = names.pending.remove(number) else {
            return Ok(());
        };
        let done = match &change {
            Change::Create(number, name) => {
                let from = self.nameless.folder().join(number.to_string());
                fs::rename(from, self.real.folder().join(name))
            }
            Change::Rename(from, to) => self.real.rename(from, to),
            Change::Remove(name) => self.real.remove(name),
        };
        names.failed |= done.is_err();
        done
    }
}

impl Change {
    /// The names in the folder that it changes.
    fn names(&self) -> impl Iterator<Item = &String> {
        let (first, second) = match self {
            Change::Create(_, name) | Change::Remove(name) => (name, None),
            Change::Rename(from, to) => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}

impl Disk for UnsyncedDisk {
    fn folder(&self) -> &Path {
        self.real.folder()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.lock().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut names = self.names.lock();
        names.created += 1;
        let number = names.created;
        let real = self.nameless.create(&number.to_string())?;
        let kept = Kept::new(real, &mut names.chance)?;
        names.files.insert(name.to_string(), kept.clone());
        self.note(&mut names, Change::Create(number, name.to_string()))?;
        Ok(Box::new(UnsyncedFile(kept)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let names = self.names.lock();
        let kept = names.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(UnsyncedFile(kept.clone())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.names.lock();
        let kept = names.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.files.insert(to.to_string(), kept);
        let change = Change::Rename(from.to_string(), to.to_string());
        self.note(&mut names, change)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut names = self.names.lock();
        names.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.note(&mut names, Change::Remove(name.to_string()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut names = self.names.lock();
        if names.failed {
            return Err(io::Error::other("an earlier change of the folder failed"));
        }
        while !names.pending.is_empty() {
            self.carry_out(&mut names, 0)?;
        }
        self.real.sync_dir()
    }

    fn unique_id(&self) -> u64 {
        self.real.unique_id()
    }

    fn now_ms(&self) -> u64 {
        self.real.now_ms()
    }
}

impl Kept {
    fn new(real: Box<dyn DiskFile>, chance: &mut Chance) -> io::Result<Arc<Self>> {
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
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    const LEN: usize = 8 * SECTOR as usize;

    /// Dropped, the disk is gone with all that it holds in memory, as with the process.
    fn open(folder: &Path) -> UnsyncedDisk {
        UnsyncedDisk::open(folder).expect("nobody else has it")
    }

    fn data() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = temp.path().join("data");
        (temp, folder)
    }

    fn found(folder: &Path) -> BTreeSet<String> {
        let names = open(folder).list().expect("it is there");
        names.into_iter().collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_write_without_a_sync_is_lost_kept_or_torn_by_sectors() {
        let (_temp, folder) = data();
        let mut seen = BTreeSet::new();
        for round in 0..200 {
            let disk = open(&folder);
            let file = disk.create("file").expect("there is room");
            file.write_at(&[1; LEN], 0).expect("there is room");
            file.sync_data().expect("a disk");
            disk.sync_dir().expect("a disk");
            file.write_at(&[2; LEN], 0).expect("there is room");
            let mut bytes = [0; LEN];
            file.read_at(&mut bytes, 0).expect("it is all there");
            assert_eq!(bytes, [2; LEN], "the process sees what it wrote");
            drop((file, disk));
            let bytes = fs::read(folder.join("file")).expect("its name was synced");
            assert_eq!(bytes.len(), LEN, "round {round}");
            let sectors = bytes.chunks(SECTOR as usize).map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "{round}");
                sector[0]
            });
            let sectors: Vec<u8> = sectors.collect();
            assert!(sectors.iter().all(|byte| [1, 2].contains(byte)), "{round}");
            seen.insert(sectors.iter().filter(|byte| **byte == 2).count());
        }
        let torn = 1..LEN / SECTOR as usize;
        assert!(
            seen.contains(&0) && torn.clone().any(|n| seen.contains(&n)),
            "{seen:?}"
        );
    }

    #[test]
    fn what_was_synced_outlives_the_process_whatever_was_written_behind_it() {
        let (_temp, folder) = data();
        for round in 0..50 {
            let disk = open(&folder);
            let file = disk.create("file").expect("there is room");
            file.write_at(&[1; 1000], 300).expect("there is room");
            file.write_at(&[2; 10], 1295).expect("there is room");
            file.sync_data().expect("a disk");
            disk.sync_dir().expect("a disk");
            file.write_at(&[3; 600], 1024 + 512).expect("there is room");
            drop((file, disk));
            let bytes = fs::read(folder.join("file")).expect("its name was synced");
            let expected = [&[0; 300][..], &[1; 995], &[2; 10]].concat();
            assert_eq!(&bytes[..expected.len()], expected, "round {round}");
            let mut untouched = bytes[expected.len()..].iter().take(1536 - expected.len());
            assert!(untouched.all(|byte| *byte == 0), "round {round}");
        }
    }

    #[test]
    fn names_that_were_not_synced_are_lost_or_kept_and_nothing_else_becomes_of_them() {
        let (_temp, folder) = data();
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let disk = open(&folder);
            for name in disk.list().expect("it is there") {
                disk.remove(&name).expect("it is there");
            }
            for name in ["old", "gone"] {
                disk.create(name).expect("there is room");
            }
            disk.sync_dir().expect("a disk");
            assert!(disk.open("new").is_err());
            disk.create("new").expect("there is room");
            disk.remove("gone").expect("it is there");
            disk.rename("old", "other").expect("it is there");
            assert!(disk.open("old").is_err() && disk.open("other").is_ok());
            let names = disk.list().expect("it is there").into_iter().collect();
            assert_eq!(set(&["new", "other"]), names, "what the process sees");
            drop(disk);
            seen.insert(found(&folder));
        }
        let mut possible = BTreeSet::new();
        for renamed in ["old", "other"] {
            possible.insert(set(&[renamed]));
            possible.insert(set(&[renamed, "gone"]));
            possible.insert(set(&[renamed, "new"]));
            possible.insert(set(&[renamed, "new", "gone"]));
        }
        assert!(seen.is_subset(&possible), "{seen:?}");
        assert!(seen.len() > 2, "{seen:?}");
        assert!(seen.contains(&set(&["old", "gone"])), "all may be lost");
    }

    #[test]
    fn reads_and_lengths_are_those_of_a_plain_file_whatever_was_synced() {
        let (_temp, folder) = data();
        let disk = open(&folder);
        let file = disk.create("file").expect("there is room");
        let mut chance = Chance(7);
        let mut model: Vec<u8> = Vec::new();
        for round in 0..2000 {
            let (offset, len) = (chance.below(5000) as usize, chance.below(2000) as usize);
            let bytes = vec![round as u8; len];
            file.write_at(&bytes, offset as u64).expect("there is room");
            if len > 0 {
                model.resize(model.len().max(offset + len), 0);
                model[offset..offset + len].copy_from_slice(&bytes);
            }
            if chance.below(5) == 0 {
                file.sync_data().expect("a disk");
            }
            assert_eq!(file.len().expect("it is open"), model.len() as u64);
            let from = chance.below(model.len() as u64 + 1) as usize;
            let mut read = vec![0; model.len() - from];
            file.read_at(&mut read, from as u64).expect("it is there");
            assert!(read == model[from..], "round {round}");
            let beyond = file.read_at(&mut [0], model.len() as u64);
            assert!(beyond.is_err(), "round {round}");
        }
        file.sync_data().expect("a disk");
        disk.sync_dir().expect("a disk");
        drop((file, disk));
        let bytes = fs::read(folder.join("file")).expect("its name was synced");
        assert!(bytes == model);
    }

    #[test]
    fn a_file_that_never_had_its_name_synced_leaves_nothing_behind() {
        let (_temp, folder) = data();
        let beside = folder.with_file_name("data.unsynced");
        for _ in 0..20 {
            let disk = open(&folder);
            let file = disk.create("file").expect("there is room");
            file.write_at(&[1; LEN], 0).expect("there is room");
            file.sync_data().expect("a disk");
            drop((file, disk));
            drop(open(&folder));
            let left = fs::read_dir(&beside).expect("it was made").count();
            assert_eq!(left, 1, "the lock");
        }
    }
}
