//! Reports what a data folder holds, for a person (`kvnode inspect`). The files are read as at a
//! start of the node, and nothing is changed.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::raft::{Entry, EntryId, HardState, Index, Payload};

use super::block::BLOCK;
use super::disk::{Disk, Folder, is_unfinished};
use super::error::StorageError;
use super::log::replay::{self, Replay};
use super::log::segment;
use super::recovery;
use super::snapshot::{self, SnapshotInfo};
use super::voter::identity::{self, FolderOwner, Identity};
use super::voter::peers::Peers;
use super::voter::vote;

/// What a data folder contains, and what is damaged in it.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The cluster, node and state machine that the folder belongs to.
    pub identity: Identity,
    /// The random number of the folder, by which other nodes recognise it.
    pub folder: u128,
    /// The node's term and vote; `None` if the vote file cannot be read.
    pub hard_state: Option<HardState>,
    /// The segments of the log, in order.
    pub segments: Vec<InspectedSegment>,
    /// The snapshots, valid or damaged, oldest first.
    pub snapshots: Vec<InspectedSnapshot>,
    /// From which state a node would start: the last entry of the snapshot that it would use, and
    /// the last entry of the log that continues this snapshot. `None` if the files do not allow a
    /// start.
    pub start: Option<(EntryId, EntryId)>,
    /// The commands that a node would replay at a start but that its state machine cannot execute.
    /// If there is any, the node does not start.
    pub inadmissible: Vec<InspectedCommand>,
    /// The names of files that the node does not use: unfinished ones, and snapshots set aside as
    /// damaged.
    pub unused: Vec<String>,
    /// What the next start would repair, one sentence for each repair. A crash can be the cause of
    /// each, so none is counted as damage.
    pub notes: Vec<String>,
    /// One sentence for each damage that was found in the folder.
    pub damage: Vec<String>,
}

/// A segment, which is one file of the log.
#[derive(Clone, Debug)]
pub struct InspectedSegment {
    /// The name of the segment's file.
    pub name: String,
    /// The length of the file in bytes, including the free space after the last record.
    pub bytes: u64,
    /// How many bytes of the segment's file are records.
    pub record_bytes: u64,
    /// How many records the segment has. Each record is one write of the Raft core, with one or
    /// more entries.
    pub records: u64,
    /// The lowest and the highest index of an entry in this segment; `None` if there are no
    /// entries. Entries may replace others in earlier segments, and may be replaced by later
    /// records.
    pub entries: Option<RangeInclusive<Index>>,
}

/// A command in the log that the state machine cannot execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedCommand {
    /// The log entry that holds the command.
    pub id: EntryId,
    /// The encoded command, as the state machine would get it.
    pub bytes: Bytes,
    /// Why the state machine cannot execute the command, as a sentence.
    pub reason: String,
}

/// A snapshot's file in a data folder.
#[derive(Clone, Debug)]
pub struct InspectedSnapshot {
    /// The name of the snapshot's file.
    pub name: String,
    /// Which entries the snapshot covers, its length and its age; `None` if the snapshot is
    /// damaged.
    pub info: Option<SnapshotInfo>,
}

/// Reads the data folder of any node and verifies all of its checksums.
///
/// A node may run on the folder meanwhile. Then the end of the log may look torn or damaged, and
/// files may appear or vanish.
///
/// # Errors
/// If the folder or its file `identity` cannot be read: [`StorageError::Io`],
/// [`StorageError::WrongFolder`], [`StorageError::Damaged`]. All other damage is reported in the
/// [`Inspection`].
pub fn inspect(disk: Arc<dyn Disk>) -> Result<Inspection, StorageError> {
    inspect_with(disk, |_| Box::new(|_| Ok(())))
}

/// Decides whether the state machine can execute an encoded command; the error says why not.
pub type Judge = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// Like [`inspect`], but also checks the commands that a start would replay. `judge` gets the
/// identity of the state machine ([`Identity::machine`]) and returns the function that checks its
/// commands.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_with(
    disk: Arc<dyn Disk>,
    judge: impl Fn(&str) -> Judge,
) -> Result<Inspection, StorageError> {
    let folder = Folder::new(disk);
    let mut names = folder.list()?;
    names.sort();
    let (owner, identity) = identity::look(&folder)?;
    let mut inspection = Inspection {
        identity,
        hard_state: None,
        segments: Vec::new(),
        snapshots: Vec::new(),
        start: None,
        inadmissible: Vec::new(),
        unused: Vec::new(),
        folder: owner.folder,
        notes: Vec::new(),
        damage: Vec::new(),
    };
    inspection.vote(&folder, &owner);
    inspection.note_damage(Peers::open(&folder, &owner));
    let last = names.iter().filter_map(|name| segment::number(name)).max();
    for name in &names {
        if let Some(number) = segment::number(name) {
            let read = inspection.segment(&folder, &owner, number, Some(number) == last);
            inspection.note_damage(read);
        } else if let Some(last) = snapshot::last_of(name) {
            inspection.snapshot(&folder, name, last);
        } else if is_unfinished(name) || name.ends_with(snapshot::SET_ASIDE) {
            inspection.unused.push(name.clone());
        }
    }
    let start = inspection.start(&folder, &owner);
    if let Some((start, log)) = inspection.note_damage(start).flatten() {
        let judge = judge(&inspection.identity.machine);
        let refused = log.iter().filter_map(|entry| refused(entry, &judge));
        inspection.inadmissible = refused.collect();
        inspection.start = Some(start);
    }
    Ok(inspection)
}

