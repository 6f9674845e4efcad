//! The blocking client: what a program uses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::call::{Call, Heard, Nature, Next};
use super::error::{Error, LastWord};
use super::options::{Options, Stats};
use super::routes::Routes;
use super::session::{Issue, Session, Ticket};
use super::tcp::Tcp;
use super::transport::{CallError, Stop, Transport};
use crate::kv::{Command, Op, Page, Query, Reply, Scan};
use crate::raft::NodeId;
use crate::wire::client::{Ask, Status};
use crate::wire::{codec, frame};

/// The largest command that is sent, in bytes: what fits into a frame beside a request's own
/// fields.
const MAX_COMMAND: usize = frame::MAX_PAYLOAD - 64;

/// How long a Clerk that goes away waits for its session to be closed.
const GOODBYE: Duration = Duration::from_millis(100);

/// A client of the cluster.
///
/// It finds the leader, repeats what got lost, and has each write executed exactly once, however
/// often the network made it repeat the write. Every call blocks its thread and ends by its
/// deadline ([`Options::deadline`]). Many threads may use one Clerk at once: they share its
/// session and one connection per server, and do not wait for each other.
///
/// ```no_run
/// # fn main() -> Result<(), raftkv::client::Error> {
/// use raftkv::client::Clerk;
///
/// let clerk = Clerk::connect(["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"])?;
/// clerk.put("greeting", "hello")?;
/// clerk.append("greeting", ", world")?;
/// assert_eq!(clerk.get("greeting")?.as_deref(), Some(&b"hello, world"[..]));
/// assert_eq!(clerk.get("nothing")?, None);
/// # Ok(())
/// # }
/// ```
///
/// # Exactly once
/// The first write opens a session, in which every write has a number; servers recognise a
/// repeat by it. A session that expired while the Clerk was idle is replaced without notice. If
/// it expires while the outcome of a write is open, that write ends as
/// [`Error::SessionExpired`]. A call that ended as [`Error::Unknown`] or
/// [`Error::Cancelled`] may still be executed afterwards, at most once.
///
/// Dropping the Clerk closes the session, if that is possible within a tenth of a second.
pub struct Clerk {
    transport: Arc<dyn Transport>,
    options: Options,
    start: Instant,
    epoch: Arc<AtomicU64>,
    inner: Arc<Inner>,
}

/// What the threads that use a Clerk share.
struct Inner {
    state: Mutex<State>,
    /// A session was opened or given up, or an operation settled.
    session_moved: Condvar,
    /// For pauses between rounds: only a cancellation ends them early.
    cancelled: Condvar,
}

struct State {
    routes: Routes,
    session: Session,
    /// Whether a thread is opening a session; the others wait for it.
    opening: bool,
    /// What was heard when a session could not be opened, for those who waited for it.
    not_opened: Vec<LastWord>,
    stats: Stats,
}

/// What a compare-and-swap did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// The value was as expected and has been replaced.
    Swapped,
    /// The value was another one, and remains; `None`: the key is missing.
    Mismatch(Option<Bytes>),
}

/// What one server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its address, host:port.
    pub address: String,
    /// Its status, or why there is none.
    pub result: Result<Status, CallError>,
}

/// Ends the calls of a [`Clerk`] from another thread, such as one that handles Ctrl-C.
#[derive(Clone)]
pub struct Canceller {
    epoch: Arc<AtomicU64>,
    inner: Arc<Inner>,
}

impl Canceller {
    /// Ends all calls that are under way as [`Error::Cancelled`]: at once where they pause, within
    /// a twentieth of a second where they wait for an answer, and within half a second where they
    /// wait for a connection. Later calls are not affected.
    pub fn cancel(&self) {
        // Under the lock, so that nobody is between looking at the epoch and waiting.
        let _state = self.inner.state.lock();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.inner.session_moved.notify_all();
        self.inner.cancelled.notify_all();
    }
}

