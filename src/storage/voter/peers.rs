//! The file `peers`: which folders the other founders have, and whether this node's own folder
//! counts towards majorities before the log says so.
//!
//! A node whose data folder was lost has forgotten its votes and its entries. If it came back under
//! its old id as if nothing had happened, it could vote a second time in a term, or help to elect a
//! leader that lacks an entry which the node had acknowledged. So every folder has a random number,
//! drawn when the folder is made, and members are named by id *and* folder. Which folder a member
//! has stands in the log, as part of the configuration. Only before the first configuration is in
//! the log does nobody know the folders; until then these rules hold:
//!
//! 1. A node that was started with a list of founders is *founding* until its newest configuration
//!    is one of the log, unless it was told before that the cluster exists (rule 3).
//! 2. When a founding node first hears from another founder, which was given the same list of ids,
//!    it writes the number of that node's folder down. The number is durable before the other node
//!    is told. From then on no other folder of that node is written down. The nodes that wrote a
//!    folder down are its *witnesses*. A folder is *admitted* once it has [`welcomes_needed`]
//!    witnesses. The folder's node writes this to its own file before it acts on it. Until then the
//!    node answers nobody who knows only its id: it does not vote or stand for election,
//!    acknowledges no entry and no snapshot, confirms no read, and keeps no leader in office.
//!    [`Raft`](crate::raft::Raft) enforces this where messages leave
//!    ([`Config::admitted`](crate::raft::Config::admitted)).
//! 3. A node that is not founding is nobody's witness ([`may_witness`]). It tells the caller
//!    whether the caller's folder stands in its configuration. A node that is not admitted, and
//!    hears that its folder does not stand in a configuration of the log,
//!    [founds no more](Peers::found_no_more): it is no witness any more and is never admitted. It
//!    can become a member by a change of members only.
//!
//! ## Why no acknowledged entry is lost
//!
//! Let `f` be the largest minority of `n` founders: as many as may fail. A founder is *blank* from
//! the moment at which it has lost its folder, until it *comes back*: until a configuration with
//! its new folder is committed. At most `f` founders may be blank at the same time. Let C1 be the
//! first configuration of the log that is committed. It is on a majority of `q` founders.
//!
//! **Before C1 is committed** nobody comes back, so at most `f` folders are lost in all.
//!
//! - Two folders of one node are never both admitted. Each needs `w = welcomes_needed(n)` witnesses
//!   among the `n - 1` others, so at least `2 * w - (n - 1)` nodes are witnesses of both. `w` is
//!   chosen so that this number is at least `f` and at least 1. The node itself has lost a folder,
//!   so at most `f - 1` of the others have lost one. So one of the common witnesses never lost its
//!   own folder. It wrote one of the two numbers down first, and never wrote the other one down.
//! - So each node has at most one folder that ever counts. After a folder that counted is lost,
//!   neither that folder nor its successor counts again: for every majority the node has crashed
//!   for good. The loss of a folder that never counted changes no majority.
//! - This is the case that Raft is made for. A majority that commits an entry and a later majority
//!   that elects a leader have a node in common, with the same folder in both. This node has the
//!   entry, and refuses a candidate without it (paper 5.4.3).
//!
//! | nodes | may fail (`f`) | majority | witnesses needed (`w`) | in common at least |
//! | --- | --- | --- | --- | --- |
//! | 3 | 1 | 2 | 2 of 2 | 2 |
//! | 4 | 1 | 3 | 2 of 3 | 1 |
//! | 5 | 2 | 3 | 3 of 4 | 2 |
//! | 7 | 3 | 4 | 5 of 6 | 4 |
//!
//! For example, take five nodes L, X, Y, Z and C, where C is new and has met only L. An entry is on
//! L, X and C. C does not acknowledge the entry, because C has one witness and needs three. So the
//! entry is not committed. Suppose that C did acknowledge it, lost its folder, and L failed. Then
//! X, Y and Z would admit C's next folder, and Y, Z and C could elect a leader without the entry.
//!
//! **From C1 on** the folders are in the log, and Raft's own argument holds for pairs of id and
//! folder: a quorum of one configuration and a quorum of the next one share a member. Only a
//! candidate that has no configuration of the log asks by ids alone. It needs `q` founders that
//! vote for it, and those that hold a configuration of the log refuse: their logs are longer. What
//! is left are *laggards*, founders that never got a configuration of the log, and blank founders
//! whose new folder is admitted. They are never `q`. Let `t` be the last moment at which C1 was
//! committed or somebody came back. What was committed then is on `q` founders that were not blank.
//! Let `b` founders be blank at `t`; so the laggards are `n - q - b` at most from then on.
//!
//! - A founder that is blank since before `t` may be admitted, by witnesses that came back one
//!   after the other, each after it was a witness. But these founders and the laggards are `n - q`
//!   at most, which is less than `q`.
//! - A founder that held a configuration of the log and has gone blank after `t` is not admitted.
//!   Its witnesses have held none after `t`: they are the laggards, and `f - 1` other blank
//!   founders. As long as no new folder has taken the place of an old one in the log, the old
//!   folder in question was admitted, so that its own witnesses among the laggards refuse:
//!
//!   | nodes | `q` | `w` | laggards | of these did not meet the old folder, at most | other blank founders | enough for `w`? |
//!   | --- | --- | --- | --- | --- | --- | --- |
//!   | 3 | 2 | 2 | 1 | 0: both others have met it | 0 | no |
//!   | 4 | 3 | 2 | 1 | 1 | 0 | no |
//!   | 5 | 3 | 3 | 2 | 1: three of four have met it, two at most are no laggards | 1 | no |
//!   | 7 | 4 | 5 | 3 | 1: five of six have met it, three at most are no laggards | 2 | no |
//!
//!   Once a new folder has taken the place of an old one, its node and `q` others hold a
//!   configuration of the log, so there are at most `f - 1` laggards. Perhaps none of them has met
//!   the folder that is lost now, which may have come by the log as well. With `f - 1` blank
//!   founders they are `2 * f - 2`: none of three and four nodes, 2 of five, 4 of seven; `w` is
//!   more. (From nine nodes on this asks for more witnesses than the other arguments do.)
//!
//! `no_founding_folder_counts_beside_one_in_the_log` goes through all states. The argument takes
//! each election as one moment. Not survived are more than `f` blank founders at once. And a
//! cluster that *one* node has founded needs no witness: if its folder is lost, that node founds
//! another cluster with the same list.
//!
//! The nodes of a new cluster admit each other as soon as enough of them have met, so no flag has
//! to tell a first start from a later one. The price is paid only at that first start, when `w`
//! other nodes have to be up, which may be more than a majority needs. A node that has lost its
//! folder comes back by a change of members, in which its new folder takes the place of the old
//! one.
//!
//! The file `peers` is one [block] with the magic `rkvpeer\n`. Its body is, in this order: the
//! owner, as in the file `identity`; whether this node's folder is admitted; the number of known
//! nodes, and for each of them its id and the number of its folder; whether the node may found a
//! cluster (not in format 2, where each may). If the file is missing, no node is known, and the
//! node may.
//!
//! ## What a crash may leave on disk
//!
//! A change writes a whole new file and renames it over the old one, so a crash leaves the old
//! contents or the new ones. If the old contents are left, the node has not acted on the change
//! yet: it has not welcomed the node that it met, and has sent nothing that only an admitted node
//! may send.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::raft::NodeId;
use crate::storage::block::{self, Body};
use crate::storage::disk::{Folder, NamedFile};
use crate::storage::error::StorageError;
use crate::wire::codec::{self, DecodeError};

