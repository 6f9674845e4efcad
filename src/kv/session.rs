//! One client's session: which of its operations have been executed, and their replies
//! (thesis 6.3).
//!
//! The client numbers its operations from 1 and sends with each one `lowest_unanswered`, the lowest
//! number whose answer it still waits for. The session keeps the highest such bound that it has
//! seen, and the replies to the numbers executed at or above the bound. Bound and replies decide
//! about an operation with the number `seq`:
//!
//! | `seq` | decision |
//! | --- | --- |
//! | below the bound | refused: its reply is gone, so nobody knows whether it was executed |
//! | its reply is kept | that reply again |
//! | equal to the bound | executed |
//! | less than `max_in_flight` above the bound | executed if the kept replies leave room |
//! | further above the bound | refused: the client has to wait for its lower numbers |
//!
//! Kept replies leave room as long as they are below `max_session_reply_bytes` together.
//!
//! So no number is executed twice. Executing it keeps its reply within the same command; a number
//! with a kept reply is not executed; and the reply is dropped only when the bound rises above the
//! number, after which the number is refused, as the bound never falls.

use std::collections::VecDeque;
use std::ops::{AddAssign, SubAssign};

use bytes::Bytes;

use super::command::Reply;
use super::digest::Digest;
use super::limits::Limits;
use crate::machine::At;
use crate::wire::codec;

/// How many bytes a kept reply counts for in addition to its value or its message. Without this
/// overhead, any number of empty replies would be within every limit.
const REPLY_OVERHEAD: u64 = 64;

/// One client's session.
///
/// Invariants: the numbers in `replies` are strictly ascending, and each `seq` of them is in
/// `lowest_unanswered..lowest_unanswered + limits.max_in_flight`. `kept` is the sum over `replies`.
/// `listed` is `last_used` or an earlier use.
#[derive(Clone, Debug)]
pub(super) struct SessionState {
    /// Index and cluster time of the last command that used the session. The time until the session
    /// expires counts from this command.
    pub last_used: At,
    /// The command under whose index `Sessions` lists this session in the order of expiry:
    /// `last_used`, or an earlier command that used the session. This field is not part of the
    /// replicated state: it may differ between replicas, so neither snapshots nor digests contain
    /// it.
    pub listed: At,
    /// The session's bound: the replies to all sequence numbers below it have been dropped. It
    /// never decreases.
    lowest_unanswered: u64,
    /// The kept replies, each with the sequence number of its operation.
    replies: VecDeque<(u64, Reply)>,
    kept: Kept,
}

/// How many replies are kept, and how many bytes they count for, with [`REPLY_OVERHEAD`] for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub replies: u64,
    pub bytes: u64,
}

/// The session's decision about an operation: execute it, or answer with a given reply without
/// executing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Execute the operation and [`keep`](SessionState::keep) its reply.
    Execute,
    /// The operation was executed before: answer with the reply that it got then.
    Repeated(Reply),
    /// Do not execute the operation, and answer with this reply, which says why.
    Refused(Reply),
}

impl SessionState {
    /// Makes the session that the command with the index and time `at` opens.
    pub fn new(at: At) -> Self {
        Self {
            last_used: at,
            listed: at,
            lowest_unanswered: 1,
            replies: VecDeque::new(),
            kept: Kept::default(),
        }
    }

    /// Makes a session from a snapshot, without its replies: [`restore`](Self::restore) adds them.
    pub fn restored(last_used: At, lowest_unanswered: u64) -> Result<Self, String> {
        if lowest_unanswered == 0 {
            return Err("its lowest unanswered number is 0; the first number is 1".into());
        }
        Ok(Self {
            lowest_unanswered,
            ..Self::new(last_used)
        })
    }

