//! The file `members`: who the members of the cluster are, as far as this node knows them to be
//! committed, and where they are reached.
//!
//! It is an address book: who counts stands in the log and in snapshots. It is for a node that
//! cannot read these any more, and has to ask the others. And it says whether this folder has taken
//! the place of a damaged one and was not let in yet, so that the node asks for it at each start. A
//! node that was removed does not. A node that joins says the same as soon as it asks for the first
//! time: what its log has of it until then may be taken back.
//!
//! The file is one [block] with the magic `rkvmemb\n`. Its body is, in this order: the owner, as in
//! the file `identity`; the index of the configuration; the configuration, encoded as in the log;
//! whether the node has to ask for its place. A node that joins may have to ask before it knows of
//! any member; then the configuration is empty and its index 0. If the file is missing or damaged,
//! nothing is known, and the node starts all the same.
//!
//! # What a crash may leave on disk
//!
//! The file is replaced as a whole, so it holds the old configuration or the new one.

use serde::{Deserialize, Serialize};

use crate::raft::{Index, LoggedConfiguration, MemberId};
use crate::storage::block::{self, Body};
use crate::storage::disk::{Folder, NamedFile};
use crate::storage::error::StorageError;
use crate::wire::codec::{self, DecodeError};

use super::identity::FolderOwner;

/// The name of the file that lists the members.
pub(in crate::storage) const NAME: &str = "members";

const MAGIC: &[u8; 8] = b"rkvmemb\n";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    owner: FolderOwner,
    members: LoggedConfiguration,
    begins_anew: bool,
}

impl Body for Page {
    fn decode(_format: u32, bytes: &[u8]) -> Result<Self, DecodeError> {
        let page: Self = codec::decode(bytes)?;
        if page.begins_anew && page.members == LoggedConfiguration::default() {
            return Ok(page);
        }
        let validated = page.members.configuration.validate();
        validated.map(|()| page).map_err(DecodeError::Malformed)
    }
}

/// The members that a data folder names for a node that cannot read its log any more.
pub struct AddressBook {
    folder: Folder,
    owner: FolderOwner,
    written: Option<Page>,
}

impl AddressBook {
    /// Opens the address book of a folder. What cannot be read counts as not written.
    pub(in crate::storage) fn open(folder: &Folder, owner: &FolderOwner) -> Self {
        Self {
            written: read(folder, owner).ok(),
            folder: folder.clone(),
            owner: owner.clone(),
        }
    }

    /// The configuration that the book holds.
    pub fn members(&self) -> Option<&LoggedConfiguration> {
        let members = self.written.as_ref().map(|page| &page.members);
        members.filter(|members| names_anybody(members))
    }

    /// Whether this folder has taken the place of a damaged one or has asked to be let in, and was
    /// in no committed configuration since: the node has to ask to be let in.
    pub fn begins_anew(&self) -> bool {
        self.written.as_ref().is_some_and(|page| page.begins_anew)
    }

    /// The index of the committed configuration in the book, if that has this folder; 0 if not.
    pub fn seated(&self) -> Index {
        let members = self.members().filter(|_| !self.begins_anew());
        let members = members.filter(|members| self.has_this_folder(members));
        members.map_or(0, |members| members.index)
    }

    /// Writes down a configuration that is committed, durably when this returns. Nothing is written
    /// if the book holds it already or a newer one, which a node that starts again has yet to hear
    /// of, or if it is the one that the cluster was founded with, which each node is told at its
    /// start.
    ///
    /// # Errors
    /// [`StorageError::Io`]; then the book is as it was, or holds the new configuration.
    pub fn write(&mut self, members: &LoggedConfiguration) -> Result<(), StorageError> {
        let begins_anew = self.begins_anew() && !self.has_this_folder(members);
        if members.index == 0 {
            return Ok(());
        }
        // A cluster that was made anew counts its entries anew.
        let is_newer = |known: &LoggedConfiguration| {
            let lineage = known.configuration.lineage();
            members.index > known.index || members.configuration.lineage() != lineage
        };
        if self.members().is_none_or(is_newer) {
            return self.replace(members.clone(), begins_anew);
        }
        match (begins_anew == self.begins_anew(), self.members().cloned()) {
            (false, Some(known)) => self.replace(known, begins_anew),
            _ => Ok(()),
        }
    }

    /// Writes down that the node asks to be let in, durably when this returns, so that it goes on
    /// asking after a restart until a committed configuration has its folder. Nothing is written if
    /// the book says so already, or holds a configuration that has the folder.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn ask(&mut self) -> Result<(), StorageError> {
        let members = self.members().cloned().unwrap_or_default();
        match self.begins_anew() || self.has_this_folder(&members) {
            true => Ok(()),
            false => self.replace(members, true),
        }
    }

    /// Writes the book of a folder that takes the place of a damaged one.
    pub(in crate::storage) fn begin(
        &mut self,
        members: LoggedConfiguration,
    ) -> Result<(), StorageError> {
        self.replace(members, true)
    }

    fn has_this_folder(&self, members: &LoggedConfiguration) -> bool {
        let me = MemberId {
            id: self.owner.node,
            folder: self.owner.folder,
        };
        let configuration = &members.configuration;
        let mut all = configuration.contacts();
        all.any(|member| configuration.seats(member, me))
    }

    fn replace(
        &mut self,
        members: LoggedConfiguration,
        begins_anew: bool,
    ) -> Result<(), StorageError> {
        let page = Page {
            owner: self.owner.clone(),
            members,
            begins_anew,
        };
        let block = block::seal(MAGIC, &page);
        self.folder
            .create(NAME, |file: &NamedFile| file.write(&block, 0))?;
        self.written = Some(page);
        Ok(())
    }
}