use super::identity::FolderOwner;

/// The name of the file that lists known folders.
pub(in crate::storage) const NAME: &str = "peers";

const MAGIC: &[u8; 8] = b"rkvpeer\n";

const ADVICE: &str = "Check the disk, and start the node again once a majority of the others runs: \
    it begins anew then, with what they have";

/// What a node knows about the data folders of its cluster. All of it is durable, in the file
/// `peers`.
pub struct Peers {
    folder: Folder,
    book: Book,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    owner: FolderOwner,
    admitted: bool,
    folders: BTreeMap<NodeId, u128>,
    founding: bool,
}

/// What it holds as format 2 has it.
#[derive(Deserialize)]
struct BookV2 {
    owner: FolderOwner,
    admitted: bool,
    folders: BTreeMap<NodeId, u128>,
}

impl Body for Book {
    fn decode(format: u32, bytes: &[u8]) -> Result<Self, DecodeError> {
        if format > 2 {
            return codec::decode(bytes);
        }
        let old: BookV2 = codec::decode(bytes)?;
        Ok(Self {
            owner: old.owner,
            admitted: old.admitted,
            folders: old.folders,
            founding: true,
        })
    }
}

/// The result of comparing a peer's data folder with the folder that this node wrote down for the
/// peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    /// The peer has the folder that was written down, or this node had not met the peer and has
    /// written its folder down now.
    Known,
    /// The peer has another folder, so it may have forgotten votes and entries. This node is no
    /// witness of that one.
    OtherFolder,
}

