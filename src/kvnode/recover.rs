//! `kvnode recover`: a cluster of one node, made from the folder of one that has survived.

use std::fmt::Write as _;
use std::io::{self, BufRead};
use std::path::Path;

use super::Exit;
use super::offline::{Done, failed, say};
use crate::kv::Kv;
use crate::machine::{At, StateMachine};
use crate::node::parse_members;
use crate::raft::{LoggedConfiguration, Member, NodeId, Payload};
use crate::storage::{StorageError, Survivor, finish_recovery, interrupted_recovery};

/// Executes the command.
pub(super) fn recover(folder: &Path, address: Option<String>, yes: bool) -> Done {
    if finish(folder, || yes || is_confirmed())? {
        return Ok(Exit::Stopped);
    }
    let survivor = Survivor::find(folder).map_err(refused)?;
    let address = address_of(&survivor, address)?;
    let state = execute(&survivor)?;
    say(&describe(folder, &survivor, &address));
    if !yes && !is_confirmed() {
        return Err(not_confirmed());
    }
    let write_state = |out: &mut dyn io::Write| Kv::write_snapshot(&state.snapshot(), out);
    let done = survivor.recover(&address, write_state).map_err(failed)?;
    let id = survivor.identity().node;
    say(&format!(
        "{}: node {id} alone, folder {:032x}, with all up to entry {}\n\
         the folder as it was is {}\n\
         next: start it with its --id and --data; then, for each other node, `kvcli member add`\n",
        folder.display(),
        done.folder,
        done.snapshot.meta.last.index,
        done.aside.display(),
    ));
    Ok(Exit::Stopped)
}

/// Finishes a recovery that was interrupted before its last step, if the person agrees again: the
/// node may have gone on with its former folder since. Returns whether there was such a recovery.
fn finish(folder: &Path, confirm: impl FnOnce() -> bool) -> Result<bool, (Exit, String)> {
    let Some(complete) = interrupted_recovery(folder).map_err(failed)? else {
        return Ok(false);
    };
    let last = Survivor::find(&complete).map_err(failed)?.last();
    say(&format!(
        "a recovery was interrupted before {} got its place, {}. It makes a cluster of this node \
         alone, up to entry {} of term {}. If the node has run since then, do not go on: what it \
         wrote is not in there\n",
        complete.display(),
        folder.display(),
        last.index,
        last.term
    ));
    if !confirm() {
        return Err(not_confirmed());
    }
    finish_recovery(folder).map_err(failed)?;
    let folder = folder.display();
    say(&format!(
        "{folder}: finished a recovery that was interrupted\n"
    ));
    Ok(true)
}

fn not_confirmed() -> (Exit, String) {
    let sentence = "not confirmed, so nothing has been changed";
    (Exit::Failed, sentence.into())
}

/// Of a damaged folder no cluster can be made: it is not known what is missing.
fn refused(error: StorageError) -> (Exit, String) {
    let damaged = matches!(error, StorageError::Damaged { .. });
    let (exit, sentence) = failed(error);
    match damaged {
        true => {
            let advice = "To recover, choose the folder of another node that has survived. If \
                          there is none, make a backup of the newest snapshot in this one \
                          (kvnode backup) and a new cluster of that (kvnode restore)";
            (exit, format!("{sentence}. {advice}"))
        }
        false => (exit, sentence),
    }
}

/// Where the node is to be reached: as the operator says, or as its own log says.
fn address_of(survivor: &Survivor, given: Option<String>) -> Result<String, (Exit, String)> {
    let id = survivor.identity().node;
    if let Some(given) = given {
        let parsed = parse_members(&format!("{id}={given}"));
        let parsed = parsed.map_err(|sentence| (Exit::Usage, format!("--address: {sentence}")))?;
        return parsed
            .into_values()
            .next()
            .ok_or((Exit::Usage, "--address: it is empty".into()));
    }
    let known = survivor.members().and_then(|members| {
        let own = members.configuration.contact(id)?;
        Some(own.address.clone())
    });
    known.filter(|address| !address.is_empty()).ok_or_else(|| {
        let sentence = format!(
            "the folder does not say where node {id} is reached: name its address with --address"
        );
        (Exit::Usage, sentence)
    })
}

