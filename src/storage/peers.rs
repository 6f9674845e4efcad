//! Whom this node knows, and whether the others know it.
//!
//! A node whose folder was wiped has forgotten its votes and its entries. If it came back under its
//! old id as if nothing had happened, it could vote a second time in a term, or elect a leader that
//! lacks what it had acknowledged. So every folder has a number, drawn when it is made, and
//!
//! - each node writes down the number of every other node's folder when it first hears from it, and
//!   from then on refuses that id with another folder;
//! - a node does not vote before so many others have welcomed it that no majority could have
//!   counted on a former folder of its without one of them knowing: of `n` nodes, `n / 2` rounded
//!   up. Two such sets of others always share a node.
//!
//! So the nodes of a new cluster vote as soon as they have met, with no flag to tell a first start
//! from a later one, and a wiped node is kept out by whoever knew it.
//!
//! The file `peers` is one [block](super::block) with the magic `rkvpeer\n`. Its body is, in this
//! order: the owner as in the file [`identity`](super::identity); whether this node may vote; the
//! number of nodes known, and for each its id and the number of its folder. A change replaces the
//! file as a whole. If it is missing, nobody is known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::raft::NodeId;

use super::block;
use super::error::StorageError;
use super::folder::{File, Folder};
use super::identity::Owner;

/// The name of the file.
pub(super) const NAME: &str = "peers";

const MAGIC: &[u8; 8] = b"rkvpeer\n";

const ADVICE: &str = "Check the disk. If the other files are sound, remove this one: the node \
    then votes again once the others have welcomed it";

/// What a node knows of the folders of its cluster, durably.
pub struct Peers {
    folder: Folder,
    book: Book,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    owner: Owner,
    may_vote: bool,
    folders: BTreeMap<NodeId, u128>,
}

/// Whether a peer has the folder that it is known with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    /// It has, or it was not known before and is now.
    Known,
    /// It has another one: what this node knew of it is not in there.
    OtherFolder,
}

impl Peers {
    /// Reads the file of a folder.
    pub(super) fn open(folder: &Folder, owner: &Owner) -> Result<Self, StorageError> {
        let book = match folder.list()?.iter().any(|name| name == NAME) {
            true => read(folder, owner)?,
            false => Book {
                owner: owner.clone(),
                may_vote: false,
                folders: BTreeMap::new(),
            },
        };
        Ok(Self {
            folder: folder.clone(),
            book,
        })
    }

    /// The number of this node's own folder.
    pub fn own_folder(&self) -> u128 {
        self.book.owner.folder
    }

    /// Whether enough others have welcomed this node with this folder.
    pub fn may_vote(&self) -> bool {
        self.book.may_vote
    }

    /// Enough others have welcomed this node: remembers it.
    ///
    /// # Errors
    /// [`StorageError`] if the file cannot be written; then nothing has changed.
    pub fn admit(&mut self) -> Result<(), StorageError> {
        self.change(|book| book.may_vote = true)
    }

    /// A peer comes with this folder. Its first one is remembered, durably, before this returns.
    ///
    /// # Errors
    /// [`StorageError`] if the file cannot be written; then nothing has changed.
    pub fn meet(&mut self, peer: NodeId, folder: u128) -> Result<Acquaintance, StorageError> {
        match self.book.folders.get(&peer) {
            Some(known) if *known == folder => Ok(Acquaintance::Known),
            Some(_) => Ok(Acquaintance::OtherFolder),
            None => {
                self.change(|book| {
                    book.folders.insert(peer, folder);
                })?;
                Ok(Acquaintance::Known)
            }
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Book)) -> Result<(), StorageError> {
        let mut book = self.book.clone();
        change(&mut book);
        let block = block::seal(MAGIC, &book);
        self.folder
            .create(NAME, |file: &File| file.write(&block, 0))?;
        self.book = book;
        Ok(())
    }
}

fn read(folder: &Folder, owner: &Owner) -> Result<Book, StorageError> {
    let damaged = |problem| StorageError::Damaged {
        path: folder.path().join(NAME),
        offset: 0,
        problem,
        advice: ADVICE,
    };
    let mut bytes = Vec::new();
    folder.open(NAME)?.read_all(&mut bytes)?;
    let book: Book = block::unseal(MAGIC, &bytes).map_err(|error| damaged(error.to_string()))?;
    match book.owner == *owner {
        true => Ok(book),
        false => Err(damaged(format!(
            "it belongs to {}, not to {owner}",
            book.owner
        ))),
    }
}

/// By how many others a node of a cluster of `size` must be welcomed before it votes.
///
/// Whoever counted on a former folder did so after as many others had written it down. Two sets of
/// so many of the `size - 1` others have a node in common.
pub fn welcomes_needed(size: usize) -> usize {
    match size {
        0 | 1 => 0,
        _ => size.div_ceil(2),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::SimDisk;

    fn owner() -> Owner {
        Owner {
            cluster: "test".into(),
            node: 1,
            folder: 77,
        }
    }

    fn open(disk: &SimDisk) -> Result<Peers, StorageError> {
        Peers::open(&Folder::new(Arc::new(disk.clone())), &owner())
    }

    #[test]
    fn the_first_folder_of_a_peer_is_remembered_across_a_crash_and_another_is_noticed() {
        let disk = SimDisk::new(1);
        let mut peers = open(&disk).unwrap();
        assert_eq!(peers.meet(2, 5).unwrap(), Acquaintance::Known);
        let mut peers = open(&disk.crash()).unwrap();
        assert_eq!(peers.meet(2, 5).unwrap(), Acquaintance::Known);
        assert_eq!(peers.meet(2, 6).unwrap(), Acquaintance::OtherFolder);
        assert_eq!(peers.meet(3, 6).unwrap(), Acquaintance::Known);
    }

    #[test]
    fn a_node_votes_once_it_was_admitted_and_ever_after() {
        let disk = SimDisk::new(1);
        let mut peers = open(&disk).unwrap();
        assert!(!peers.may_vote());
        peers.admit().unwrap();
        assert!(open(&disk.crash()).unwrap().may_vote());
    }

    #[test]
    fn what_cannot_be_written_down_is_not_known() {
        let disk = SimDisk::new(1);
        let mut peers = open(&disk).unwrap();
        disk.fail_at(disk.operations());
        assert!(peers.meet(2, 5).is_err());
        disk.heal();
        assert_eq!(peers.meet(2, 6).unwrap(), Acquaintance::Known);
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_an_empty_one() {
        let disk = SimDisk::new(1);
        open(&disk).unwrap().meet(2, 5).unwrap();
        disk.flip_bit(NAME, 20, 3);
        assert!(matches!(open(&disk), Err(StorageError::Damaged { .. })));
    }

    /// Two sets of welcomes have a node in common, whichever nodes they are of.
    #[test]
    fn no_two_folders_of_one_node_can_both_be_admitted() {
        for size in 2..20 {
            let (others, needed) = (size - 1, welcomes_needed(size));
            assert!(needed <= others && 2 * needed > others, "{size} nodes");
        }
    }
}
