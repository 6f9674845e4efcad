//! What nodes make of each other's greetings: who is let in, what it is told, and what a node
//! learns from what it is told.
//!
//! | the caller | gets |
//! | --- | --- |
//! | means another cluster, node or folder, or runs another machine | a refusal |
//! | founds the same cluster as this node, which has its folder written down and no other of its id | [`Standing::Witness`] |
//! | is a member with this folder, of the newest or of the committed configuration | [`Standing::Member`] |
//! | is anybody else | [`Standing::Stranger`], with the index of the committed configuration; 0 if none of the log is known to be |
//!
//! A stranger is let in, because it may be a leader of whose configuration this node has not heard.
//! Its messages do no harm: the core decides which of them count. It draws a conclusion that it
//! cannot take back only from an index above 0: then what is committed lacks its folder.

use super::register::{Acquainted, Greeted, Register};
use crate::raft::{EntryId, FolderId, Index, LoggedConfiguration, MemberId, NodeId, Raft};
use crate::wire::handshake::{Caller, Hello, PeerHello, PeerWelcome, Standing, Welcome};

/// What a node that is greeted knows.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The name of its cluster.
    pub cluster: &'a str,
    /// The identity of its state machine.
    pub machine: &'a str,
    /// Its id and its folder.
    pub own: MemberId,
    /// Its newest configuration, committed or not.
    pub newest: &'a LoggedConfiguration,
    /// Its newest committed configuration.
    pub committed: &'a LoggedConfiguration,
    /// The [digest](founding_digest) of the ids with which it founds its cluster; 0 if it founds
    /// none.
    pub founding: u64,
    /// Whether its folder holds nothing that counts: no log, no snapshot, no admission.
    pub is_blank: bool,
}

/// How a greeting is judged, before it is known whether the caller's folder is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The caller gets this answer.
    Answered(Welcome),
    /// The caller is another node, and is let in: the register is asked about it, and [`let_in`]
    /// makes the answer.
    Peer {
        /// The caller with its folder.
        who: MemberId,
        /// The address that the newest configuration has for the caller's id, if it has any.
        address: Option<String>,
        /// What the register needs to know.
        greeted: Greeted,
        /// What the caller is told, but for what the register knows.
        welcome: PeerWelcome,
    },
}

/// Judges a greeting.
pub fn judge(hello: &Hello, view: &View<'_>) -> Judged {
    if let Some(sentence) = objection(hello, view) {
        return Judged::Answered(Welcome::Refused(sentence));
    }
    match &hello.caller {
        Caller::Client => Judged::Answered(Welcome::Accepted {
            cluster: view.cluster.to_string(),
            id: view.own.id,
        }),
        Caller::Probe { .. } => Judged::Answered(Welcome::Peer(view.welcome(None))),
        Caller::Peer(peer) => {
            let who = MemberId {
                id: peer.from,
                folder: peer.folder,
            };
            let greeted = Greeted {
                logged_here: view.newest.index > 0,
                same_founders: view.founding != 0 && peer.founding == view.founding,
            };
            let contact = view.newest.configuration.contact(who.id);
            let address = contact.map(|member| member.address.clone());
            let welcome = view.welcome(Some(who));
            Judged::Peer {
                who,
                address,
                greeted,
                welcome,
            }
        }
    }
}

/// The answer to a node that is let in, with what the register knows of its folder; `None` as long
/// as that is not on disk. `known` is the folder that is written down for the node's id, and the
/// address of that.
pub fn let_in(
    acquainted: Acquainted,
    mut welcome: PeerWelcome,
    known: Option<(FolderId, String)>,
) -> Option<Welcome> {
    match acquainted {
        Acquainted::NotYet => return None,
        Acquainted::Known => welcome.standing = Standing::Witness,
        Acquainted::NoWitness => {}
        Acquainted::OtherFolder => {
            welcome.standing = Standing::Stranger {
                configuration: 0,
                known: known.map(|(folder, address)| (Some(folder), address)),
            };
        }
    }
    Some(Welcome::Peer(welcome))
}

