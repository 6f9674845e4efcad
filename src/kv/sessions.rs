//! All sessions: opened, found, ended, and kept within their bounds.
//!
//! Sessions end in three ways: the client closes them; nobody uses them for the time limit; or
//! there are too many of them, or too many bytes of replies in them, and they are the ones that were
//! not used for longest. The last rule is there because a client that never comes back, such as a
//! one-shot command, leaves a session behind: refusing new ones instead would let such clients
//! lock everybody out (thesis 6.3).

use std::sync::Arc;

use imbl::OrdMap;

use super::command::{Reply, SessionId};
use super::digest::Digest;
use super::limits::Limits;
use super::session::{Admission, Kept, Session};
use crate::machine::At;

#[derive(Clone, Default)]
pub(super) struct Sessions {
    /// Behind an `Arc` each, so that a change beside a clone copies one session, not a whole node
    /// of the map.
    by_id: OrdMap<SessionId, Arc<Session>>,
    /// The same sessions by the index of their last use. An entry of the log uses one session at
    /// the most, so its index stands for one. Time never goes back along the log, so this is also
    /// the order in which they expire.
    by_use: OrdMap<u64, SessionId>,
    kept: Kept,
}

impl Sessions {
    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[cfg(feature = "sim")]
    pub fn is_open(&self, id: SessionId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The replies that all sessions keep.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Ends the sessions that nobody has used for longer than the time limit.
    pub fn expire(&mut self, now_ms: u64, limits: &Limits) {
        while let Some(id) = self.oldest() {
            let used_ms = self.by_id[&id].last_used.time_ms;
            if now_ms - used_ms <= limits.session_ttl_ms {
                break;
            }
            self.remove(id);
        }
    }

    /// Opens a session.
    pub fn open(&mut self, at: At, limits: &Limits) -> Reply {
        while self.len() >= limits.max_sessions {
            self.remove_oldest();
        }
        self.by_id.insert(at.index, Arc::new(Session::new(at)));
        self.by_use.insert(at.index, at.index);
        Reply::Opened(at.index)
    }

    /// Marks a session as used, and drops its replies below `lowest_unanswered`.
    pub fn keep_alive(&mut self, at: At, id: SessionId, lowest_unanswered: u64) -> Reply {
        self.using(at, id, |session| {
            session.forget_below(lowest_unanswered);
            Reply::Done
        })
    }

    /// Ends a session at its client's wish.
    pub fn close(&mut self, id: SessionId) -> Reply {
        match self.by_id.contains_key(&id) {
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
        let reply = self.using(at, id, |session| {
            session.forget_below(lowest_unanswered);
            match session.admit(seq, limits) {
                Admission::Answer(reply) => reply,
                Admission::Execute => {
                    let reply = execute();
                    session.keep(seq, reply.clone());
                    reply
                }
            }
        });
        // The session at hand is the last that this would come to.
        while self.kept.bytes > limits.max_reply_bytes && self.len() > 1 {
            self.remove_oldest();
        }
        reply
    }

    /// Adds all sessions to a digest.
    pub fn digest(&self, digest: &mut Digest) {
        digest.number(self.by_id.len() as u64);
        for (id, session) in &self.by_id {
            digest.number(*id);
            session.digest(digest);
        }
    }

    /// Does something with a session, which counts as a use, and keeps the totals right.
    fn using(&mut self, at: At, id: SessionId, act: impl FnOnce(&mut Session) -> Reply) -> Reply {
        let Some(session) = self.by_id.get_mut(&id) else {
            return Reply::NoSession(id);
        };
        let session = Arc::make_mut(session);
        self.by_use.remove(&session.last_used.index);
        self.by_use.insert(at.index, id);
        session.last_used = at;
        self.kept -= session.kept();
        let reply = act(session);
        self.kept += session.kept();
        reply
    }

    /// The session that was not used for longest.
    fn oldest(&self) -> Option<SessionId> {
        self.by_use.get_min().map(|(_, id)| *id)
    }

    fn remove_oldest(&mut self) {
        if let Some(id) = self.oldest() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.by_id.remove(&id) {
            self.by_use.remove(&session.last_used.index);
            self.kept -= session.kept();
        }
    }
}
