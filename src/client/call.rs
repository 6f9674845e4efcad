//! One call of a client, from its first attempt to its end. Decides which server to ask next, when
//! to ask it, and what the answer means. The code is pure: the time is an argument, and randomness
//! comes from [`Routes`].
//!
//! Attempts come in rounds. Within a round the call asks each server at most once, without delay:
//! first the server that the last refusal named as the leader, then the server that led last, then
//! the others in the order of the list. Servers that are members no longer are asked only in a
//! round in which no member has answered: each of them may cost the time of an attempt, and during
//! an election there is no other help than to ask the members again. Between two rounds the call
//! pauses; the pause doubles from 5 ms to 100 ms and is jittered. So a call that asks an old leader
//! finds the new one with one more request. Two servers that name each other as the leader, or a
//! cluster without a leader, do not get a flood of requests.
//!
//! At its end, a call must tell whether its request may have been executed. Each attempt sends one
//! *copy* of the request. If after an attempt it is not known whether its copy was executed, the
//! call is *in doubt*, and stays so: a later copy that is certainly not executed says nothing about
//! the earlier one.
//!
//! | end of an attempt | executed? | then |
//! | --- | --- | --- |
//! | not sent | no | the next server |
//! | `NotLeader` | no | the leader that the refusal names, or the next server |
//! | `Busy`, `NoSpace`, `TooManyInFlight` | no | the same server after a pause |
//! | `Invalid` | not this copy | the call ends; if it is in doubt, the next server |
//! | `Refused` | no copy | the call ends |
//! | no answer, `Unknown`, nonsense | perhaps | the same bytes to the next server |
//! | `NoSession` | not this copy | a new session; if the call is in doubt, it ends |
//! | `AnswerDropped` | perhaps an earlier copy | the call ends |
//! | a reply | yes, once | the call ends |

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{Error, LastWord, Word};
use super::routes::{MadeAnew, Routes};
use super::transport::{Answered, CallError};
use crate::kv::Reply;
use crate::raft::Index;
use crate::wire::client::{Answer, NotLeader};
use crate::wire::codec;

/// The full length of the pause after the first round of attempts. It doubles with each round.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two rounds of attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What happens if a request is executed twice. This decides whether a call that is in doubt sends
/// another copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// A second execution does no harm, as for a read. The call is never in doubt.
    Harmless,
    /// A write in a session: the session recognises a second copy by its number and answers with
    /// the first reply. Or a change of members: the leader finds that it is made already. So the
    /// call may send the same bytes again while it is in doubt.
    Once,
    /// A second execution would act again, as for a transfer of leadership. So the call ends as
    /// soon as it is in doubt.
    Single,
}

/// The next step of a call, which [`Call::next`] decides: ask a server, pause, or end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask `server` and wait for its answer, at most for `timeout`. Then report the result to
    /// [`Call::heard`].
    Ask {
        /// The server's index in [`Routes`].
        server: usize,
        /// How long to wait for the answer at most.
        timeout: Duration,
    },
    /// Wait for this time, then call [`Call::next`] again.
    Pause(Duration),
    /// The deadline has passed: the call ends with this error.
    End(Error),
}

/// What the result of an attempt means for the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The call is not over: [`Call::next`] says how it goes on.
    GoOn,
    /// The request was executed, with this reply. The reply is never
    /// [`NoSession`](Reply::NoSession), [`Refused`](Reply::Refused),
    /// [`AnswerDropped`](Reply::AnswerDropped) or [`TooManyInFlight`](Reply::TooManyInFlight):
    /// those say that this copy was not executed.
    Reply(Reply),
    /// The session is gone, and no copy of the request was executed in it. Open another session,
    /// and continue this call there with a new number.
    Reopen,
    /// The leader has begun to transfer its leadership.
    Transferring,
    /// The change of members is in the leader's log.
    Changed {
        /// The index of the configuration that has the change.
        index: Index,
        /// Whether this copy of the request made it.
        is_new: bool,
    },
    /// The call has failed with this error.
    Failed(Error),
}

