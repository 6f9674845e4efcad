//! The procedures that the course's tests have in common, with the course's times.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{Arena, Scripted};
use crate::sim::Time;
use crate::sim::lab::Submitted;
use raftkv::raft::Term;

/// How long agreement is tried for.
pub(super) const AGREEMENT: Duration = Duration::from_secs(10);
/// How long one attempt is waited for.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The pause when nobody leads.
const NOBODY_LEADS: Duration = Duration::from_millis(50);
/// How long a leader is looked for.
const ELECTION: Duration = Duration::from_secs(5);

/// Somebody who does something now and then.
pub trait Actor<A> {
    /// When the actor wants to act next; [`Time::MAX`]: never again.
    fn due(&self) -> Time;

    /// The actor acts; afterwards it is due later than now, or never.
    fn act(&mut self, arena: &mut A);
}

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
    pub fn new(arena: &impl Arena, command: Bytes, servers: usize, retry: bool) -> Self {
        Self {
            command,
            servers,
            retry,
            give_up: arena.after(AGREEMENT),
            due: arena.now(),
            submitted: None,
            first: 0,
            place: None,
        }
    }

    /// The command's place among all commands, once they agree.
    pub fn place(&self) -> Option<u64> {
        self.place
    }

    fn watch(&mut self, arena: &impl Arena, submitted: Submitted, until: Time) {
        if arena.executed_entry(submitted.entry) >= self.servers {
            self.place = Some(arena.place(submitted.entry.index));
            self.due = Time::MAX;
        } else if arena.now() < until {
            self.due = arena.after(arena.glance());
        } else {
            let entry = submitted.entry;
            assert!(self.retry, "{:?} at {entry} got no agreement", self.command);
            self.submitted = None;
            self.due = arena.now();
        }
    }

    fn submit(&mut self, arena: &mut impl Arena) {
        for _ in 0..arena.servers() {
            let server = self.first;
            self.first = arena.behind(server, 1);
            if arena.is_connected(server)
                && let Some(submitted) = arena.submit(server, self.command.clone())
            {
                self.submitted = Some((submitted, arena.after(ATTEMPT)));
                self.due = arena.after(arena.glance());
                return;
            }
        }
        self.due = arena.after(NOBODY_LEADS);
    }
}

impl<A: Arena> Actor<A> for Agreement {
    fn due(&self) -> Time {
        self.due
    }

    fn act(&mut self, arena: &mut A) {
        match self.submitted {
            Some((submitted, until)) => self.watch(arena, submitted, until),
            None => {
                let command = &self.command;
                assert!(arena.now() < self.give_up, "{command:?} got no agreement");
                self.submit(arena);
            }
        }
    }
}

/// Every [`Arena`] has these.
pub trait Procedures: Arena {
    /// Has a fresh command executed by at least so many servers, and returns its place among all
    /// commands. Submits it again if that takes long.
    ///
    /// # Panics
    /// If that takes too long.
    fn agree(&mut self, servers: usize) -> u64 {
        let command = self.fresh();
        self.agree_on(command, servers, true)
    }

    /// As [`agree`](Self::agree), but submits it once only.
    ///
    /// # Panics
    /// If that takes too long.
    fn agree_at_once(&mut self, servers: usize) -> u64 {
        let command = self.fresh();
        self.agree_on(command, servers, false)
    }

    /// As [`agree`](Self::agree), with the command given.
    ///
    /// # Panics
    /// If that takes too long.
    fn agree_on(&mut self, command: Bytes, servers: usize, retry: bool) -> u64 {
        let agreement = Agreement::new(self, command, servers, retry);
        self.agree_beside(agreement, &mut Vec::new())
    }

