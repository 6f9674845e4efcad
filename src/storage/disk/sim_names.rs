//! The names of the files in a folder of a simulated disk, twice: as programs see the names now,
//! and as a power failure would leave them. A program sees a new or changed name at once, but the
//! name survives a power failure only if the folder was synced after the change.

use std::collections::BTreeMap;
use std::io;

use super::sim_disk::{Outcome, kept};

/// One atomic change of names: for each name, what it refers to afterwards, or `None`.
pub(super) type Renaming = Vec<(String, Option<usize>)>;

/// The names in a folder, each with the number of what it refers to.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// The changes since the last sync, in order.
    pending: Vec<Renaming>,
}

impl Names {
    pub(super) fn change(&mut self, renaming: Renaming) {
        apply(&mut self.now, &renaming);
        self.pending.push(renaming);
    }

    /// Changes names so that no crash undoes it, whatever else is pending.
    pub(super) fn change_durably(&mut self, renaming: Renaming) {
        apply(&mut self.now, &renaming);
        apply(&mut self.durable, &renaming);
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.durable = self.now.clone();
    }

    /// What is left of it after a power failure.
    pub(super) fn after_crash(&self, outcome: Outcome, random: &mut u64) -> Self {
        let mut names = self.durable.clone();
        for renaming in &self.pending {
            if kept(outcome, random) {
                apply(&mut names, renaming);
            }
        }
        Self {
            durable: names.clone(),
            now: names,
            pending: Vec::new(),
        }
    }

    pub(super) fn id(&self, name: &str) -> io::Result<usize> {
        let id = self.now.get(name).copied();
        id.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn apply(names: &mut BTreeMap<String, usize>, renaming: &Renaming) {
    for (name, id) in renaming {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}
