//! A damaged data folder is set aside, and its node begins anew beside it, as another member.
//!
//! # What is kept, and why no more
//!
//! A node has made promises: its vote in a term, and the entries that it has acknowledged. Others
//! count on them. Of a damaged folder nobody can tell which promise the damaged bytes held. The
//! known mistake is to cut the log at the damage and to go on ("Protocol-Aware Recovery for
//! Consensus-Based Storage", FAST 2018, section 2.3): the node then votes for a candidate that
//! lacks an entry which this node had helped to commit, and the entry is lost. The same holds for
//! the vote, for nobody else can tell how the node voted.
//!
//! So the node keeps no promise, and breaks none: it becomes somebody else. The new folder has
//! another number, so it is another member, for which no vote and no acknowledgement was ever
//! counted. It counts again only when the cluster has let it in by a change of its members, as a
//! learner first, and has made it a voter when it had caught up. That change is committed without
//! the damaged folder: by a majority that has everything that was ever committed.
//!
//! Kept is what is no promise but a fact: the newest snapshot that verifies wholly, if it names the
//! cluster's lineage. A snapshot is
//! of committed entries only, so no leader that may come contradicts it, whoever holds it. It saves
//! the way over the network. The node's term begins with the term of the snapshot's last entry, and
//! it has given no vote. Both are safe because nobody asks the new folder for a vote before it is a
//! member: a candidate names in its request the folder that its configuration has for this node,
//! and who knows no folder of the node gets no answer from one that is not admitted. (The core
//! decides this, in `raft/standing.rs`.) The address book is kept, too. The node may not found its
//! cluster: it has seen that the cluster exists.
//!
//! # What is damage, and what is not
//!
//! [`StorageError::Damaged`] alone: something that was durable is missing or changed. The error
//! tells the identity, the vote, the log, the snapshots, and the file `peers`. No damage are: a
//! folder that is locked, that belongs to another node, cluster or state machine or has a newer
//! format, that may not be read, or a read that the disk refuses. Then another folder, another
//! version or another permission is what is needed, and the folder is left alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raft::{Configuration, FolderId, HardState, LoggedConfiguration, Write};
use crate::storage::disk::{Disk, Folder, Parent};
use crate::storage::error::StorageError;
use crate::storage::snapshot::{self, SnapshotInfo, SnapshotOwner};
use crate::storage::voter::identity::{self, FolderOwner, Identity};
use crate::storage::voter::members;
use crate::storage::{Options, Storage, archive, recovery};

use super::replacing::{Place, Purpose};

/// A data folder that is damaged, locked against other processes.
pub struct DamagedFolder {
    place: Place,
    disk: Arc<dyn Disk>,
    identity: Identity,
    options: Options,
    owner: FolderOwner,
    problem: StorageError,
    founders: Option<Configuration>,
}

/// What was done with a damaged folder.
#[derive(Debug)]
pub struct SetAside {
    /// Where the damaged folder is now.
    pub aside: PathBuf,
    /// The number of the new folder.
    pub folder: FolderId,
    /// The snapshot that the new folder took over, if one was sound.
    pub snapshot: Option<SnapshotInfo>,
}

impl DamagedFolder {
    /// Looks whether the data folder at this path, which must be there, is damaged. `None` if it is
    /// sound. Nothing is changed.
    ///
    /// # Errors
    /// Whatever keeps a node from opening the folder and is no damage.
    pub fn find(path: &Path, identity: &Identity) -> Result<Option<Self>, StorageError> {
        Self::look(Place::of(path)?, identity, Options::default())
    }

