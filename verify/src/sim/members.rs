//! Members that change: an operator who asks for changes of every kind, sensible or not, and nodes
//! that ask for a place themselves, because they are new or have lost their folder.
//!
//! Whoever wants a change asks a node, and the product does the rest: if the node leads, it looks
//! who answers at the address that the change names, and then gives the change to its core
//! ([`Hub::change`](raftkv::node::steps::Hub::change)). Here the look at an address is a packet to
//! the node there and one back. When a node asks for a place is decided by the product's thread
//! `join`, which waits and asks in turn; [`Joining`] is the same, step by step.

use super::Time;
use super::network::Kind;
use super::node::{Packet, address};
use super::trace::trace;
use super::world::{Event, World};
use raftkv::node::ProbeEnd;
use raftkv::raft::{Change, Configuration, FolderId, Member, MemberRole, NodeId, Raft, RoleName};
use raftkv::wire::handshake::{PeerWelcome, Standing};
use raftkv::wire::members::{ChangeRequest, JoinRequest};

/// How likely a node that has no place asks for one, within a tick.
const ASKS: f64 = 0.03;
/// How likely a request comes once more.
const AGAIN: f64 = 0.2;
/// How likely a change is asked for even if the voters after it do not answer.
const FORCE: f64 = 0.1;
/// How long a leader waits for the answer of an address.
const PATIENCE: Time = 2_000_000;

/// What somebody wants of the members.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Change(ChangeRequest, bool),
    Join(JoinRequest),
}

/// What is said about changes of members.
#[derive(Clone, Debug)]
pub(super) enum Talk {
    /// Somebody wants a change.
    Want(Wish),
    /// A leader asks who is there: which node, and under which number.
    Probe(usize, u64),
    /// The answer.
    Probed(u64, Box<PeerWelcome>),
}

/// A leader waits to hear who is at an address.
pub(super) struct Probing {
    /// The leader, in this life.
    by: (usize, u64),
    until: Time,
    wish: Wish,
    then: ProbeEnd,
}

/// Whether a node asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    Not,
    /// Only once it hears that the cluster exists without it.
    Waits,
    /// It asks for its former place, which the others have given to another folder.
    Back,
    As(MemberRole),
}

impl Wish {
    /// The change that the product will give to the core, if this folder answers at the address.
    fn change(&self, found: FolderId, now: &Configuration) -> Option<Change> {
        let known = |id| now.contact(id).map(|member| member.address.clone());
        let add = |id, role, address: &String| {
            Change::Add(Member {
                id,
                folder: Some(found),
                address: address.clone(),
                role,
            })
        };
        let replace = |id, address| Change::Replace {
            id,
            folder: found,
            address,
        };
        Some(match self {
            Wish::Change(ChangeRequest::Add { id, address, role }, _) => add(*id, *role, address),
            Wish::Change(ChangeRequest::Promote(id), _) => Change::Promote(*id),
            Wish::Change(ChangeRequest::Demote(id), _) => Change::Demote(*id),
            Wish::Change(ChangeRequest::Remove(id), _) => Change::Remove(*id),
            Wish::Change(ChangeRequest::Replace { id, address }, _) => {
                replace(*id, address.clone().or_else(|| known(*id))?)
            }
            Wish::Change(ChangeRequest::Move { id, address }, _) => Change::Move {
                id: *id,
                folder: found,
                address: address.clone(),
            },
            Wish::Join(join) => match known(join.id) {
                Some(_) => replace(join.id, join.address.clone()),
                None if join.only_back => return None,
                None => add(join.id, join.role, &join.address),
            },
        })
    }

    /// The node that has to answer before the change is made.
    fn place(&self) -> Option<usize> {
        match self {
            Wish::Change(ChangeRequest::Promote(_), _)
            | Wish::Change(ChangeRequest::Demote(_), _)
            | Wish::Change(ChangeRequest::Remove(_), _) => None,
            Wish::Change(ChangeRequest::Add { id, .. }, _)
            | Wish::Change(ChangeRequest::Replace { id, .. }, _)
            | Wish::Change(ChangeRequest::Move { id, .. }, _) => Some(*id as usize - 1),
            Wish::Join(join) => Some(join.id as usize - 1),
        }
    }
}