/// The state of one call. All times are counted from the same moment, which the user of this type
/// chooses.
#[derive(Debug)]
pub struct Call {
    nature: Nature,
    started: Duration,
    deadline: Duration,
    /// How long the next attempt waits for its answer. Never decreases during the call.
    attempt_timeout: Duration,
    /// The time at which the last attempt began.
    asked_at: Duration,
    /// Whether a copy of the request may have been executed without its reply having arrived.
    /// Once true, it stays true.
    doubt: bool,
    /// How many attempts have begun.
    attempts: u64,
    /// How many rounds have ended. Each of them doubles the next pause, up to [`LONGEST_PAUSE`].
    rounds: u32,
    /// The servers that this round has asked: bit `n` for the server with the index `n`. There are
    /// at most [`MAX_SERVERS`](super::MAX_SERVERS), 64.
    asked: u64,
    /// Whether a member has answered in this round, even with a refusal.
    answered: bool,
    /// The server to ask first in the next attempt: the one that the latest refusal named as the
    /// leader, or one that leads and refused for lack of room.
    hint: Option<usize>,
    /// The index of the server after the one that was asked last; the call goes on there, modulo
    /// the number of servers, if it knows no leader. `None` before the first attempt, for which
    /// [`Routes`] has the index.
    rotation: Option<usize>,
    /// The end of the present pause: no attempt begins before this time.
    not_before: Duration,
    /// Whether the last attempt was refused by a leader that had too much under way. If so, the
    /// error at the deadline says "too busy", else it says "no leader".
    no_room: bool,
    /// For the error message: the result of the last attempt at each server that was asked, by the
    /// server's index.
    words: BTreeMap<usize, Word>,
}

impl Call {
    /// Makes a call that starts at `now` and ends `within` later at the latest. Its first attempts
    /// wait for `attempt_timeout` each.
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
            answered: false,
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

    /// Decides the call's next step at the time `now`. To be called at the start, when a pause is
    /// over, and after [`heard`](Self::heard) returned [`Heard::GoOn`] or [`Heard::Reopen`].
    pub fn next(&mut self, now: Duration, routes: &mut Routes) -> Next {
        if now >= self.deadline {
            return Next::End(self.give_up(now, routes));
        }
        if now >= self.not_before {
            if let Some(server) = self.choose(routes) {
                self.attempts += 1;
                self.asked_at = now;
                // Do not ask this server again in this round. If no leader is known, the server
                // after it is the next one to ask.
                self.asked |= 1 << server;
                self.rotation = Some(server + 1);
                let timeout = self.attempt_timeout.min(self.deadline - now);
                return Next::Ask { server, timeout };
            }
            // The round has asked every server. Pause, then begin the next round.
            self.pause(now, routes);
        }
        Next::Pause(self.not_before.min(self.deadline) - now)
    }

    /// Handles the result of the attempt at `server`: an [`Answer`] or, with the news of the
    /// members, an [`Answered`]. The table at the top of this file says what each result means.
    pub fn heard(
        &mut self,
        now: Duration,
        server: usize,
        result: Result<impl Into<Answered>, CallError>,
        routes: &mut Routes,
    ) -> Heard {
        self.no_room = false;
        self.answered |= result.is_ok() && !routes.is_gone(server);
        let result = result.map(|answered| {
            let Answered { answer, members } = answered.into();
            let learned = members.map_or(Ok(()), |list| routes.learned(&list));
            (answer, learned)
        });
        match result {
            Ok((answer, Err(MadeAnew))) => Heard::Failed(self.made_anew(&answer, server, routes)),
            Ok((answer, Ok(()))) => self.answered(now, server, Ok(answer), routes),
            Err(error) => self.answered(now, server, Err(error), routes),
        }
    }

