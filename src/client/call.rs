//! One call, from its first attempt to its end: which server to ask next, when, and what an answer
//! means. Pure: time comes in as an argument, randomness from [`Routes`].
//!
//! Attempts come in rounds. Within a round the call asks each server at most once, without delay:
//! first the server that the last refusal named as the leader, then the server that led last, then
//! the others in turn. Between two rounds it pauses; the pause doubles from 5 ms to 100 ms and is
//! jittered. So a new leader is found with one more request, while two servers that name each
//! other, or a cluster without a leader, do not get a flood of requests.
//!
//! A call must know, at its end, whether its request may have been executed. A *copy* of the
//! request is what one attempt sends. After an attempt that leaves the outcome of its copy open,
//! the call is *in doubt*, and stays so: a later copy that is certainly not executed says nothing
//! about the earlier one.
//!
//! | end of an attempt | executed? | then |
//! | --- | --- | --- |
//! | not sent | no | the next server |
//! | `NotLeader` | no | the leader that the refusal names, or the next server |
//! | `Busy`, `TooManyInFlight` | no | the same server after a pause |
//! | `Invalid` | not this copy | the call ends; if it is in doubt, the next server |
//! | `Refused` | no copy | the call ends |
//! | no answer, `Unknown`, nonsense | perhaps | the same bytes to the next server |
//! | `NoSession` | not this copy | a new session; if the call is in doubt, it ends |
//! | `AnswerDropped` | perhaps an earlier copy | the call ends |
//! | a reply | yes, once | the call ends |

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{Error, LastWord, Word};
use super::routes::Routes;
use super::transport::CallError;
use crate::kv::Reply;
use crate::wire::client::{Answer, NotLeader};
use crate::wire::codec;

/// The pause after the first round.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// No pause is longer than this.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What happens when a request is executed twice, which decides whether a call in doubt goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Nothing that anybody could notice, as for a read. The call is never in doubt.
    Harmless,
    /// The session recognises the second copy by its number and answers with the first reply. So
    /// the call may send the same bytes again while it is in doubt.
    Once,
    /// The request acts twice, as a transfer of leadership does. So the call ends when it is in
    /// doubt.
    Single,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask this server, wait for the answer for `timeout` at the most, and report what came of it
    /// with [`Call::heard`].
    Ask {
        /// Its index in [`Routes`].
        server: usize,
        /// How long to wait for the answer.
        timeout: Duration,
    },
    /// Let this time pass, then call [`Call::next`] again.
    Pause(Duration),
    /// The deadline has passed: the call ends with this error.
    End(Error),
}

/// What the end of an attempt means for the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The call is not over: [`Call::next`] says how it goes on.
    GoOn,
    /// The request was executed, with this reply. Never [`NoSession`](Reply::NoSession),
    /// [`Refused`](Reply::Refused), [`AnswerDropped`](Reply::AnswerDropped) or
    /// [`TooManyInFlight`](Reply::TooManyInFlight): those mean that it was not.
    Reply(Reply),
    /// The session is gone and nothing was executed in it: open another one, and continue this
    /// call there with a new number.
    Reopen,
    /// The leader has begun to transfer its leadership.
    Transferring,
    /// The call has failed.
    Failed(Error),
}

/// The state of one call. All times are measured from the same moment, which the caller chooses.
#[derive(Debug)]
pub struct Call {
    nature: Nature,
    started: Duration,
    deadline: Duration,
    /// How long the next attempt waits for its answer. It only grows.
    attempt_timeout: Duration,
    /// When the last attempt began.
    asked_at: Duration,
    /// Whether a copy of the request may have been executed without its reply having arrived.
    /// Once true, it stays true.
    doubt: bool,
    /// How many attempts have begun.
    attempts: u64,
    /// How many rounds have ended, which gives the length of the next pause.
    rounds: u32,
    /// The servers that this round has asked: bit `n` for the server with the index `n`. There are
    /// at most [`MAX_SERVERS`](super::MAX_SERVERS), 64.
    asked: u64,
    /// The server that the latest refusal named as the leader, or that refused for lack of room.
    hint: Option<usize>,
    /// The server whose turn is next, modulo the number of servers. `None` before the first
    /// attempt: [`Routes`] says then with which server to begin.
    rotation: Option<usize>,
    /// No attempt begins before this time.
    not_before: Duration,
    /// Whether the last answer was a refusal by a leader that had no room. It tells "too busy" from
    /// "no leader" when the call gives up.
    no_room: bool,
    /// What came of the last attempt at each server that was asked, for the error message.
    words: BTreeMap<usize, Word>,
}