    /// Adds a reply from a snapshot. The replies must come in ascending order of their numbers.
    ///
    /// # Errors
    /// A sentence, if the reply would break an invariant or is one that no operation returns: the
    /// snapshot is damaged or forged.
    pub fn restore(&mut self, seq: u64, reply: Reply, limits: &Limits) -> Result<(), String> {
        let follows = self.replies.back().is_none_or(|(last, _)| *last < seq);
        let ahead = seq.checked_sub(self.lowest_unanswered);
        if !follows || ahead.is_none_or(|ahead| ahead >= limits.max_in_flight) {
            return Err(format!(
                "number {seq} does not follow the one before it, or lies outside the window"
            ));
        }
        match &reply {
            Reply::Value(value) | Reply::Swapped(Err(value)) => {
                let len = value.as_ref().map_or(0, Bytes::len);
                limits.check_value("a value that was read", len)?;
            }
            Reply::Done
            | Reply::Deleted(_)
            | Reply::Swapped(Ok(()))
            | Reply::Appended(_)
            | Reply::Refused(_) => (),
            _ => {
                return Err(format!(
                    "number {seq} has a reply that no operation returns"
                ));
            }
        }
        self.kept += Kept::of(&reply);
        self.replies.push_back((seq, reply));
        Ok(())
    }

    /// Returns the session's bound: the replies to all sequence numbers below it have been dropped.
    pub fn lowest_unanswered(&self) -> u64 {
        self.lowest_unanswered
    }

    /// The kept replies, in ascending order of their sequence numbers.
    pub fn replies(&self) -> impl Iterator<Item = &(u64, Reply)> {
        self.replies.iter()
    }

    /// How many replies this session keeps, and how many bytes they count for.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Decides what to do with operation `seq`; the table at the top of this file gives the rules.
    /// `Sessions::once` has already raised the bound to the command's own
    /// [`lowest_unanswered`](Self::forget_below).
    ///
    /// The number that equals the bound is executed however full the session is. Room comes free
    /// only when the bound rises, and the client raises it only after this number is answered:
    /// refusing it would block the session for ever.
    pub fn admit(&self, seq: u64, limits: &Limits) -> Admission {
        let Some(ahead) = seq.checked_sub(self.lowest_unanswered) else {
            return Admission::Refused(Reply::AnswerDropped);
        };
        if let Ok(place) = self.place(seq) {
            return Admission::Repeated(self.replies[place].1.clone());
        }
        let has_room =
            ahead < limits.max_in_flight && self.kept.bytes < limits.max_session_reply_bytes;
        match ahead == 0 || has_room {
            true => Admission::Execute,
            false => Admission::Refused(Reply::TooManyInFlight),
        }
    }

    /// Keeps the reply to operation `seq`, which was just executed, for repeated copies of the
    /// command.
    pub fn keep(&mut self, seq: u64, reply: Reply) {
        let place = self
            .place(seq)
            .expect_err("an operation that has its reply must not be executed again");
        self.kept += Kept::of(&reply);
        if self.replies.is_empty() {
            // Most clients wait for one answer at a time, so most sessions keep one reply. Without
            // this call the `VecDeque` would reserve room for four, a waste in each of 65,536
            // sessions.
            self.replies.reserve_exact(1);
        }
        self.replies.insert(place, (seq, reply));
    }

    /// Raises the bound to `lowest_unanswered` and drops the replies to numbers below it: the
    /// client has received these replies, or has given up waiting for them. If `lowest_unanswered`
    /// is below the present bound, it comes from an old command that the network delayed, and
    /// nothing changes.
    pub fn forget_below(&mut self, lowest_unanswered: u64) {
        self.lowest_unanswered = self.lowest_unanswered.max(lowest_unanswered);
        while let Some((_, reply)) = self
            .replies
            .pop_front_if(|(seq, _)| *seq < self.lowest_unanswered)
        {
            self.kept -= Kept::of(&reply);
        }
    }

    /// Adds the session to a digest: its last use, its bound and its kept replies.
    pub fn digest(&self, digest: &mut Digest) {
        digest.number(self.last_used.index);
        digest.number(self.last_used.time_ms);
        digest.number(self.lowest_unanswered);
        digest.number(self.replies.len() as u64);
        for (seq, reply) in &self.replies {
            let reply = codec::to_bytes(reply);
            digest.number(*seq);
            digest.number(reply.len() as u64);
            digest.bytes(&reply);
        }
    }

