//! All sessions of the store: opens, finds and ends sessions, and bounds their number and the
//! replies that they keep together.
//!
//! A session is the memory that makes a repeated command recognisable (thesis 6.3; one session is
//! in `session`). The memory for sessions must be bounded, so a session ends in one of three ways:
//! - Its client closes it.
//! - No command uses it for longer than `session_ttl_ms` of cluster time: it *expires*.
//! - There are `max_sessions` and one more is opened, or all of them together keep more than
//!   `max_reply_bytes` of replies. The least recently used session is removed first. Refusing new
//!   sessions instead would let clients that were killed, and left their sessions behind, lock out
//!   everybody else.
//!
//! # An expired session is removed from memory later
//! Whether a session has expired is decided by comparing its last use with the present cluster
//! time. It is removed from memory later, because each command removes at most `CLEARED_AT_ONCE`
//! expired sessions: to remove 65,536 sessions in one command would delay the thread that executes
//! it, which may be the thread that answers heartbeats.
//!
//! Replicas differ in which expired sessions they still have in memory: a replica that started from
//! a snapshot has none. The state must not depend on that, so an expired session counts as gone:
//! - No command finds it.
//! - No snapshot and no digest contains it.
//! - The bounds on all sessions never remove a live session on account of an expired one: every
//!   expired session was last used before every live one, so it is removed first.

use std::sync::Arc;

use imbl::OrdMap;

use super::command::{Reply, SessionId};
use super::digest::Digest;
use super::limits::Limits;
use super::session::{Admission, Kept, SessionState};
use crate::machine::At;

/// How many entries of `by_use` one command removes or corrects at most. It is more than one
/// because each command may also open a session: if each command removed only one session, the
/// number of sessions would never fall.
const CLEARED_AT_ONCE: usize = 16;

#[derive(Clone, Default)]
pub(super) struct Sessions {
    /// All sessions in memory, expired ones included. Each is in an `Arc`: while a snapshot shares
    /// the map, changing a session copies only that session, and not all sessions in the same node
    /// of the map.
    by_id: OrdMap<SessionId, Arc<SessionState>>,
    /// The sessions of `by_id`, in the order in which they expire. The key is the log index of a
    /// command that used the session, [`SessionState::listed`]: the last such command, or an
    /// earlier one.
    ///
    /// A command that uses a session does not move the session's entry in this map, because that
    /// would cost every command two changes of the map. The entry is moved when it has become the
    /// first one (`relist`).
    ///
    /// Each command uses at most one session, so no two sessions have the same key. Cluster time
    /// never goes back along the log, so the order of indexes is the order of times.
    by_use: OrdMap<u64, SessionId>,
    /// How many replies the sessions in `by_id` keep together, and how many bytes; expired sessions
    /// included.
    kept: Kept,
    /// How many repeated operations were answered with their first reply, since the cluster began.
    duplicates: u64,
}

impl Sessions {
    /// How many sessions are in memory, including expired ones that have not been removed yet.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is a session with this id that has not expired.
    fn is_open(&self, now_ms: u64, id: SessionId, limits: &Limits) -> bool {
        let session = self.by_id.get(&id);
        session.is_some_and(|session| !is_over(session.last_used, now_ms, limits.session_ttl_ms))
    }

    /// How many replies all sessions in memory keep, and how many bytes; expired sessions included.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// How many repeated operations were answered from a session instead of executed, since the
    /// cluster began.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Removes a few of the expired sessions from memory. Called before every command is applied.
    pub fn clear_away(&mut self, now_ms: u64, limits: &Limits) {
        let is_over = |used: At| is_over(used, now_ms, limits.session_ttl_ms);
        for _ in 0..CLEARED_AT_ONCE {
            let Some(id) = self.first_listed() else {
                return;
            };
            let session = &self.by_id[&id];
            // The first entry of `by_use` has the earliest listed use of all sessions, and no
            // session's last use is before its listed use. So if the time since this listed use is
            // within the limit, no session has expired.
            if !is_over(session.listed) {
                return;
            }
            match is_over(session.last_used) {
                true => self.remove(id),
                false => self.relist(id),
            }
        }
    }

