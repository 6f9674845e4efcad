//! The procedures that the course's tests have in common, with the course's times.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{Actor, Lab, Submitted};
use crate::sim::Time;
use raftkv::raft::Term;

/// The course's nominal election timeout, by which its tests wait.
pub const T: Duration = Duration::from_millis(1000);

/// How long agreement is tried for.
pub(super) const AGREEMENT: Duration = Duration::from_secs(10);
/// How long one attempt is waited for.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two looks at an attempt.
const GLANCE: Duration = Duration::from_millis(20);
/// The pause when nobody leads.
const NOBODY_LEADS: Duration = Duration::from_millis(50);

/// A command on its way to agreement: submitted to one connected server after the other until one
/// takes it, watched for two seconds, submitted again, and given up after ten.
#[derive(Debug)]
pub struct Agreement {
    command: Bytes,
    servers: usize,
    retry: bool,
    give_up: Time,
    due: Time,
    /// The attempt that is watched, and for how long.
    submitted: Option<(Submitted, Time)>,
    /// Which server is asked first: after a failure the next one.
    first: usize,
    place: Option<u64>,
}

impl Agreement {
    /// On a command that so many servers must execute; `retry`: it may be submitted again.
    pub fn new(lab: &Lab, command: Bytes, servers: usize, retry: bool) -> Self {
        Self {
            command,
            servers,
            retry,
            give_up: lab.after(AGREEMENT),
            due: lab.now(),
            submitted: None,
            first: 0,
            place: None,
        }
    }

    /// The command's place among all commands, once they agree.
    pub fn place(&self) -> Option<u64> {
        self.place
    }

    fn watch(&mut self, lab: &Lab, submitted: Submitted, until: Time) {
        if lab.executed_entry(submitted.entry) >= self.servers {
            self.place = Some(lab.place(submitted.entry.index));
            self.due = Time::MAX;
        } else if lab.now() < until {
            self.due = lab.after(GLANCE);
        } else {
            let entry = submitted.entry;
            assert!(self.retry, "{:?} at {entry} got no agreement", self.command);
            self.submitted = None;
            self.due = lab.now();
        }
    }

    fn submit(&mut self, lab: &mut Lab) {
        for _ in 0..lab.servers() {
            let server = self.first;
            self.first = lab.behind(server, 1);
            if lab.is_connected(server)
                && let Some(submitted) = lab.submit(server, self.command.clone())
            {
                self.submitted = Some((submitted, lab.after(ATTEMPT)));
                self.due = lab.after(GLANCE);
                return;
            }
        }
        self.due = lab.after(NOBODY_LEADS);
    }
}

impl Actor for Agreement {
    fn due(&self) -> Time {
        self.due
    }

    fn act(&mut self, lab: &mut Lab) {
        match self.submitted {
            Some((submitted, until)) => self.watch(lab, submitted, until),
            None => {
                let command = &self.command;
                assert!(lab.now() < self.give_up, "{command:?} got no agreement");
                self.submit(lab);
            }
        }
    }
}

impl Lab {
    /// Has a fresh command executed by at least so many servers, and returns its place among all
    /// commands. Submits it again if that takes long.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn agree(&mut self, servers: usize) -> u64 {
        let command = self.fresh();
        self.agree_on(command, servers, true)
    }

    /// As [`agree`](Self::agree), but submits it once only.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn agree_at_once(&mut self, servers: usize) -> u64 {
        let command = self.fresh();
        self.agree_on(command, servers, false)
    }

    /// As [`agree`](Self::agree), with the command given.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn agree_on(&mut self, command: Bytes, servers: usize, retry: bool) -> u64 {
        let agreement = Agreement::new(self, command, servers, retry);
        self.agree_beside(agreement, &mut Vec::new())
    }

    /// Pursues an agreement to its end while others go on, and lets go of those that have ended.
    ///
    /// # Panics
    /// If one of them takes too long.
    pub fn agree_beside(&mut self, agreement: Agreement, others: &mut Vec<Agreement>) -> u64 {
        others.push(agreement);
        loop {
            let next = others.iter().map(Actor::due).min().unwrap_or(self.now());
            self.run_with(
                Duration::from_micros(next.saturating_sub(self.now())),
                others,
            );
            let last = others.last().and_then(Agreement::place);
            if let Some(place) = last {
                others.retain(|other| other.place().is_none());
                return place;
            }
        }
    }

    /// Waits until all these agreements are there.
    ///
    /// # Panics
    /// If one of them takes too long.
    pub fn await_agreements(&mut self, agreements: &mut [Agreement]) {
        while agreements.iter().any(|a| a.place().is_none()) {
            self.run_with(GLANCE, agreements);
        }
    }

    /// Waits until so many servers have executed an entry of this term, or one of them is in a
    /// later term: then false.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_in_term(&mut self, submitted: Submitted, servers: usize, term: Term) -> bool {
        let mut pause = Duration::from_millis(10);
        for _ in 0..30 {
            if self.executed_entry(submitted.entry) >= servers {
                return true;
            }
            let mut terms = (0..self.servers()).filter_map(|server| self.term(server));
            if terms.any(|known| known > term) {
                return false;
            }
            self.run_for(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        panic!("{} is executed by too few servers", submitted.entry);
    }

    /// Looks for the leader among the connected servers, up to ten times with about half a second
    /// before each; of several leaders it is the one of the highest term.
    ///
    /// # Panics
    /// If there is none.
    pub fn check_one_leader(&mut self) -> usize {
        for _ in 0..10 {
            let pause = 450 + self.below(100);
            self.run_for(Duration::from_millis(pause));
            let leaders = self.leaders();
            if let Some((_, server)) = leaders.last_key_value() {
                return *server;
            }
        }
        panic!("no leader among {:?}", self.connected());
    }

    /// The connected servers that lead, by term.
    fn leaders(&self) -> BTreeMap<Term, usize> {
        let mut leaders = BTreeMap::new();
        for server in self.connected() {
            if let Some(term) = self.leads(server) {
                let other = leaders.insert(term, server);
                assert_eq!(other, None, "two leaders in term {term}");
            }
        }
        leaders
    }

    /// The term that all connected servers are in.
    ///
    /// # Panics
    /// If they are in several.
    pub fn check_terms(&self) -> Term {
        let connected = self.connected().into_iter();
        let terms: Vec<Term> = connected.filter_map(|server| self.term(server)).collect();
        assert!(terms.iter().all(|term| *term == terms[0]), "{terms:?}");
        terms[0]
    }

    /// Asserts that no connected server leads.
    pub fn check_no_leader(&self) {
        let leaders = self.leaders();
        assert!(
            leaders.is_empty(),
            "leaders without a majority: {leaders:?}"
        );
    }
}