/// Why the caller is refused, if it is.
fn objection(hello: &Hello, view: &View<'_>) -> Option<String> {
    let (id, cluster) = (view.own.id, view.cluster);
    let any_cluster = hello.cluster.is_empty() && hello.caller == Caller::Client;
    if !any_cluster && hello.cluster != *cluster {
        return Some(format!(
            "this is node {id} of cluster \"{cluster}\", not of \"{}\": check the address and the \
             cluster's name",
            hello.cluster
        ));
    }
    match &hello.caller {
        Caller::Client => None,
        Caller::Probe { to } => {
            (*to != id).then(|| format!("this is node {id}, not node {to}: check the address"))
        }
        Caller::Peer(peer) => peer_objection(peer, view),
    }
}

fn peer_objection(peer: &PeerHello, view: &View<'_>) -> Option<String> {
    let (id, from) = (view.own.id, peer.from);
    if peer.to != id {
        return Some(format!(
            "this is node {id}, not node {}: check the addresses of the members that node {from} \
             has",
            peer.to
        ));
    }
    if from == id || from == 0 {
        return Some(format!(
            "this is node {id} itself, and the caller says that it is node {from}: give each node \
             an id of its own"
        ));
    }
    if peer.machine != view.machine {
        return Some(format!(
            "node {from} runs \"{}\" and node {id} \"{}\": give all nodes the same limits",
            peer.machine, view.machine
        ));
    }
    if let Some(folder) = peer.to_folder
        && folder != view.own.folder
    {
        let (meant, own) = (short(folder), short(view.own.folder));
        return Some(format!(
            "node {from} means node {id} with the data folder {meant}, and this one has the folder \
             {own}: node {id} lost its folder, or runs twice"
        ));
    }
    let lineage = view.committed.configuration.lineage();
    if lineage != 0 && peer.lineage != 0 && lineage != peer.lineage {
        return Some(format!(
            "node {from} belongs to another cluster of the same name: its lineage is {:016x}, that \
             of node {id} {lineage:016x}. Give one of the clusters another name, or start node \
             {from} with an empty data folder",
            peer.lineage
        ));
    }
    if view.founding != 0 && peer.founding != 0 && view.founding != peer.founding {
        return Some(format!(
            "node {from} founds its cluster with other members than node {id}: give all nodes the \
             same list"
        ));
    }
    None
}

/// The begin of a folder's number, as people read it.
pub(super) fn short(folder: FolderId) -> String {
    format!("{:08x}", (folder >> 96) as u32)
}

impl<'a> View<'a> {
    /// What a node knows whose core is `raft`, with what it was `given` at its start.
    pub fn of(raft: &'a Raft, given: &'a Given, register: &Register) -> Self {
        let newest = raft.configuration();
        let founds = newest.index == 0 && register.is_founding();
        Self {
            cluster: &given.cluster,
            machine: &given.machine,
            own: raft.member(),
            newest,
            committed: raft.committed_configuration(),
            founding: if founds { given.founding } else { 0 },
            is_blank: raft.last() == EntryId::ZERO && !register.is_admitted(),
        }
    }

    fn welcome(&self, caller: Option<MemberId>) -> PeerWelcome {
        PeerWelcome {
            cluster: self.cluster.to_string(),
            id: self.own.id,
            machine: self.machine.to_string(),
            folder: self.own.folder,
            lineage: self.committed.configuration.lineage(),
            is_blank: self.is_blank,
            standing: self.standing(caller),
        }
    }

    /// What a caller is here, as far as configurations tell.
    ///
    /// The newest configuration decides, and who is leaving is a member as long as that is not
    /// committed. The founding configuration stands for any folder, so it says nothing any more
    /// once there is another one.
    fn standing(&self, caller: Option<MemberId>) -> Standing {
        let is_kept = |who| self.committed.index > 0 && is_member(self.committed, who);
        if caller.is_some_and(|who| is_member(self.newest, who) || is_kept(who)) {
            return Standing::Member;
        }
        let named = caller.and_then(|who| self.newest.configuration.contact(who.id));
        Standing::Stranger {
            configuration: self.committed.index,
            known: named.map(|member| (member.folder, member.address.clone())),
        }
    }
}

/// Whether a configuration has a node with its folder, in either half. While the cluster is being
/// founded it has each folder of its nodes.
fn is_member(logged: &LoggedConfiguration, who: MemberId) -> bool {
    let configuration = &logged.configuration;
    let both = configuration.members().iter();
    let mut both = both.chain(configuration.outgoing());
    both.any(|member| configuration.seats(member, who))
}

/// A number by which nodes notice that they were given different members to found a cluster with;
/// 0 without members.
pub fn founding_digest(ids: impl IntoIterator<Item = NodeId>) -> u64 {
    let mut ids: Vec<NodeId> = ids.into_iter().collect();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    u64::from(crc32c::crc32c(&bytes))
}