    /// Finds the reply to the operation `seq` in `replies`: `Ok` with its place, or `Err` with the
    /// place where it has to be inserted.
    fn place(&self, seq: u64) -> Result<usize, usize> {
        self.replies.binary_search_by_key(&seq, |(seq, _)| *seq)
    }
}

impl Kept {
    fn of(reply: &Reply) -> Self {
        let bytes = match reply {
            Reply::Value(Some(value)) | Reply::Swapped(Err(Some(value))) => value.len(),
            Reply::Refused(reason) => reason.len(),
            _ => 0,
        };
        Self {
            replies: 1,
            bytes: REPLY_OVERHEAD + bytes as u64,
        }
    }
}

impl AddAssign for Kept {
    fn add_assign(&mut self, other: Self) {
        self.replies += other.replies;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Kept {
    fn sub_assign(&mut self, other: Self) {
        self.replies -= other.replies;
        self.bytes -= other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionState {
        SessionState::new(At {
            index: 1,
            time_ms: 0,
        })
    }

    fn limits() -> Limits {
        Limits {
            max_in_flight: 4,
            max_session_reply_bytes: 300,
            ..Limits::default()
        }
    }

    fn value(len: usize) -> Reply {
        Reply::Value(Some(vec![b'x'; len].into()))
    }

    fn answer(session: &SessionState, seq: u64) -> Option<Reply> {
        match session.admit(seq, &limits()) {
            Admission::Execute => None,
            Admission::Repeated(reply) | Admission::Refused(reply) => Some(reply),
        }
    }

    #[test]
    fn numbers_come_in_any_order_and_each_gets_its_own_reply_again() {
        let mut session = session();
        for seq in [3, 1, 4, 2] {
            assert_eq!(answer(&session, seq), None);
            session.keep(seq, Reply::Appended(seq));
        }
        for seq in 1..=4 {
            assert_eq!(answer(&session, seq), Some(Reply::Appended(seq)));
        }
    }

    #[test]
    fn a_reply_that_the_client_has_is_dropped_and_its_number_not_executed_again() {
        let mut session = session();
        (1..=3).for_each(|seq| session.keep(seq, Reply::Done));
        session.forget_below(3);
        assert_eq!(session.kept().replies, 1);
        assert_eq!(answer(&session, 2), Some(Reply::AnswerDropped));
        assert_eq!(answer(&session, 3), Some(Reply::Done));
    }

    #[test]
    fn a_late_duplicate_never_lowers_the_bound() {
        let mut session = session();
        session.forget_below(7);
        session.forget_below(2);
        assert_eq!(answer(&session, 6), Some(Reply::AnswerDropped));
    }

    #[test]
    fn a_number_too_far_ahead_waits_until_the_lowest_one_is_acknowledged() {
        let mut session = session();
        (2..=4).for_each(|seq| session.keep(seq, Reply::Done));
        assert_eq!(answer(&session, 5), Some(Reply::TooManyInFlight));
        assert_eq!(answer(&session, u64::MAX), Some(Reply::TooManyInFlight));
        // The operation with the lowest number arrives after all others that fit into the window,
        // and is executed.
        assert_eq!(answer(&session, 1), None);
        session.keep(1, Reply::Done);
        session.forget_below(2);
        assert_eq!(answer(&session, 5), None);
    }

    #[test]
    fn large_replies_hold_up_all_numbers_but_the_lowest() {
        let mut session = session();
        session.keep(2, value(300));
        assert_eq!(answer(&session, 3), Some(Reply::TooManyInFlight));
        assert_eq!(answer(&session, 1), None);
        session.forget_below(3);
        assert_eq!(session.kept(), Kept::default());
        assert_eq!(answer(&session, 4), None);
    }

    #[test]
    fn the_last_numbers_there_are_do_not_overflow() {
        let mut session = session();
        session.forget_below(u64::MAX);
        assert_eq!(answer(&session, u64::MAX), None);
        session.keep(u64::MAX, Reply::Done);
        assert_eq!(answer(&session, u64::MAX), Some(Reply::Done));
    }
}
