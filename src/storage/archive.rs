//! Backups: copies of a snapshot's file outside of any data folder, and new data folders made from
//! them.
//!
//! A restored folder looks like that of a node that has a snapshot and has lost its log: the vote
//! file holds the snapshot's term and no vote, and the log is empty. At the node's first start, the
//! log starts anew after the snapshot's last entry, which is the second case in `recovery.rs`.
//!
//! # What a crash may leave on disk
//!
//! - *While a backup is made:* an unfinished file, whose name is that of the backup and `.new`. A
//!   file that has the backup's own name is complete and verified.
//! - *While a folder is restored:* an unfinished folder, whose name is that of the data folder and
//!   `.new`. It is renamed as a whole when it is complete. A node that was started before that
//!   would begin with an empty state, so [`check_not_half_restored`] looks for the unfinished
//!   folder and refuses the start.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raft::{Configuration, HardState, LoggedConfiguration, NodeId, SnapshotMeta, Write};

use super::disk::real_disk::names_in;
use super::disk::{Disk, Folder, NamedFile, ReadOnlyDisk, RealDisk, unfinished};
use super::error::StorageError;
use super::snapshot::{self, SnapshotInfo, SnapshotReader};
use super::voter::identity::{self, Identity};
use super::{Options, Storage};

/// How many times a backup tries to copy a snapshot. A running node may remove a snapshot while the
/// backup copies it; then the next try copies a newer snapshot.
const ATTEMPTS: usize = 3;

/// How many bytes a backup copies at a time.
const COPIED_BYTES: u64 = 1 << 20;

const EXISTS_ADVICE: &str = "Nothing is overwritten: choose another name, or move it away first";

/// What a backup has copied, and what it could not use.
#[derive(Debug)]
pub struct Backup {
    /// The snapshot that is in the backup.
    pub info: SnapshotInfo,
    /// Why the backup is not of a newer snapshot: one error for each newer snapshot, which is
    /// damaged.
    pub passed_over: Vec<StorageError>,
}

/// Copies the newest valid snapshot of a data folder to the file `to`, and verifies the copy. The
/// folder is only read, so a node may run on it.
///
/// # Errors
/// [`StorageError::Unusable`] if the folder holds no valid snapshot, or if `to` exists already;
/// [`StorageError::Io`] if copying fails; as [`inspect`](super::inspect) if the folder cannot be
/// read.
pub fn back_up(folder: &Path, to: &Path) -> Result<Backup, StorageError> {
    if to.exists() {
        return Err(unusable(to, "it is there already", EXISTS_ADVICE));
    }
    let source = Folder::new(Arc::new(ReadOnlyDisk::new(folder)));
    // List the folder before reading any file in it: if the folder is missing, the error then names
    // the folder and not a file.
    source.list()?;
    let (_, identity) = identity::look(&source)?;
    let owner = snapshot::SnapshotOwner::from(&identity);
    let mut passed_over = Vec::new();
    for _ in 0..ATTEMPTS {
        passed_over.clear();
        let names = source.list()?;
        let mut lasts: Vec<_> = names.iter().filter_map(|n| snapshot::last_of(n)).collect();
        lasts.sort_unstable_by_key(|last| std::cmp::Reverse((last.index, last.term)));
        for last in lasts {
            match snapshot::verify(&source, &owner, last) {
                Ok(info) => match copy(&folder.join(snapshot::name(last)), to) {
                    Ok(()) => return Ok(Backup { info, passed_over }),
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error),
                },
                Err(StorageError::NoSnapshot { .. }) => {}
                Err(error) => passed_over.push(error),
            }
        }
    }
    let problem = match passed_over.first() {
        Some(error) => format!("it holds no valid snapshot: {error}"),
        None => "it holds no snapshot".into(),
    };
    let advice = "Let the node take one (kvcli snapshot), then try again";
    Err(unusable(folder, problem, advice))
}

fn is_gone(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let beside = RealDisk::unlocked(parent(to)).map_err(at(parent(to), "open the folder"))?;
    copy_into(
        &open_file(from)?,
        &Folder::new(Arc::new(beside)),
        file_name(to)?,
    )
}

/// Copies a snapshot's file to `name`. Until the copy is synced and verified, its name ends in
/// `.new`.
pub(super) fn copy_into(
    source: &NamedFile,
    folder: &Folder,
    name: &str,
) -> Result<(), StorageError> {
    let temp = unfinished(name);
    if folder.list()?.contains(&temp) {
        let advice = "It is left from a backup that was interrupted: remove it and try again";
        return Err(unusable(
            &folder.path().join(temp),
            "it exists already",
            advice,
        ));
    }
    let copied = copy_bytes(source, folder, &temp).and_then(|()| folder.rename(&temp, name));
    if copied.is_err() {
        // Remove the incomplete backup, which is of no use. If removing it fails, the next backup
        // reports its name.
        let _ = folder.remove(&temp);
    }
    copied?;
    folder.sync()
}

fn copy_bytes(source: &NamedFile, folder: &Folder, temp: &str) -> Result<(), StorageError> {
    let file = folder.create_unfinished(temp)?;
    let len = source.len()?;
    let mut offset = 0;
    while offset < len {
        let mut bytes = vec![0; COPIED_BYTES.min(len - offset) as usize];
        source.read(&mut bytes, offset)?;
        file.write(&bytes, offset)?;
        offset += bytes.len() as u64;
    }
    file.sync()?;
    let (_, copy) = snapshot::open_any(folder.open(temp)?)?;
    copy.verify().map(drop)
}

