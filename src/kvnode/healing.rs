//! A node whose data folder is damaged: if the others can let it begin anew, the folder is set
//! aside and the node starts with a new one.

use super::{Exit, of_storage};
use crate::node::{Config, can_begin_anew};
use crate::raft::Configuration;
use crate::storage::{DamagedFolder, Identity, StorageError};

/// Sets the folder aside, if the other nodes are there to give this one what it needs. `error` is
/// why the node did not start.
///
/// # Errors
/// How the program ends, with a sentence: nothing has been changed, unless renaming the folder has
/// failed.
pub(super) fn begin_anew(
    config: &Config,
    machine: &str,
    error: &StorageError,
) -> Result<(), (Exit, String)> {
    let identity = Identity {
        cluster: config.cluster.clone(),
        node: config.id,
        machine: machine.to_string(),
    };
    let stop = |error: StorageError| (of_storage(&error), error.to_string());
    let found = DamagedFolder::find(&config.data, &identity).map_err(stop)?;
    let Some(damaged) = found else {
        return Err((Exit::Folder, error.to_string()));
    };
    let founders = Configuration::founding(config.members.clone());
    let damaged = damaged.with_founders(founders);
    let unchanged = |why: String| {
        let sentence = format!("{}. It was not set aside: {why}", damaged.problem());
        (Exit::Folder, sentence)
    };
    if !config.rejoins {
        return Err(unchanged("--no-rejoin is given".into()));
    }
    can_begin_anew(config, &damaged).map_err(unchanged)?;
    let done = damaged.set_aside().map_err(stop)?;
    let kept = match &done.snapshot {
        Some(info) => format!("the snapshot up to entry {}", info.meta.last.index),
        None => "nothing".into(),
    };
    log::warn!(
        "the damaged data folder is set aside as {}; node {} begins anew with {kept}, as the \
         folder {:08x}, and asks for its place. `kvnode inspect` shows what was wrong",
        done.aside.display(),
        config.id,
        (done.folder >> 96) as u32,
    );
    Ok(())
}
