//! The state that all threads of a Clerk share, and the steps in which a thread carries out a call.
//!
//! Each call runs in the thread of the program that makes it. One lock guards the routes and the
//! session, by which all calls decide. A thread releases the lock while its request is under way,
//! so calls do not wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::call::{Call, Heard, Nature, Next};
use super::error::{Error, LastWord};
use super::options::{Options, Stats};
use super::routes::Routes;
use super::session::{Issue, Session, Ticket};
use super::transport::{Stop, Transport};
use crate::kv::{Command, Op, Reply, SessionId};
use crate::wire::client::Ask;
use crate::wire::{codec, frame};

/// The largest command that this client sends, in bytes: the largest payload of a frame, less the
/// space for the other fields of a request.
const MAX_COMMAND: usize = frame::MAX_PAYLOAD - 64;

/// How long dropping a Clerk waits for its session to be closed.
const GOODBYE: Duration = Duration::from_millis(100);

pub(super) struct SharedClerk {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) options: Options,
    pub(super) state: Mutex<State>,
    /// When the Clerk was made. The clock that its calls use counts from then.
    start: Instant,
    /// How often calls have been cancelled: see [`Stop`].
    epoch: Arc<AtomicU64>,
    /// Notified when a thread has opened a session or failed to, and when an operation is settled.
    /// Threads that wait for a sequence number wait for this.
    session_moved: Condvar,
    /// Notified when calls are cancelled. A thread that pauses between two rounds of attempts waits
    /// on this, so that the pause ends at once.
    cancelled: Condvar,
}

pub(super) struct State {
    pub(super) routes: Routes,
    pub(super) stats: Stats,
    session: Session,
    /// Whether a thread is opening a session. Other threads that need a session wait for that
    /// thread: otherwise each of them would open a session.
    opening: bool,
    /// The results, at each server, of the latest attempts to open a session. A thread that waited
    /// in vain for that session reports these results in its error.
    not_opened: Vec<LastWord>,
}

impl SharedClerk {
    pub(super) fn new(transport: Arc<dyn Transport>, routes: Routes, options: Options) -> Self {
        SharedClerk {
            transport,
            options,
            state: Mutex::new(State {
                routes,
                stats: Stats::default(),
                session: Session::new(),
                opening: false,
                not_opened: Vec::new(),
            }),
            start: Instant::now(),
            epoch: Arc::new(AtomicU64::new(0)),
            session_moved: Condvar::new(),
            cancelled: Condvar::new(),
        }
    }

    /// Makes the [`Stop`] of a call that begins now: the next [`cancel`](Self::cancel) sets it,
    /// which ends the call.
    pub(super) fn stop(&self) -> Stop {
        Stop::after(&self.epoch)
    }

    pub(super) fn cancel(&self) {
        // Take the lock, so that no thread has read the epoch and has not begun to wait yet. Such a
        // thread would miss the notification.
        let _state = self.state.lock();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.session_moved.notify_all();
        self.cancelled.notify_all();
    }

    pub(super) fn query(&self, query: bytes::Bytes) -> Result<Reply, Error> {
        check_len(query.len())?;
        let mut call = self.begin(Nature::Harmless);
        match self.run(&mut call, &Ask::Query(query), &self.stop())? {
            Heard::Reply(reply) => Ok(reply),
            other => Err(Error::bad_answer(&other, "a question")),
        }
    }

    pub(super) fn transfer(&self, to: Option<u64>) -> Result<(), Error> {
        let mut call = self.begin(Nature::Single);
        match self.run(&mut call, &Ask::Transfer(to), &self.stop())? {
            Heard::Transferring => Ok(()),
            other => Err(Error::bad_answer(&other, "a transfer of leadership")),
        }
    }

    /// Executes an operation through the log, exactly once.
    ///
    /// Each pass of the loop takes a number in a session for the operation and makes attempts under
    /// that number. Only [`Heard::Reopen`] leads to another pass: it says that the session is gone,
    /// and that no copy of the operation was executed in it or still can be. The next pass opens
    /// another session, or uses one that another thread has opened.
    pub(super) fn execute(&self, op: &Op) -> Result<Reply, Error> {
        // A get changes nothing, so it is never in doubt.
        let nature = match op {
            Op::Get { .. } => Nature::Harmless,
            Op::Put { .. } | Op::Append { .. } | Op::Delete { .. } | Op::Cas { .. } => Nature::Once,
        };
        let stop = self.stop();
        let mut call = self.begin(nature);
        loop {
            let ticket = self.ticket(&call, &stop)?;
            // However this pass of the loop ends, nobody waits for the answer to this sequence
            // number afterwards, so settle it then.
            let _settle = Settle(self, ticket);
            // Encode the command once: every attempt must send the same bytes under this number.
            let command = ticket.command(op.clone());
            check_len(command.len())?;
            match self.run(&mut call, &Ask::Submit(command), &stop)? {
                Heard::Reply(reply) => return Ok(reply),
                Heard::Reopen => self.state.lock().session.gone(ticket.session),
                other => return Err(Error::bad_answer(&other, "a command")),
            }
        }
    }

