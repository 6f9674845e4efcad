//! All sessions: opened, found, ended, and kept within their bounds.
//!
//! Sessions end in three ways: the client closes them; nobody uses them for the time limit; or
//! there are too many of them, or too many bytes of replies in them, and they are the ones that
//! were not used for longest. The last rule is there because a client that never comes back, such
//! as a one-shot command, leaves a session behind: refusing new ones instead would let such clients
//! lock everybody out (thesis 6.3).
//!
//! A session has ended as soon as its time is over, but it is *cleared away* later: with each
//! command a few of them, for thousands at once would hold up the thread that executes, which also
//! answers heartbeats. Until then a session whose time is over is as good as gone. Nothing finds
//! it, no snapshot and no digest has it, and as it is older than every other one, the limits on all
//! sessions together hit it before any that lives. So nobody can tell when it is cleared away, and
//! replicas may differ in that: one that starts from a snapshot has nothing to clear away.

use std::sync::Arc;

use imbl::OrdMap;

use super::command::{Reply, SessionId};
use super::digest::Digest;
use super::limits::Limits;
use super::session::{Admission, Kept, SessionState};
use crate::machine::At;

/// How many sessions one command clears away, or lists anew, at the most. More than one, because
/// each command may open one.
const CLEARED_AT_ONCE: usize = 16;

#[derive(Clone, Default)]
pub(super) struct Sessions {
    /// Behind an `Arc` each, so that a change beside a clone copies one session, not a whole node
    /// of the map.
    by_id: OrdMap<SessionId, Arc<SessionState>>,
    /// The same sessions by the index of the use that they are [listed](SessionState::listed)
    /// under: the last one, or an earlier one, for it is corrected only when it matters. An entry
    /// of the log uses one session at the most, so its index stands for one. Time never goes back
    /// along the log, so this is also the order in which they expire.
    by_use: OrdMap<u64, SessionId>,
    kept: Kept,
    /// How many operations were answered by what they had answered before.
    duplicates: u64,
}

impl Sessions {
    /// How many sessions there are, with those that are still to be cleared away.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is such a session, and its time is not over.
    fn is_open(&self, now_ms: u64, id: SessionId, limits: &Limits) -> bool {
        let session = self.by_id.get(&id);
        session.is_some_and(|session| !is_over(session.last_used, now_ms, limits.session_ttl_ms))
    }

    /// The replies that all sessions keep, with those that are still to be cleared away.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// How many repeated operations were answered from a session instead of executed, ever.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Clears away a few of the sessions that nobody has used for longer than the time limit.
    pub fn clear_away(&mut self, now_ms: u64, limits: &Limits) {
        let is_over = |used: At| is_over(used, now_ms, limits.session_ttl_ms);
        for _ in 0..CLEARED_AT_ONCE {
            let Some(id) = self.first_listed() else {
                return;
            };
            let session = &self.by_id[&id];
            if !is_over(session.listed) {
                return;
            }
            match is_over(session.last_used) {
                true => self.remove(id),
                false => self.relist(id),
            }
        }
    }

    /// Opens a session.
    pub fn open(&mut self, at: At, limits: &Limits) -> Reply {
        while self.len() >= limits.max_sessions {
            self.remove_oldest();
        }
        self.by_id.insert(at.index, Arc::new(SessionState::new(at)));
        self.by_use.insert(at.index, at.index);
        Reply::Opened(at.index)
    }

    /// Marks a session as used, and drops its replies below `lowest_unanswered`.
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

    /// Ends a session at its client's wish.
    pub fn close(&mut self, at: At, id: SessionId, limits: &Limits) -> Reply {
        match self.is_open(at.time_ms, id, limits) {
            true => {
                self.remove(id);
                Reply::Done
            }
            false => Reply::NoSession(id),
        }
    }

    /// Answers operation `seq` of a session: by what it answered before, by a refusal, or by
    /// `execute`, whose reply is kept. This is what makes an operation take effect once.
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
            session.forget_below(lowest_unanswered);
            match session.admit(seq, limits) {
                Admission::Repeated(reply) => {
                    duplicate = true;
                    reply
                }
                Admission::Refused(reply) => reply,
                Admission::Execute => {
                    let reply = execute();
                    session.keep(seq, reply.clone());
                    reply
                }
            }
        });
        self.duplicates += u64::from(duplicate);
        // The session at hand is the last that this would come to.
        while self.kept.bytes > limits.max_reply_bytes && self.len() > 1 {
            self.remove_oldest();
        }
        reply
    }

    /// The sessions whose time is not over, in the order of their ids.
    pub fn live(
        &self,
        now_ms: u64,
        ttl_ms: u64,
    ) -> impl Iterator<Item = (SessionId, &SessionState)> {
        let all = self.by_id.iter().map(|(id, session)| (*id, &**session));
        all.filter(move |(_, session)| !is_over(session.last_used, now_ms, ttl_ms))
    }

    /// No session yet, but the count of what sessions answered.
    pub fn with_duplicates(duplicates: u64) -> Self {
        Self {
            duplicates,
            ..Self::default()
        }
    }

    /// Takes in a session as it was when `last` was applied. They come in the order of their ids.
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

    /// Checks what concerns all sessions together, once all of them are restored.
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

    /// Adds the sessions whose time is not over to a digest.
    pub fn digest(&self, now_ms: u64, ttl_ms: u64, digest: &mut Digest) {
        digest.number(self.duplicates);
        digest.number(self.live(now_ms, ttl_ms).count() as u64);
        for (id, session) in self.live(now_ms, ttl_ms) {
            digest.number(id);
            session.digest(digest);
        }
    }

    /// Does something with a session, which counts as a use, and keeps the totals right.
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

    fn first_listed(&self) -> Option<SessionId> {
        self.by_use.get_min().map(|(_, id)| *id)
    }

    /// Lists a session under its last use.
    fn relist(&mut self, id: SessionId) {
        if let Some(session) = self.by_id.get_mut(&id) {
            let session = Arc::make_mut(session);
            self.by_use.remove(&session.listed.index);
            session.listed = session.last_used;
            self.by_use.insert(session.listed.index, id);
        }
    }

    /// The session that was not used for longest. Each turn of the loop corrects one entry.
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

/// Whether a session that was used last at `used` has expired by `now_ms`, by cluster time. Neither
/// the limit nor the last use changes any more then, so what has expired stays so.
fn is_over(used: At, now_ms: u64, ttl_ms: u64) -> bool {
    now_ms - used.time_ms > ttl_ms
}
