//! Checks of what all nodes must agree on: one committed log, one leader for each term, and one
//! state for each index.

use std::collections::BTreeMap;

use super::deciding::Look;
use super::members::Members;
use crate::sim::{Failure, Time};
use raftkv::kv::Kv;
use raftkv::machine::{At, StateMachine};
use raftkv::raft::{Entry, EntryId, Index, Payload, Raft, RoleName, Term};

/// An entry that some node knew to be committed, and everybody must agree on.
pub struct Committed {
    pub entry: Entry,
    /// When it was first known to be committed.
    pub at: Time,
    /// The term of the node that knew it first: it was committed in this term or an earlier one.
    pub term: Term,
}

/// What has been seen so far.
pub struct Checks {
    /// The committed log, from index 1 on.
    pub canonical: Vec<Committed>,
    /// Who counts, and who has counted.
    pub members: Members,
    leaders: BTreeMap<Term, usize>,
    /// The state after each entry of it, before the first one too. Clones share all but what
    /// differs.
    states: Vec<Kv>,
    digests: BTreeMap<Index, u64>,
    /// States are compared at every so manieth index.
    compare_every: u64,
}

impl Checks {
    /// Nothing has been seen yet. The machine is the empty one.
    pub fn new(machine: Kv, compare_every: u64) -> Self {
        Self {
            canonical: Vec::new(),
            members: Members::default(),
            leaders: BTreeMap::new(),
            states: vec![machine],
            digests: BTreeMap::new(),
            compare_every,
        }
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Looks at a node after something has happened to it. What its log has let go of in memory
    /// since it was last looked at is still in the record of its disk.
    pub fn node(&mut self, look: &Look<'_>) -> Result<(), Failure> {
        let (n, raft) = (look.n, look.raft);
        if raft.role() == RoleName::Leader && self.leader(n, raft)? {
            self.elected(look)?;
        }
        let known = self.last().index;
        let durable = &look.folders.nodes[n].durable;
        for index in look.checked + 1..=raft.commit() {
            let entry = raft.entry(index).or_else(|| durable.entry(index));
            self.committed((n, look.now), index, entry, raft)?;
        }
        if self.last().index > known {
            self.decided(look, known)?;
        }
        if raft.configuration() != look.before {
            self.reconfigured(look)?;
        }
        self.goes_by_its_log(look)
    }

    /// A node leads. Whether its term had no leader before.
    fn leader(&mut self, n: usize, raft: &Raft) -> Result<bool, Failure> {
        let term = raft.term();
        match self.leaders.get(&term) {
            Some(known) if *known == n => return Ok(false),
            Some(known) => {
                let sentence = format!("nodes {} and {} both lead term {term}", known + 1, n + 1);
                return Err(Failure::new("one leader for each term", sentence));
            }
            None => {}
        }
        self.leaders.insert(term, n);
        // Leader completeness (paper 5.4.3). An entry that was committed in a later term only
        // proves nothing against a leader that is already out of date.
        // What a snapshot holds was compared when it came.
        let earlier = self.canonical.iter().filter(|known| known.term < term);
        let covered = raft.first_index() - 1;
        for known in earlier.skip_while(|known| known.entry.id.index <= covered) {
            let id = known.entry.id;
            let held = raft.entry(id.index).map(|entry| entry.id);
            if held != Some(id) {
                let held = held.map_or("nothing".to_string(), |held| held.to_string());
                return Err(Failure::new(
                    "a leader holds all that is committed",
                    format!(
                        "node {} leads term {term} and has {held} in place of {id}",
                        n + 1
                    ),
                ));
            }
        }
        Ok(true)
    }

    fn committed(
        &mut self,
        (n, at): (usize, Time),
        index: Index,
        entry: Option<&Entry>,
        raft: &Raft,
    ) -> Result<(), Failure> {
        if index < raft.first_index() && index <= self.last().index {
            // A snapshot has taken its place, which is compared when it is installed.
            return Ok(());
        }
        let Some(entry) = entry else {
            let sentence = format!("node {} has no entry {index}, which it committed", n + 1);
            return Err(Failure::new("one committed log", sentence));
        };
        match self.canonical.get(index as usize - 1) {
            Some(known) if known.entry == *entry => Ok(()),
            Some(known) => Err(Failure::new(
                "one committed log",
                format!(
                    "node {} committed {:?} at index {index}, and another node {:?}",
                    n + 1,
                    entry,
                    known.entry
                ),
            )),
            None => {
                let known = self.canonical.len() as Index;
                assert_eq!(index, known + 1, "a node commits in order");
                let mut state = self.states[known as usize].clone();
                if let Payload::Command(command) = &entry.payload {
                    let time_ms = entry.time_ms;
                    state.apply(At { index, time_ms }, command);
                }
                self.states.push(state);
                self.members.committed(entry, raft.term());
                self.canonical.push(Committed {
                    entry: entry.clone(),
                    at,
                    term: raft.term(),
                });
                Ok(())
            }
        }
    }

    /// Compares the state after an entry was applied with what the committed log gives.
    pub fn state(&mut self, n: usize, index: Index, machine: &Kv) -> Result<(), Failure> {
        if !index.is_multiple_of(self.compare_every) {
            return Ok(());
        }
        self.compare(n, index, machine)
    }

    fn compare(&mut self, n: usize, index: Index, machine: &Kv) -> Result<(), Failure> {
        let state = &self.states[index as usize];
        let right = *self.digests.entry(index).or_insert_with(|| state.digest());
        if machine.digest() == right {
            return Ok(());
        }
        let sentence = format!("node {} has another state after entry {index}", n + 1);
        Err(Failure::new("one state for each index", sentence))
    }

    /// Compares what a snapshot was restored to with what the committed log gives at its entry.
    pub fn snapshot(&mut self, n: usize, last: EntryId, machine: &Kv) -> Result<(), Failure> {
        let known = self.id(last.index);
        if known != Some(last) {
            let sentence = format!("node {} has a snapshot of {last}, not of {known:?}", n + 1);
            return Err(Failure::new("a snapshot is of a committed entry", sentence));
        }
        self.compare(n, last.index, machine)
    }

    /// The id of a committed entry.
    pub fn id(&self, index: Index) -> Option<EntryId> {
        let known = self.canonical.get((index as usize).checked_sub(1)?);
        known.map(|known| known.entry.id)
    }

    /// The id of the last entry that is known to be committed.
    pub fn last(&self) -> EntryId {
        self.canonical
            .last()
            .map_or(EntryId::ZERO, |known| known.entry.id)
    }
}
