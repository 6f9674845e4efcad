//! The file `identity`, which says whom a data folder belongs to.
//!
//! The file is one [block] with the magic `rkvwho\0\n`. Its body is, in this order:
//!
//! 1. the owner: the cluster's name, the node's id, and a random number of 128 bits for the folder;
//! 2. the identity of the state machine.
//!
//! In the folder of an older format the identity is the first file that is written anew, in one
//! step, so that the older version does not open the folder any more.
//!
//! # What a crash may leave on disk
//!
//! A new folder is made in three steps, each durable before the next:
//!
//! 1. the identity is written under the name `identity.new`;
//! 2. the file `vote` and the first segment of the log are created;
//! 3. `identity.new` is renamed to `identity`.
//!
//! So a folder with an `identity` was complete once, and a file that is missing in it was lost. A
//! folder that has only an `identity.new` was never used, because no node runs before step 3. Its
//! files are made again. If a folder has other files of a node but neither of these two, the
//! `identity` was lost, or the files come from elsewhere. The folder is damaged if another file
//! names this node as its owner; otherwise it is refused as another node's.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::raft::NodeId;
use crate::storage::block::{self, BLOCK, BlockError, FORMAT};
use crate::storage::disk::{Folder, unfinished};
use crate::storage::error::{LOG_ADVICE, StorageError};
use crate::storage::log::segment;
use crate::storage::snapshot;

use super::{peers, vote};

/// The name of the file that says whom a folder belongs to.
pub(in crate::storage) const NAME: &str = "identity";

const MAGIC: &[u8; 8] = b"rkvwho\0\n";

/// How many bytes the cluster's name and the state machine's identity may have together, so that
/// they fit into the file.
const MAX_NAMES: usize = 2048;

/// What a data folder belongs to. This is decided when the folder is made, and never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the cluster that the node is a member of.
    pub cluster: String,
    /// The id of the node, which no other node of the cluster has.
    pub node: NodeId,
    /// The identity of the state machine, which nodes of one cluster must have in common
    /// ([`StateMachine::identity`](crate::machine::StateMachine::identity)).
    pub machine: String,
}

/// The owner of a folder. Every file except snapshots repeats the owner, so that a file which was
/// copied from another folder is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct FolderOwner {
    /// The name of the cluster that the folder's node is a member of.
    pub(in crate::storage) cluster: String,
    /// The id of the folder's node.
    pub(in crate::storage) node: NodeId,
    /// A random number, drawn when the folder was made, by which other nodes recognise the folder.
    pub(in crate::storage) folder: u128,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    owner: FolderOwner,
    /// The identity of the state machine that the folder's node runs.
    machine: String,
}

impl block::Body for Body {}

/// Whom a folder that was found belongs to.
pub(in crate::storage) struct FoundIdentity {
    pub(in crate::storage) owner: FolderOwner,
    body: Body,
    /// The version of the format that wrote it.
    format: u32,
}

impl FoundIdentity {
    /// Raises a folder of an older format to the present one, durably. To be called before anything
    /// else is written in it: the older version then refuses the folder, and never reads a file of
    /// a format that it does not know. The other files stay as they are until they are replaced.
    pub(in crate::storage) fn settle(&self, folder: &Folder) -> Result<(), StorageError> {
        if self.format == FORMAT {
            return Ok(());
        }
        let block = block::seal(MAGIC, &self.body);
        let replaced = folder.create(NAME, |file| file.write(&block, 0));
        replaced.map(drop)
    }
}

impl FolderOwner {
    /// Whether this is a folder of that node; it may run another state machine.
    fn is_of(&self, wanted: &Identity) -> bool {
        self.cluster == wanted.cluster && self.node == wanted.node
    }
}

impl fmt::Display for FolderOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            node,
            folder,
        } = self;
        let short = (folder >> 96) as u32;
        write!(f, "node {node} of cluster {cluster:?} (folder {short:08x})")
    }
}

/// Reads whom the folder belongs to, and checks that this is `wanted`. `None` if the folder is new,
/// or a crash interrupted the making of the folder.
///
/// # Errors
/// If the folder belongs to something else, or holds files of a node but no `identity`.
pub(in crate::storage) fn read(
    folder: &Folder,
    names: &[String],
    wanted: &Identity,
) -> Result<Option<FoundIdentity>, StorageError> {
    let wrong = |problem, advice| StorageError::WrongFolder {
        folder: folder.path().to_path_buf(),
        problem,
        advice,
    };
    if wanted.cluster.len() + wanted.machine.len() > MAX_NAMES {
        let problem = format!("the names of cluster and machine are over {MAX_NAMES} bytes");
        return Err(wrong(problem, "Choose a shorter name for the cluster"));
    }
    if !names.iter().any(|name| name == NAME) {
        let Some(stray) = names.iter().find(|name| !may_precede(name, names)) else {
            return Ok(None);
        };
        // Another file may say whose the folder is. If it is this node's, the identity was lost.
        return Err(match named_elsewhere(folder, names) {
            Some(owner) if owner.is_of(wanted) => StorageError::Damaged {
                path: folder.path().join(NAME),
                offset: 0,
                problem: format!("the file is missing, and {stray:?} is there"),
                advice: LOG_ADVICE,
            },
            _ => wrong(
                format!("it holds {stray:?} but no {NAME:?} file that says whose it is"),
                "Restore the missing file, or give the node an empty folder",
            ),
        });
    }
    let (body, format) = load(folder)?;
    match body.difference(wanted) {
        Some((problem, advice)) => Err(wrong(problem, advice)),
        None => Ok(Some(FoundIdentity {
            owner: body.owner.clone(),
            body,
            format,
        })),
    }
}

