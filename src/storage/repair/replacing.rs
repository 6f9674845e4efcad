//! Puts a new folder in the place of a data folder, which stays under another name.
//!
//! Let the folder be `1`, and the name that it gets `1.damaged-1`. The steps, each durable before
//! the next:
//!
//! 1. What an interrupted attempt has left is removed: `1.healing`, and `1.healed`, which gets the
//!    other name before.
//! 2. The new folder is made under the name `1.healing`, with all that it is to hold.
//! 3. It is complete: `1.healing` is renamed to `1.healed`.
//! 4. `1` is renamed to `1.damaged-1`.
//! 5. `1.healed` is renamed to `1`.
//!
//! # What a crash may leave on disk
//!
//! - *Before step 4* the folder is as it was, and whoever opens it decides anew what is to be done.
//! - *Between steps 4 and 5* there is no folder `1`. A node that started there would make a new
//!   one, and forget why. So every start looks for a complete folder first, and takes step 5: see
//!   [`finish_interrupted`]. Only a folder that has got through step 2 has such a name.
//! - *After step 5* all is done.
//!
//! If somebody removes `1` after a crash before step 4, the next start finds a complete folder of
//! an earlier attempt. That is safe when a damaged folder was to be replaced, because the new one
//! counts no more than an empty one. It is not when the folder made a cluster of its own, so that
//! one only [`finish_recovery`] puts in its place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::disk::{Disk, Parent, RealParent};
use crate::storage::error::StorageError;

/// Why a folder is replaced: the names of the new one follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The folder is damaged.
    Healing,
    /// A majority of the cluster is lost.
    Recovering,
}

/// A data folder that is to be replaced, by its name in the folder above.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) parent: Arc<dyn Parent>,
    pub(super) name: String,
}

impl Place {
    /// The data folder at this path, which must be there. Links on the way to it are followed, so
    /// that the folder is replaced where it lies.
    pub(super) fn of(path: &Path) -> Result<Self, StorageError> {
        let real = std::fs::canonicalize(path).map_err(at(path, "open the data folder"))?;
        Self::named(&real)
    }

    /// The data folder at this path, which need not be there.
    fn named(path: &Path) -> Result<Self, StorageError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| StorageError::Unusable {
            path: path.to_path_buf(),
            problem: "it cannot be renamed".into(),
            advice: "Give it a name of its own, which is UTF-8",
        })?;
        let above = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            parent: Arc::new(RealParent::new(above)),
            name: name.into(),
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    fn with(&self, ending: &str) -> String {
        format!("{}.{ending}", self.name)
    }

    /// The names of the new folder: while it is made, and when it is complete.
    fn names(&self, purpose: Purpose) -> (String, String) {
        match purpose {
            Purpose::Healing => (self.with("healing"), self.with("healed")),
            Purpose::Recovering => (self.with("recovering"), self.with("recovered")),
        }
    }

    fn has(&self, name: &str) -> Result<bool, StorageError> {
        let path = self.parent.path().join(name);
        self.parent.has(name).map_err(at(&path, "look for"))
    }

    /// The first of `NAME.ENDING`, `NAME.ENDING-2` and so on that is free; with `counts_from_one`
    /// the first is `NAME.ENDING-1`.
    pub(super) fn free_name(
        &self,
        ending: &str,
        counts_from_one: bool,
    ) -> Result<String, StorageError> {
        let mut number = 1;
        loop {
            let name = match number {
                1 if !counts_from_one => self.with(ending),
                _ => self.with(&format!("{ending}-{number}")),
            };
            if !self.has(&name)? {
                return Ok(name);
            }
            number += 1;
        }
    }

    /// Takes all the steps: `make` fills the new folder, and all that it wrote must be durable when
    /// it returns. Until then the folder that is replaced is as it was.
    ///
    /// The caller has locked the folder that is replaced, and keeps the lock meanwhile.
    pub(super) fn replace<T>(
        &self,
        purpose: Purpose,
        aside: &str,
        make: impl FnOnce(Arc<dyn Disk>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        // Of either purpose: the next start must find no other complete folder than this one.
        for purpose in [Purpose::Healing, Purpose::Recovering] {
            self.remove_left(purpose)?;
        }
        let (making, complete) = self.names(purpose);
        let made = make(self.parent.open(&making)?)?;
        self.rename(&making, &complete)?;
        self.rename(&self.name, aside)?;
        self.rename(&complete, &self.name)?;
        Ok(made)
    }

    /// Removes what an interrupted attempt has left. A complete folder first loses its name: a
    /// crash may interrupt its removal, too.
    fn remove_left(&self, purpose: Purpose) -> Result<(), StorageError> {
        let (making, complete) = self.names(purpose);
        self.remove(&making)?;
        if self.has(&complete)? {
            self.rename(&complete, &making)?;
            self.remove(&making)?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        if !self.has(name)? {
            return Ok(());
        }
        let path = self.parent.path().join(name);
        self.parent.remove(name).map_err(at(&path, "remove"))?;
        self.sync()
    }

    /// Renames a folder, durably.
    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let path = self.parent.path().join(to);
        let renamed = self.parent.rename(from, to);
        renamed.map_err(at(&path, "rename a folder to"))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StorageError> {
        let synced = self.parent.sync();
        synced.map_err(at(self.parent.path(), "sync the folder"))
    }

    /// Takes the last step, if a crash came before it. Returns whether it did.
    pub(super) fn finish(&self, purpose: Purpose) -> Result<bool, StorageError> {
        let complete = self.names(purpose).1;
        if self.has(&self.name)? || !self.has(&complete)? {
            return Ok(false);
        }
        match self.rename(&complete, &self.name) {
            // Another process was faster.
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(false)
            }
            renamed => renamed.map(|()| true),
        }
    }
}