/// Executes everything that the folder holds.
fn execute(survivor: &Survivor) -> Result<Kv, (Exit, String)> {
    let machine = &survivor.identity().machine;
    let empty = Kv::of_identity(machine).ok_or_else(|| {
        let sentence = format!(
            "this version cannot execute the commands of \"{machine}\". Use the version of kvnode \
             that ran on the folder"
        );
        (Exit::Folder, sentence)
    })?;
    let mut state = match survivor.open_snapshot().map_err(failed)? {
        Some(mut reader) => empty.restore(&mut reader).map_err(|error| {
            let sentence = format!("the state of the snapshot cannot be taken over: {error}");
            (Exit::Folder, sentence)
        })?,
        None => empty,
    };
    let gate = state.gate();
    for entry in survivor.entries() {
        let Payload::Command(command) = &entry.payload else {
            continue;
        };
        gate(command).map_err(|reason| {
            let index = entry.id.index;
            let sentence = format!("entry {index} cannot be executed: {reason}");
            (Exit::Folder, sentence)
        })?;
        let at = At {
            index: entry.id.index,
            time_ms: entry.time_ms,
        };
        state.apply(at, command);
    }
    Ok(state)
}

/// What is there, what may be lost, and what is about to be done.
fn describe(folder: &Path, survivor: &Survivor, address: &str) -> String {
    let (identity, last) = (survivor.identity(), survivor.last());
    let id = identity.node;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<10} {value}").expect("writing into a string does not fail");
    };
    line("node", format!("{id} of cluster {:?}", identity.cluster));
    line("members", members(survivor.members().as_ref(), id));
    line(
        "log",
        format!("up to entry {} of term {}", last.index, last.term),
    );
    let certain = survivor.snapshot().map_or(0, |info| info.meta.last.index);
    line(
        "certain",
        match certain {
            0 => "nothing: there is no snapshot, by which this folder could tell".into(),
            index => format!("up to entry {index}, the end of the newest snapshot"),
        },
    );
    if last.index > certain {
        let sentence = format!(
            "the entries {} to {} are taken over, whether clients had an answer to them or not",
            certain + 1,
            last.index
        );
        line("taken over", sentence);
    }
    let sentence = format!(
        "what the lost nodes acknowledged after entry {}; this folder cannot tell how much that is",
        last.index
    );
    line("lost", sentence);
    let sentence = format!(
        "a cluster of node {id} alone, at {address}, in {}. Nodes of the old cluster that come \
         back are refused",
        folder.display()
    );
    line("to be made", sentence);
    text
}

/// The members as the folder knows them last, this node among them.
fn members(known: Option<&LoggedConfiguration>, id: NodeId) -> String {
    let Some(known) = known else {
        return "not known: none are in the log".into();
    };
    let name = |member: &Member| match member.id == id {
        true => format!("{} (this one)", member.id),
        false => member.id.to_string(),
    };
    let names: Vec<String> = known.configuration.contacts().map(name).collect();
    names.join(", ")
}

/// Asks the person at the terminal. The end of the input counts as no.
fn is_confirmed() -> bool {
    eprint!("Type yes to go on: ");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.is_ok() && line.trim() == "yes"
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::kv::Limits;
    use crate::raft::{Entry, EntryId, HardState, Write};
    use crate::storage::{Identity, Options, RealDisk, Storage};

    /// A data folder with one entry.
    fn make(folder: &Path) {
        let identity = Identity {
            cluster: "raftkv".into(),
            node: 3,
            machine: Kv::new(Limits::default()).identity(),
        };
        let disk = Arc::new(RealDisk::open(folder).unwrap());
        let (mut storage, _) = Storage::open(disk, &identity, Options::default()).unwrap();
        let entry = Entry {
            id: EntryId { term: 1, index: 1 },
            time_ms: 0,
            payload: Payload::Empty,
        };
        let write = Write {
            id: 1,
            hard_state: Some(HardState {
                term: 1,
                vote: None,
            }),
            restart: None,
            entries: vec![entry],
        };
        storage.write(&write).unwrap();
    }

    /// The node may have gone on for weeks with the folder that the recovery was made from.
    #[test]
    fn a_recovery_that_was_interrupted_is_finished_only_if_a_person_agrees() {
        let above = tempfile::TempDir::new().unwrap();
        let folder = above.path().join("3");
        assert_eq!(finish(&folder, || true).map_err(|error| error.1), Ok(false));
        make(&above.path().join("3.recovered"));
        let (_, sentence) = finish(&folder, || false).unwrap_err();
        assert!(sentence.contains("nothing has been changed"), "{sentence}");
        assert!(!fs::exists(&folder).unwrap());
        assert_eq!(finish(&folder, || true).map_err(|error| error.1), Ok(true));
        assert!(fs::exists(&folder).unwrap());
    }
}
