//! What a scenario does to any [`Arena`] with the arena's own operations: commands and servers.

use std::time::Duration;

use bytes::Bytes;

use super::Arena;
use super::procedures::AGREEMENT;
use crate::sim::Time;
use crate::sim::lab::{Ended, Submitted};
use raftkv::kv::{Command, Op, Reply};
use raftkv::raft::Term;

/// How far the numbers of commands under way may be apart; less than a session allows.
const WINDOW: u64 = 1000;

/// The key that all commands of [`Scripted::fresh`] append to.
pub const LOG: &[u8] = b"log";

/// Every [`Arena`] has these.
pub trait Scripted: Arena {
    /// The moment so much later than now.
    fn after(&self, time: Duration) -> Time {
        self.now() + time.as_micros() as Time
    }

    /// Lets time pass.
    fn run_for(&mut self, time: Duration) {
        self.run_to(self.after(time));
    }

    /// True so many times in a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// The server `distance` places behind this one, in a circle.
    fn behind(&self, server: usize, distance: usize) -> usize {
        (server + distance) % self.servers()
    }

    /// Any server.
    fn any_server(&mut self) -> usize {
        self.below(self.servers() as u64) as usize
    }

    /// All servers that are up and connected.
    fn connected(&self) -> Vec<usize> {
        let all = 0..self.servers();
        all.filter(|server| self.is_connected(*server)).collect()
    }

    /// Connects all servers.
    fn connect_all(&mut self) {
        (0..self.servers()).for_each(|server| self.connect(server));
    }

    /// Crashes a server and starts it again.
    fn restart(&mut self, server: usize) {
        self.crash(server);
        self.start(server);
    }

    /// Crashes all servers, then starts them all.
    fn restart_all(&mut self) {
        (0..self.servers()).for_each(|server| self.crash(server));
        (0..self.servers()).for_each(|server| self.start(server));
    }

    /// The term of a server that is up.
    fn term(&self, server: usize) -> Option<Term> {
        Some(self.view(server)?.term)
    }

    /// Submits a command to a server. `None` if the server does not take it, because it does not
    /// lead.
    fn submit(&mut self, server: usize, command: Bytes) -> Option<Submitted> {
        self.submit_all(server, vec![command]).pop().flatten()
    }

    /// An operation as a command of the scenario's session, which is opened if need be.
    fn command(&mut self, op: Op) -> Bytes {
        let session = match self.numbering().session {
            Some(session) => session,
            None => open_session(self),
        };
        let numbering = self.numbering();
        numbering.last_seq += 1;
        let seq = numbering.last_seq;
        let command = Command::Execute {
            session,
            seq,
            lowest_unanswered: seq.saturating_sub(WINDOW).max(1),
            op,
        };
        command.to_bytes()
    }

    /// The number of the next [`fresh`](Self::fresh) command.
    fn next_fresh(&mut self) -> u64 {
        self.numbering().last_seq + 1
    }

    /// A command that was never used before.
    fn fresh(&mut self) -> Bytes {
        let value = format!("<{}>", self.next_fresh()).into();
        self.command(Op::Append {
            key: Bytes::from_static(LOG),
            value,
        })
    }

    /// All that a server has executed of [`fresh`](Self::fresh) commands, in order: each as the
    /// number in angle brackets that the command appends.
    fn log_of(&self, server: usize) -> Bytes {
        self.value_at(server, LOG)
    }

    /// Asserts that no server has executed a [`fresh`](Self::fresh) command twice, and that what a
    /// server has executed is the beginning of what any other server has executed that is further.
    ///
    /// # Panics
    /// If not.
    fn check_logs(&self) {
        let up = (0..self.servers()).filter(|server| self.is_up(*server));
        let mut logs: Vec<Bytes> = up.map(|server| self.log_of(server)).collect();
        logs.sort_by_key(Bytes::len);
        for (shorter, longer) in logs.iter().zip(logs.iter().skip(1)) {
            assert!(longer.starts_with(shorter), "{shorter:?} and {longer:?}");
        }
        let longest = logs.pop().unwrap_or_default();
        let mut parts: Vec<&[u8]> = longest.split_inclusive(|byte| *byte == b'>').collect();
        parts.sort_unstable();
        let twice = parts.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None, "a command was executed twice");
    }
}

impl<A: Arena> Scripted for A {}

fn open_session(arena: &mut impl Arena) -> u64 {
    let command = Command::OpenSession.to_bytes();
    let mut ticket = None;
    let mut session = None;
    let opened = arena.run_until(AGREEMENT, |arena| {
        if ticket.is_none() {
            let all = 0..arena.servers();
            let mut taken = all.filter_map(|server| arena.submit(server, command.clone()));
            ticket = taken.next().map(|submitted| submitted.ticket);
        }
        match ticket.and_then(|ticket| arena.ended(ticket)) {
            Some(Ended::Reply(Reply::Opened(opened))) => session = Some(opened),
            Some(_) => ticket = None,
            None => {}
        }
        session.is_some()
    });
    assert!(opened, "the cluster does not open a session");
    arena.numbering().session = session;
    session.expect("it is opened")
}
