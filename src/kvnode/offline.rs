//! The commands of `kvnode` that work on data folders without running a node.
//!
//! The first word alone decides whether one of these commands is meant, before any option is read.
//! So options of the node that are set in the environment do not matter.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{CommandFactory, Parser};

use super::{Exit, members, of_storage, recover};
use crate::kv::Kv;
use crate::machine::StateMachine;
use crate::raft::{Configuration, NodeId};
use crate::storage::{InspectedCommand, Inspection, Judge, ReadOnlyDisk, SnapshotInfo};
use crate::storage::{StorageError, back_up, inspect_with, restore};

/// Work on data folders without running a node.
#[derive(Parser)]
#[command(name = "kvnode", version, about, disable_help_subcommand = true)]
pub enum Command {
    /// Show what a data folder holds, and verify all of its checksums. Nothing is changed, so a
    /// node may use the folder meanwhile; in that case the end of the log may look unfinished.
    /// Commands in the log that this version cannot execute are shown, with the reason.
    ///
    /// Exit codes: 0 sound, 1 an error of the operating system, 2 there is no such folder, 4 the
    /// folder is damaged, holds a command that cannot be executed, or is no data folder.
    #[command(verbatim_doc_comment)]
    Inspect {
        /// The data folder to inspect.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Copy the newest valid snapshot of a data folder to a file, and verify the copy. A node may
    /// run on the folder: let it take a snapshot first (kvcli snapshot), so that the copy is fresh.
    Backup {
        /// The data folder to copy the snapshot from.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The file to make; it must not be there yet.
        file: PathBuf,
    },
    /// Make a new data folder whose state is that of a backup, for a node of a new cluster. Do so
    /// for every node of the list, each from the same file, before any of them is started.
    Restore {
        /// The file that kvnode backup made.
        file: PathBuf,
        /// The folder to make; it must be empty, or not be there yet.
        #[arg(long, env = "RAFTKV_DATA", value_name = "DIR")]
        data: PathBuf,
        /// The id of the node, one of the --cluster list.
        #[arg(long, env = "RAFTKV_ID")]
        id: NodeId,
        /// All nodes of the new cluster: ID=HOST:PORT,...; the same list as for running them.
        #[arg(long, env = "RAFTKV_MEMBERS", value_name = "ID=HOST:PORT,...")]
        cluster: String,
        /// The new cluster's name. One that differs from the old cluster's keeps the two apart.
        #[arg(
            long,
            env = "RAFTKV_CLUSTER_NAME",
            default_value = "raftkv",
            value_name = "NAME"
        )]
        cluster_name: String,
    },
    /// Make a cluster of one node from the data folder of a node that has survived, after a
    /// majority of its cluster was lost for good. What only the lost nodes had is lost with them;
    /// this command says what it knows of that, and asks before it changes anything.
    ///
    /// The new cluster has the name of the old one, but another identity: nodes of the old one that
    /// come back are refused by it, and refuse it. The folder stays, as DIR.before-recover.
    ///
    /// Exit codes: 0 done, 1 not confirmed or an error of the operating system, 2 there is no such
    /// folder, 3 a node runs on it, 4 it is damaged or no data folder. Unless it is 0, nothing has
    /// changed.
    #[command(verbatim_doc_comment)]
    Recover {
        /// The data folder of the node that has survived. Of several, choose the one with the
        /// longest log: kvnode inspect shows it.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Where the node is reached from now on, if not at the address that it has had.
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

impl Command {
    /// Reads the command from the process's arguments; `None` if their first word is not one of
    /// these commands.
    pub fn from_args() -> Option<Self> {
        let word = std::env::args_os().nth(1)?;
        let known = Self::command().find_subcommand(&word).is_some();
        known.then(Self::parse)
    }
}

/// Executes a command that works without a node. If it fails, writes the reason to standard error.
pub fn run(command: Command) -> Exit {
    let done = match command {
        Command::Inspect { folder } => look(&folder),
        Command::Backup { folder, file } => copy(&folder, &file),
        Command::Restore {
            file,
            data,
            id,
            cluster,
            cluster_name,
        } => make(&file, &data, id, &cluster, &cluster_name),
        Command::Recover {
            folder,
            address,
            yes,
        } => recover::recover(&folder, address, yes),
    };
    done.unwrap_or_else(|(exit, sentence)| {
        eprintln!("kvnode: {sentence}");
        exit
    })
}

pub(super) type Done = Result<Exit, (Exit, String)>;

pub(super) fn failed(error: StorageError) -> (Exit, String) {
    match &error {
        StorageError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            let (exit, what) = match path.file_name().is_some_and(|name| name == "identity") {
                true => (Exit::Folder, ": this is no data folder, or a part of one"),
                false => (Exit::Usage, ""),
            };
            (exit, format!("there is no {}{what}", path.display()))
        }
        _ => (of_storage(&error), error.to_string()),
    }
}

fn look(folder: &Path) -> Done {
    let disk = Arc::new(ReadOnlyDisk::new(folder));
    let inspection = inspect_with(disk, judge).map_err(failed)?;
    let mut text = String::new();
    describe(&inspection, &mut text).expect("writing into a string does not fail");
    say(&text);
    match inspection.damage.is_empty() && inspection.inadmissible.is_empty() {
        true => Ok(Exit::Stopped),
        false => Ok(Exit::Folder),
    }
}