    /// Opens a session, whose id is the index of the command. If there are `max_sessions` already,
    /// the least recently used session is removed first, so opening a session never fails.
    pub fn open(&mut self, at: At, limits: &Limits) -> Reply {
        while self.len() >= limits.max_sessions {
            self.remove_oldest();
        }
        self.by_id.insert(at.index, Arc::new(SessionState::new(at)));
        self.by_use.insert(at.index, at.index);
        Reply::Opened(at.index)
    }

    /// Marks a session as used, and drops its replies to numbers below `lowest_unanswered`.
    pub fn keep_alive(
        &mut self,
        at: At,
        id: SessionId,
        lowest_unanswered: u64,
        limits: &Limits,
    ) -> Reply {
        self.using(at, id, limits, |session| {
            session.forget_below(lowest_unanswered);
            Reply::Done
        })
    }

    /// Ends a session because its client asks for it.
    pub fn close(&mut self, at: At, id: SessionId, limits: &Limits) -> Reply {
        // An expired session gets the same reply as a missing one: some replicas have already
        // removed it from memory, and all replicas must reply alike.
        match self.is_open(at.time_ms, id, limits) {
            true => {
                self.remove(id);
                Reply::Done
            }
            false => Reply::NoSession(id),
        }
    }

    /// Answers operation `seq` of a session: with the reply that it got before, with a refusal, or
    /// by calling `execute` and keeping the reply. An operation takes effect once because `execute`
    /// is called here only, and [`SessionState::admit`] allows it once for each number.
    pub fn once(
        &mut self,
        at: At,
        id: SessionId,
        (seq, lowest_unanswered): (u64, u64),
        limits: &Limits,
        execute: impl FnOnce() -> Reply,
    ) -> Reply {
        let mut duplicate = false;
        let reply = self.using(at, id, limits, |session| {
            // Drop the replies that the client no longer waits for before `admit` checks whether
            // the kept replies leave room.
            session.forget_below(lowest_unanswered);
            match session.admit(seq, limits) {
                Admission::Repeated(reply) => {
                    duplicate = true;
                    reply
                }
                Admission::Refused(reply) => reply,
                Admission::Execute => {
                    // The operation takes effect and its reply is kept within one command, so no
                    // other command can see one without the other.
                    let reply = execute();
                    session.keep(seq, reply.clone());
                    reply
                }
            }
        });
        self.duplicates += u64::from(duplicate);
        // The loop removes least recently used sessions first, so never the session that this
        // command used. That session stays even if its own replies exceed the limit: a client must
        // not lose its session because of replies that it waits for.
        while self.kept.bytes > limits.max_reply_bytes && self.len() > 1 {
            self.remove_oldest();
        }
        reply
    }

    /// The sessions that have not expired, in ascending order of their ids.
    pub fn live(
        &self,
        now_ms: u64,
        ttl_ms: u64,
    ) -> impl Iterator<Item = (SessionId, &SessionState)> {
        let all = self.by_id.iter().map(|(id, session)| (*id, &**session));
        all.filter(move |(_, session)| !is_over(session.last_used, now_ms, ttl_ms))
    }

    /// Makes an empty set of sessions with the count of duplicates that a snapshot holds.
    /// [`restore`](Self::restore) adds the sessions.
    pub fn with_duplicates(duplicates: u64) -> Self {
        Self {
            duplicates,
            ..Self::default()
        }
    }

    /// Adds a session from a snapshot of the state at `last`, the last command applied. The
    /// sessions must come in ascending order of their ids.
    ///
    /// # Errors
    /// A sentence, if no sequence of commands leads to this session: a damaged or forged snapshot
    /// must not break the invariants that the rest of this file relies on.
    pub fn restore(
        &mut self,
        id: SessionId,
        session: SessionState,
        last: At,
        limits: &Limits,
    ) -> Result<(), String> {
        let used = session.last_used;
        if id == 0 || self.by_id.get_max().is_some_and(|(last, _)| id <= *last) {
            return Err(format!("its id, {id}, does not follow the one before it"));
        }
        if used.index < id || used.index > last.index || used.time_ms > last.time_ms {
            return Err("it was used before it was opened, or after the last command".into());
        }
        if is_over(used, last.time_ms, limits.session_ttl_ms) {
            return Err("it has expired".into());
        }
        if self.len() >= limits.max_sessions {
            return Err(format!(
                "the limit is {} (max_sessions)",
                limits.max_sessions
            ));
        }
        self.kept += session.kept();
        self.by_id.insert(id, Arc::new(session));
        match self.by_use.insert(used.index, id) {
            None => Ok(()),
            Some(other) => Err(format!("session {other} was last used by the same command")),
        }
    }