/// To be called before a node's data folder is opened, or made: takes the last step of replacing
/// it, if a crash came before that.
///
/// # Errors
/// [`StorageError::Unusable`] if a recovery of the folder was interrupted; [`StorageError::Io`].
pub fn finish_interrupted(folder: &Path) -> Result<(), StorageError> {
    // A folder without a name of its own, such as `/`, is never replaced.
    match Place::named(&linked(folder)) {
        Ok(place) => place.finish_interrupted(),
        Err(_) => Ok(()),
    }
}

/// Like [`finish_interrupted`], for the folder of this name in `parent`.
pub(in crate::storage) fn finish_interrupted_in(
    parent: Arc<dyn Parent>,
    name: &str,
) -> Result<(), StorageError> {
    let name = name.to_string();
    Place { parent, name }.finish_interrupted()
}

/// Where the folder lies if the path is that of a link, also while it is not there.
fn linked(path: &Path) -> PathBuf {
    match std::fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => path.to_path_buf(),
    }
}

impl Place {
    fn finish_interrupted(&self) -> Result<(), StorageError> {
        if self.finish(Purpose::Healing)? {
            let folder = self.path();
            log::info!(
                "{} was set aside, and a new folder has its place",
                folder.display()
            );
        }
        let recovered = self.names(Purpose::Recovering).1;
        if self.has(&self.name)? || !self.has(&recovered)? {
            return Ok(());
        }
        Err(StorageError::Unusable {
            path: self.parent.path().join(recovered),
            problem: format!(
                "the recovery that was to put it in the place of {} was interrupted",
                self.path().display()
            ),
            advice: "Repeat `kvnode recover`, which finishes it",
        })
    }
}

/// The complete folder of a recovery that was interrupted before its last step, if there is one. It
/// may be old: while the folder that it was made from was in its place, nobody had to finish.
///
/// # Errors
/// [`StorageError::Io`].
pub fn interrupted_recovery(folder: &Path) -> Result<Option<PathBuf>, StorageError> {
    let Ok(place) = Place::named(&linked(folder)) else {
        return Ok(None);
    };
    let complete = place.names(Purpose::Recovering).1;
    let is_left = !place.has(&place.name)? && place.has(&complete)?;
    Ok(is_left.then(|| place.parent.path().join(complete)))
}

/// Takes the last step of a recovery, if it was interrupted before that: the folder at this path is
/// gone, and the new one is complete. Returns whether there was such a recovery.
///
/// # Errors
/// [`StorageError::Io`].
pub fn finish_recovery(folder: &Path) -> Result<bool, StorageError> {
    match Place::named(&linked(folder)) {
        Ok(place) => place.finish(Purpose::Recovering),
        Err(_) => Ok(false),
    }
}

/// Like [`finish_recovery`], for the folder of this name in `parent`.
///
/// # Errors
/// As [`finish_recovery`].
pub fn finish_recovery_in(parent: Arc<dyn Parent>, name: &str) -> Result<bool, StorageError> {
    let name = name.to_string();
    Place { parent, name }.finish(Purpose::Recovering)
}

pub(super) fn at(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |source| StorageError::Io {
        path,
        operation,
        source,
    }
}