impl Call {
    /// A call that starts at `now` and has its deadline `within` later.
    pub fn new(nature: Nature, now: Duration, within: Duration, attempt_timeout: Duration) -> Self {
        Call {
            nature,
            started: now,
            deadline: now.saturating_add(within),
            attempt_timeout: attempt_timeout.max(Duration::from_millis(1)),
            asked_at: now,
            doubt: false,
            attempts: 0,
            rounds: 0,
            asked: 0,
            hint: None,
            rotation: None,
            not_before: Duration::ZERO,
            no_room: false,
            words: BTreeMap::new(),
        }
    }

    /// The time at which the call ends at the latest.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether a copy of the request may have been executed without its reply having arrived.
    pub fn in_doubt(&self) -> bool {
        self.doubt
    }

    /// How many attempts there have been.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// What to do now.
    pub fn next(&mut self, now: Duration, routes: &mut Routes) -> Next {
        if now >= self.deadline {
            return Next::End(self.give_up(now, routes));
        }
        if now >= self.not_before {
            if let Some(server) = self.choose(routes) {
                self.attempts += 1;
                self.asked_at = now;
                // Each server once in a round; the turn goes on behind this server.
                self.asked |= 1 << server;
                self.rotation = Some(server + 1);
                let timeout = self.attempt_timeout.min(self.deadline - now);
                return Next::Ask { server, timeout };
            }
            // The round has asked every server: wait, then begin the next one.
            self.pause(now, routes);
        }
        Next::Pause(self.not_before.min(self.deadline) - now)
    }

    /// Takes in what came of the attempt at `server`. The table at the top of this file says what
    /// each result means.
    pub fn heard(
        &mut self,
        now: Duration,
        server: usize,
        result: Result<Answer, CallError>,
        routes: &mut Routes,
    ) -> Heard {
        self.no_room = false;
        match result {
            // The transport is certain that no server can execute this copy.
            Err(CallError::NotSent(why)) => {
                self.not_the_leader(server, None, routes);
                self.go_on(server, Word::NotSent(why))
            }
            // Part of the request has left, and the server may have read all of it.
            Err(CallError::Lost(why)) => self.doubtful(now, server, Word::Lost(why), routes),
            Ok(Answer::NotLeader(refusal)) => self.redirected(server, refusal, routes),
            Ok(Answer::Busy) => self.no_room(now, server, Word::Busy, routes),
            Ok(Answer::Invalid(reason)) => self.invalid(server, reason, routes),
            // The server cannot say whether the command was, or will be, committed.
            Ok(Answer::Unknown(doubt)) => self.doubtful(now, server, Word::InDoubt(doubt), routes),
            Ok(Answer::Reply(bytes)) => match codec::decode(&bytes) {
                Ok(reply) => self.replied(now, server, reply, routes),
                // A reply means that the command was executed; what it replied cannot be read. The
                // session still has the reply, so another attempt may bring it in readable form.
                Err(error) => self.doubtful(now, server, Word::Garbled(error.to_string()), routes),
            },
            Ok(Answer::Transferring) => Heard::Transferring,
            // Answers to other questions: the server is faulty, and may have done anything.
            Ok(Answer::Status(_) | Answer::Snapshot { .. }) => {
                let what = "what nobody asked for".to_string();
                self.doubtful(now, server, Word::Garbled(what), routes)
            }
        }
    }

    /// The error of a call that ends without an outcome, at its deadline or earlier. It says the
    /// most that is certain: `Unknown` as soon as one copy is in doubt, even if the last attempt
    /// was refused.
    pub fn give_up(&self, now: Duration, routes: &Routes) -> Error {
        let asked = self.last_words(routes);
        let waited = now.saturating_sub(self.started);
        if self.doubt {
            Error::Unknown { asked, waited }
        } else if self.no_room {
            Error::Refused { asked, waited }
        } else {
            Error::Unavailable { asked, waited }
        }
    }

    /// What came of the last attempt at each server that was asked, in the order of their indexes.
    pub fn last_words(&self, routes: &Routes) -> Vec<LastWord> {
        let word = |(server, word): (&usize, &Word)| LastWord {
            server: routes.address(*server).to_string(),
            word: word.clone(),
        };
        self.words.iter().map(word).collect()
    }

    /// The server to ask next: the one of the hint, else the one that led last, else the next in
    /// turn, of those that this round has not asked yet. `None` if the round has asked all.
    fn choose(&self, routes: &Routes) -> Option<usize> {
        let count = routes.servers().len();
        let first = self.rotation.unwrap_or_else(|| routes.turn());
        let in_turn = (0..count).map(|step| (first + step) % count);
        self.hint
            .into_iter()
            .chain(routes.leader())
            .chain(in_turn)
            .find(|server| self.asked & (1 << server) == 0)
    }

    /// Ends the round. The next one begins after a pause of a random length between half and all of
    /// the full pause: clients that a server has turned away together must not come back together.
    fn pause(&mut self, now: Duration, routes: &mut Routes) {
        let full = FIRST_PAUSE
            .saturating_mul(1 << self.rounds.min(16))
            .min(LONGEST_PAUSE);
        let half = (full / 2).as_micros() as u64;
        self.not_before = now + full - Duration::from_micros(routes.below(half + 1));
        self.rounds = self.rounds.saturating_add(1);
        self.asked = 0;
    }

