//! The file `vote`: the node's term, and its vote in that term.
//!
//! The file holds two copies of one [block] with the magic `rkvvote\n`, at the offsets 0 and 4096.
//! The body of the block is, in this order: the owner, as in the file `identity`; a sequence
//! number; the term; the vote, if any: the candidate's id and the number of its folder. The valid
//! copy with the higher sequence number counts.
//!
//! # What a crash may leave on disk
//!
//! A change writes and syncs the first copy, and then writes and syncs the second. A crash in the
//! first half leaves the second copy as it was, valid and durable. After a crash in the second
//! half, the first copy is durable with the new vote. So at any moment at least one copy is valid.
//! After a crash in the first half the node may have the old vote or the new one. Both are safe,
//! because the node sends its vote only after the change is done.
//!
//! In format 2 the vote was the candidate's id alone. It is read as a vote for the id with the
//! folder 0, which no node has: so nobody gets this vote a second time in its term.
//!
//! If both copies are bad, the node does not start. No other file and no other node can tell how
//! the node voted, and a second vote in the same term could elect two leaders.

use serde::{Deserialize, Serialize};

use crate::raft::{HardState, MemberId, NodeId, Term};
use crate::storage::block::{self, BLOCK, Body};
use crate::storage::disk::{Folder, NamedFile};
use crate::storage::error::{StorageError, VOTE_ADVICE};
use crate::wire::codec::{self, DecodeError};

use super::identity::FolderOwner;

/// The name of the file that holds term and vote.
pub(in crate::storage) const NAME: &str = "vote";

const MAGIC: &[u8; 8] = b"rkvvote\n";

/// Where the two copies of the block start in the vote file, in bytes.
const COPIES: [u64; 2] = [0, BLOCK as u64];

/// The contents of each of the two copies in the vote file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ballot {
    /// The node and the data folder that this vote file belongs to.
    owner: FolderOwner,
    /// A number that goes up by one with each change, so that recovery knows which copy is newer.
    sequence: u64,
    /// The node's term, and its vote in that term.
    state: HardState,
}

/// A copy as format 2 has it.
#[derive(Deserialize)]
struct BallotV2 {
    owner: FolderOwner,
    sequence: u64,
    term: Term,
    vote: Option<NodeId>,
}

impl Body for Ballot {
    fn decode(format: u32, bytes: &[u8]) -> Result<Self, DecodeError> {
        if format > 2 {
            return codec::decode(bytes);
        }
        let old: BallotV2 = codec::decode(bytes)?;
        Ok(Self {
            owner: old.owner,
            sequence: old.sequence,
            state: HardState {
                term: old.term,
                vote: old.vote.map(|id| MemberId { id, folder: 0 }),
            },
        })
    }
}

/// The vote file of a running node, open for writing.
pub(in crate::storage) struct VoteFile {
    file: NamedFile,
    current: Ballot,
}

/// A vote file as recovery has read it, before anything in the file is changed.
pub(in crate::storage) struct FoundVote {
    vote: VoteFile,
    /// Which of the two copies is valid and newer, as an index into [`COPIES`].
    place: usize,
    /// Why the other copy is invalid, as a sentence; `None` if both copies are valid.
    pub(in crate::storage) bad: Option<String>,
}

/// Creates the vote file of a new folder, with term 0 and no vote.
pub(in crate::storage) fn create(folder: &Folder, owner: &FolderOwner) -> Result<(), StorageError> {
    let copy = Ballot {
        owner: owner.clone(),
        sequence: 1,
        state: HardState::default(),
    };
    let block = block::seal(MAGIC, &copy);
    let fill = |file: &NamedFile| COPIES.iter().try_for_each(|at| file.write(&block, *at));
    folder.create(NAME, fill).map(drop)
}

