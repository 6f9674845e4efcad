//! One call, from its first attempt to its end: whom to ask next, when, what an answer means.
//! Pure: time comes in as an argument, randomness from [`Routes`].
//!
//! Attempts come in rounds. A round asks each server at most once and follows a hint or turns to
//! the next server without delay; between rounds lies a pause that doubles from 5 ms to 100 ms,
//! with jitter. So a moved leader costs one hop, and servers that point at each other, or a
//! cluster without a leader, are not hammered.
//!
//! What matters about an attempt that failed is whether it may have been executed:
//!
//! | end of an attempt | executed? | then |
//! | --- | --- | --- |
//! | not sent | no | the next server |
//! | `NotLeader` | no | the leader it names, or the next server |
//! | `Busy`, `TooManyInFlight` | no | the same server after a pause |
//! | `Invalid`, `Refused` | no | the call ends |
//! | no answer, `Unknown`, nonsense | perhaps | the same bytes to the next server |
//! | `NoSession` | not this copy | a new session if no copy is in doubt, else the call ends |
//! | `AnswerDropped` | perhaps | the call ends |
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

/// What repeating a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Nothing: it changes nothing that anybody could notice. Never in doubt.
    Harmless,
    /// Nothing within its session, which recognises it.
    Once,
    /// It acts again, so an attempt in doubt is not repeated.
    Single,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask this server, wait for so long at the most, and report with [`Call::heard`].
    Ask {
        /// Its index in [`Routes`].
        server: usize,
        /// How long to wait for the answer.
        timeout: Duration,
    },
    /// Let this time pass, then ask again what is next.
    Pause(Duration),
    /// The deadline has passed.
    End(Error),
}

/// What an attempt has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet: see [`Call::next`].
    GoOn,
    /// Executed. Never [`NoSession`](Reply::NoSession), [`Refused`](Reply::Refused),
    /// [`AnswerDropped`](Reply::AnswerDropped) or [`TooManyInFlight`](Reply::TooManyInFlight).
    Reply(Reply),
    /// The session is gone and nothing was executed in it: open another one, and continue this
    /// call there with a new number.
    Reopen,
    /// The leader hands over.
    Transferring,
    /// The call has failed.
    Failed(Error),
}

/// The state of one call.
#[derive(Debug)]
pub struct Call {
    nature: Nature,
    started: Duration,
    deadline: Duration,
    attempt_timeout: Duration,
    /// When the last attempt began.
    asked_at: Duration,
    /// Whether an attempt of this call may have been executed.
    doubt: bool,
    attempts: u64,
    rounds: u32,
    /// A bit for each server that this round has asked.
    asked: u64,
    /// Whom to ask by the latest hint.
    hint: Option<usize>,
    /// Where the rotation goes on; before the first attempt, wherever [`Routes`] says.
    rotation: Option<usize>,
    /// No attempt before this time.
    not_before: Duration,
    /// Whether the last refusal was for want of room rather than of a leader.
    no_room: bool,
    words: BTreeMap<usize, Word>,
}

impl Call {
    /// A call that starts `now` and ends `within` that time. Times count from any fixed moment.
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