    fn answered(
        &mut self,
        now: Duration,
        server: usize,
        result: Result<Answer, CallError>,
        routes: &mut Routes,
    ) -> Heard {
        match result {
            // The transport is certain that no server can execute this copy.
            Err(CallError::NotSent(why)) => {
                self.not_the_leader(server, None, routes);
                self.go_on(server, Word::NotSent(why))
            }
            // The request was sent, and the server may have executed it.
            Err(CallError::Lost(why)) => self.doubtful(now, server, Word::Lost(why), routes),
            Ok(Answer::NotLeader(refusal)) => self.redirected(server, refusal, routes),
            Ok(Answer::Busy) => self.no_room(now, server, Word::Busy, routes),
            Ok(Answer::NoSpace(why)) => self.no_room(now, server, Word::NoSpace(why), routes),
            Ok(Answer::Invalid(reason)) => self.invalid(server, reason, routes),
            // The server cannot say whether the command was, or will be, committed.
            Ok(Answer::Unknown(doubt)) => self.doubtful(now, server, Word::InDoubt(doubt), routes),
            Ok(Answer::Reply(bytes)) => match codec::decode(&bytes) {
                Ok(reply) => self.replied(now, server, reply, routes),
                // A reply means that the command was executed, but this reply cannot be decoded.
                // The session still has the reply, so another attempt may bring it intact.
                Err(error) => self.doubtful(now, server, Word::Garbled(error.to_string()), routes),
            },
            Ok(Answer::Transferring) => Heard::Transferring,
            // Only a leader answers so.
            Ok(Answer::Changed { index, is_new }) => {
                routes.leads(server);
                Heard::Changed { index, is_new }
            }
            // These answers belong to requests of another kind: the server is faulty, and may have
            // done anything with this request.
            Ok(Answer::Status(_) | Answer::Snapshot { .. } | Answer::Members(_)) => {
                let what = "the answer to another kind of request".to_string();
                self.doubtful(now, server, Word::Garbled(what), routes)
            }
        }
    }

    /// The error of a call whose server belongs to another cluster, made anew under the same name.
    /// That server has executed this copy unless its answer is a refusal.
    fn made_anew(&self, answer: &Answer, server: usize, routes: &Routes) -> Error {
        let refused = matches!(
            answer,
            Answer::NotLeader(_) | Answer::Busy | Answer::Invalid(_)
        );
        Error::MadeAnew {
            server: routes.address(server).to_string(),
            maybe_executed: self.doubt || !refused && self.nature != Nature::Harmless,
        }
    }

    /// The error of a call that ends without an outcome, at its deadline or earlier. If any copy is
    /// in doubt, the error is `Unknown`, even if the last attempt was certainly not executed.
    pub fn give_up(&self, now: Duration, routes: &Routes) -> Error {
        let asked = self.last_words(routes);
        let waited = now.saturating_sub(self.started);
        if self.doubt {
            Error::Unknown { asked, waited }
        } else if self.no_room && self.last_was_no_space() {
            Error::NoSpace { asked, waited }
        } else if self.no_room {
            Error::Refused { asked, waited }
        } else {
            Error::Unavailable { asked, waited }
        }
    }

    /// Whether the leader that refused last has a full disk. After such a refusal the call goes on
    /// until its deadline, like after any other for lack of room: most often another node with
    /// space leads within some milliseconds, and the user sees nothing. If none has space, the
    /// error at the deadline says whose disk is full.
    fn last_was_no_space(&self) -> bool {
        let last = self.hint.and_then(|server| self.words.get(&server));
        matches!(last, Some(Word::NoSpace(_)))
    }

    /// The result of the last attempt at each server that was asked, in the order of the servers'
    /// indexes.
    pub fn last_words(&self, routes: &Routes) -> Vec<LastWord> {
        let word = |(server, word): (&usize, &Word)| LastWord {
            server: routes.address(*server).to_string(),
            word: word.clone(),
        };
        self.words.iter().map(word).collect()
    }

    /// Chooses the server to ask next among those that this round has not asked: the server that
    /// the last refusal named as the leader, else the server that led last, else the next member in
    /// the order of the list, else, if no member has answered, the next one of the others. `None`
    /// if the round has asked all of these.
    fn choose(&self, routes: &Routes) -> Option<usize> {
        let count = routes.servers().len();
        let first = self.rotation.unwrap_or_else(|| routes.turn());
        let in_turn = || (0..count).map(|step| (first + step) % count);
        let members = in_turn().filter(|server| !routes.is_gone(*server));
        let others = in_turn().filter(|server| routes.is_gone(*server) && !self.answered);
        self.hint
            .into_iter()
            .chain(routes.leader())
            .chain(members)
            .chain(others)
            .find(|server| self.asked & (1 << server) == 0)
    }