impl Clerk {
    /// A Clerk for the cluster of these servers, host:port each. One of them is enough: the others
    /// are learned. Nothing is sent before the first call.
    ///
    /// # Errors
    /// [`Error::Servers`] if the list cannot be used.
    pub fn connect<I, S>(servers: I) -> Result<Clerk, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Clerk::with_options(servers, Options::default())
    }

    /// Like [`connect`](Self::connect), with options.
    ///
    /// # Errors
    /// [`Error::Servers`] if the list cannot be used.
    pub fn with_options<I, S>(servers: I, options: Options) -> Result<Clerk, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let transport = Arc::new(Tcp::new(options.cluster.clone()));
        Clerk::over(transport, servers, options)
    }

    /// A Clerk whose requests take another way than TCP.
    ///
    /// # Errors
    /// [`Error::Servers`] if the list cannot be used.
    pub fn over<I, S>(
        transport: Arc<dyn Transport>,
        servers: I,
        options: Options,
    ) -> Result<Clerk, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let state = State {
            routes: Routes::new(servers, options.seed)?,
            session: Session::new(),
            opening: false,
            not_opened: Vec::new(),
            stats: Stats::default(),
        };
        Ok(Clerk {
            transport,
            options,
            start: Instant::now(),
            epoch: Arc::new(AtomicU64::new(0)),
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                session_moved: Condvar::new(),
                cancelled: Condvar::new(),
            }),
        })
    }

    /// The value of a key; `None` if it is missing. Linearizable.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`], [`Error::No`] or [`Error::Cancelled`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        match self.query(&Query::Get { key: own(key) })? {
            Reply::Value(value) => Ok(value),
            other => Err(unexpected("a get", &other)),
        }
    }

    /// Sets a value.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells what is certain.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let (key, value) = (own(key), own(value));
        match self.execute(Op::Put { key, value })? {
            Reply::Done => Ok(()),
            other => Err(unexpected("a put", &other)),
        }
    }

    /// Adds to the end of a value, and returns its new length in bytes. A missing key counts as
    /// empty.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells what is certain.
    pub fn append(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64, Error> {
        let (key, value) = (own(key), own(value));
        match self.execute(Op::Append { key, value })? {
            Reply::Appended(len) => Ok(len),
            other => Err(unexpected("an append", &other)),
        }
    }

    /// Removes a key, and tells whether it was there.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells what is certain.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        match self.execute(Op::Delete { key: own(key) })? {
            Reply::Deleted(was_there) => Ok(was_there),
            other => Err(unexpected("a delete", &other)),
        }
    }

    /// Sets a value if the present one is `expected`; `None`: if the key is missing.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells what is certain.
    pub fn cas(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<CasOutcome, Error> {
        let (key, value) = (own(key), own(value));
        let expected = expected.map(own);
        let op = Op::Cas {
            key,
            expected,
            value,
        };
        match self.execute(op)? {
            Reply::Swapped(Ok(())) => Ok(CasOutcome::Swapped),
            Reply::Swapped(Err(present)) => Ok(CasOutcome::Mismatch(present)),
            other => Err(unexpected("a compare-and-swap", &other)),
        }
    }

    /// Reads one page of a range, linearizably. [`Page::next`] is where the next one starts.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn scan(&self, scan: Scan) -> Result<Page, Error> {
        match self.query(&Query::Scan(scan))? {
            Reply::Page(page) => Ok(page),
            other => Err(unexpected("a scan", &other)),
        }
    }

    /// Reads a whole range page by page. Each page is linearizable; keys that change between two
    /// pages may show either state. The limits of `scan` hold for each page.
    pub fn pages(&self, scan: Scan) -> Pages<'_> {
        Pages {
            clerk: self,
            rest: Some(scan),
        }
    }

    /// Executes an operation through the session, exactly once: also a get, which then goes
    /// through the log. The reply is never one of those that mean "not executed".
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells what is certain.
    pub fn execute(&self, op: Op) -> Result<Reply, Error> {
        // A get changes nothing, so it is never in doubt.
        let nature = match op {
            Op::Get { .. } => Nature::Harmless,
            Op::Put { .. } | Op::Append { .. } | Op::Delete { .. } | Op::Cas { .. } => Nature::Once,
        };
        let stop = Stop::after(&self.epoch);
        let mut call = self.call(nature);
        loop {
            let ticket = self.ticket(&call, &stop)?;
            let settled = Settle {
                inner: &self.inner,
                ticket,
            };
            let command = ticket.command(op.clone());
            check_len(&command)?;
            match self.run(&mut call, &Ask::Submit(command), &stop)? {
                Heard::Reply(reply) => return Ok(reply),
                Heard::Reopen => {
                    self.inner.state.lock().session.gone(ticket.session);
                    drop(settled);
                }
                _ => return Err(Error::BadAnswer("a hand-over nobody asked for".into())),
            }
        }
    }

    /// Asks all known servers at once for their status; works without a leader or a quorum.
    /// Members that the servers name and the Clerk did not know are asked too.
    pub fn status(&self) -> Vec<ServerStatus> {
        Vec::new()
    }

    /// Has the leader hand over to the given node, or to the one that is furthest along. Returns
    /// when it has begun to.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Unknown`] if the answer got lost.
    pub fn transfer(&self, to: Option<NodeId>) -> Result<(), Error> {
        let stop = Stop::after(&self.epoch);
        match self.run(&mut self.call(Nature::Single), &Ask::Transfer(to), &stop)? {
            Heard::Transferring => Ok(()),
            _ => Err(Error::BadAnswer("a reply to a hand-over".into())),
        }
    }

    /// What ends calls from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            epoch: Arc::clone(&self.epoch),
            inner: Arc::clone(&self.inner),
        }
    }

    /// What the Clerk has done so far.
    pub fn stats(&self) -> Stats {
        let state = self.inner.state.lock();
        Stats {
            leader_changes: state.routes.leader_changes(),
            ..state.stats
        }
    }

    /// All servers that the Clerk knows, its own list first, then learned ones.
    pub fn servers(&self) -> Vec<String> {
        self.inner.state.lock().routes.servers().to_vec()
    }

    /// The server that led last, as far as the Clerk knows.
    pub fn leader(&self) -> Option<String> {
        let state = self.inner.state.lock();
        let leader = state.routes.leader()?;
        Some(state.routes.address(leader).to_string())
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn call(&self, nature: Nature) -> Call {
        self.inner.state.lock().stats.calls += 1;
        let Options {
            deadline,
            attempt_timeout,
            ..
        } = self.options;
        Call::new(nature, self.now(), deadline, attempt_timeout)
    }

    fn query(&self, query: &Query) -> Result<Reply, Error> {
        let stop = Stop::after(&self.epoch);
        let query = codec::to_bytes(query);
        check_len(&query)?;
        let ask = Ask::Query(query);
        match self.run(&mut self.call(Nature::Harmless), &ask, &stop)? {
            Heard::Reply(reply) => Ok(reply),
            _ => Err(Error::BadAnswer("something else than a value".into())),
        }
    }

    /// Carries a call on until something has come of it.
    fn run(&self, call: &mut Call, ask: &Ask, stop: &Stop) -> Result<Heard, Error> {
        let mut state = self.inner.state.lock();
        loop {
            if stop.is_set() {
                let maybe_executed = call.in_doubt();
                return Err(Error::Cancelled { maybe_executed });
            }
            let in_doubt = call.in_doubt();
            let (server, timeout) = match call.next(self.now(), &mut state.routes) {
                Next::Ask { server, timeout } => (server, timeout),
                Next::Pause(pause) => {
                    self.inner.cancelled.wait_for(&mut state, pause);
                    continue;
                }
                Next::End(error) => return Err(error),
            };
            state.stats.attempts += 1;
            state.stats.retries += u64::from(call.attempts() > 1);
            state.stats.repeats_in_doubt += u64::from(in_doubt);
            let address = state.routes.address(server).to_string();
            drop(state);
            let result = self.transport.call(&address, ask, timeout, stop);
            state = self.inner.state.lock();
            match call.heard(self.now(), server, result, &mut state.routes) {
                Heard::GoOn => {}
                Heard::Failed(error) => return Err(error),
                done => return Ok(done),
            }
        }
    }

    /// A number for an operation: of the open session, or of one that this thread opens or waits
    /// for another to open.
    fn ticket(&self, call: &Call, stop: &Stop) -> Result<Ticket, Error> {
        let mut state = self.inner.state.lock();
        loop {
            if stop.is_set() {
                let maybe_executed = call.in_doubt();
                return Err(Error::Cancelled { maybe_executed });
            }
            match state.session.issue() {
                Issue::Ticket(ticket) => return Ok(ticket),
                Issue::NoSession if !state.opening => {
                    state.opening = true;
                    drop(state);
                    let opened = self.open(call, stop);
                    state = self.inner.state.lock();
                    state.opening = false;
                    self.inner.session_moved.notify_all();
                    state.session.opened(opened?);
                    state.stats.sessions += 1;
                    continue;
                }
                Issue::NoSession | Issue::Full => {}
            }
            let left = call.deadline().saturating_sub(self.now());
            if left.is_zero() {
                return Err(self.not_admitted(call, &state));
            }
            self.inner.session_moved.wait_for(&mut state, left);
        }
    }

    /// The error of a call that got no number in time.
    fn not_admitted(&self, call: &Call, state: &State) -> Error {
        let waited = self.options.deadline;
        let asked = match state.session.id() {
            Some(_) => Vec::new(),
            None => state.not_opened.clone(),
        };
        match state.session.id() {
            _ if call.in_doubt() => call.give_up(self.now(), &state.routes),
            Some(_) => Error::Refused { asked, waited },
            None => Error::Unavailable { asked, waited },
        }
    }

    /// Opens a session through the log, within the time of the call that needs it. Harmless to
    /// repeat: a session that nobody uses expires.
    fn open(&self, needed_by: &Call, stop: &Stop) -> Result<u64, Error> {
        let left = needed_by.deadline().saturating_sub(self.now());
        let attempt_timeout = self.options.attempt_timeout;
        let mut call = Call::new(Nature::Harmless, self.now(), left, attempt_timeout);
        let ask = Ask::Submit(codec::to_bytes(&Command::OpenSession));
        let heard = self.run(&mut call, &ask, stop);
        let mut state = self.inner.state.lock();
        state.stats.calls += 1;
        state.not_opened = call.last_words(&state.routes);
        match heard? {
            Heard::Reply(Reply::Opened(id)) => Ok(id),
            other => Err(Error::BadAnswer(format!(
                "{other:?} to the opening of a session"
            ))),
        }
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        let (address, session) = {
            let state = self.inner.state.lock();
            let (Some(session), Some(leader)) = (state.session.id(), state.routes.leader()) else {
                return;
            };
            (state.routes.address(leader).to_string(), session)
        };
        if self.transport.is_connected(&address) {
            let ask = Ask::Submit(codec::to_bytes(&Command::CloseSession { session }));
            // A courtesy: a session that is not closed expires.
            let _ = self.transport.call(&address, &ask, GOODBYE, &Stop::never());
        }
    }
}