/// Reads whom the folder belongs to, which may be any node.
///
/// # Errors
/// If the file `identity` is missing, damaged, or of another format.
pub(in crate::storage) fn look(folder: &Folder) -> Result<(FolderOwner, Identity), StorageError> {
    let (Body { owner, machine }, _) = load(folder)?;
    let identity = Identity {
        cluster: owner.cluster.clone(),
        node: owner.node,
        machine,
    };
    Ok((owner, identity))
}

fn load(folder: &Folder) -> Result<(Body, u32), StorageError> {
    let file = folder.open(NAME)?;
    let mut bytes = Vec::new();
    file.read_all(&mut bytes)?;
    let body = block::unseal(MAGIC, &bytes).map_err(|error| match error {
        BlockError::Format(_) => StorageError::WrongFolder {
            folder: folder.path().to_path_buf(),
            problem: error.to_string(),
            advice: "Run the version of kvnode that wrote it",
        },
        other => StorageError::Damaged {
            path: file.path().to_path_buf(),
            offset: 0,
            problem: other.to_string(),
            advice: LOG_ADVICE,
        },
    })?;
    Ok((body, block::format_of(&bytes)))
}

/// The owner of a folder whose identity is damaged or missing, as the other files name it; `None`
/// if none of them can be read.
///
/// # Errors
/// [`StorageError::WrongFolder`] if that is another node than `wanted`.
pub(in crate::storage) fn owner_elsewhere(
    folder: &Folder,
    names: &[String],
    wanted: &Identity,
) -> Result<Option<FolderOwner>, StorageError> {
    match named_elsewhere(folder, names) {
        Some(owner) if !owner.is_of(wanted) => Err(StorageError::WrongFolder {
            folder: folder.path().to_path_buf(),
            problem: format!("its files are of {owner}, and this is node {}", wanted.node),
            advice: "Name the right node id and cluster, or another folder",
        }),
        owner => Ok(owner),
    }
}

fn named_elsewhere(folder: &Folder, names: &[String]) -> Option<FolderOwner> {
    let segments = names.iter().filter(|name| segment::number(name).is_some());
    vote::owner(folder)
        .or_else(|| peers::owner(folder))
        .or_else(|| {
            segments
                .into_iter()
                .find_map(|name| segment::owner(folder, name))
        })
}

/// Whether a file may be in a folder that has no `identity`. The vote file and the first segment
/// may be there if there is an `identity.new`, because a crash may have interrupted the making of
/// the folder. A snapshot or a later segment may not, because only a running node writes these.
/// Files with other names are not judged here.
fn may_precede(name: &str, names: &[String]) -> bool {
    let interrupted = names.contains(&unfinished(NAME));
    match segment::number(name) {
        Some(number) => interrupted && number == 1,
        None if snapshot::last_of(name).is_some() => false,
        None => interrupted || name != vote::NAME,
    }
}

/// The first step of making a folder: writes `identity.new`, which is durable when this returns.
pub(in crate::storage) fn begin(
    folder: &Folder,
    identity: &Identity,
) -> Result<FolderOwner, StorageError> {
    let id = u128::from(folder.unique_id()) << 64 | u128::from(folder.unique_id());
    let body = Body {
        owner: FolderOwner {
            cluster: identity.cluster.clone(),
            node: identity.node,
            folder: id,
        },
        machine: identity.machine.clone(),
    };
    let block = block::seal(MAGIC, &body);
    debug_assert_eq!(block.len(), BLOCK);
    folder.begin(NAME, |file| file.write(&block, 0))?;
    folder.sync()?;
    Ok(body.owner)
}

/// The last step of making a folder: `identity.new` becomes `identity`, durably when this returns.
pub(in crate::storage) fn finish(folder: &Folder) -> Result<(), StorageError> {
    folder.finish(NAME)
}

/// The words of `text` that `other` lacks, or all of `text` if `other` lacks none. They show the
/// operator where two long identities differ.
fn words_not_in(other: &str, text: &str) -> String {
    let known: Vec<&str> = other.split(' ').collect();
    let words = text.split(' ').filter(|word| !known.contains(word));
    let words: Vec<&str> = words.collect();
    match words.is_empty() {
        true => text.to_string(),
        false => words.join(" "),
    }
}

impl Body {
    /// How the identity in the folder differs from that of the node which is to use the folder, and
    /// what the operator can do about it; `None` if the two are equal.
    fn difference(&self, wanted: &Identity) -> Option<(String, &'static str)> {
        let FolderOwner { cluster, node, .. } = &self.owner;
        if *cluster != wanted.cluster {
            let problem = format!(
                "it belongs to cluster {cluster:?}, and this node is of cluster {:?}",
                wanted.cluster
            );
            return Some((problem, "Name the right cluster or another folder"));
        }
        if *node != wanted.node {
            let problem = format!(
                "it belongs to node {node}, and this is node {}",
                wanted.node
            );
            return Some((problem, "Name the right node id or another folder"));
        }
        if self.machine != wanted.machine {
            let problem = format!(
                "it was made for a state machine with {:?}, and this node runs one with {:?}",
                words_not_in(&wanted.machine, &self.machine),
                words_not_in(&self.machine, &wanted.machine)
            );
            let advice = "Run the node with the settings that the folder was made with";
            return Some((problem, advice));
        }
        None
    }
}