/// What the book of this owner holds.
///
/// # Errors
/// [`StorageError::Damaged`] if it is not valid; [`StorageError::Io`], also if it is missing.
pub(in crate::storage) fn members(
    folder: &Folder,
    owner: &FolderOwner,
) -> Result<LoggedConfiguration, StorageError> {
    let members = read(folder, owner)?.members;
    match names_anybody(&members) {
        true => Ok(members),
        false => Err(StorageError::Damaged {
            path: folder.path().join(NAME),
            offset: 0,
            problem: "it names no member: this node was never let in".to_string(),
            advice: "Start it with --join on an empty folder",
        }),
    }
}

fn names_anybody(members: &LoggedConfiguration) -> bool {
    members.configuration.contacts().next().is_some()
}

fn read(folder: &Folder, owner: &FolderOwner) -> Result<Page, StorageError> {
    let file = folder.open(NAME)?;
    let mut bytes = Vec::new();
    file.read_all(&mut bytes)?;
    let damaged = |problem: String| StorageError::Damaged {
        path: file.path().to_path_buf(),
        offset: 0,
        problem,
        advice: "The node does not need it, and writes it anew",
    };
    let page: Page = block::unseal(MAGIC, &bytes).map_err(|error| damaged(error.to_string()))?;
    match page.owner == *owner {
        true => Ok(page),
        false => Err(damaged(format!(
            "it belongs to {}, not to {owner}",
            page.owner
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::raft::{Configuration, Member};
    use crate::storage::{Outcome, SimDisk};

    fn book(disk: &SimDisk) -> AddressBook {
        let owner = FolderOwner {
            cluster: "test".into(),
            node: 1,
            folder: 77,
        };
        AddressBook::open(&Folder::new(Arc::new(disk.clone())), &owner)
    }

    fn logged(index: u64) -> LoggedConfiguration {
        LoggedConfiguration {
            index,
            configuration: Configuration::of_voters([1, index]),
        }
    }

    #[test]
    fn the_members_that_were_written_down_are_known_after_a_crash() {
        let disk = SimDisk::new(1);
        assert_eq!(book(&disk).members(), None);
        book(&disk).write(&logged(3)).unwrap();
        book(&disk).write(&logged(4)).unwrap();
        let lost = disk.crash_with(Outcome::Lost);
        assert_eq!(book(&lost).members(), Some(&logged(4)));
    }

    #[test]
    fn what_is_in_the_book_already_costs_no_write() {
        let disk = SimDisk::new(1);
        book(&disk).write(&logged(3)).unwrap();
        let before = disk.operations();
        book(&disk).write(&logged(3)).unwrap();
        book(&disk).write(&logged(0)).unwrap();
        assert_eq!(disk.operations(), before);
    }

    #[test]
    fn older_members_that_are_heard_of_again_after_a_restart_do_not_take_the_place_of_newer_ones() {
        let disk = SimDisk::new(1);
        book(&disk).write(&logged(4)).unwrap();
        book(&disk).write(&logged(3)).unwrap();
        assert_eq!(book(&disk).members(), Some(&logged(4)));
        // Another cluster, made of what was left of this one.
        let mut anew = logged(2);
        let members = anew.configuration.members().to_vec();
        anew.configuration = Configuration::of(9, members, Vec::new());
        book(&disk).write(&anew).unwrap();
        assert_eq!(book(&disk).members(), Some(&anew));
    }

    #[test]
    fn a_folder_that_begins_anew_says_so_until_it_is_a_member() {
        let disk = SimDisk::new(1);
        book(&disk).begin(logged(3)).unwrap();
        // Here node 1 has another folder.
        book(&disk).write(&logged(4)).unwrap();
        assert!(book(&disk.crash()).begins_anew());
        let mut let_in = logged(4);
        let member = Member {
            folder: Some(77),
            ..let_in.configuration.members()[0].clone()
        };
        let_in.configuration = Configuration::of(1, vec![member], Vec::new());
        book(&disk).write(&let_in).unwrap();
        assert!(!book(&disk.crash()).begins_anew());
        // It is removed, and stays away.
        book(&disk).write(&logged(9)).unwrap();
        assert!(!book(&disk.crash()).begins_anew());
    }

    #[test]
    fn a_folder_that_asks_to_be_let_in_says_so_until_it_is_a_member() {
        let disk = SimDisk::new(1);
        book(&disk).ask().unwrap();
        let lost = disk.crash_with(Outcome::Lost);
        assert!(book(&lost).begins_anew());
        assert_eq!(book(&lost).members(), None);
        // It reads of members in its log, and is none of them.
        book(&disk).write(&logged(4)).unwrap();
        assert!(book(&disk).begins_anew());
        let mut let_in = logged(5);
        let member = Member {
            folder: Some(77),
            ..let_in.configuration.members()[0].clone()
        };
        let_in.configuration = Configuration::of(1, vec![member], Vec::new());
        book(&disk).write(&let_in).unwrap();
        // The thread that asks may come a little later than the one that writes this down.
        book(&disk).ask().unwrap();
        assert!(!book(&disk.crash()).begins_anew());
    }

    #[test]
    fn a_damaged_book_knows_nobody_and_is_written_anew() {
        let disk = SimDisk::new(1);
        book(&disk).write(&logged(3)).unwrap();
        disk.flip_bit(NAME, 100, 2);
        assert_eq!(book(&disk).members(), None);
        book(&disk).write(&logged(3)).unwrap();
        assert_eq!(book(&disk).members(), Some(&logged(3)));
    }
}