impl Inspection {
    fn note_damage<T>(&mut self, result: Result<T, StorageError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let sentence = error.to_string();
                if !self.damage.contains(&sentence) {
                    self.damage.push(sentence);
                }
                None
            }
        }
    }

    fn vote(&mut self, folder: &Folder, owner: &FolderOwner) {
        let found = vote::read(folder, owner);
        if let Some(found) = self.note_damage(found) {
            self.hard_state = Some(found.state());
            self.damage.extend(found.bad);
        }
    }

    /// Reads one segment without comparing it with the others, so that damage in one segment does
    /// not hide damage in the next.
    fn segment(
        &mut self,
        folder: &Folder,
        owner: &FolderOwner,
        number: u64,
        is_last: bool,
    ) -> Result<(), StorageError> {
        let name = segment::name(number);
        let file = folder.open(&name)?;
        let mut bytes = Vec::new();
        file.read_all(&mut bytes)?;
        let header = replay::read_header(&file, &bytes, number, owner)?;
        let mut replay = Replay::starting_with(&header);
        let read = replay.records(number, &bytes, header.marks);
        let extent = replay.extents.pop_back();
        let (highest, record_bytes) =
            extent.map_or((0, 0), |extent| (extent.highest, extent.record_bytes));
        let first = replay.outline.base().index + 1;
        self.segments.push(InspectedSegment {
            name,
            bytes: bytes.len() as u64,
            record_bytes,
            records: replay.sequence - header.first_sequence,
            entries: (first <= highest).then_some(first..=highest),
        });
        read.map_err(replay::damaged_in(&file))?;
        let end = BLOCK + record_bytes as usize;
        let torn = segment::torn_bytes(&bytes, end, header.marks, replay.sequence)
            .map_err(replay::damaged_in(&file))?;
        if torn > 0 && is_last {
            let path = file.path().display();
            self.notes.push(format!(
                "{path} ends at offset {end} with {torn} bytes of a write that was not finished"
            ));
        }
        Ok(())
    }

    fn snapshot(&mut self, folder: &Folder, name: &str, last: EntryId) {
        let owner = snapshot::SnapshotOwner::from(&self.identity);
        let verified = snapshot::verify(folder, &owner, last);
        let info = self.note_damage(verified);
        self.snapshots.push(InspectedSnapshot {
            name: name.into(),
            info,
        });
    }

    /// Checks whether all files fit together, as a start of the node does. Returns the log that the
    /// node would start with; `None` if the node's term and vote are unreadable.
    fn start(&self, folder: &Folder, owner: &FolderOwner) -> Result<Option<Start>, StorageError> {
        let mut snapshots = recovery::find(folder, &snapshot::SnapshotOwner::from(&self.identity))?;
        let covered = snapshots.last().index;
        let (mut replay, _) = replay::read(folder, owner, &super::Options::default(), covered)?;
        let Some(hard_state) = self.hard_state else {
            return Ok(None);
        };
        recovery::check_term(folder, hard_state, "the log", replay.outline.last())?;
        recovery::check_term(folder, hard_state, "a snapshot", snapshots.last())?;
        let fit = snapshots.fit(folder, &mut replay)?;
        let base = snapshots.last();
        Ok(Some(match fit {
            recovery::Fit::GoesOn => ((base, replay.outline.last()), replay.entries),
            recovery::Fit::StartsAnew => ((base, base), Vec::new()),
        }))
    }
}

/// The state from which a node would start: the last entry of its snapshot, the last entry of the
/// log that continues the snapshot, and the entries of that log.
type Start = ((EntryId, EntryId), Vec<Entry>);

fn refused(entry: &Entry, judge: &Judge) -> Option<InspectedCommand> {
    let Payload::Command(bytes) = &entry.payload else {
        return None;
    };
    Some(InspectedCommand {
        id: entry.id,
        bytes: bytes.clone(),
        reason: judge(bytes).err()?,
    })
}