impl Peers {
    /// Reads the file `peers` of a data folder. If the file does not exist, no peer is known.
    pub(in crate::storage) fn open(
        folder: &Folder,
        owner: &FolderOwner,
    ) -> Result<Self, StorageError> {
        let book = match folder.list()?.iter().any(|name| name == NAME) {
            true => read(folder, owner)?,
            false => Book {
                owner: owner.clone(),
                admitted: false,
                folders: BTreeMap::new(),
                founding: true,
            },
        };
        Ok(Self {
            folder: folder.clone(),
            book,
        })
    }

    /// The node that the folder belongs to.
    pub fn own_id(&self) -> NodeId {
        self.book.owner.node
    }

    /// The random number of this node's own folder.
    pub fn own_folder(&self) -> u128 {
        self.book.owner.folder
    }

    /// Whether enough other nodes have welcomed this node with this folder. If not, nobody may
    /// count this node who knows its id only.
    pub fn admitted(&self) -> bool {
        self.book.admitted
    }

    /// Whether the node may help to found its cluster. It may not, and never again, once it has
    /// heard that the cluster exists: then it is nobody's witness and is never admitted.
    pub fn is_founding(&self) -> bool {
        self.book.founding
    }

    /// Notes that the cluster exists; durable when this returns.
    ///
    /// # Errors
    /// [`StorageError`] if the file cannot be written; then nothing has changed.
    pub fn found_no_more(&mut self) -> Result<(), StorageError> {
        self.change(|book| book.founding = false)
    }

    /// The folders of the nodes that this node has met.
    pub fn known(&self) -> &BTreeMap<NodeId, u128> {
        &self.book.folders
    }

    /// Writes down that enough other nodes have welcomed this node; durable when this returns.
    ///
    /// # Errors
    /// [`StorageError`] if the file cannot be written; then nothing has changed.
    pub fn admit(&mut self) -> Result<(), StorageError> {
        self.change(|book| book.admitted = true)
    }

    /// Compares a peer's folder with the one that was written down for this peer. If this node had
    /// no folder for the peer, it writes the folder down, durably when this returns.
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
            .create(NAME, |file: &NamedFile| file.write(&block, 0))?;
        self.book = book;
        Ok(())
    }
}

/// The owner that the file names; `None` if it cannot be read.
pub(in crate::storage) fn owner(folder: &Folder) -> Option<FolderOwner> {
    let mut bytes = Vec::new();
    folder.open(NAME).ok()?.read_all(&mut bytes).ok()?;
    let book: Book = block::unseal(MAGIC, &bytes).ok()?;
    Some(book.owner)
}

