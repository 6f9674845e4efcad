//! A snapshot's file outside of any data folder: taken out as a backup, and made a folder again.
//!
//! A restored folder is one whose node took a snapshot and lost its log: its vote file knows the
//! snapshot's term and no vote, and the log is empty and starts anew behind the snapshot, which is
//! the second case of `recovery.rs`. It is put together under the folder's name and `.new`, and
//! renamed as a whole, so that no crash leaves a folder that would start as an empty one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raft::{HardState, Membership, NodeId, SnapshotMeta, Write};

use super::error::StorageError;
use super::folder::Folder;
use super::identity::{self, Identity};
use super::read_only_disk::ReadOnlyDisk;
use super::real_disk::RealDisk;
use super::snapshot::{self, SnapshotInfo, SnapshotReader};
use super::{Options, Storage};

/// How often a backup looks again after a running node has removed what it was about to copy.
const ATTEMPTS: usize = 3;

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
    let owner = snapshot::Owner::from(&identity);
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

/// Copies a snapshot's file, which is there under its new name when the copy is known to be good.
fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let mut source = File::open(from).map_err(at(from, "open"))?;
    let temp = sibling(to)?;
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).open(&temp);
    let mut file = created.map_err(at(&temp, "create"))?;
    let copied = io::copy(&mut source, &mut file)
        .and_then(|_| file.sync_all())
        .map_err(at(&temp, "write to"))
        .and_then(|()| open(&temp)?.1.verify())
        .and_then(|_| fs::rename(&temp, to).map_err(at(to, "rename a file to")));
    if copied.is_err() {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&temp);
    }
    copied?;
    sync_parent(to)
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
    let filled = fill(&temp, &identity, reader, members).and_then(|info| {
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

fn fill(
    folder: &Path,
    identity: &Identity,
    mut reader: SnapshotReader,
    membership: Membership,
) -> Result<SnapshotInfo, StorageError> {
    let meta = SnapshotMeta {
        membership,
        ..reader.info().meta.clone()
    };
    let disk = Arc::new(RealDisk::open(folder)?);
    let (mut storage, _) = Storage::open(disk, identity, Options::default())?;
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
        Err(error) => at(folder, "write to")(error),
    })?;
    writer.finish()
}

/// Opens a snapshot's file, wherever it is and whoever it belongs to.
fn open(path: &Path) -> Result<(snapshot::Owner, SnapshotReader), StorageError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(name) = name else {
        let advice = "Name a snapshot's file, with a name that is UTF-8";
        return Err(unusable(path, "it is not the name of a file", advice));
    };
    let folder = Folder::new(Arc::new(ReadOnlyDisk::new(parent(path))));
    let file = folder.open(name)?;
    snapshot::open_any(file).map_err(for_backup)
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
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(at(parent, "sync the folder"))
}
