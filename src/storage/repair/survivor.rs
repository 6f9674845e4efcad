//! A cluster of one, made from the folder of a node that has survived the loss of a majority.
//!
//! Without a majority nothing can be committed any more, and nobody can tell from one folder what
//! the lost nodes had acknowledged without it. So this is for an operator who has decided that
//! those nodes will not come back. What this node has becomes the state of a new cluster: the
//! newest snapshot and *all* entries behind it, whether they were committed or not. An entry that
//! was not may be in the state now; that is what a client is told, too, whose write has an unknown
//! outcome.
//!
//! The new folder has a number of its own, and a configuration with this node alone, which has a
//! lineage of its own. Nodes of the old cluster address the old folder, so their messages are
//! refused here; and their configurations do not have the new folder, so they refuse this node's.
//! Both sides refuse to be of one cluster with another lineage. So whatever the old nodes do when
//! they come back, the two clusters never decide together.
//!
//! Terms and indexes go on from those of the old cluster, and the client sessions are a part of the
//! state: a command that a client repeats is executed once, also if the old cluster executed it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raft::{
    Configuration, Entry, EntryId, FolderId, HardState, LoggedConfiguration, Member, MemberRole,
    Payload, SnapshotMeta, Term, Write,
};
use crate::storage::disk::{Disk, Folder, Parent};
use crate::storage::error::StorageError;
use crate::storage::log::replay;
use crate::storage::recovery::{self, Fit};
use crate::storage::snapshot::{self, SnapshotInfo, SnapshotOwner, SnapshotReader};
use crate::storage::voter::identity::{self, FolderOwner, Identity};
use crate::storage::voter::vote;
use crate::storage::{Options, Storage};

use super::replacing::{Place, Purpose, at};

/// The folder of a node that has survived, as far as it was read. No other process opens the folder
/// as long as this value is there.
pub struct Survivor {
    place: Place,
    disk: Arc<dyn Disk>,
    identity: Identity,
    options: Options,
    owner: FolderOwner,
    /// The node's term; `None` if the file with it is damaged. A cluster of one with another folder
    /// needs no earlier promise.
    term: Option<Term>,
    snapshot: Option<SnapshotInfo>,
    entries: Vec<Entry>,
    last: EntryId,
}

/// What a recovery has made.
#[derive(Debug)]
pub struct Recovery {
    /// Where the folder is now that the new one was made from.
    pub aside: PathBuf,
    /// The number of the new folder.
    pub folder: FolderId,
    /// The snapshot that the new folder begins with.
    pub snapshot: SnapshotInfo,
}

impl Survivor {
    /// Reads the data folder at this path. Nothing is changed.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if a node runs on it; [`StorageError::Damaged`] if a part of its
    /// log is; [`StorageError::Unusable`] if it holds no entry; as for a node's start.
    pub fn find(path: &Path) -> Result<Self, StorageError> {
        Self::look(Place::of(path)?, Options::default())
    }