/// The node at an address.
pub(super) fn place_of(address: &str) -> Option<usize> {
    let (host, _) = address.split_once(':')?;
    let id: usize = host.strip_prefix("node")?.parse().ok()?;
    id.checked_sub(1)
}

impl World {
    /// The operator asks for a change.
    pub(super) fn operate(&mut self) {
        let request = self.draw_wish();
        let wish = Wish::Change(request, self.random.chance(FORCE));
        let anybody = self.random.below(self.nodes.len() as u64) as usize;
        let server = self.a_leader().filter(|_| self.random.chance(0.9));
        let server = server.unwrap_or(anybody);
        trace!(self, "node {} is asked for {wish:?}", server + 1);
        self.stats.wishes += 1;
        let operator = self.nodes.len();
        self.say(operator, server, Talk::Want(wish.clone()));
        if self.random.chance(AGAIN) {
            let at = self.now + self.random.exponential(300_000);
            let again = Packet::Members(Talk::Want(wish));
            self.queue.add(at, Event::Packet(server, again));
        }
    }

    fn say(&mut self, from: usize, to: usize, talk: Talk) {
        let way = (from, to, Kind::Request);
        for at in self.network.arrivals(way, self.now, &mut self.random) {
            let packet = Packet::Members(talk.clone());
            self.queue.add(at, Event::Packet(to, packet));
        }
    }

    /// Mostly what makes sense for the node as it stands, often for the one that leads.
    fn draw_wish(&mut self) -> ChangeRequest {
        let leader = self.a_leader();
        let n = match leader {
            Some(leader) if self.random.chance(0.2) => leader,
            _ => self.random.below(self.nodes.len() as u64) as usize,
        };
        let id = n as NodeId + 1;
        let role = leader.and_then(|leader| {
            let role = |raft: &Raft| {
                raft.configuration()
                    .configuration
                    .contact(id)
                    .map(|m| m.role)
            };
            self.nodes[leader].running.as_ref()?.hub.with_raft(role)
        });
        let kind = match role {
            _ if self.random.chance(0.2) => self.random.below(7),
            None => *self.random.pick(&[0, 0, 0, 1]),
            Some(MemberRole::Learner) => *self.random.pick(&[2, 2, 4]),
            Some(MemberRole::Joining) => *self.random.pick(&[3, 4, 5]),
            Some(MemberRole::Voter) => *self.random.pick(&[3, 4, 4, 5, 6]),
        };
        let port = 7000 + self.random.below(2);
        let address = format!("node{id}:{port}");
        let add = |role, address| ChangeRequest::Add { id, address, role };
        match kind {
            0 => add(MemberRole::Joining, address),
            1 => add(MemberRole::Learner, address),
            2 => ChangeRequest::Promote(id),
            3 => ChangeRequest::Demote(id),
            4 => ChangeRequest::Remove(id),
            5 => {
                let address = Some(address).filter(|_| self.random.chance(0.5));
                ChangeRequest::Replace { id, address }
            }
            _ => ChangeRequest::Move { id, address },
        }
    }

    /// A node has started, or its operator has changed his mind: whether it will ask for a place.
    pub(super) fn begin_to_join(&mut self, n: usize) {
        let joins = self.nodes[n].joins.map(Joining::As);
        let is_founder = n < self.plan.nodes;
        let rejoins = self.plan.rejoins;
        let running = self.running(n);
        if running.greeter.is_none() || running.configuration.index > 0 {
            return;
        }
        running.joining = match is_founder {
            false => joins.unwrap_or(running.joining),
            true if rejoins => Joining::Waits,
            true => Joining::Not,
        };
    }

