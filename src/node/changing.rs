//! Changes of members that operators and nodes ask for.
//!
//! The core judges a change by what is in the log. Two things it cannot know, and they are found
//! out here, before it is asked: which data folder is behind an address, and whether the node there
//! is of this cluster at all. A wrong address must not get into the log: as a voter it would count
//! towards every majority and never answer.
//!
//! To ask an address takes time, and leadership may be lost meanwhile. So the core is asked twice:
//! whether it would make the change at all, and then to make it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hub::Hub;
use super::members::check_address;
use super::replica::{End, Replica};
use super::sync::AtomicU64;
use crate::machine::StateMachine;
use crate::raft::{
    Change, ChangeError, Changed, Configuration, FolderId, Member, MemberRole, NodeId, RoleName,
};
use crate::wire::client::{Answer, Doubt};
use crate::wire::handshake::PeerWelcome;
use crate::wire::members::{ChangeRequest, JoinRequest};

/// Takes the answer to a request. It must not block.
pub type Tell = Box<dyn FnOnce(Answer) + Send>;

/// How many addresses may be probed at a time. Further requests are told to try again later.
const MAX_PROBES: u64 = 8;

/// Stands for a folder that is not known yet; no folder has this number.
const NO_FOLDER: FolderId = 0;

/// A change that gives a node an address: who answers there has to be found out first.
#[derive(Clone)]
struct Sought {
    id: NodeId,
    kind: Kind,
    /// `None`: the address that the member has.
    address: Option<String>,
    /// The folder that must answer, if that is known: who asks for itself has named it.
    folder: Option<FolderId>,
    force: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Add(MemberRole),
    Replace,
    Move,
    /// A node asks for itself: what it needs depends on whether its id is a member's. If it only
    /// wants its place back it is not added.
    Join {
        role: MemberRole,
        only_back: bool,
    },
}

impl Sought {
    fn change(&self, folder: FolderId, address: &str) -> Change {
        let (id, address) = (self.id, address.to_string());
        match self.kind {
            Kind::Add(role) | Kind::Join { role, .. } => Change::Add(Member {
                id,
                folder: Some(folder),
                address,
                role,
            }),
            Kind::Replace => Change::Replace {
                id,
                folder,
                address,
            },
            Kind::Move => Change::Move {
                id,
                folder,
                address,
            },
        }
    }
}

/// Why no change was made.
#[derive(Debug)]
enum Refused {
    Ended(End),
    Sentence(String),
}

impl Refused {
    /// A node wants its place back, and its id has none.
    fn no_way_back(sought: &Sought) -> Self {
        let (id, address) = (sought.id, sought.address.as_deref().unwrap_or("HOST:PORT"));
        Self::Sentence(format!(
            "node {id} was removed: it is no member any more, and does not come back by itself. To \
             let it in again, run `kvcli member add {id}={address}`"
        ))
    }

    fn by<W>(replica: &Replica<W>, error: &ChangeError) -> Self {
        match error {
            ChangeError::NotLeader => Self::Ended(replica.not_leader()),
            ChangeError::Busy | ChangeError::HandingOver { .. } => Self::Ended(End::Busy),
            // A plain configuration, such as the one with the founders' folders, is committed a
            // round trip later: the client asks again.
            ChangeError::UnderWay { joint: false, .. } => Self::Ended(End::Busy),
            _ => Self::Sentence(error.to_string()),
        }
    }
}

/// What comes before a change that gives a node an address.
enum Before {
    /// Nothing: this is what has become of it.
    Ended(Result<Changed, Refused>),
    /// The address is probed. If nobody answers there as expected, and there is a refusal already
    /// that depends on who answers, that one tells more.
    Probe {
        sought: Sought,
        address: String,
        refusal: Option<String>,
    },
}

/// A place among the addresses that are being probed; free again when this is dropped.
struct Place(Arc<AtomicU64>);