/// Returns a function that checks whether the store of a data folder can execute a command;
/// `machine` is the identity of the folder's state machine. If this is not the store's identity,
/// every command passes, because this program does not know the commands of other machines.
fn judge(machine: &str) -> Judge {
    match Kv::of_identity(machine) {
        Some(store) => {
            let gate = store.gate();
            Box::new(move |command| gate(command))
        }
        None => Box::new(|_| Ok(())),
    }
}

fn copy(folder: &Path, file: &Path) -> Done {
    let backup = back_up(folder, file).map_err(failed)?;
    for error in backup.passed_over {
        eprintln!("kvnode: a newer snapshot was passed over: {error}");
    }
    let info = Described(&backup.info);
    say(&format!("{}: {info}\n", file.display()));
    Ok(Exit::Stopped)
}

fn make(file: &Path, data: &Path, id: NodeId, list: &str, name: &str) -> Done {
    let members = members(list, id).map_err(|sentence| (Exit::Usage, sentence))?;
    let founding = Configuration::founding(members);
    let info = restore(file, data, name, id, founding).map_err(failed)?;
    let (data, info) = (data.display(), Described(&info));
    say(&format!(
        "{data}: node {id} of cluster {name:?}, from the {info}\n"
    ));
    Ok(Exit::Stopped)
}

/// Writes to standard output. An error is ignored: the reader of a pipe may close it early.
pub(super) fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// How many of the commands that cannot be executed are shown at most.
const MOST_COMMANDS: usize = 20;

/// How many bytes of such a command are shown at most.
const SHOWN: usize = 64;

fn describe_command(command: &InspectedCommand, out: &mut String) -> fmt::Result {
    let InspectedCommand { id, bytes, reason } = command;
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let more = match bytes.len() > SHOWN {
        true => "...",
        false => "",
    };
    let (index, term, len) = (id.index, id.term, bytes.len());
    writeln!(
        out,
        "entry      {index} of term {term} cannot be executed: {reason}. Its {len} bytes are \
         \"{shown}\"{more}"
    )
}

struct Described<'a>(&'a SnapshotInfo);

impl Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SnapshotInfo { meta, bytes, .. } = self.0;
        let (index, term) = (meta.last.index, meta.last.term);
        let voters = meta.configuration.configuration.voters();
        let voters: Vec<_> = voters.map(|voter| voter.id.to_string()).collect();
        let voters = voters.join(", ");
        write!(
            f,
            "snapshot up to entry {index} of term {term}, {bytes} bytes, members {voters}"
        )
    }
}

fn describe(inspection: &Inspection, out: &mut String) -> fmt::Result {
    let identity = &inspection.identity;
    let (node, cluster) = (identity.node, &identity.cluster);
    writeln!(out, "node       {node} of cluster {cluster:?}")?;
    writeln!(out, "folder     {:032x}", inspection.folder)?;
    writeln!(out, "machine    {}", identity.machine)?;
    match inspection.hard_state.map(|state| (state.term, state.vote)) {
        None => writeln!(out, "term       not readable")?,
        Some((term, None)) => writeln!(out, "term       {term}, no vote")?,
        Some((term, Some(vote))) => {
            let id = vote.id;
            writeln!(out, "term       {term}, vote for node {id}")?;
        }
    }
    for segment in &inspection.segments {
        let entries = match &segment.entries {
            None => "no entries".into(),
            Some(range) => format!("entries {} to {}", range.start(), range.end()),
        };
        let (name, bytes, records) = (&segment.name, segment.bytes, segment.records);
        let used = segment.record_bytes;
        writeln!(
            out,
            "log        {name}: {entries} in {records} records, {used} of {bytes} bytes used"
        )?;
    }
    for found in &inspection.snapshots {
        let name = &found.name;
        match &found.info {
            Some(info) => writeln!(out, "snapshot   {name}: {}", Described(info))?,
            None => writeln!(out, "snapshot   {name}: damaged")?,
        }
    }
    for name in &inspection.unused {
        writeln!(out, "unused     {name}")?;
    }
    describe_start(inspection, out)?;
    for command in inspection.inadmissible.iter().take(MOST_COMMANDS) {
        describe_command(command, out)?;
    }
    for note in &inspection.notes {
        writeln!(out, "note       {note}")?;
    }
    for damage in &inspection.damage {
        writeln!(out, "damage     {damage}")?;
    }
    match (inspection.damage.len(), inspection.inadmissible.len()) {
        (0, 0) => writeln!(out, "sound: all checksums hold"),
        (0, count) => writeln!(
            out,
            "unusable: all checksums hold, but {count} commands cannot be executed"
        ),
        (1, _) => writeln!(out, "damaged: see above"),
        (count, _) => writeln!(out, "damaged in {count} places: see above"),
    }
}

/// Describes the snapshot and the log that a node would start with, or says that it would not
/// start.
fn describe_start(inspection: &Inspection, out: &mut String) -> fmt::Result {
    let start = inspection.start;
    match start.filter(|_| inspection.inadmissible.is_empty()) {
        Some((base, last)) if base.index > 0 => {
            let (base, last) = (base.index, last.index);
            writeln!(
                out,
                "start      from the snapshot up to {base}, the log up to {last}"
            )
        }
        Some((_, last)) => writeln!(out, "start      from the log up to {}", last.index),
        None => writeln!(out, "start      the node would not start"),
    }
}