    /// When the call ends at the latest.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether an attempt may have been executed without our having its answer.
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
                self.asked |= 1 << server;
                self.rotation = Some(server + 1);
                let timeout = self.attempt_timeout.min(self.deadline - now);
                return Next::Ask { server, timeout };
            }
            self.pause(now, routes);
        }
        Next::Pause(self.not_before.min(self.deadline) - now)
    }

    /// Takes in what came of an attempt.
    pub fn heard(
        &mut self,
        now: Duration,
        server: usize,
        result: Result<Answer, CallError>,
        routes: &mut Routes,
    ) -> Heard {
        self.no_room = false;
        match result {
            Err(CallError::NotSent(why)) => {
                self.not_the_leader(server, None, routes);
                self.go_on(server, Word::NotSent(why))
            }
            Err(CallError::Lost(why)) => self.doubtful(now, server, Word::Lost(why), routes),
            Ok(Answer::NotLeader(refusal)) => self.redirected(server, refusal, routes),
            Ok(Answer::Busy) => self.no_room(now, server, Word::Busy, routes),
            Ok(Answer::Invalid(reason)) => self.invalid(server, reason, routes),
            Ok(Answer::Unknown(doubt)) => self.doubtful(now, server, Word::InDoubt(doubt), routes),
            Ok(Answer::Reply(bytes)) => match codec::decode(&bytes) {
                Ok(reply) => self.replied(now, server, reply, routes),
                Err(error) => self.doubtful(now, server, Word::Garbled(error.to_string()), routes),
            },
            Ok(Answer::Transferring) => Heard::Transferring,
            Ok(Answer::Status(_) | Answer::Snapshot { .. }) => {
                let what = "what nobody asked for".to_string();
                self.doubtful(now, server, Word::Garbled(what), routes)
            }
        }
    }

    /// The error of a call that is given up, by its deadline or for another reason.
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

    /// What each server that was asked said last, in the order of the servers.
    pub fn last_words(&self, routes: &Routes) -> Vec<LastWord> {
        let word = |(server, word): (&usize, &Word)| LastWord {
            server: routes.address(*server).to_string(),
            word: word.clone(),
        };
        self.words.iter().map(word).collect()
    }

    /// Whom to ask in this round: whom the latest hint names, who led last, else the next in turn.
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

    /// Ends the round: the next one starts after a pause, of which a random half is left out so
    /// that clients that were turned away together do not come back together.
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

    fn not_the_leader(&mut self, server: usize, hint: Option<usize>, routes: &mut Routes) {
        routes.does_not_lead(server, hint);
        if hint.is_some() || self.hint == Some(server) {
            self.hint = hint;
        }
    }

    fn redirected(&mut self, server: usize, refusal: NotLeader, routes: &mut Routes) -> Heard {
        let hint = refusal
            .leader
            .as_ref()
            .and_then(|(_, address)| routes.learn(address))
            .filter(|hint| *hint != server);
        self.not_the_leader(server, hint, routes);
        self.go_on(server, Word::NotLeader(refusal))
    }

    /// Refused for want of room: whoever refused leads, so there is no point in asking others.
    fn no_room(&mut self, now: Duration, server: usize, word: Word, routes: &mut Routes) -> Heard {
        routes.leads(server);
        self.no_room = true;
        self.hint = Some(server);
        self.pause(now, routes);
        self.go_on(server, word)
    }

    /// No answer that settles the outcome. A server that used up its time may be slow rather than
    /// gone, so the next attempts get more.
    fn doubtful(&mut self, now: Duration, server: usize, word: Word, routes: &mut Routes) -> Heard {
        self.not_the_leader(server, None, routes);
        // It may say so itself, shortly before its time is up.
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

    /// This copy was not executed. Of an earlier one that says nothing.
    fn invalid(&mut self, server: usize, reason: String, routes: &Routes) -> Heard {
        if !self.doubt {
            return Heard::Failed(Error::No {
                server: routes.address(server).to_string(),
                reason,
            });
        }
        self.go_on(server, Word::Invalid(reason))
    }

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
                if self.doubt {
                    let asked = self.last_words(routes);
                    return Heard::Failed(Error::SessionExpired { session, asked });
                }
                // A pause, so that a session that is gone as soon as it is opened cannot spin.
                self.pause(now, routes);
                Heard::Reopen
            }
            Reply::AnswerDropped => {
                self.words.insert(server, Word::AnswerDropped);
                Heard::Failed(Error::Unknown {
                    asked: self.last_words(routes),
                    waited: now.saturating_sub(self.started),
                })
            }
            Reply::TooManyInFlight => self.no_room(now, server, Word::TooManyInFlight, routes),
            // The first copy that was executed got this answer, so it settles the earlier ones.
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
