//! The end of a run: all nodes hold the same, as they say themselves and as their folders show.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use raftkv::kv::{Kv, Limits};
use raftkv::machine::{At, StateMachine};
use raftkv::raft::{Index, Payload};
use raftkv::storage::{Identity, Options, ReadOnlyDisk, RealDisk, Storage, inspect};
use raftkv::wire::client::Status;

/// The index up to which all nodes have applied the log, if they are level.
pub fn of(statuses: &[Status], nodes: usize) -> Option<Index> {
    let reached: BTreeSet<_> = statuses
        .iter()
        .map(|status| (status.applied, status.commit, status.last_index))
        .collect();
    let (applied, commit, last) = *reached.first()?;
    let level = statuses.len() == nodes && reached.len() == 1;
    (level && applied == commit && commit == last).then_some(applied)
}

/// The digest of the whole state, sessions included, after the entry at an index: from the folder
/// of a node that has stopped. `None` if the folder ends before: a node executes what a majority
/// holds, even if its own disk is late with it. The error is a sentence.
pub fn digest(folder: &Path, index: Index) -> Result<Option<u64>, String> {
    let sentence = |error: &dyn ToString| format!("{}: {}", folder.display(), error.to_string());
    let inspection =
        inspect(Arc::new(ReadOnlyDisk::new(folder))).map_err(|error| sentence(&error))?;
    if let Some(damage) = inspection.damage.first() {
        return Err(sentence(damage));
    }
    let identity: Identity = inspection.identity;
    let disk = RealDisk::open(folder).map_err(|error| sentence(&error))?;
    let opened = Storage::open(Arc::new(disk), &identity, Options::default());
    let (storage, recovered) = opened.map_err(|error| sentence(&error))?;
    let last = recovered
        .entries
        .last()
        .map_or(recovered.base, |entry| entry.id);
    if last.index < index {
        return Ok(None);
    }
    let mut machine = Kv::new(Limits::default());
    if let Some(info) = &recovered.snapshot {
        let file = storage.snapshots().open(info.meta.last);
        let mut file = file.map_err(|error| sentence(&error))?;
        machine = machine
            .restore(&mut file)
            .map_err(|error| sentence(&error))?;
        if info.meta.last.index > index {
            return Err(sentence(&"it has a snapshot of a later state"));
        }
    }
    for entry in recovered.entries.iter().filter(|e| e.id.index <= index) {
        if let Payload::Command(command) = &entry.payload {
            let at = At {
                index: entry.id.index,
                time_ms: entry.time_ms,
            };
            machine.apply(at, command);
        }
    }
    Ok(Some(machine.digest()))
}