    /// Closes the session, if a connection to the leader is open. This only frees memory at the
    /// servers early: a session that is not closed expires.
    pub(super) fn close(&self) {
        let (address, known, session) = {
            let state = self.state.lock();
            let (Some(session), Some(leader)) = (state.session.id(), state.routes.leader()) else {
                return;
            };
            let address = state.routes.address(leader).to_string();
            (address, state.routes.known(), session)
        };
        if self.transport.is_connected(&address) {
            let ask = Ask::Submit(codec::to_bytes(&Command::CloseSession { session }));
            let stop = Stop::never();
            let _ = self.transport.call(&address, &ask, known, GOODBYE, &stop);
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn begin(&self, nature: Nature) -> Call {
        self.begin_within(nature, self.options.deadline)
    }

    fn begin_within(&self, nature: Nature, within: Duration) -> Call {
        self.begin_with(nature, within, self.options.attempt_timeout)
    }

    pub(super) fn begin_with(&self, nature: Nature, within: Duration, attempt: Duration) -> Call {
        self.state.lock().stats.calls += 1;
        Call::new(nature, self.now(), within, attempt)
    }

    /// Sends the request `ask` again and again until [`Call::heard`] returns something else than
    /// [`Heard::GoOn`], or until the call fails.
    pub(super) fn run(&self, call: &mut Call, ask: &Ask, stop: &Stop) -> Result<Heard, Error> {
        let mut state = self.state.lock();
        loop {
            if stop.is_set() {
                let maybe_executed = call.in_doubt();
                return Err(Error::Cancelled { maybe_executed });
            }
            let (server, timeout) = match call.next(self.now(), &mut state.routes) {
                Next::Ask { server, timeout } => (server, timeout),
                Next::Pause(pause) => {
                    self.cancelled.wait_for(&mut state, pause);
                    continue;
                }
                Next::End(error) => return Err(error),
            };
            state.stats.attempts += 1;
            state.stats.retries += u64::from(call.attempts() > 1);
            state.stats.repeats_in_doubt += u64::from(call.in_doubt());
            let address = state.routes.address(server).to_string();
            let known = state.routes.known();
            // Release the lock while the request is under way, so that other threads can send
            // theirs.
            drop(state);
            let result = self.transport.call(&address, ask, known, timeout, stop);
            state = self.state.lock();
            match call.heard(self.now(), server, result, &mut state.routes) {
                Heard::GoOn => {}
                Heard::Failed(error) => return Err(error),
                done => return Ok(done),
            }
        }
    }

    /// Takes a sequence number for an operation. If no session is open, this thread opens one, or
    /// waits for the thread that is opening one. If the window is full, this thread waits until an
    /// operation is settled.
    fn ticket(&self, call: &Call, stop: &Stop) -> Result<Ticket, Error> {
        let mut state = self.state.lock();
        loop {
            if stop.is_set() {
                let maybe_executed = call.in_doubt();
                return Err(Error::Cancelled { maybe_executed });
            }
            let left = call.deadline().saturating_sub(self.now());
            match state.session.issue() {
                Issue::Ticket(ticket) => return Ok(ticket),
                _ if left.is_zero() => return Err(self.not_admitted(&state)),
                Issue::NoSession if !state.opening => {
                    state.opening = true;
                    drop(state);
                    let opened = self.open(left, stop);
                    state = self.state.lock();
                    state.opening = false;
                    self.session_moved.notify_all();
                    state.session.opened(opened?);
                    state.stats.sessions += 1;
                }
                Issue::NoSession | Issue::Full => {
                    self.session_moved.wait_for(&mut state, left);
                }
            }
        }
    }

    /// Opens a session through the log. Repeating the request is harmless: a second copy opens
    /// another session, which nobody uses, so that it expires.
    fn open(&self, within: Duration, stop: &Stop) -> Result<SessionId, Error> {
        let mut call = self.begin_within(Nature::Harmless, within);
        let ask = Ask::Submit(codec::to_bytes(&Command::OpenSession));
        let heard = self.run(&mut call, &ask, stop);
        let mut state = self.state.lock();
        state.not_opened = call.last_words(&state.routes);
        match heard? {
            Heard::Reply(Reply::Opened(id)) => Ok(id),
            other => Err(Error::bad_answer(&other, "the opening of a session")),
        }
    }

    /// The error of a call that got no sequence number by its deadline. If a session is open, its
    /// window was full of other operations. If no session is open, another thread tried in vain to
    /// open one.
    fn not_admitted(&self, state: &State) -> Error {
        let waited = self.options.deadline;
        match state.session.id() {
            Some(_) => Error::Refused {
                asked: Vec::new(),
                waited,
            },
            None => Error::Unavailable {
                asked: state.not_opened.clone(),
                waited,
            },
        }
    }
}

/// Settles an operation when this guard is dropped, that is on every way out of its call. If a
/// number were never settled, the session's bound could never rise above it.
struct Settle<'a>(&'a SharedClerk, Ticket);

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        let Settle(shared, ticket) = self;
        shared.state.lock().session.settle(ticket);
        shared.session_moved.notify_all();
    }
}

/// Refuses a request that does not fit into a frame, because no server would read it.
fn check_len(len: usize) -> Result<(), Error> {
    if len <= MAX_COMMAND {
        return Ok(());
    }
    Err(Error::No {
        server: "this client".into(),
        reason: format!("the request has {len} bytes, and no more than {MAX_COMMAND} can be sent"),
    })
}
