//! A snapshot's file outside of any data folder: taken out as a backup, and made a folder again.
//!
//! A restored folder is one whose node took a snapshot and lost its log: its vote file knows the
//! snapshot's term and no vote, and the log is empty and starts anew behind the snapshot, which is
//! the second case of `recovery.rs`. It is put together under the folder's name and `.new`, and
//! renamed as a whole. So a crash leaves all of it or no folder; and where there is none, what is
//! left beside its place keeps a node from starting there with nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raft::{HardState, Membership, NodeId, SnapshotMeta, Write};

use super::disk::real_disk::names_in;
use super::disk::{Disk, Folder, NamedFile, ReadOnlyDisk, RealDisk, unfinished};
use super::error::StorageError;
use super::snapshot::{self, SnapshotInfo, SnapshotReader};
use super::voter::identity::{self, Identity};
use super::{Options, Storage};

/// How often a backup looks again after a running node has removed what it was about to copy.
const ATTEMPTS: usize = 3;

/// How much a backup copies at a time, in bytes.
const COPIED_BYTES: u64 = 1 << 20;

const EXISTS_ADVICE: &str = "Nothing is overwritten: choose another name, or move it away first";

/// A snapshot that was copied out of a data folder.
#[derive(Debug)]
pub struct Backup {
    /// What was copied.
    pub info: SnapshotInfo,
    /// Newer snapshots that are damaged and were passed over.
    pub passed_over: Vec<StorageError>,
}

/// Copies the newest valid snapshot of a data folder to a file, and verifies the copy. A node may
/// run on the folder, which is only read.
///
/// # Errors
/// [`StorageError::Unusable`] if there is no valid snapshot, or the file is there already; as
/// [`inspect`](super::inspect).
pub fn back_up(folder: &Path, to: &Path) -> Result<Backup, StorageError> {
    if to.exists() {
        return Err(unusable(to, "it is there already", EXISTS_ADVICE));
    }
    let source = Folder::new(Arc::new(ReadOnlyDisk::new(folder)));
    // A folder that is not there says so, rather than that a file in it is not.
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

/// Copies a snapshot's file, which is there under its new name when the copy is known to be good.
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
            "it is in the way",
            advice,
        ));
    }
    let copied = copy_bytes(source, folder, &temp).and_then(|()| folder.rename(&temp, name));
    if copied.is_err() {
        // What is left of it is of no use to anybody.
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

/// Makes a new data folder for a node of a new cluster, whose state is that of a snapshot's file.
/// Every member of the cluster is to be made from the same file. Term and index go on from the
/// snapshot's; the sessions in it stay.
///
/// # Errors
/// [`StorageError::Unusable`] if the folder is not empty; [`StorageError::Damaged`] if the file
/// is not a valid snapshot; [`StorageError::Io`]. Then the folder is as it was.
pub fn restore(
    from: &Path,
    folder: &Path,
    cluster: &str,
    node: NodeId,
    members: Membership,
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
        return Err(unusable(&temp, "it is in the way", advice));
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
        // What is left of it could be taken for a data folder.
        Err(_) => drop(fs::remove_dir_all(&temp)),
    }
    filled
}

/// Makes the data folder; when this returns, no crash can undo any of it.
pub(super) fn fill(
    disk: Arc<dyn Disk>,
    options: Options,
    identity: &Identity,
    mut reader: SnapshotReader,
    membership: Membership,
) -> Result<SnapshotInfo, StorageError> {
    let meta = SnapshotMeta {
        membership,
        ..reader.info().meta.clone()
    };
    let folder = disk.folder().to_path_buf();
    let (mut storage, _) = Storage::open(disk, identity, options)?;
    // No node of the new cluster has voted in this term, and none will lead in it: a leader of it
    // may have made entries that follow the snapshot's.
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

/// Whether a restore was to make this folder and was interrupted. A node that started there would
/// be one of a new cluster, without anything that the backup holds.
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
    let advice = "Remove it and restore again; a node without the backup starts once it is removed";
    Err(unusable(&temp, problem, advice))
}

/// Opens a snapshot's file, wherever it is and whoever it belongs to.
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

/// The advice that fits a file that no node uses.
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

/// The name under which a file or a folder is put together.
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