fn read(folder: &Folder, owner: &FolderOwner) -> Result<Book, StorageError> {
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

/// How many other nodes must have welcomed a node's folder, in a cluster of `size` nodes, before
/// the node counts towards majorities. Any two sets of so many witnesses have as many nodes in
/// common as the cluster may lose; and there are more of them than founders without a configuration
/// of the log, once a new folder has taken the place of an old one. The top of this file gives the
/// reasons.
pub fn welcomes_needed(size: usize) -> usize {
    let others = size.saturating_sub(1);
    let may_fail = others / 2;
    let in_common = (others + may_fail).div_ceil(2);
    let beside_the_log = (2 * may_fail).saturating_sub(1);
    match others {
        0 => 0,
        _ => in_common.max(beside_the_log).max(1),
    }
}

/// What decides whether a node may be the witness of a caller's folder, besides the folders that
/// the node has written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grounds {
    /// The node's newest configuration is one of the log, committed or not: its index is not 0.
    pub logged_here: bool,
    /// [`Peers::is_founding`] of the node.
    pub is_founding: bool,
    /// Both nodes were given the same ids of founders, and the caller's is one of them. With two
    /// lists there might be two clusters, and both would count the node.
    pub same_founders: bool,
}

/// Whether a node may be the witness of a folder. A node that has a configuration of the log may
/// not: the log says whose folder counts, and it says so to every node of a majority. The top of
/// this file has the argument.
pub fn may_witness(grounds: Grounds) -> bool {
    !grounds.logged_here && grounds.is_founding && grounds.same_founders
}

#[cfg(test)]
mod enumerated;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::SimDisk;

    fn owner() -> FolderOwner {
        FolderOwner {
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
    fn who_heard_that_the_cluster_exists_never_founds_it_again() {
        let disk = SimDisk::new(1);
        let mut peers = open(&disk).unwrap();
        assert!(peers.is_founding());
        peers.found_no_more().unwrap();
        assert!(!open(&disk.crash()).unwrap().is_founding());
    }

    #[test]
    fn a_node_votes_once_it_was_admitted_and_ever_after() {
        let disk = SimDisk::new(1);
        let mut peers = open(&disk).unwrap();
        assert!(!peers.admitted());
        peers.admit().unwrap();
        assert!(open(&disk.crash()).unwrap().admitted());
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

    /// Two sets of witnesses have as many nodes in common as the cluster may lose, and at least
    /// one. The node itself is one of those that lost a folder, so a common witness never lost its
    /// own.
    #[test]
    fn no_two_folders_of_one_node_can_both_be_admitted() {
        for size in 2..20_usize {
            let (others, needed) = (size - 1, welcomes_needed(size));
            let in_common = (2 * needed).checked_sub(others);
            let may_fail = (size - 1) / 2;
            assert!(needed <= others, "{size} nodes");
            assert!(in_common >= Some(may_fail.max(1)), "{size} nodes");
        }
        // The argument at the top of this file and the tests of the core use these numbers, too.
        let sizes = [1, 2, 3, 4, 5, 7, 9];
        assert_eq!(sizes.map(welcomes_needed), [0, 1, 2, 2, 3, 5, 7]);
    }

    /// Laggards and blank founders alone, once a new folder has taken the place of an old one.
    #[test]
    fn those_that_the_log_has_not_reached_are_too_few_to_admit_a_folder() {
        for size in 3..20_usize {
            let (quorum, may_fail) = (size / 2 + 1, (size - 1) / 2);
            let (laggards, blank) = (size - quorum - 1, may_fail - 1);
            assert!(laggards + blank < welcomes_needed(size), "{size} nodes");
        }
    }

    #[test]
    fn a_cluster_of_four_or_more_can_start_for_the_first_time_without_one_of_its_nodes() {
        for size in 4..20 {
            assert!(welcomes_needed(size) + 1 < size, "{size} nodes");
        }
    }
}
