//! What can go wrong with a data folder, in words for the person who runs the node.

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
        /// The data folder.
        folder: PathBuf,
        /// The process id that the owner left in the lock file.
        owner: Option<String>,
    },
    /// The folder is intact, but it is not this node's, or not one that this version can read.
    #[error("the data folder {} cannot be used: {problem}. {advice}", folder.display())]
    WrongFolder {
        /// The data folder.
        folder: PathBuf,
        /// What does not fit, with the value found and the value wanted.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file or folder cannot be used for a backup or for restoring one.
    #[error("{} cannot be used: {problem}. {advice}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file does not hold what was made durable in it, and no crash explains that. Nothing has
    /// been changed.
    #[error(
        "{} is damaged at offset {offset}: {problem}. Nothing has been changed. {advice}",
        path.display()
    )]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// The snapshot is not there. It may have been removed because there are newer ones.
    #[error("there is no snapshot of entry {last} (any more): {} is not there", path.display())]
    NoSnapshot {
        /// The file that is missing.
        path: PathBuf,
        /// The last entry of the snapshot.
        last: EntryId,
    },
    /// A snapshot is not needed: the node has one of the same entry or of a later one.
    #[error("a snapshot of entry {last} is of no use: there is one of entry {newest}")]
    Superseded {
        /// The last entry of the snapshot.
        last: EntryId,
        /// The last entry of the newest one.
        newest: EntryId,
    },
    /// Another node sent something else than the snapshot that it announced. None of it is kept.
    #[error("the snapshot of entry {last} from another node is refused: {problem}")]
    Transfer {
        /// The last entry of the snapshot.
        last: EntryId,
        /// What is wrong.
        problem: String,
    },
    /// A snapshot cannot be completed because an earlier write to its file failed.
    #[error("{} cannot be completed: an earlier write to it failed", path.display())]
    SnapshotBroken {
        /// The incomplete file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}. {}", path.display(), io_advice(source.kind()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was to be done with it.
        operation: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier write failed, so nobody knows what the disk holds before the folder is opened
    /// again.
    #[error("nothing more is written since an earlier write failed ({reason}). Restart the node")]
    Stopped {
        /// The error of that write.
        reason: String,
    },
}

/// What to do about an error of the operating system.
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
        _ => "Look for the cause in the system's log before the node is started again",
    }
}

/// What to do about a damaged log.
///
/// People first try to start the node again under the same id with an empty folder. That can lose
/// data: the node would have forgotten entries and votes that other nodes count on.
pub(super) const LOG_ADVICE: &str = "The node does not start, because it could vote and answer \
    without entries that it has acknowledged. Check the disk; then restore the folder from a copy \
    that was made since the node last ran, or replace the node by one with another id. Do not \
    start it under the same id with an empty folder";

/// What to do about a damaged vote file.
pub(super) const VOTE_ADVICE: &str = "The node must not vote, because it may have voted in its \
    present term already. Check the disk; then restore the folder from a copy that was made since \
    the node last ran, or replace the node by one with another id. Do not delete the file: a \
    second vote in one term can elect two leaders";

/// What to do about one damaged snapshot.
pub(super) const SNAPSHOT_ADVICE: &str = "Check the disk. The node uses the snapshot before it, if \
    the log reaches back to that one";

/// What to do if no snapshot is left to which the log reaches back.
pub(super) const NO_START_ADVICE: &str = "The node does not start, because a part of what it has \
    acknowledged could not be recovered. Check the disk; then copy the file from another node of \
    the cluster that has it, restore the folder from a copy that was made since the node last ran, \
    or replace the node by one with another id. Do not start it under the same id with an empty \
    folder";