    /// Pursues an agreement to its end while others go on, and lets go of those that have ended.
    ///
    /// # Panics
    /// If one of them takes too long.
    fn agree_beside(&mut self, agreement: Agreement, others: &mut Vec<Agreement>) -> u64 {
        others.push(agreement);
        loop {
            let due = |other: &Agreement| other.due;
            let next = others.iter().map(due).min().unwrap_or(self.now());
            let wait = next.saturating_sub(self.now());
            self.run_with(Duration::from_micros(wait), others);
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
    fn await_agreements(&mut self, agreements: &mut [Agreement]) {
        while agreements.iter().any(|a| a.place().is_none()) {
            self.run_with(self.glance(), agreements);
        }
    }

    /// Waits until so many servers have executed an entry of this term, or one of them is in a
    /// later term: then false.
    ///
    /// # Panics
    /// If that takes too long.
    fn wait_in_term(&mut self, submitted: Submitted, servers: usize, term: Term) -> bool {
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

    /// Lets time pass in which others act.
    fn run_with(&mut self, time: Duration, actors: &mut [impl Actor<Self>]) {
        let end = self.after(time);
        loop {
            let next = actors.iter_mut().min_by_key(|actor| actor.due());
            match next.filter(|actor| actor.due() <= end) {
                Some(actor) => {
                    self.run_to(actor.due());
                    actor.act(self);
                }
                None => return self.run_to(end),
            }
        }
    }

    /// Looks for the leader among the connected servers, for about five seconds with a pause before
    /// each look. Of several leaders it is the one of the highest term, which all connected servers
    /// must follow.
    ///
    /// # Panics
    /// If there is none.
    fn check_one_leader(&mut self) -> usize {
        let end = self.after(ELECTION);
        while self.now() < end {
            let pause = self.pause_before_look();
            self.run_for(pause);
            let leaders = self.leaders();
            let Some((term, leader)) = leaders.last_key_value() else {
                continue;
            };
            let views = self.connected().into_iter();
            let mut views = views.filter_map(|server| self.view(server));
            if views.all(|view| view.term == *term && view.leader == Some(*leader)) {
                return *leader;
            }
        }
        panic!("no leader of all {:?}", self.connected());
    }

    /// The connected servers that lead, by term.
    ///
    /// # Panics
    /// If two lead in the same term.
    fn leaders(&self) -> BTreeMap<Term, usize> {
        let mut leaders = BTreeMap::new();
        for server in self.connected() {
            if let Some(view) = self.view(server).filter(|view| view.leads) {
                let other = leaders.insert(view.term, server);
                assert_eq!(other, None, "two leaders in term {}", view.term);
            }
        }
        leaders
    }

    /// The term that all connected servers are in.
    ///
    /// # Panics
    /// If they are in several.
    fn check_terms(&self) -> Term {
        let connected = self.connected().into_iter();
        let terms: Vec<Term> = connected.filter_map(|server| self.term(server)).collect();
        assert!(terms.iter().all(|term| *term == terms[0]), "{terms:?}");
        terms[0]
    }

    /// Asserts that no connected server leads.
    fn check_no_leader(&self) {
        let leaders = self.leaders();
        assert!(
            leaders.is_empty(),
            "leaders without a majority: {leaders:?}"
        );
    }

    /// Asserts that these servers come to hold a log of at most so many bytes, which the course
    /// says of the saved Raft state. A snapshot that is under way may end first.
    ///
    /// # Panics
    /// If they do not.
    fn check_log_bytes(&mut self, servers: &[usize], most: usize) {
        let small = |arena: &Self, server: &usize| arena.log_bytes(*server) <= most;
        let are_small = self.run_until(ATTEMPT, |arena| servers.iter().all(|s| small(arena, s)));
        assert!(are_small, "a log has more than {most} bytes");
    }

    /// Asserts that every server has a snapshot, or that none has. One that is under way may end
    /// first.
    ///
    /// # Panics
    /// If not.
    fn check_snapshots(&mut self, exist: bool) {
        let right = self.run_until(ATTEMPT, |arena| {
            (0..arena.servers()).all(|server| (arena.snapshot_index(server) > 0) == exist)
        });
        assert!(right, "snapshots must exist: {exist}, on every server");
    }
}

impl<A: Arena> Procedures for A {}
