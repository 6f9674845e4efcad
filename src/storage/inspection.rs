//! What a data folder holds, for a person. Everything is read as at a start, and nothing is
//! changed.

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

/// A data folder.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What the folder belongs to.
    pub identity: Identity,
    /// The number of the folder, by which other nodes know this one.
    pub folder: u128,
    /// The term and vote; `None` if they cannot be read.
    pub hard_state: Option<HardState>,
    /// The files of the log, in order.
    pub segments: Vec<InspectedSegment>,
    /// The snapshots, oldest first.
    pub snapshots: Vec<InspectedSnapshot>,
    /// Where a node would start: the last entry of the snapshot that it would use, and the last
    /// entry of the log behind it. `None` if it would not start.
    pub start: Option<(EntryId, EntryId)>,
    /// The commands in that log that the state machine cannot execute: with any of them the node
    /// does not start either.
    pub inadmissible: Vec<InspectedCommand>,
    /// Files that the node does not use: unfinished, or set aside as damaged.
    pub unused: Vec<String>,
    /// What the next start would repair, one sentence each. This is what crashes leave, and no
    /// damage.
    pub notes: Vec<String>,
    /// All that is damaged, one sentence each.
    pub damage: Vec<String>,
}

/// A file of the log.
#[derive(Clone, Debug)]
pub struct InspectedSegment {
    /// The file's name.
    pub name: String,
    /// The file's length in bytes, with the space that is kept ready behind the log.
    pub bytes: u64,
    /// How many of them are records.
    pub record_bytes: u64,
    /// How many records there are, each one a write of the node.
    pub records: u64,
    /// The entries in them, both ends included. Later records may have replaced some of them, and
    /// these entries may have replaced some in earlier segments.
    pub entries: Option<RangeInclusive<Index>>,
}

/// A command in the log that the state machine cannot execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedCommand {
    /// The entry that holds it.
    pub id: EntryId,
    /// The command.
    pub bytes: Bytes,
    /// Why it cannot be executed, in a sentence of the state machine.
    pub reason: String,
}

/// A snapshot's file.
#[derive(Clone, Debug)]
pub struct InspectedSnapshot {
    /// The file's name.
    pub name: String,
    /// What it stands for; `None` if it is damaged.
    pub info: Option<SnapshotInfo>,
}

/// Reads a data folder and verifies all of its checksums, whatever node it belongs to.
///
/// A node may run on the folder meanwhile. Then the end of the log may look torn or damaged, and
/// files may come and go.
///
/// # Errors
/// If the folder cannot be read at all, or it cannot be told whose it is: [`StorageError::Io`],
/// [`StorageError::WrongFolder`], [`StorageError::Damaged`]. All other damage is part of the
/// answer.
pub fn inspect(disk: Arc<dyn Disk>) -> Result<Inspection, StorageError> {
    inspect_with(disk, |_| Box::new(|_| Ok(())))
}

/// Decides whether a command can be executed; the error says why not.
pub type Judge = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// As [`inspect`], and judges every command in the log. `judge` gets the identity of the state
/// machine ([`Identity::machine`]) and returns the function that judges its commands.
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

    /// Reads a segment by itself, so that damage in one segment does not hide damage in the next.
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

    /// Checks whether all parts fit together, as a start does; returns the log that the node would
    /// start with.
    fn start(&self, folder: &Folder, owner: &FolderOwner) -> Result<Option<Start>, StorageError> {
        let snapshots = recovery::find(folder, &snapshot::SnapshotOwner::from(&self.identity))?;
        let covered = snapshots.last().index;
        let (mut replay, _) = replay::read(folder, owner, &super::Options::default(), covered)?;
        let Some(hard_state) = self.hard_state else {
            return Ok(None);
        };
        super::check_term(folder, hard_state, "the log", replay.outline.last())?;
        super::check_term(folder, hard_state, "a snapshot", snapshots.last())?;
        let fit = snapshots.fit(folder, &mut replay)?;
        let base = snapshots.last();
        Ok(Some(match fit {
            recovery::Fit::GoesOn => ((base, replay.outline.last()), replay.entries),
            recovery::Fit::StartsAnew => ((base, base), Vec::new()),
        }))
    }
}

/// The last entry of the snapshot, the last one of the log behind it, and that log.
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