/// Makes a new data folder for one node of a new cluster, with the state of the snapshot in `from`.
/// Every member of the new cluster is to be made from the same file. Terms and indexes continue
/// those of the snapshot, and the client sessions in the snapshot stay.
/// `members` is what the new cluster is founded with: whatever configuration the file holds, it is
/// that of another cluster.
///
/// # Errors
/// [`StorageError::Unusable`] if the folder is not empty; [`StorageError::Damaged`] if `from` is
/// not a valid snapshot; [`StorageError::Io`]. After an error the folder is as it was, unless only
/// the last sync failed.
pub fn restore(
    from: &Path,
    folder: &Path,
    cluster: &str,
    node: NodeId,
    members: Configuration,
) -> Result<SnapshotInfo, StorageError> {
    let (owner, reader) = open(from)?;
    let is_empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(at(folder, "list the folder")(error)),
    };
    if !is_empty {
        let advice = "A restored node needs a new or an empty one; nothing was changed";
        return Err(unusable(folder, "it is not empty", advice));
    }
    let temp = sibling(folder)?;
    if temp.exists() {
        let advice = "It is left from a restore that was interrupted: remove it and try again";
        return Err(unusable(&temp, "it exists already", advice));
    }
    let identity = Identity {
        cluster: cluster.into(),
        node,
        machine: owner.machine,
    };
    let disk = RealDisk::open(&temp).map(Arc::new);
    let filled = disk.and_then(|disk| fill(disk, Options::default(), &identity, reader, members));
    let filled = filled.and_then(|info| {
        fs::rename(&temp, folder).map_err(at(folder, "rename a folder to"))?;
        Ok(info)
    });
    match &filled {
        Ok(_) => sync_parent(folder)?,
        // Remove the incomplete folder, so that no later start takes it for a restored one.
        Err(_) => drop(fs::remove_dir_all(&temp)),
    }
    filled
}

/// Makes the files of a data folder that is restored from a snapshot; all of them are durable when
/// this returns.
pub(super) fn fill(
    disk: Arc<dyn Disk>,
    options: Options,
    identity: &Identity,
    mut reader: SnapshotReader,
    members: Configuration,
) -> Result<SnapshotInfo, StorageError> {
    let meta = SnapshotMeta {
        configuration: LoggedConfiguration::founding(members),
        ..reader.info().meta.clone()
    };
    let folder = disk.folder().to_path_buf();
    let (mut storage, _) = Storage::open(disk, identity, options)?;
    // The node's term must be at least the snapshot's. No node of the new cluster leads in this
    // very term, because an election always begins a higher one. So no new entry has the term and
    // index of an entry that the old cluster wrote after the snapshot's last entry.
    storage.write(&Write {
        id: 0,
        hard_state: Some(HardState {
            term: meta.last.term,
            vote: None,
        }),
        entries: Vec::new(),
        restart: None,
    })?;
    let mut writer = storage.snapshots().create(meta)?;
    io::copy(&mut reader, &mut writer).map_err(|error| match error.downcast() {
        Ok(error) => for_backup(error),
        Err(error) => at(&folder, "write to")(error),
    })?;
    writer.finish()
}

/// Refuses a data folder whose restore was interrupted. A node that started there would begin with
/// an empty state, without anything from the backup.
pub(super) fn check_not_half_restored(folder: &Path) -> Result<(), StorageError> {
    let is_there = names_in(folder).is_ok_and(|names| !names.is_empty());
    let Ok(temp) = sibling(folder) else {
        return Ok(());
    };
    if is_there || !temp.is_dir() {
        return Ok(());
    }
    let problem = format!(
        "a restore that was to make {} was interrupted",
        folder.display()
    );
    let advice = "Remove it and restore again, or remove it to start without the backup";
    Err(unusable(&temp, problem, advice))
}

/// Opens a snapshot's file, which may lie anywhere, and returns the cluster and the state machine
/// that it belongs to.
fn open(path: &Path) -> Result<(snapshot::SnapshotOwner, SnapshotReader), StorageError> {
    snapshot::open_any(open_file(path)?).map_err(for_backup)
}

fn open_file(path: &Path) -> Result<NamedFile, StorageError> {
    Folder::new(Arc::new(ReadOnlyDisk::new(parent(path)))).open(file_name(path)?)
}

fn file_name(path: &Path) -> Result<&str, StorageError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| {
        let advice = "Name a file, with a name that is UTF-8";
        unusable(path, "it is not the name of a file", advice)
    })
}

/// Replaces the advice to the operator in an error about a damaged backup. The usual advice is
/// about a node that starts from the damaged snapshot, and no node starts from a backup.
fn for_backup(error: StorageError) -> StorageError {
    match error {
        StorageError::Damaged {
            path,
            offset,
            problem,
            ..
        } => StorageError::Damaged {
            path,
            offset,
            problem,
            advice: "Use another backup, and look for the cause",
        },
        other => other,
    }
}

fn unusable(path: &Path, problem: impl Into<String>, advice: &'static str) -> StorageError {
    StorageError::Unusable {
        path: path.to_path_buf(),
        problem: problem.into(),
        advice,
    }
}

fn at(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |source| StorageError::Io {
        path,
        operation,
        source,
    }
}

/// The name that a file or folder has until it is complete: its final name and `.new`.
fn sibling(path: &Path) -> Result<PathBuf, StorageError> {
    let Some(name) = path.file_name() else {
        let advice = "Give it a name of its own";
        return Err(unusable(path, "it cannot be replaced as a whole", advice));
    };
    let mut name = OsString::from(name);
    name.push(".new");
    Ok(path.with_file_name(name))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn sync_parent(path: &Path) -> Result<(), StorageError> {
    let parent = parent(path);
    fs::File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(at(parent, "sync the folder"))
}