    /// As [`find`](Self::find), for the folder of this name in `parent`. The new folder gets a log
    /// with these options.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_in(
        parent: Arc<dyn Parent>,
        name: &str,
        options: Options,
    ) -> Result<Self, StorageError> {
        let name = name.to_string();
        Self::look(Place { parent, name }, options)
    }

    fn look(place: Place, options: Options) -> Result<Self, StorageError> {
        let disk = place.parent.look(&place.name)?;
        let folder = Folder::new(disk.clone());
        let (owner, identity) = identity::look(&folder)?;
        let term = match vote::read(&folder, &owner) {
            Ok(found) => Some(found.state().term),
            Err(StorageError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut snapshots = recovery::find(&folder, &SnapshotOwner::from(&identity))?;
        let base = snapshots.last();
        let (mut replay, _) = replay::read(&folder, &owner, &options, base.index)?;
        let (last, entries) = match snapshots.fit(&folder, &mut replay)? {
            Fit::GoesOn => (replay.outline.last(), replay.entries),
            Fit::StartsAnew => (base, Vec::new()),
        };
        if last.index == 0 {
            return Err(StorageError::Unusable {
                path: place.path(),
                problem: "its log is empty, so there is nothing to recover".into(),
                advice: "Choose the folder of another node",
            });
        }
        Ok(Self {
            place,
            disk,
            identity,
            options,
            owner,
            term,
            snapshot: snapshots.newest,
            entries,
            last,
        })
    }

    /// Whose folder it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The number of the folder.
    pub fn folder(&self) -> FolderId {
        self.owner.folder
    }

    /// The newest snapshot, up to which all is known to be committed.
    pub fn snapshot(&self) -> Option<&SnapshotInfo> {
        self.snapshot.as_ref()
    }

    /// The entries of the log behind the snapshot.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The last entry of the log, or of the snapshot if there is none behind it.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The last configuration in the log or in the snapshot; `None` if no folders were ever logged.
    pub fn members(&self) -> Option<LoggedConfiguration> {
        let logged = self.entries.iter().rev().find_map(|entry| {
            let Payload::Configuration(configuration) = &entry.payload else {
                return None;
            };
            Some(LoggedConfiguration {
                index: entry.id.index,
                configuration: (**configuration).clone(),
            })
        });
        let carried = self.snapshot.as_ref().map(|info| &info.meta.configuration);
        logged.or_else(|| carried.cloned())
    }

    /// Opens the snapshot to read its state.
    ///
    /// # Errors
    /// As [`Snapshots::open`](crate::storage::Snapshots::open).
    pub fn open_snapshot(&self) -> Result<Option<SnapshotReader>, StorageError> {
        let owner = SnapshotOwner::from(&self.identity);
        let folder = Folder::new(self.disk.clone());
        let last = self.snapshot.as_ref().map(|info| info.meta.last);
        last.map(|last| snapshot::open(&folder, &owner, last))
            .transpose()
    }

    /// Makes the folder of a cluster that consists of this node alone, reached at `address`, and
    /// puts it in the place of the folder, which stays as `NAME.before-recover`; see
    /// [`replacing`](super::replacing) for the steps. `write_state` writes the state of the machine
    /// as of [`last`](Self::last).
    ///
    /// # Errors
    /// [`StorageError::Io`]; then the folder is as it was, or a repetition finishes the work.
    pub fn recover(
        &self,
        address: &str,
        write_state: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<Recovery, StorageError> {
        let aside = self.place.free_name("before-recover", false)?;
        let made = self.place.replace(Purpose::Recovering, &aside, |new| {
            self.fill(new, address, write_state)
        });
        let (folder, snapshot) = made?;
        Ok(Recovery {
            aside: self.place.parent.path().join(aside),
            folder,
            snapshot,
        })
    }

    /// Fills the new folder; all of it is durable when this returns.
    fn fill(
        &self,
        new: Arc<dyn Disk>,
        address: &str,
        write_state: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(FolderId, SnapshotInfo), StorageError> {
        let path = new.folder().to_path_buf();
        let lineage = new.unique_id().max(2);
        let (mut storage, _) = Storage::open(new, &self.identity, self.options.clone())?;
        let folder = storage.own_folder();
        storage.peers()?.found_no_more()?;
        let member = Member {
            id: self.identity.node,
            folder: Some(folder),
            address: address.into(),
            role: MemberRole::Voter,
        };
        let configuration = LoggedConfiguration {
            index: self.last.index,
            configuration: Configuration::of(lineage, vec![member], Vec::new()),
        };
        storage.address_book().write(&configuration)?;
        // The new cluster leads in no term that the old one may have used up to here: an election
        // begins a higher one.
        storage.write(&Write {
            id: 0,
            hard_state: Some(HardState {
                term: self.last.term.max(self.term.unwrap_or(0)),
                vote: None,
            }),
            entries: Vec::new(),
            restart: None,
        })?;
        let time_ms = self.entries.last().map(|entry| entry.time_ms);
        let carried = self.snapshot.as_ref().map(|info| info.meta.time_ms);
        let mut writer = storage.snapshots().create(SnapshotMeta {
            last: self.last,
            time_ms: time_ms.or(carried).unwrap_or(0),
            configuration,
        })?;
        let written = write_state(&mut writer).and_then(|()| writer.flush());
        written.map_err(|error| match error.downcast() {
            Ok(error) => error,
            Err(error) => at(&path, "write the state to")(error),
        })?;
        Ok((folder, writer.finish()?))
    }
}