    /// A node that stands in no committed configuration with its folder asks for a place, now and
    /// then.
    pub(super) fn ask_for_a_place(&mut self, n: usize) {
        let running = self.running(n);
        let can_only_join = running.greeter.as_ref().is_some_and(|g| g.can_only_join());
        let (is_member, folder) = running.hub.with_raft(|raft| {
            let (committed, me) = (raft.committed_configuration(), raft.member());
            let configuration = &committed.configuration;
            let its = |member: &Member| configuration.seats(member, me);
            let is_member = committed.index > 0 && configuration.members().iter().any(its);
            (is_member, me.folder)
        });
        match running.joining {
            Joining::Not => return,
            Joining::Waits if can_only_join => running.joining = Joining::Back,
            Joining::Waits if is_member => running.joining = Joining::Not,
            Joining::Waits => return,
            Joining::Back | Joining::As(_) if is_member => running.joining = Joining::Not,
            Joining::Back | Joining::As(_) => {}
        }
        let (role, only_back) = match running.joining {
            Joining::As(role) => (role, false),
            Joining::Back => (MemberRole::Joining, true),
            Joining::Not | Joining::Waits => return,
        };
        let to = self.random.below(self.nodes.len() as u64) as usize;
        if self.random.chance(ASKS) && to != n {
            let request = JoinRequest {
                id: n as NodeId + 1,
                folder,
                address: address(n),
                role,
                only_back,
            };
            self.say(n, to, Talk::Want(Wish::Join(request)));
        }
    }

    /// Something about members has arrived at a node that runs.
    pub(super) fn hear_of_members(&mut self, n: usize, talk: Talk) {
        match talk {
            Talk::Want(wish) => self.want(n, wish),
            Talk::Probe(from, number) => {
                let hub = self.running(n).hub.clone();
                let standing = Standing::Member;
                let welcome = Box::new(hub.introduction(standing));
                let counts = self.nodes[n].admitted || welcome.lineage != 0;
                if !counts && !welcome.is_blank {
                    // It is refused, and the leader says what to do: a new leader may have sent its
                    // log to a founder that counts nowhere.
                    let life = self.nodes[n].life;
                    self.queue.add(self.now + 1, Event::Refill(n, life));
                }
                self.say(n, from, Talk::Probed(number, welcome));
            }
            Talk::Probed(number, welcome) => {
                let life = self.nodes[n].life;
                let Some(probing) = self.probings.remove(&number) else {
                    return;
                };
                let found = welcome.folder;
                if probing.by == (n, life) && self.may_change(n, &probing.wish, found) {
                    (probing.then)(Ok(*welcome));
                }
            }
        }
    }

    /// A node is asked for a change.
    fn want(&mut self, n: usize, wish: Wish) {
        // The operator stops when the faults end.
        let is_operator = matches!(wish, Wish::Change(..));
        if is_operator && !self.faults_go_on || self.leads(n) && !self.may_change(n, &wish, 0) {
            return;
        }
        let running = self.running(n);
        let (hub, outside) = (running.hub.clone(), running.outside.clone());
        let tell = Box::new(move |answer| outside.tell(answer));
        let place = wish.place();
        match wish.clone() {
            Wish::Change(request, force) => hub.change(request, force, tell),
            Wish::Join(request) => hub.join(request, tell),
        }
        let (now, by) = (self.now, (n, self.nodes[n].life));
        self.probings.retain(|_, probing| probing.until > now);
        for then in self.running(n).outside.take_probes() {
            self.last_id += 1;
            let number = self.last_id;
            let probing = Probing {
                by,
                until: now + PATIENCE,
                wish: wish.clone(),
                then,
            };
            self.probings.insert(number, probing);
            match place {
                Some(to) if to != n => self.say(n, to, Talk::Probe(n, number)),
                _ => self.hear_of_members(n, Talk::Probe(n, number)),
            }
        }
    }

    /// Whether a leader may make a change, if this folder answers at the address that it names. Not
    /// one after which the folders of too many voters would be lost: the leader may not have
    /// noticed yet, and such a change cannot be finished.
    fn may_change(&mut self, n: usize, wish: &Wish, found: FolderId) -> bool {
        let (now, index) = self.running(n).hub.with_raft(|raft| {
            let newest = raft.configuration();
            (newest.configuration.left(), newest.index)
        });
        if index == 0 {
            if !self.may_settle(n) {
                return false;
            }
            self.settles = Some((n, self.nodes[n].life));
        }
        let change = wish.change(found, &now);
        let next = change.and_then(|change| change.applied_to(&now).ok());
        let waits = next.is_some_and(|next| !self.survives(&next, None));
        if waits && found != 0 {
            trace!(self, "{wish:?} waits: too many folders are lost");
        }
        !waits || found == 0 && wish.place().is_some()
    }

    pub(super) fn leads(&self, n: usize) -> bool {
        let running = self.nodes[n].running.as_ref();
        running.is_some_and(|running| running.hub.with_raft(Raft::role) == RoleName::Leader)
    }
}
