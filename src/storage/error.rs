//! The errors of a data folder, in words for the operator of the node.

use std::io;
use std::path::PathBuf;

use crate::raft::EntryId;

/// Why a data folder cannot be opened, or why a write did not become durable.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the folder open.
    #[error(
        "the data folder {} is in use: another kvnode{} runs on it. \
         Stop that one first, or give this node a folder of its own",
        folder.display(), owner.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The path of the data folder.
        folder: PathBuf,
        /// The id of the process that has the folder open, as the lock file names it.
        owner: Option<String>,
    },
    /// The folder is intact, but belongs to something else or has a format that this version cannot
    /// read.
    #[error("the data folder {} cannot be used: {problem}. {advice}", folder.display())]
    WrongFolder {
        /// The path of the data folder.
        folder: PathBuf,
        /// What does not fit: the value that was found and the value that was wanted.
        problem: String,
        /// What the operator can do about a folder that does not fit.
        advice: &'static str,
    },
    /// A file or folder cannot be used for a backup or for restoring one.
    #[error("{} cannot be used: {problem}. {advice}", path.display())]
    Unusable {
        /// The path of the file or folder.
        path: PathBuf,
        /// What is wrong with the file or folder.
        problem: String,
        /// What the operator can do about the unusable file or folder.
        advice: &'static str,
    },
    /// A file no longer holds what was made durable in it, and no crash explains that. Nothing has
    /// been changed.
    #[error(
        "{} is damaged at offset {offset}: {problem}. Nothing has been changed. {advice}",
        path.display()
    )]
    Damaged {
        /// The path of the damaged file.
        path: PathBuf,
        /// Where the damage is, in bytes from the start of the file.
        offset: u64,
        /// What is wrong at that place.
        problem: String,
        /// What the operator can do about the damage.
        advice: &'static str,
    },
    /// The snapshot's file does not exist. Perhaps it was removed because there are newer
    /// snapshots.
    #[error("there is no snapshot of entry {last}: {} does not exist (any more)", path.display())]
    NoSnapshot {
        /// The path of the file that is missing.
        path: PathBuf,
        /// The last entry that the missing snapshot covers.
        last: EntryId,
    },
    /// A snapshot is not needed, because the node has a snapshot with the same last entry or a
    /// later one.
    #[error("a snapshot of entry {last} is not needed: the node has one of entry {newest}")]
    Superseded {
        /// The last entry that the unneeded snapshot covers.
        last: EntryId,
        /// The last entry of the newest snapshot that the node has.
        newest: EntryId,
    },
    /// A snapshot from another node could not be received: its bytes are not those of the announced
    /// snapshot, or another transfer has replaced this one. The bytes are discarded.
    #[error("the snapshot of entry {last} from another node is refused: {problem}")]
    Transfer {
        /// The last entry that the refused snapshot covers.
        last: EntryId,
        /// Why the transfer failed.
        problem: String,
    },
    /// A snapshot cannot be completed because an earlier write to its file failed.
    #[error("{} cannot be completed: an earlier write to it failed", path.display())]
    SnapshotBroken {
        /// The path of the incomplete file.
        path: PathBuf,
    },
    /// The operating system refused an operation on a file or folder.
    #[error("cannot {operation} {}: {source}. {}", path.display(), io_advice(source.kind()))]
    Io {
        /// The path of the file or folder on which the operation failed.
        path: PathBuf,
        /// The operation that failed, in words that follow "cannot", such as "write to".
        operation: &'static str,
        /// The error that the operating system returned.
        source: io::Error,
    },
    /// There is no space for the next record of the log. Nothing of the log has been touched, so
    /// the same write can be tried again when there is space.
    #[error(
        "there is no space for the log: cannot {operation} {}: {source}. {}",
        path.display(), space_advice(source.kind())
    )]
    NoSpace {
        /// The path of the file that cannot grow.
        path: PathBuf,
        /// The operation that failed, in words that follow "cannot".
        operation: &'static str,
        /// The error that the operating system returned.
        source: io::Error,
    },
    /// An earlier write failed. Nobody knows what the disk holds until the folder is opened again,
    /// so nothing more is written.
    #[error("the node writes nothing more, as an earlier write failed ({reason}). Restart it")]
    Stopped {
        /// The error of the write that failed.
        reason: String,
    },
}

