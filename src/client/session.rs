//! The client's side of a session: the numbers that make a repeated write recognisable
//! (thesis 6.3). Pure.
//!
//! The operations of a session are numbered from 1. Each carries `lowest_unanswered`, the lowest
//! number whose answer the client still waits for. The servers drop their replies to the numbers
//! below this bound. A number is used for one operation only, and a repeated command consists of
//! the same bytes. So a repeated command may carry an old bound, which is harmless: a server never
//! lowers its bound.
//!
//! An operation whose call ended as "unknown" counts as answered, because nobody waits for its
//! answer any more. Otherwise the bound could never rise above its number, and soon no number would
//! be left in the [`WINDOW`]. A delayed copy of that operation is still executed at most once: if
//! it is applied before the servers' bound passes its number, the session recognises further
//! copies; after that, the session refuses it.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::kv::{Command, Op, SessionId};
use crate::wire::codec;

/// The range of numbers that may be in use at a time: every number given out is less than the
/// lowest unanswered number plus this. It is half of the servers' default limit
/// ([`Limits::max_in_flight`](crate::kv::Limits::max_in_flight)), so the servers do not refuse a
/// Clerk's operations for their number ([`TooManyInFlight`](crate::kv::Reply::TooManyInFlight)).
pub const WINDOW: u64 = 512;

/// The client's side of a session: the numbers that it has given out. It has no id while no session
/// is open.
#[derive(Debug, Default)]
pub struct Session {
    id: Option<SessionId>,
    /// The last sequence number given out; 0 if none was given out.
    last: u64,
    /// The numbers that were given out and are not settled, all in `last - WINDOW + 1..=last`.
    unanswered: BTreeSet<u64>,
}

/// The right to execute one operation in a session, under a number that no other operation gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The session in which the operation is executed.
    pub session: SessionId,
    /// The sequence number of the operation in the session.
    pub seq: u64,
    /// The lowest sequence number that was unanswered when the ticket was given out.
    pub lowest_unanswered: u64,
}

impl Ticket {
    /// Returns the operation as an encoded command. Encode the command once and repeat these bytes:
    /// one number must never be used for two different operations.
    pub fn command(&self, op: Op) -> Bytes {
        codec::to_bytes(&Command::Execute {
            session: self.session,
            seq: self.seq,
            lowest_unanswered: self.lowest_unanswered,
            op,
        })
    }
}

/// The result of [`Session::issue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issue {
    /// The next sequence number of the session, with the right to execute one operation under it.
    Ticket(Ticket),
    /// No session is open: open one, and ask again.
    NoSession,
    /// The window is full: wait until an operation is settled, and ask again.
    Full,
}

impl Session {
    /// Makes the state of a client that has not opened a session yet.
    pub fn new() -> Self {
        Session::default()
    }

    /// The id of the open session, if there is one.
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// Begins to use a session that the cluster has opened, in place of the present one. Operations
    /// of the old session do not affect the numbers of the new one: [`settle`](Self::settle)
    /// ignores their tickets.
    pub fn opened(&mut self, id: SessionId) {
        *self = Session {
            id: Some(id),
            ..Session::default()
        };
    }

    /// Notes that the cluster no longer has this session. Does nothing if the client has opened
    /// another session since, because several operations may be told of the loss of the same
    /// session.
    pub fn gone(&mut self, id: SessionId) {
        if self.id == Some(id) {
            *self = Session::default();
        }
    }

    /// Gives out the next number of the open session.
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

    /// Notes that nobody waits for this operation any longer: its answer has come, or its call has
    /// ended without one. From now on the servers may drop its reply.
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