    /// Called when all sessions of a snapshot are restored. Checks that in the order of their last
    /// uses cluster time does not go back, and that the sessions together keep no more than
    /// `max_reply_bytes`.
    pub fn check_restored(&self, limits: &Limits) -> Result<(), String> {
        let times = self
            .by_use
            .values()
            .map(|id| self.by_id[id].last_used.time_ms);
        if !times.is_sorted() {
            return Err("time goes back from one use of a session to the next".into());
        }
        if self.kept.bytes > limits.max_reply_bytes && self.len() > 1 {
            return Err(format!(
                "the sessions keep {} bytes of replies; the limit is {} (max_reply_bytes)",
                self.kept.bytes, limits.max_reply_bytes
            ));
        }
        Ok(())
    }

    /// Adds the sessions that have not expired to a digest. Expired sessions are left out, because
    /// replicas differ in which of these are still in memory.
    pub fn digest(&self, now_ms: u64, ttl_ms: u64, digest: &mut Digest) {
        digest.number(self.duplicates);
        digest.number(self.live(now_ms, ttl_ms).count() as u64);
        for (id, session) in self.live(now_ms, ttl_ms) {
            digest.number(id);
            session.digest(digest);
        }
    }

    /// Finds a live session, marks it as used, calls `act` with it, and corrects `kept` by what
    /// `act` has changed. If the session is missing or has expired, answers `NoSession` without
    /// calling `act`, so that the command changes nothing.
    fn using(
        &mut self,
        at: At,
        id: SessionId,
        limits: &Limits,
        act: impl FnOnce(&mut SessionState) -> Reply,
    ) -> Reply {
        let Some(session) = self.by_id.get_mut(&id) else {
            return Reply::NoSession(id);
        };
        if is_over(session.last_used, at.time_ms, limits.session_ttl_ms) {
            return Reply::NoSession(id);
        }
        let session = Arc::make_mut(session);
        session.last_used = at;
        self.kept -= session.kept();
        let reply = act(session);
        self.kept += session.kept();
        reply
    }

    /// The first session in the order of expiry, which has the earliest listed use. It may have
    /// been used again since then.
    fn first_listed(&self) -> Option<SessionId> {
        self.by_use.get_min().map(|(_, id)| *id)
    }

    /// Moves a session's entry in `by_use` to its last use.
    fn relist(&mut self, id: SessionId) {
        if let Some(session) = self.by_id.get_mut(&id) {
            let session = Arc::make_mut(session);
            self.by_use.remove(&session.listed.index);
            session.listed = session.last_used;
            self.by_use.insert(session.listed.index, id);
        }
    }

    /// Returns the least recently used session. Each pass of the loop corrects one entry of
    /// `by_use`, and no entry twice, so the loop ends after at most one pass for each session.
    fn oldest(&mut self) -> Option<SessionId> {
        loop {
            let id = self.first_listed()?;
            let session = &self.by_id[&id];
            if session.listed == session.last_used {
                return Some(id);
            }
            self.relist(id);
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(id) = self.oldest() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.by_id.remove(&id) {
            self.by_use.remove(&session.listed.index);
            self.kept -= session.kept();
        }
    }
}

/// Whether a session whose last use was at `used` has expired at `now_ms`, both in cluster time.
/// Once true it stays true: no command can use an expired session, and the limit is fixed.
fn is_over(used: At, now_ms: u64, ttl_ms: u64) -> bool {
    now_ms - used.time_ms > ttl_ms
}
