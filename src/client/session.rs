//! The numbers that make a repeated write recognisable (thesis 6.3). Pure.
//!
//! A session's operations are numbered from 1. Each carries the lowest number whose answer the
//! client still waits for, which lets the servers forget the answers below it. A number is used
//! for one operation only, and a repeat is the same bytes: its `lowest_unanswered` may be out of
//! date by then, which is harmless since a server never lowers its bound.
//!
//! An operation whose caller was told "unknown" counts as answered, as nobody waits for it any
//! more: else it would hold the bound down for ever. A late copy of it is executed at most once:
//! if it arrives before the bound has passed its number; afterwards it is not executed.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::kv::{Command, Op, SessionId};
use crate::wire::codec;

/// How far the numbers in use may be apart: from the lowest unanswered one to the highest. Half
/// of what servers keep for a session, so that a Clerk by itself never gets
/// [`TooManyInFlight`](crate::kv::Reply::TooManyInFlight).
pub const WINDOW: u64 = 512;

/// A client's session, or the lack of one.
#[derive(Debug, Default)]
pub struct Session {
    id: Option<SessionId>,
    /// The last number given out.
    last: u64,
    unanswered: BTreeSet<u64>,
}

/// The right to one operation in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The session.
    pub session: SessionId,
    /// The operation's number.
    pub seq: u64,
    /// The lowest number unanswered when the ticket was given out.
    pub lowest_unanswered: u64,
}

impl Ticket {
    /// The operation as a command: encoded once, and repeated as these bytes.
    pub fn command(&self, op: Op) -> Bytes {
        codec::to_bytes(&Command::Execute {
            session: self.session,
            seq: self.seq,
            lowest_unanswered: self.lowest_unanswered,
            op,
        })
    }
}

/// The answer to a wish for a [`Ticket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issue {
    /// Here it is.
    Ticket(Ticket),
    /// No session is open.
    NoSession,
    /// Too many are under way: wait until one is settled.
    Full,
}

impl Session {
    /// None open.
    pub fn new() -> Self {
        Session::default()
    }

    /// The open session.
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// A session was opened; it replaces the present one.
    pub fn opened(&mut self, id: SessionId) {
        *self = Session {
            id: Some(id),
            ..Session::default()
        };
    }

    /// This session is gone. Has no effect if another one has been opened meanwhile.
    pub fn gone(&mut self, id: SessionId) {
        if self.id == Some(id) {
            *self = Session::default();
        }
    }

    /// Gives out the next number.
    pub fn issue(&mut self) -> Issue {
        let Some(session) = self.id else {
            return Issue::NoSession;
        };
        let seq = self.last + 1;
        let lowest_unanswered = self.unanswered.first().copied().unwrap_or(seq);
        if seq - lowest_unanswered >= WINDOW {
            return Issue::Full;
        }
        self.last = seq;
        self.unanswered.insert(seq);
        Issue::Ticket(Ticket {
            session,
            seq,
            lowest_unanswered,
        })
    }

    /// The operation has its answer, or its caller has been told that there will be none. Either
    /// way nobody waits for it any longer.
    pub fn settle(&mut self, ticket: &Ticket) {
        if self.id == Some(ticket.session) {
            self.unanswered.remove(&ticket.seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Session {
        let mut session = Session::new();
        session.opened(40);
        session
    }

    fn ticket(session: &mut Session) -> Ticket {
        match session.issue() {
            Issue::Ticket(ticket) => ticket,
            other => panic!("{other:?} instead of a ticket"),
        }
    }

    #[test]
    fn numbers_start_at_one_and_carry_the_lowest_unanswered() {
        let mut session = open();
        let [one, two, three] = [0; 3].map(|_| ticket(&mut session));
        assert_eq!([one, two, three].map(|t| t.seq), [1, 2, 3]);
        assert_eq!([one, two, three].map(|t| t.lowest_unanswered), [1, 1, 1]);
        session.settle(&two);
        assert_eq!(ticket(&mut session).lowest_unanswered, 1);
        session.settle(&one);
        assert_eq!(ticket(&mut session).lowest_unanswered, 3);
    }

    #[test]
    fn a_number_is_used_once_even_if_all_are_settled() {
        let mut session = open();
        let one = ticket(&mut session);
        session.settle(&one);
        let two = ticket(&mut session);
        assert_eq!((two.seq, two.lowest_unanswered), (2, 2));
    }

    #[test]
    fn one_that_is_never_answered_holds_the_window_until_it_is_given_up() {
        let mut session = open();
        let stuck = ticket(&mut session);
        for _ in 1..WINDOW {
            let other = ticket(&mut session);
            session.settle(&other);
        }
        assert_eq!(session.issue(), Issue::Full);
        session.settle(&stuck);
        assert_eq!(ticket(&mut session).lowest_unanswered, WINDOW + 1);
    }

    #[test]
    fn what_belongs_to_a_former_session_leaves_the_present_one_alone() {
        let mut session = open();
        let old = ticket(&mut session);
        session.gone(40);
        assert_eq!(session.issue(), Issue::NoSession);
        session.opened(41);
        let new = ticket(&mut session);
        assert_eq!((new.session, new.seq), (41, 1));
        session.settle(&old);
        session.gone(40);
        assert_eq!(session.id(), Some(41));
        assert_eq!(ticket(&mut session).lowest_unanswered, 1);
    }
}