/// What a node was given at its start, as far as greetings need it.
#[derive(Clone, Debug)]
pub struct Given {
    /// The name of its cluster.
    pub cluster: String,
    /// The identity of its state machine.
    pub machine: String,
    /// The [digest](founding_digest) of the ids with which it founds its cluster; 0 if it founds
    /// none.
    pub founding: u64,
    /// Where other nodes reach it.
    pub address: String,
    /// The index of a configuration that was known to be committed before, and that has its folder;
    /// 0 if none was.
    pub seated: Index,
    /// Whether its folder has to ask to be let in: it takes the place of a damaged one, or asked
    /// before and was not let in.
    pub begins_anew: bool,
}

/// What a node that was welcomed knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Its id and its folder.
    pub me: MemberId,
    /// Its newest configuration, committed or not.
    pub newest: &'a LoggedConfiguration,
    /// Its newest configuration that it knows to be committed.
    pub committed: &'a LoggedConfiguration,
    /// The index of a configuration with its folder that was known to be committed when it started;
    /// 0 if none was.
    pub seated: Index,
    /// Whether its folder is admitted: enough founders have it written down. A folder that has to
    /// ask to be let in is not.
    pub is_admitted: bool,
}

/// What a node learns from a welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Nothing that it has to act on.
    Nothing,
    /// The other node is a witness of its folder.
    Witness,
    /// The other node knows it with another folder, and does not know whether that is committed.
    OtherFolder,
    /// The cluster exists, and its folder never was a member: it can only join.
    Outside,
    /// Its folder was a member, and a later committed configuration does not have it. It never is
    /// concluded from an entry that may have been lost.
    Removed,
}

/// What a node learns from being welcomed.
pub fn learn(welcome: &PeerWelcome, own: &Own<'_>) -> Learned {
    let Standing::Stranger {
        configuration,
        known,
    } = &welcome.standing
    else {
        return match welcome.standing {
            Standing::Witness => Learned::Witness,
            _ => Learned::Nothing,
        };
    };
    let (committed, newest) = (own.committed, own.newest);
    if *configuration == 0 {
        // Nothing follows from that: the other node may not have heard what this one has.
        let is_another = matches!(known, Some((Some(_), _)));
        let is_news = committed.index == 0 && !own.is_admitted && is_another;
        return match is_news && !(newest.index > 0 && is_member(newest, own.me)) {
            true => Learned::OtherFolder,
            false => Learned::Nothing,
        };
    }
    if *configuration <= committed.index {
        // A leader that knows this node's id alone sends it the log. So a founder that lost its
        // folder may have read itself that it has no place, before anybody could tell it.
        let is_member = is_member(committed, own.me) || is_member(newest, own.me);
        return match is_member || own.seated > 0 || own.is_admitted {
            true => Learned::Nothing,
            false => Learned::Outside,
        };
    }
    // Only what was committed proves that this folder was a member: the entry that let it in may
    // have been lost with the leader that made it, and stand in this log all the same.
    let was_member = committed.index > 0 && is_member(committed, own.me);
    if was_member || own.seated > 0 && own.seated < *configuration {
        return Learned::Removed;
    }
    // What the other node has is older than what this one has read, which may be committed as well.
    let is_in_log = newest.index >= *configuration && is_member(newest, own.me);
    if own.seated > 0 || is_in_log {
        return Learned::Nothing;
    }
    // The seat of an admitted founder may be empty in the log: the leader fills it with this
    // folder. Only if another folder has the seat it is lost. A node that catches up as it joins
    // has configurations that lack it.
    match (own.is_admitted, known) {
        (true, Some((Some(_), _))) => Learned::Removed,
        (true, Some((None, _)) | None) if committed.index == 0 => Learned::Nothing,
        _ => Learned::Outside,
    }
}

/// That another node knows this one with another folder, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estranged {
    /// The node that says so, and where it was dialled.
    pub by: (NodeId, String),
    /// The index of its committed configuration, one of the log.
    pub configuration: Index,
    /// The folder and the address that this node's id has there, if it has any.
    pub known: Option<(Option<FolderId>, String)>,
    /// Whether this node's folder was a member before. If not, it can join.
    pub was_member: bool,
}

#[cfg(test)]
mod tests;