impl Place {
    fn take(probes: &Arc<AtomicU64>) -> Option<Self> {
        let place = Self(probes.clone());
        (probes.fetch_add(1, Ordering::SeqCst) < MAX_PROBES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<S: StateMachine> Hub<S> {
    /// Changes the members as an operator asks, if this node leads. Never blocks: if an address has
    /// to be probed, the answer comes from another thread.
    pub fn change(self: &Arc<Self>, request: ChangeRequest, force: bool, tell: Tell) {
        let seek = |id, kind, address| Sought {
            id,
            kind,
            address,
            folder: None,
            force,
        };
        let sought = match request {
            ChangeRequest::Promote(id) => return tell(self.make(&Change::Promote(id), force)),
            ChangeRequest::Demote(id) => return tell(self.make(&Change::Demote(id), force)),
            ChangeRequest::Remove(id) => return tell(self.make(&Change::Remove(id), force)),
            ChangeRequest::Add { id, address, role } => seek(id, Kind::Add(role), Some(address)),
            ChangeRequest::Replace { id, address } => seek(id, Kind::Replace, address),
            ChangeRequest::Move { id, address } => seek(id, Kind::Move, Some(address)),
        };
        self.seek(sought, tell);
    }

    /// Lets a node in that asks for itself, or gives it its place back, if this node leads.
    pub fn join(self: &Arc<Self>, request: JoinRequest, tell: Tell) {
        let sought = Sought {
            id: request.id,
            kind: Kind::Join {
                role: request.role,
                only_back: request.only_back,
            },
            address: Some(request.address),
            folder: Some(request.folder),
            force: false,
        };
        self.seek(sought, tell);
    }

    fn seek(self: &Arc<Self>, sought: Sought, tell: Tell) {
        if sought.id == 0 {
            return tell(Answer::Invalid("0 is no node id".to_string()));
        }
        if let Some(Err(sentence)) = sought.address.as_deref().map(check_address) {
            return tell(Answer::Invalid(sentence));
        }
        match self.exchange(|replica| before(replica, sought)) {
            Before::Ended(result) => tell(self.answer_to_change(result)),
            Before::Probe {
                sought,
                address,
                refusal,
            } => self.probe(sought, address, refusal, tell),
        }
    }

    fn probe(
        self: &Arc<Self>,
        sought: Sought,
        address: String,
        refusal: Option<String>,
        tell: Tell,
    ) {
        let Some(place) = Place::take(&self.probes) else {
            return tell(Answer::Busy);
        };
        let (id, at) = (sought.id, address.clone());
        // The node may stop meanwhile, and its folder must not stay in use for that long.
        let hub = Arc::downgrade(self);
        let then = move |answered: Result<PeerWelcome, String>| {
            drop(place);
            let hub = hub.upgrade().filter(|hub| !hub.is_stopping());
            let Some(hub) = hub else {
                return tell(Answer::Unknown(Doubt::ShuttingDown));
            };
            let folder = answered.and_then(|welcome| hub.vet(&sought, &address, &welcome));
            tell(match folder {
                Ok(folder) => hub.make(&sought.change(folder, &address), sought.force),
                Err(sentence) => Answer::Invalid(refusal.unwrap_or(sentence)),
            });
        };
        self.transport().probe(id, &at, Box::new(then));
    }

    /// The folder that answers at an address, if it may come into the cluster.
    fn vet(
        &self,
        sought: &Sought,
        address: &str,
        welcome: &PeerWelcome,
    ) -> Result<FolderId, String> {
        let ours = self.with_raft(|raft| raft.committed_configuration().configuration.lineage());
        let (cluster, machine) = (&self.config.cluster, &self.identity);
        let here = Here {
            cluster,
            machine,
            lineage: ours,
        };
        here.vet(sought, address, welcome)
    }

    /// Makes a change, or says why not.
    fn make(&self, change: &Change, force: bool) -> Answer {
        let result = self.exchange(|replica| {
            let changed = replica.change(change, force);
            changed.map_err(|error| Refused::by(replica, &error))
        });
        self.answer_to_change(result)
    }

    fn answer_to_change(&self, result: Result<Changed, Refused>) -> Answer {
        match result {
            Ok(Changed { index, is_new }) => Answer::Changed { index, is_new },
            Err(Refused::Ended(end)) => self.answer_to_end(end),
            Err(Refused::Sentence(sentence)) => Answer::Invalid(sentence),
        }
    }
}

/// Whether a change would be made if the right node answered at its address.
fn before<W>(replica: &mut Replica<W>, mut sought: Sought) -> Before {
    let refused = |replica: &Replica<W>, error| Before::Ended(Err(Refused::by(replica, &error)));
    if replica.raft().role() != RoleName::Leader {
        return refused(replica, ChangeError::NotLeader);
    }
    let now: Configuration = replica.raft().configuration().configuration.left();
    let member = now.contact(sought.id);
    let known = member.and_then(|member| member.folder);
    if let Kind::Join { role, only_back } = sought.kind {
        if known.is_some() && known == sought.folder {
            // It has its place. Where it is reached is a matter of `member move`.
            let index = replica.raft().configuration().index;
            let is_new = false;
            return Before::Ended(Ok(Changed { index, is_new }));
        }
        sought.kind = match member {
            Some(_) => Kind::Replace,
            None if only_back => return Before::Ended(Err(Refused::no_way_back(&sought))),
            None => Kind::Add(role),
        };
    }
    let Some(address) = sought.address.clone().or(member.map(|m| m.address.clone())) else {
        return refused(replica, ChangeError::NotMember(sought.id));
    };
    // As long as nobody has answered, the member's own folder stands for the one behind the
    // address. For a new node, and for one that takes another one's place, one that nobody has.
    let stand_in = match sought.kind {
        Kind::Replace => None,
        _ => known,
    };
    let stand_in = sought.folder.or(stand_in).unwrap_or(NO_FOLDER);
    let change = sought.change(stand_in, &address);
    let is_done = change.applied_to(&now).as_ref() == Ok(&now);
    // A change tells the leader of a cluster that is being founded that it is time to enter the
    // folders into the log. It is never made before that, whatever it says.
    let judged = match is_done || now.is_founding() {
        true => match replica.change(&change, sought.force) {
            Ok(changed) => return Before::Ended(Ok(changed)),
            Err(error) => Err(error),
        },
        false => replica.raft().may_change(&change, sought.force),
    };
    let refusal = match judged {
        Ok(()) => None,
        // If the very folder answers that has the place already, there is nothing to refuse: the
        // request is a repetition.
        Err(error @ (ChangeError::StillAlive { .. } | ChangeError::UnderWay { .. }))
            if stand_in == NO_FOLDER && known.is_some() =>
        {
            Some(error.to_string())
        }
        Err(error) => return refused(replica, error),
    };
    Before::Probe {
        sought,
        address,
        refusal,
    }
}

/// What a node must have in common with this one.
struct Here<'a> {
    cluster: &'a str,
    machine: &'a str,
    lineage: u64,
}

impl Here<'_> {
    /// The folder that answers at an address, if it may come into the cluster.
    fn vet(
        &self,
        sought: &Sought,
        address: &str,
        welcome: &PeerWelcome,
    ) -> Result<FolderId, String> {
        let id = sought.id;
        if welcome.cluster != self.cluster || welcome.id != id {
            return Err(format!(
                "at {address} is node {} of cluster \"{}\", not node {id} of \"{}\"",
                welcome.id, welcome.cluster, self.cluster
            ));
        }
        if welcome.machine != self.machine {
            return Err(format!(
                "node {id} at {address} runs \"{}\" and this cluster \"{}\": give all nodes the \
                 same limits",
                welcome.machine, self.machine
            ));
        }
        if welcome.lineage != 0 && welcome.lineage != self.lineage {
            return Err(format!(
                "the data folder of node {id} at {address} belongs to another cluster with the \
                 same name: give the node an empty folder"
            ));
        }
        let is_ours = welcome.is_blank || welcome.lineage == self.lineage;
        if !is_ours && !matches!(sought.kind, Kind::Move) {
            return Err(format!(
                "the data folder of node {id} at {address} is not empty, and not known to be of \
                 this cluster: give the node an empty folder, and start it with --join"
            ));
        }
        match sought.folder.is_none_or(|folder| folder == welcome.folder) {
            true => Ok(welcome.folder),
            false => Err(format!(
                "at {address} node {id} answers with another data folder than the one that asks \
                 to be let in: check the node's --address, and that it runs only once"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::Standing;

    const HERE: Here<'static> = Here {
        cluster: "blue",
        machine: "a machine",
        lineage: 7,
    };

    fn sought(kind: Kind, folder: Option<FolderId>) -> Sought {
        Sought {
            id: 4,
            kind,
            address: None,
            folder,
            force: false,
        }
    }

    fn blank() -> PeerWelcome {
        PeerWelcome {
            cluster: "blue".into(),
            id: 4,
            machine: "a machine".into(),
            folder: 44,
            lineage: 0,
            is_blank: true,
            standing: Standing::Member,
        }
    }

    #[test]
    fn who_answers_at_an_address_is_let_in_or_told_from_who_was_meant() {
        let add = sought(Kind::Add(MemberRole::Joining), None);
        let used = |lineage| PeerWelcome {
            lineage,
            is_blank: false,
            ..blank()
        };
        let right = [(&add, blank()), (&add, used(7))];
        for (sought, welcome) in right {
            assert_eq!(HERE.vet(sought, "h:1", &welcome), Ok(44), "{welcome:?}");
        }
        let cluster = "green".to_string();
        let machine = "another one".to_string();
        let wrong = [
            (PeerWelcome { cluster, ..blank() }, "cluster \"green\""),
            (PeerWelcome { id: 5, ..blank() }, "is node 5 of"),
            (PeerWelcome { machine, ..blank() }, "runs \"another one\""),
            (used(8), "belongs to another cluster"),
            (used(0), "is not empty"),
        ];
        for (welcome, says) in wrong {
            let refused = HERE.vet(&add, "h:1", &welcome).expect_err(says);
            assert!(refused.contains(says), "{refused}");
            assert!(refused.contains("h:1"), "{refused}");
        }
        let join = sought(Kind::Replace, Some(45));
        let refused = HERE.vet(&join, "h:1", &blank()).expect_err("another one");
        assert!(refused.contains("another data folder"), "{refused}");
    }

    #[test]
    fn no_more_addresses_are_probed_at_a_time_than_there_are_places() {
        let probes = Arc::default();
        let places: Vec<Place> = std::iter::from_fn(|| Place::take(&probes)).collect();
        assert_eq!(places.len() as u64, MAX_PROBES);
        drop(places);
        assert!(Place::take(&probes).is_some());
    }
}