/// Settles an operation however its call ends.
struct Settle<'a> {
    inner: &'a Inner,
    ticket: Ticket,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        self.inner.state.lock().session.settle(&self.ticket);
        self.inner.session_moved.notify_all();
    }
}

/// The pages of a range, one after the other. Ends after the first error.
pub struct Pages<'a> {
    clerk: &'a Clerk,
    rest: Option<Scan>,
}

impl Iterator for Pages<'_> {
    type Item = Result<Page, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let scan = self.rest.take()?;
        let page = self.clerk.scan(scan.clone());
        if let Ok(Page {
            next: Some(start), ..
        }) = &page
        {
            let start = start.clone();
            self.rest = Some(Scan { start, ..scan });
        }
        Some(page)
    }
}

fn own(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

fn unexpected(to: &str, reply: &Reply) -> Error {
    let mut shown = format!("{reply:?}");
    if let Some((end, _)) = shown.char_indices().nth(200) {
        shown.truncate(end);
        shown.push('…');
    }
    Error::BadAnswer(format!("{shown} to {to}"))
}

/// Refuses what no frame can hold; no server could even read it.
fn check_len(command: &Bytes) -> Result<(), Error> {
    if command.len() <= MAX_COMMAND {
        return Ok(());
    }
    Err(Error::No {
        server: "this client".into(),
        reason: format!(
            "the request has {} bytes, and {MAX_COMMAND} is the most that can be sent",
            command.len()
        ),
    })
}