    /// Ends the round. The next round begins after a pause of a random length between half and all
    /// of the full pause: clients that a server has turned away together must not come back
    /// together.
    fn pause(&mut self, now: Duration, routes: &mut Routes) {
        let full = FIRST_PAUSE
            .saturating_mul(1 << self.rounds.min(16))
            .min(LONGEST_PAUSE);
        let half = (full / 2).as_micros() as u64;
        self.not_before = now + full - Duration::from_micros(routes.below(half + 1));
        self.rounds = self.rounds.saturating_add(1);
        self.asked = 0;
        self.answered = false;
    }

    fn go_on(&mut self, server: usize, word: Word) -> Heard {
        self.words.insert(server, word);
        Heard::GoOn
    }

    /// Notes that the server did not act as the leader, and that it names `hint` as the leader, if
    /// anyone. A new hint replaces the old one. Without a new hint, the old one is dropped only if
    /// it named this server, because the attempt says nothing about other servers.
    fn not_the_leader(&mut self, server: usize, hint: Option<usize>, routes: &mut Routes) {
        routes.does_not_lead(server, hint);
        if hint.is_some() || self.hint == Some(server) {
            self.hint = hint;
        }
    }

    /// The server does not lead, so it has not appended the command. If it names a leader, the call
    /// asks that server next, even if its address is new to the client. A server that refuses and
    /// names itself as the leader is not asked again because of this.
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
    /// leader refuses for lack of room, so the other servers could not help: ask the same server
    /// again after a pause.
    fn no_room(&mut self, now: Duration, server: usize, word: Word, routes: &mut Routes) -> Heard {
        routes.leads(server);
        self.no_room = true;
        self.hint = Some(server);
        self.pause(now, routes);
        self.go_on(server, word)
    }

    /// Handles an attempt that ended without a sign whether its copy was executed. The call is now
    /// in doubt, unless the request is harmless. The call goes on unless a second execution would
    /// act again.
    ///
    /// A server that did not answer within the time of the attempt may be slow and still alive. So
    /// the later attempts of this call wait twice as long: otherwise a slow cluster would get ever
    /// more copies and never have the time to answer one.
    fn doubtful(&mut self, now: Duration, server: usize, word: Word, routes: &mut Routes) -> Heard {
        self.not_the_leader(server, None, routes);
        // 80 % of the timeout, because a slow server answers `Unknown` when 90 % of it has passed.
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
    /// doubt, it goes on: an earlier copy may have been executed, and only a reply from the session
    /// can tell.
    fn invalid(&mut self, server: usize, reason: String, routes: &Routes) -> Heard {
        if !self.doubt {
            return Heard::Failed(Error::No {
                server: routes.address(server).to_string(),
                reason,
            });
        }
        self.go_on(server, Word::Invalid(reason))
    }

    /// Handles a reply of the state machine. Only a leader sends a reply: for a command that is
    /// committed, or for a linearizable read.
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
                // The session was the only record of an earlier copy. Now nobody can tell whether
                // that copy was executed, and a copy in a new session could be a second execution.
                if self.doubt {
                    let asked = self.last_words(routes);
                    return Heard::Failed(Error::SessionExpired { session, asked });
                }
                // No copy was executed, so the command may get a number in a new session. Pause
                // first: if sessions end as soon as they are opened, because a limit is too low,
                // the call must not open one after the other without delay.
                self.pause(now, routes);
                Heard::Reopen
            }
            // The session's bound has passed this number, so the session no longer has the reply.
            // An earlier copy may have been executed.
            Reply::AnswerDropped => {
                self.words.insert(server, Word::AnswerDropped);
                Heard::Failed(Error::Unknown {
                    asked: self.last_words(routes),
                    waited: now.saturating_sub(self.started),
                })
            }
            Reply::TooManyInFlight => self.no_room(now, server, Word::TooManyInFlight, routes),
            // The session keeps a refusal like any other reply. So the first copy that arrived was
            // refused, and every other copy got that reply again: none was executed.
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