    /// As [`find`](Self::find), for the folder of this name in `parent`. The new folder gets a log
    /// with these options.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_in(
        parent: Arc<dyn Parent>,
        name: &str,
        identity: &Identity,
        options: Options,
    ) -> Result<Option<Self>, StorageError> {
        let name = name.to_string();
        Self::look(Place { parent, name }, identity, options)
    }

    fn look(
        place: Place,
        identity: &Identity,
        options: Options,
    ) -> Result<Option<Self>, StorageError> {
        let disk = place.parent.open(&place.name)?;
        let folder = Folder::new(disk.clone());
        let Some((owner, problem)) = problem_of(&folder, identity, &options)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            place,
            disk,
            identity: identity.clone(),
            options,
            owner,
            problem,
            founders: None,
        }))
    }

    /// Whom the node is to found its cluster with, as it was told. If nothing in the folder names
    /// members, the new folder asks these to be let in.
    #[must_use]
    pub fn with_founders(mut self, founders: Configuration) -> Self {
        self.founders = Some(founders).filter(|founders| !founders.is_empty());
        self
    }

    /// What is wrong with the folder.
    pub fn problem(&self) -> &StorageError {
        &self.problem
    }

    /// The number of the damaged folder.
    pub fn folder(&self) -> FolderId {
        self.owner.folder
    }

    /// The members that the folder's address book names.
    pub fn members(&self) -> Option<LoggedConfiguration> {
        members::members(&Folder::new(self.disk.clone()), &self.owner).ok()
    }

    /// Sets the folder aside, as `NAME.damaged-N`, and puts a new one in its place; see
    /// [`replacing`](super::replacing) for the steps.
    ///
    /// The caller has made sure that the cluster will let the new folder in.
    ///
    /// # Errors
    /// [`StorageError::Io`]; then the folder is as it was, or the next start finishes the work.
    pub fn set_aside(self) -> Result<SetAside, StorageError> {
        let aside = self.place.free_name("damaged", true)?;
        let (folder, snapshot) = self
            .place
            .replace(Purpose::Healing, &aside, |new| self.renew(new))?;
        Ok(SetAside {
            aside: self.place.parent.path().join(aside),
            folder,
            snapshot,
        })
    }

    /// Fills the new folder; all of it is durable when this returns.
    fn renew(&self, new: Arc<dyn Disk>) -> Result<(FolderId, Option<SnapshotInfo>), StorageError> {
        let old = Folder::new(self.disk.clone());
        let options = self.options.clone();
        let (mut storage, _) = Storage::open(new.clone(), &self.identity, options)?;
        storage.peers()?.found_no_more()?;
        let owner = SnapshotOwner::from(&self.identity);
        let sound = newest_sound(&old, &owner)?;
        let carried = sound.as_ref().map(|info| info.meta.configuration.clone());
        let founders = self.founders.clone().map(LoggedConfiguration::founding);
        if let Some(known) = self.members().or(carried).or(founders) {
            storage.address_book().begin(known)?;
        }
        // A snapshot from before the members were in the log names no lineage. The leader could not
        // tell whether it is of this cluster, and would not let the folder in.
        let is_ours = |info: &SnapshotInfo| !info.meta.configuration.configuration.is_founding();
        let Some(info) = sound.filter(is_ours) else {
            return Ok((storage.own_folder(), None));
        };
        let last = info.meta.last;
        storage.write(&Write {
            id: 0,
            hard_state: Some(HardState {
                term: last.term,
                vote: None,
            }),
            entries: Vec::new(),
            restart: None,
        })?;
        let name = snapshot::name(last);
        archive::copy_into(&old.open(&name)?, &Folder::new(new), &name)?;
        Ok((storage.own_folder(), Some(info)))
    }
}

/// What is wrong with the folder, and whose folder it is; `None` if it is sound.
fn problem_of(
    folder: &Folder,
    wanted: &Identity,
    options: &Options,
) -> Result<Option<(FolderOwner, StorageError)>, StorageError> {
    let names = folder.list()?;
    let owner = match identity::read(folder, &names, wanted) {
        Ok(Some(found)) => found.owner,
        // An empty folder, or one whose making was interrupted.
        Ok(None) => return Ok(None),
        Err(error @ StorageError::Damaged { .. }) => {
            // Nobody can say whose folder it is, if no other file does: it stays as it is.
            return match identity::owner_elsewhere(folder, &names, wanted)? {
                Some(owner) => Ok(Some((owner, error))),
                None => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    let snapshot_owner = SnapshotOwner::from(wanted);
    match recovery::read(folder, &owner, &snapshot_owner, options) {
        Ok(_) => Ok(None),
        Err(error @ StorageError::Damaged { .. }) => Ok(Some((owner, error))),
        Err(error) => Err(error),
    }
}

/// The newest snapshot of which every byte verifies.
fn newest_sound(
    folder: &Folder,
    owner: &SnapshotOwner,
) -> Result<Option<SnapshotInfo>, StorageError> {
    let names = folder.list()?;
    let mut lasts: Vec<_> = names.iter().filter_map(|n| snapshot::last_of(n)).collect();
    lasts.sort_unstable_by_key(|last| std::cmp::Reverse((last.index, last.term)));
    let mut sound = lasts.into_iter();
    Ok(sound.find_map(|last| snapshot::verify(folder, owner, last).ok()))
}
