//! A disk in memory, for tests, that crashes, tears writes, fails and flips bits on demand. With
//! the same seed it does so in the same way.
//!
//! The disk keeps written data apart from durable data, both for the bytes of files and for the
//! names in the folder. It promises only the assumptions at the head of `disk/mod.rs`. To simulate
//! a crash of the process alone, open the same disk again: everything written is still there,
//! durable or not.
//!
//! The disk never loses what was synced successfully, and never tears a write within a sector.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::sim_contents::Contents;
use super::sim_names::{Names, Renaming};
use super::{Disk, DiskFile};

/// A simulated disk. Clones are the same disk.
///
/// It is the data folder of a node. As a [`Parent`](super::Parent) it is the folder above other
/// data folders, each of which is a `SimDisk`, too: they crash together.
#[derive(Clone, Debug)]
pub struct SimDisk {
    folder: Arc<PathBuf>,
    /// Which of the disk's folders this is, as an index into [`DiskState::folders`].
    at: usize,
    state: Arc<Mutex<DiskState>>,
}

/// What a power failure does to unsynced writes and changes of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By chance, each write is kept, lost or torn, and each change of a name is kept or lost.
    Chance,
    /// All unsynced writes and changes of names are kept.
    Kept,
    /// All unsynced writes and changes of names are lost.
    Lost,
}

/// Which reads of a simulated disk fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// None.
    #[default]
    Nothing,
    /// All of the file that has this name.
    File(String),
    /// All: of every file, and of the names in the folder.
    Everything,
    /// A single one, after so many that succeed.
    Once(u64),
}

#[derive(Clone, Debug)]
pub(super) struct DiskState {
    random: u64,
    files: Vec<Contents>,
    /// The names of the files in each folder. The first is the one that the disk is made with.
    pub(super) folders: Vec<Names>,
    /// The names of folders; the first folder has none.
    pub(super) folder_names: Names,
    /// How many operations have changed the disk or tried to, since it was made.
    operations: u64,
    stop_at: Option<u64>,
    fail_at: Option<u64>,
    capacity: Option<u64>,
    unreadable: Unreadable,
    /// The names of the files of which a read has failed; that of the folder is empty.
    failed_reads: BTreeSet<String>,
}

impl SimDisk {
    /// An empty disk, whose random choices follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = DiskState {
            random: seed,
            files: Vec::new(),
            folders: vec![Names::default()],
            folder_names: Names::default(),
            operations: 0,
            stop_at: None,
            fail_at: None,
            capacity: None,
            unreadable: Unreadable::Nothing,
            failed_reads: BTreeSet::new(),
        };
        Self {
            folder: Arc::new(PathBuf::from("/simulated")),
            at: 0,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The same folder on a disk in this state.
    fn with(&self, state: DiskState) -> Self {
        Self {
            folder: self.folder.clone(),
            at: self.at,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The folder of this number, called `name`, on the same disk.
    pub(super) fn folder_at(&self, at: usize, name: &str) -> Self {
        Self {
            folder: Arc::new(self.folder.join(name)),
            at,
            state: self.state.clone(),
        }
    }

    pub(super) fn state(&self) -> &Mutex<DiskState> {
        &self.state
    }

    /// Returns the disk as it may be after a power failure at this moment. Everything on the
    /// returned disk is durable, and no operation is set to fail; reads fail as before. This disk
    /// does not change. Each call draws another outcome, so that a test can try many outcomes of
    /// one moment.
    pub fn crash(&self) -> Self {
        self.crash_with(Outcome::Chance)
    }

    /// Like [`crash`](Self::crash), but with this outcome for everything unsynced.
    pub fn crash_with(&self, outcome: Outcome) -> Self {
        let mut state = self.state.lock();
        let mut random = next(&mut state.random);
        let folders = state.folders.iter();
        let folders = folders.map(|names| names.after_crash(outcome, &mut random));
        let folders = folders.collect();
        let folder_names = state.folder_names.after_crash(outcome, &mut random);
        let files = state.files.iter();
        let files = files.map(|file| file.after_crash(outcome, &mut random));
        let files = files.collect();
        self.with(DiskState {
            files,
            folders,
            folder_names,
            random,
            operations: 0,
            stop_at: None,
            fail_at: None,
            capacity: state.capacity,
            unreadable: state.unreadable.clone(),
            failed_reads: BTreeSet::new(),
        })
    }

    /// How many operations have changed the disk so far, or tried to: writes, syncs of files,
    /// changes of names, and syncs of the folder.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Stops the machine before the operation with this number, counted from 0. This operation and
    /// all later ones fail and change nothing.
    pub fn stop_at(&self, operation: u64) {
        self.state.lock().stop_at = Some(operation);
    }

    /// Makes the operation with this number fail, counted from 0; later ones succeed. If it is a
    /// write, half of the bytes are written. If it is a sync of a file, the unsynced bytes can
    /// still be read, but become durable only if they are written again, as on Linux file systems.
    /// If it is a change or a sync of the folder, nothing changes.
    pub fn fail_at(&self, operation: u64) {
        self.state.lock().fail_at = Some(operation);
    }

    /// Lets all operations succeed again, whatever [`stop_at`](Self::stop_at) and
    /// [`fail_at`](Self::fail_at) have set.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        (state.stop_at, state.fail_at) = (None, None);
    }

    /// Limits how many bytes all files may hold together; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Makes reads fail from now on: to open a file, to ask for its length, to read from it, and to
    /// list the folder. Returns which ones failed before.
    pub fn fail_reads(&self, which: Unreadable) -> Unreadable {
        std::mem::replace(&mut self.state.lock().unreadable, which)
    }

    /// The names of the files of which a read has failed since the last call. That of the folder is
    /// empty, and so is that of a file that has no name any more.
    pub fn take_failed_reads(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.state.lock().failed_reads)
    }

    /// Flips one bit of a file, durably.
    ///
    /// # Panics
    /// If there is no such file, or the file ends before the offset.
    pub fn flip_bit(&self, name: &str, offset: usize, bit: u8) {
        let mut state = self.state.lock();
        let id = state.folders[self.at].now[name];
        let file = &mut state.files[id];
        file.flip(offset, bit);
    }

    /// The bits of a file that have flipped and were not written again since: the offset of each
    /// one's byte, and its place in the byte. None if the file is not there.
    pub fn flipped_bits(&self, name: &str) -> Vec<(usize, u8)> {
        let state = self.state.lock();
        let id = state.folders[self.at].now.get(name);
        let file = id.map(|id| &state.files[*id]);
        file.map_or(Vec::new(), |file| file.flipped.iter().copied().collect())
    }

    /// Returns all bytes of a file, durable or not; `None` if there is no such file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let id = *state.folders[self.at].now.get(name)?;
        Some(state.files[id].written.clone())
    }

    /// Creates or replaces a file with these bytes, durably.
    pub fn set_contents(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = state.files.len();
        state.files.push(Contents::durable(bytes));
        state.folders[self.at].change_durably(vec![(name.into(), Some(id))]);
    }

    /// Removes a file, durably.
    pub fn take_away(&self, name: &str) {
        let mut state = self.state.lock();
        state.folders[self.at].change_durably(vec![(name.into(), None)]);
    }

    /// Returns a copy of this disk, with the same contents, durable and not. Later changes to one
    /// disk do not affect the other.
    pub fn fork(&self) -> Self {
        self.with(self.state.lock().clone())
    }
}