/// Reads the vote file, and changes nothing in it.
pub(in crate::storage) fn read(
    folder: &Folder,
    owner: &FolderOwner,
) -> Result<FoundVote, StorageError> {
    let path = folder.path().join(NAME);
    let damaged = |problem| StorageError::Damaged {
        path: path.clone(),
        offset: 0,
        problem,
        advice: VOTE_ADVICE,
    };
    if !folder.list()?.iter().any(|name| name == NAME) {
        return Err(damaged("the file is missing".into()));
    }
    let file = folder.open(NAME)?;
    let mut bytes = Vec::new();
    file.read_all(&mut bytes)?;
    let [first, second] = COPIES.map(|at| read_copy(&bytes, at, owner));
    let (place, current, bad) = match (first, second) {
        (Ok(a), Ok(b)) if a.sequence == b.sequence && a.state != b.state => {
            return Err(damaged(format!(
                "both copies have the sequence number {}, but they differ",
                a.sequence
            )));
        }
        (Ok(a), Ok(b)) if a.sequence >= b.sequence => (0, a, None),
        (Ok(_), Ok(b)) => (1, b, None),
        (Ok(a), Err(bad)) => (0, a, Some(("second", bad))),
        (Err(bad), Ok(b)) => (1, b, Some(("first", bad))),
        (Err(a), Err(b)) => {
            return Err(damaged(format!(
                "both copies of term and vote are bad: of the first {a}, of the second {b}"
            )));
        }
    };
    let bad = bad.map(|(which, bad)| {
        let path = path.display();
        format!("the {which} copy of term and vote in {path}: {bad}")
    });
    Ok(FoundVote {
        vote: VoteFile { file, current },
        place,
        bad,
    })
}

/// The owner that the vote file names; `None` if no copy in it can be read.
pub(in crate::storage) fn owner(folder: &Folder) -> Option<FolderOwner> {
    let mut bytes = Vec::new();
    folder.open(NAME).ok()?.read_all(&mut bytes).ok()?;
    COPIES.iter().find_map(|at| {
        let copy: Result<Ballot, _> = block::unseal(MAGIC, bytes.get(*at as usize..)?);
        Some(copy.ok()?.owner)
    })
}

fn read_copy(bytes: &[u8], at: u64, owner: &FolderOwner) -> Result<Ballot, String> {
    let bytes = bytes.get(at as usize..).unwrap_or_default();
    let copy: Ballot = block::unseal(MAGIC, bytes).map_err(|error| error.to_string())?;
    if copy.owner != *owner {
        return Err(format!("it belongs to {}, not to {owner}", copy.owner));
    }
    Ok(copy)
}

impl FoundVote {
    /// The node's term, and its vote in that term.
    pub(in crate::storage) fn state(&self) -> HardState {
        self.vote.current.state
    }

    /// A sentence that tells the operator of a bad copy, which recovery will replace; `None` if
    /// both copies are good.
    pub(in crate::storage) fn note(&self) -> Option<String> {
        self.bad.as_ref().map(|bad| format!("replaced {bad}"))
    }

    /// Makes both copies equal and durable. Both are written again, even if they are equal already:
    /// the process may have been killed before a sync, so what was read may be in the kernel's
    /// memory only. The copy with the newer vote is written first and is durable before the other
    /// copy is touched, so that a crash never damages both.
    pub(in crate::storage) fn settle(self) -> Result<VoteFile, StorageError> {
        self.vote.write(COPIES[self.place])?;
        self.vote.write(COPIES[1 - self.place])?;
        Ok(self.vote)
    }
}

impl VoteFile {
    /// The node's term, and its vote in that term.
    pub(in crate::storage) fn state(&self) -> HardState {
        self.current.state
    }

    /// Makes a new term and vote durable.
    ///
    /// # Panics
    /// If the term would go back, or if a vote in the present term would change, because that would
    /// be a second vote.
    pub(in crate::storage) fn store(&mut self, state: HardState) -> Result<(), StorageError> {
        let old = self.state();
        if old == state {
            return Ok(());
        }
        assert!(
            state.term > old.term || (state.term == old.term && old.vote.is_none()),
            "term and vote would change from {old:?} to {state:?}"
        );
        self.current.sequence += 1;
        self.current.state = state;
        COPIES.iter().try_for_each(|at| self.write(*at))
    }

    fn write(&self, at: u64) -> Result<(), StorageError> {
        self.file.write(&block::seal(MAGIC, &self.current), at)?;
        self.file.sync()
    }
}