impl StorageError {
    /// The same error, as [`NoSpace`](Self::NoSpace) if a file could not be made or made longer for
    /// lack of space. Only for operations on space that no record uses yet: what such an operation
    /// has left in the file is overwritten before a record relies on it.
    ///
    /// A failed sync stays what it is, whatever its reason: see assumption 4 in `disk/mod.rs`.
    pub(super) fn or_no_space(self) -> Self {
        match self {
            StorageError::Io {
                path,
                operation: operation @ (CREATE | WRITE | ALLOCATE),
                source,
            } if is_lack_of_space(source.kind()) => StorageError::NoSpace {
                path,
                operation,
                source,
            },
            other => other,
        }
    }

    /// The same error, for a node that runs and repairs what is damaged.
    pub(super) fn while_running(mut self) -> Self {
        if let StorageError::Damaged { advice, .. } = &mut self {
            *advice = SCRUB_ADVICE;
        }
        self
    }

    /// The same error, for a node that does not run yet: it tries nothing again by itself.
    pub(super) fn at_start(self) -> Self {
        match self {
            StorageError::NoSpace {
                path,
                operation,
                source,
            } => StorageError::Io {
                path,
                operation,
                source,
            },
            other => other,
        }
    }
}

/// The operations that need space, as [`StorageError::Io`] names them.
pub(super) const CREATE: &str = "create";
pub(super) const WRITE: &str = "write to";
pub(super) const ALLOCATE: &str = "allocate space in";

fn is_lack_of_space(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

/// What the operator can do about a lack of space for the log, while the node runs.
fn space_advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::FileTooLarge => {
            "Raise the limit (prlimit --fsize): writes are accepted again by themselves then"
        }
        _ => "Make room: writes are accepted again by themselves then",
    }
}

impl StorageError {
    /// What is damaged and where, without what follows from it; `None` if nothing is.
    pub fn damage(&self) -> Option<String> {
        let Self::Damaged {
            path,
            offset,
            problem,
            ..
        } = self
        else {
            return None;
        };
        let path = path.display();
        Some(format!("{path} is damaged at offset {offset}: {problem}"))
    }
}

/// What the operator can do about an error of the operating system.
fn io_advice(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{
        AlreadyExists, FileTooLarge, NotADirectory, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    match kind {
        AlreadyExists | NotADirectory => "Something else is in its place: choose another folder",
        PermissionDenied | ReadOnlyFilesystem => {
            "Give this process the right to write there, or choose another folder"
        }
        StorageFull | QuotaExceeded => {
            "Make room and start the node again: nothing that it acknowledged is lost"
        }
        FileTooLarge => {
            "Raise the limit (ulimit -f) and start the node again: nothing that it acknowledged \
             is lost"
        }
        _ => "Look for the cause in the operating system's log, then start the node again",
    }
}

/// What the operator can do about a damaged log.
///
/// If the other nodes can let the node begin anew, `kvnode` does that by itself. So this is for
/// when they cannot.
pub(super) const LOG_ADVICE: &str = "The node does not start with it, because it could vote and \
    answer without entries that it has acknowledged. Check the disk, and start the node again once \
    a majority of the others runs: it begins anew then, with what they have. If that majority is \
    lost, restore the folder from a copy that was made since the node last ran, or make a cluster \
    of a node that is sound (kvnode recover)";

/// What the operator can do about damage that a running node has found in its files.
pub(super) const SCRUB_ADVICE: &str = "The node goes on: its state is in memory, and it takes \
    snapshots of that until nothing depends on the damaged file. Check the disk";

/// What the operator can do about a damaged vote file.
pub(super) const VOTE_ADVICE: &str = "The node must not vote, because it may have voted in its \
    present term already: a second vote in one term can elect two leaders. Do not delete the file. \
    Check the disk, and start the node again once a majority of the others runs: it begins anew \
    then, with what they have. If that majority is lost, restore the folder from a copy that was \
    made since the node last ran, or make a cluster of a node that is sound (kvnode recover)";

/// What the operator can do about one damaged snapshot.
pub(super) const SNAPSHOT_ADVICE: &str = "Check the disk. The node uses the snapshot before it, if \
    the log reaches back to that one";

/// What the operator can do if the log reaches back to no valid snapshot, so that the node cannot
/// start.
pub(super) const NO_START_ADVICE: &str = "The node does not start with it, because a part of what \
    it has acknowledged could not be recovered. Check the disk, and start the node again once a \
    majority of the others runs: it begins anew then, with what they have. If that majority is \
    lost, copy the file from another node that has it, restore the folder from a copy that was \
    made since the node last ran, or make a cluster of a node that is sound (kvnode recover)";