impl DiskState {
    /// Counts an operation that is about to change the disk. Returns whether this operation has to
    /// fail; an error if the machine has stopped.
    pub(super) fn operate(&mut self) -> io::Result<bool> {
        let number = self.operations;
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("the simulated machine has stopped"));
        }
        self.operations += 1;
        Ok(self.fail_at == Some(number))
    }

    /// Fails if a read of this file, or of the folder, is to fail now.
    fn read(&mut self, file: Option<usize>) -> io::Result<()> {
        let fails = match &mut self.unreadable {
            Unreadable::Nothing => false,
            Unreadable::File(name) => {
                let is_it = |names: &Names| names.now.get(name) == file.as_ref();
                file.is_some() && self.folders.iter().any(is_it)
            }
            Unreadable::Everything => true,
            Unreadable::Once(after) => match after.checked_sub(1) {
                Some(left) => {
                    *after = left;
                    false
                }
                None => {
                    self.unreadable = Unreadable::Nothing;
                    true
                }
            },
        };
        if !fails {
            return Ok(());
        }
        let mut names = self.folders.iter().flat_map(|names| &names.now);
        let name = names.find(|(_, id)| Some(**id) == file);
        let name = name.map(|(name, _)| name.clone()).unwrap_or_default();
        self.failed_reads.insert(name);
        Err(io::Error::other("the simulated disk cannot read this"))
    }

    fn rename(&mut self, at: usize, renaming: Renaming) -> io::Result<()> {
        if self.operate()? {
            return Err(failure());
        }
        self.folders[at].change(renaming);
        Ok(())
    }

    fn used(&self) -> u64 {
        let names = self.folders.iter().flat_map(|names| names.now.values());
        let files = names.map(|id| &self.files[*id]);
        files.map(|file| file.written.len() as u64).sum()
    }
}

pub(super) fn kept(outcome: Outcome, random: &mut u64) -> bool {
    match outcome {
        Outcome::Chance => next(random).is_multiple_of(2),
        Outcome::Kept => true,
        Outcome::Lost => false,
    }
}

/// The next random number, from the splitmix64 sequence.
pub(super) fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn failure() -> io::Error {
    io::Error::other("the simulated disk failed")
}

/// An open file of a [`SimDisk`].
struct SimFile {
    state: Arc<Mutex<DiskState>>,
    id: usize,
}

impl Disk for SimDisk {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.read(None)?;
        Ok(state.folders[self.at].now.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        let id = state.files.len();
        state.rename(self.at, vec![(name.into(), Some(id))])?;
        state.files.push(Contents::default());
        let state = self.state.clone();
        Ok(Box::new(SimFile { state, id }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        let id = state.folders[self.at].id(name)?;
        state.read(Some(id))?;
        let state = self.state.clone();
        Ok(Box::new(SimFile { state, id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.folders[self.at].id(from)?;
        let renaming = vec![(from.into(), None), (to.into(), Some(id))];
        state.rename(self.at, renaming)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.folders[self.at].id(name)?;
        state.rename(self.at, vec![(name.into(), None)])
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.operate()? {
            return Err(failure());
        }
        state.folders[self.at].sync();
        Ok(())
    }

    fn unique_id(&self) -> u64 {
        next(&mut self.state.lock().random)
    }

    fn now_ms(&self) -> u64 {
        self.operations()
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.read(Some(self.id))?;
        Ok(state.files[self.id].written.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.read(Some(self.id))?;
        let start = offset as usize;
        let bytes = state.files[self.id]
            .written
            .get(start..start + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let fails = state.operate()?;
        let growth =
            (offset + bytes.len() as u64).saturating_sub(state.files[self.id].written.len() as u64);
        if growth > 0 && state.capacity.is_some_and(|c| state.used() + growth > c) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let done = if fails { bytes.len() / 2 } else { bytes.len() };
        state.files[self.id].write(&bytes[..done], offset as usize);
        if fails { Err(failure()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.operate()? {
            state.files[self.id].sync_failed();
            return Err(failure());
        }
        state.files[self.id].sync();
        Ok(())
    }
}
