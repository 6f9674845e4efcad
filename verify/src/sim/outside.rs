//! What surrounds a simulated node. It collects the messages, answers and signals that the node
//! puts out, until the world carries them on. This file also wraps the store, to note the states
//! that the checks compare.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use raftkv::kv::{self, Kv, Reply};
use raftkv::machine::{At, Gate, StateMachine};
use raftkv::net::Announced;
use raftkv::node::steps::{Estranged, Task, Waiter as ToAnswer};
use raftkv::node::{Outcome, ProbeEnd, Transport};
use raftkv::raft::{Contact, Envelope, Index, NodeId};
use raftkv::wire::client::Answer;
use raftkv::wire::members::MemberList;

use super::node::Waiter;

/// What has come out of a node since the world looked last.
#[derive(Default)]
pub(super) struct Outside {
    messages: Mutex<Vec<Envelope>>,
    answers: Mutex<Vec<(Waiter, Outcome<Reply>)>>,
    woken: Mutex<Vec<Task>>,
    /// Whether there is something to be written down of whom the node has met.
    registrar_woken: AtomicBool,
    /// Whom the node speaks to.
    contacts: Mutex<Vec<Contact>>,
    /// What it tells clients and other nodes of the members.
    list: Mutex<Option<MemberList>>,
    announced: OnceLock<Arc<Announced>>,
    /// What another node has said of it last.
    estranged: Mutex<Option<Estranged>>,
    /// The addresses of which it wants to know who is there.
    probes: Mutex<Vec<ProbeEnd>>,
    /// What became of changes that it was asked for.
    told: Mutex<Vec<Answer>>,
}

impl Transport for Outside {
    fn send(&self, messages: Vec<Envelope>) {
        self.messages.lock().extend(messages);
    }

    fn members(&self, contacts: Vec<Contact>, list: MemberList) {
        *self.contacts.lock() = contacts;
        if let Some(announced) = self.announced.get() {
            announced.announce(list.clone());
        }
        *self.list.lock() = Some(list);
    }

    fn probe(&self, _: NodeId, _: &str, then: ProbeEnd) {
        self.probes.lock().push(then);
    }
}

impl Outside {
    /// A task is to be carried out.
    pub fn wake(&self, task: Task) {
        self.woken.lock().push(task);
    }

    /// The registrar is to look whether there is something to be written down.
    pub fn wake_registrar(&self) {
        self.registrar_woken.store(true, Ordering::Relaxed);
    }

    /// Whether the registrar was woken since the last call.
    pub fn take_registrar_woken(&self) -> bool {
        self.registrar_woken.swap(false, Ordering::Relaxed)
    }

    /// What a node answers to, so that its answer comes here.
    pub fn to_answer(self: &Arc<Self>, from: Waiter) -> ToAnswer<Reply> {
        let outside = self.clone();
        ToAnswer::Local(Box::new(move |outcome| {
            outside.answers.lock().push((from, outcome));
        }))
    }

    /// Begins to announce that the node founds its cluster with ids of this digest.
    pub fn announce(&self, founding: u64) -> Arc<Announced> {
        let announced = self
            .announced
            .get_or_init(|| Arc::new(Announced::new(founding)));
        announced.clone()
    }

    /// Another node has said that this one is outside of the cluster.
    pub fn estranged(&self, estranged: &Estranged) {
        *self.estranged.lock() = Some(estranged.clone());
    }

    pub fn take_estranged(&self) -> Option<Estranged> {
        self.estranged.lock().take()
    }

    pub fn with_contacts(&self, look: impl FnOnce(&[Contact])) {
        look(&self.contacts.lock());
    }

    /// The list that clients are told, if its index is greater than that of the one they have.
    pub fn list_after(&self, known: Index) -> Option<MemberList> {
        let list = self.list.lock();
        list.as_ref().filter(|list| list.index > known).cloned()
    }

    pub fn take_probes(&self) -> Vec<ProbeEnd> {
        std::mem::take(&mut self.probes.lock())
    }

    pub fn tell(&self, answer: Answer) {
        self.told.lock().push(answer);
    }

    pub fn take_told(&self) -> Vec<Answer> {
        std::mem::take(&mut self.told.lock())
    }

    pub fn take_messages(&self) -> Vec<Envelope> {
        std::mem::take(&mut self.messages.lock())
    }

    pub fn take_answers(&self) -> Vec<(Waiter, Outcome<Reply>)> {
        std::mem::take(&mut self.answers.lock())
    }

    pub fn take_woken(&self) -> Vec<Task> {
        std::mem::take(&mut self.woken.lock())
    }
}

/// A state that a machine has been in. A copy of the store is made in O(1).
pub(super) enum State {
    /// After the entry at this index.
    After(Index, Kv),
    /// As a snapshot gave it.
    Restored(Kv),
}

/// The store, which notes the states that are to be compared.
pub(super) struct Watched {
    pub kv: Kv,
    states: Arc<Mutex<Vec<State>>>,
    /// The states at every so manieth index are noted.
    every: u64,
}

impl Watched {
    pub fn new(kv: Kv, every: u64) -> Self {
        let states = Arc::default();
        Self { kv, states, every }
    }

    /// The states since the last call.
    pub fn take_states(&self) -> Vec<State> {
        std::mem::take(&mut self.states.lock())
    }
}

impl StateMachine for Watched {
    type Reply = Reply;
    type Snapshot = kv::Snapshot;

    const QUICK: bool = Kv::QUICK;

    fn identity(&self) -> String {
        self.kv.identity()
    }

    fn gate(&self) -> Gate {
        self.kv.gate()
    }

    fn apply(&mut self, at: At, command: &Bytes) -> Reply {
        let reply = self.kv.apply(at, command);
        if at.index.is_multiple_of(self.every) {
            let state = State::After(at.index, self.kv.clone());
            self.states.lock().push(state);
        }
        reply
    }

    fn query(&self, query: &Bytes) -> Reply {
        self.kv.query(query)
    }

    fn query_within(&self, query: &Bytes, room: usize) -> Option<Reply> {
        self.kv.query_within(query, room)
    }

    fn weight(reply: &Reply) -> usize {
        Kv::weight(reply)
    }

    fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
        Kv::encode_reply(reply, out);
    }

    fn snapshot(&self) -> kv::Snapshot {
        self.kv.snapshot()
    }

    fn write_snapshot(snapshot: &kv::Snapshot, out: &mut dyn io::Write) -> io::Result<()> {
        Kv::write_snapshot(snapshot, out)
    }

    fn restore(&self, input: &mut dyn io::Read) -> io::Result<Self> {
        let kv = self.kv.restore(input)?;
        self.states.lock().push(State::Restored(kv.clone()));
        let (states, every) = (self.states.clone(), self.every);
        Ok(Self { kv, states, every })
    }

    fn digest(&self) -> u64 {
        self.kv.digest()
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        self.kv.gauges()
    }
}