    fn go_on(&mut self, server: usize, word: Word) -> Heard {
        self.words.insert(server, word);
        Heard::GoOn
    }

    /// The server did not act as the leader. Drops the hint if it named this server, and takes over
    /// the new one, if there is one. A hint for another server stays: this attempt did not refute
    /// it.
    fn not_the_leader(&mut self, server: usize, hint: Option<usize>, routes: &mut Routes) {
        routes.does_not_lead(server, hint);
        if hint.is_some() || self.hint == Some(server) {
            self.hint = hint;
        }
    }

    /// The server does not lead, so it has not appended the command. It may name the leader, also
    /// one that the client did not know; a server that names itself contradicts itself, and its
    /// hint is dropped.
    fn redirected(&mut self, server: usize, refusal: NotLeader, routes: &mut Routes) -> Heard {
        let hint = refusal
            .leader
            .as_ref()
            .and_then(|(_, address)| routes.learn(address))
            .filter(|hint| *hint != server);
        self.not_the_leader(server, hint, routes);
        self.go_on(server, Word::NotLeader(refusal))
    }

    /// The server refused because it, or the session, has too many requests under way. Only a
    /// leader says so, so the other servers could not help: ask the same one again after a pause.
    fn no_room(&mut self, now: Duration, server: usize, word: Word, routes: &mut Routes) -> Heard {
        routes.leads(server);
        self.no_room = true;
        self.hint = Some(server);
        self.pause(now, routes);
        self.go_on(server, word)
    }

    /// The attempt ended without saying whether its copy was executed. So the call is in doubt,
    /// unless the request is harmless, and goes on if its session would recognise another copy.
    ///
    /// A server that took all of its time may be slow and not gone. So the next attempts wait twice
    /// as long: otherwise a slow cluster would get ever more copies and never the time to answer.
    fn doubtful(&mut self, now: Duration, server: usize, word: Word, routes: &mut Routes) -> Heard {
        self.not_the_leader(server, None, routes);
        // 80 %, because a slow server answers `Unknown` itself when 90 % of the time is up.
        if now.saturating_sub(self.asked_at) >= self.attempt_timeout.mul_f64(0.8) {
            self.attempt_timeout = self.attempt_timeout.saturating_mul(2);
        }
        self.doubt |= self.nature != Nature::Harmless;
        self.words.insert(server, word);
        match self.nature {
            Nature::Harmless | Nature::Once => Heard::GoOn,
            Nature::Single => Heard::Failed(self.give_up(now, routes)),
        }
    }

    /// The server calls the request invalid, so this copy was not executed. If the call is in
    /// doubt, it goes on: an earlier copy may have been executed, and only a reply of the session
    /// can settle that.
    fn invalid(&mut self, server: usize, reason: String, routes: &Routes) -> Heard {
        if !self.doubt {
            return Heard::Failed(Error::No {
                server: routes.address(server).to_string(),
                reason,
            });
        }
        self.go_on(server, Word::Invalid(reason))
    }

    /// A reply of the state machine: the command went through the log. So the server leads, and
    /// what the reply says is true of this copy on every replica.
    fn replied(
        &mut self,
        now: Duration,
        server: usize,
        reply: Reply,
        routes: &mut Routes,
    ) -> Heard {
        routes.leads(server);
        match reply {
            Reply::NoSession(session) => {
                self.words.insert(server, Word::NoSession);
                // The session would have known an earlier copy. Without it, nobody can tell whether
                // that copy was executed, and a copy in a new session might be a second execution.
                if self.doubt {
                    let asked = self.last_words(routes);
                    return Heard::Failed(Error::SessionExpired { session, asked });
                }
                // Nothing was executed, so the command may get a number in a new session. The pause
                // is there for sessions that end as soon as they are opened, by a limit that is too
                // low: the call must not open one after the other without delay.
                self.pause(now, routes);
                Heard::Reopen
            }
            // The session's bound has passed this number, so its reply is gone. An earlier copy may
            // have been executed.
            Reply::AnswerDropped => {
                self.words.insert(server, Word::AnswerDropped);
                Heard::Failed(Error::Unknown {
                    asked: self.last_words(routes),
                    waited: now.saturating_sub(self.started),
                })
            }
            Reply::TooManyInFlight => self.no_room(now, server, Word::TooManyInFlight, routes),
            // The session keeps this reply like any other. So the first copy that reached it was
            // refused, and every other copy got the same reply: none was executed.
            Reply::Refused(reason) => Heard::Failed(Error::No {
                server: routes.address(server).to_string(),
                reason,
            }),
            reply => Heard::Reply(reply),
        }
    }
}

#[cfg(test)]
mod tests;
