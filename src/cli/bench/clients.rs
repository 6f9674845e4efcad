//! Many clients in one thread. Each client does what a [`Clerk`](crate::client::Clerk) does: it
//! opens a session, numbers its writes, and repeats lost requests under the same number.
//!
//! A *slot* has at most one request under way at a time. A client has as many slots as it may have
//! requests under way. All clients share one [`Routes`], as the threads of one Clerk do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::Duration;

use super::load::{Kind, Request};
use crate::client::{
    Call, Carrier, Error, Heard, Issue, Nature, Next, Options, Routes, Session, Ticket, Told,
};
use crate::kv::{Command, Op, Reply};
use crate::wire::client::Ask;
use crate::wire::codec;

/// How long a slot waits before it asks for a sequence number again, if the window of its client's
/// session is full.
const FULL: Duration = Duration::from_millis(1);

/// How long a client may take to close its session at the end of the benchmark.
const GOODBYE: Duration = Duration::from_millis(500);

/// What one slot of a client is given to do: open the session, close it, or execute a request.
#[derive(Debug)]
pub enum Work {
    /// Open the client's session.
    Open,
    /// Close the client's session.
    Close,
    /// Execute this request, with as many attempts as it takes.
    Ask(Kind, Request),
}

/// The end of the work that a slot was given: for which client, when, and with which result.
#[derive(Debug)]
pub struct Done {
    /// The slot that did the work. It can be given other work now.
    pub slot: usize,
    /// The number of the client that the slot belongs to.
    pub client: usize,
    /// The kind of the request; `None` if the work was to open or close a session.
    pub kind: Option<Kind>,
    /// When the work was due. Its latency counts from this time.
    pub intended: Duration,
    /// When the work of the slot ended.
    pub at: Duration,
    /// `Ok` if the slot's work succeeded, else why it failed.
    pub result: Result<(), Error>,
}

/// Counters of all clients of a benchmark together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many requests were handed to the Carrier; a request that is sent again counts again.
    pub attempts: u64,
    /// How many of these attempts were not the first of their request.
    pub retries: u64,
    /// How many attempts sent a write again although an earlier copy might have been executed.
    pub repeats_in_doubt: u64,
    /// How many sessions were opened, those that replaced a lost session included.
    pub sessions: u64,
    /// How many changes of leader the clients have noticed: how often the server that answered as
    /// the leader was another one than the time before.
    pub leader_changes: u64,
}

/// All clients of a run, and their connections to the servers.
pub struct Clients {
    carrier: Carrier,
    routes: Routes,
    options: Options,
    lanes: usize,
    sessions: Vec<Session>,
    slots: Vec<Option<Job>>,
    pauses: BinaryHeap<Reverse<(Duration, usize)>>,
    counts: Counts,
    told: Vec<Told>,
    done: Vec<Done>,
}

struct Job {
    what: What,
    intended: Duration,
    ask: Ask,
    ticket: Option<Ticket>,
    call: Call,
    /// The call that opens another session, because the client has lost its session. The call for
    /// the slot's own request goes on when the new session is open.
    reopening: Option<Call>,
}

enum What {
    Open,
    Close,
    Write(Kind, Op),
    Read(Kind),
}

impl Job {
    /// Whether the request that the slot has under way opens a session.
    fn opens(&self) -> bool {
        self.reopening.is_some() || matches!(self.what, What::Open)
    }

    /// Whether the reply is of the type that the slot's request gets.
    fn expects(&self, reply: &Reply) -> bool {
        let is_to_call = matches!(
            (&self.what, reply),
            (What::Close | What::Write(Kind::Put, _), Reply::Done)
                | (What::Write(Kind::Append, _), Reply::Appended(_))
                | (What::Write(Kind::Delete, _), Reply::Deleted(_))
                | (What::Read(_), Reply::Value(_))
        );
        is_to_call && self.reopening.is_none()
    }
}

impl Clients {
    /// Makes this many clients, with this many slots each, and this many connections to each
    /// server.
    ///
    /// # Errors
    /// If the list of servers cannot be used, or if the operating system refuses to wait for
    /// sockets.
    pub fn new(
        servers: &[String],
        options: Options,
        (clients, per_client, lanes): (usize, usize, usize),
    ) -> Result<Self, Error> {
        let routes = Routes::new(servers.iter().map(|server| server.trim()), options.seed)?;
        let carrier = Carrier::new(lanes, options.cluster.clone()).map_err(|error| {
            Error::Servers(format!(
                "the operating system cannot wait for sockets: {error}"
            ))
        })?;
        Ok(Clients {
            carrier,
            routes,
            options,
            lanes,
            sessions: (0..clients).map(|_| Session::new()).collect(),
            slots: (0..clients * per_client).map(|_| None).collect(),
            pauses: BinaryHeap::new(),
            counts: Counts::default(),
            told: Vec::new(),
            done: Vec::new(),
        })
    }

    /// The slots of all clients, in the order in which they are to be used: first one slot of each
    /// client, then the second slot of each client, and so on.
    pub fn slots(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.slots.len()
    }

    /// One slot of each client, in which the client's session is opened and closed.
    pub fn first_slots(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.sessions.len()
    }

    /// How many clients there are.
    pub fn count(&self) -> usize {
        self.sessions.len()
    }

    /// The present time, on the clock that all times in this file use.
    pub fn now(&self) -> Duration {
        self.carrier.now()
    }

    /// The counters of all clients together, from the beginning of the run.
    pub fn counts(&self) -> Counts {
        Counts {
            leader_changes: self.routes.leader_changes(),
            ..self.counts
        }
    }

    /// The addresses of all known servers: those that the user named, and those that the clients
    /// learned from answers.
    pub fn servers(&self) -> &[String] {
        self.routes.servers()
    }

    /// Begins work in a free slot. The work was due at `intended`, and its latency counts from that
    /// time.
    pub fn begin(&mut self, slot: usize, work: Work, intended: Duration, now: Duration) {
        let (nature, within) = match &work {
            Work::Open | Work::Ask(_, Request::Read(_)) => {
                (Nature::Harmless, self.options.deadline)
            }
            Work::Close => (Nature::Harmless, GOODBYE),
            Work::Ask(_, Request::Write(_)) => (Nature::Once, self.options.deadline),
        };
        let open = || Ask::Submit(codec::to_bytes(&Command::OpenSession));
        let (what, ask) = match work {
            Work::Open => (What::Open, open()),
            Work::Close => match self.sessions[self.client(slot)].id() {
                Some(session) => {
                    let command = Command::CloseSession { session };
                    (What::Close, Ask::Submit(codec::to_bytes(&command)))
                }
                None => (What::Close, Ask::Status),
            },
            Work::Ask(kind, Request::Read(ask)) => (What::Read(kind), ask),
            // A write becomes a command when it gets its sequence number. Until then `Ask::Status`
            // is a placeholder, which is never sent.
            Work::Ask(kind, Request::Write(op)) => (What::Write(kind, op), Ask::Status),
        };
        let call = Call::new(nature, now, within, self.options.attempt_timeout);
        self.slots[slot] = Some(Job {
            what,
            intended,
            ask,
            ticket: None,
            call,
            reopening: None,
        });
        self.advance(slot, now);
    }

    /// Waits until the work of at least one slot ends, or until the given time. Replaces the
    /// contents of `done` with the ends of this work.
    ///
    /// # Errors
    /// If the operating system cannot wait for sockets.
    pub fn wait(&mut self, until: Duration, done: &mut Vec<Done>) -> io::Result<()> {
        let mut until = until;
        if let Some(Reverse((end, _))) = self.pauses.peek() {
            until = until.min(*end);
        }
        if !self.done.is_empty() {
            until = Duration::ZERO;
        }
        let mut told = std::mem::take(&mut self.told);
        self.carrier.wait(until, &mut told)?;
        for told in told.drain(..) {
            self.heard(told);
        }
        self.told = told;
        if !self.pauses.is_empty() {
            let now = self.now();
            while let Some(Reverse((end, slot))) = self.pauses.peek().copied() {
                if end > now {
                    break;
                }
                self.pauses.pop();
                self.advance(slot, now);
            }
        }
        done.clear();
        std::mem::swap(done, &mut self.done);
        Ok(())
    }

    fn client(&self, slot: usize) -> usize {
        slot % self.sessions.len()
    }

    /// Carries out the next step that the call of a slot has decided: ask a server, pause, or end.
    fn advance(&mut self, slot: usize, now: Duration) {
        let client = self.client(slot);
        let Some(job) = &mut self.slots[slot] else {
            return;
        };
        if job.reopening.is_none()
            && job.ticket.is_none()
            && let What::Write(_, op) = &job.what
        {
            match self.sessions[client].issue() {
                Issue::Ticket(ticket) => {
                    job.ask = Ask::Submit(ticket.command(op.clone()));
                    job.ticket = Some(ticket);
                }
                Issue::Full if now < job.call.deadline() => {
                    self.pauses.push(Reverse((now + FULL, slot)));
                    return;
                }
                // The deadline has passed while no sequence number was free: go on to the call,
                // which returns the error.
                Issue::Full => {}
                Issue::NoSession => {
                    let left = job.call.deadline().saturating_sub(now);
                    let timeout = self.options.attempt_timeout;
                    job.reopening = Some(Call::new(Nature::Harmless, now, left, timeout));
                }
            }
        }
        let (call, ask) = match &mut job.reopening {
            Some(call) => (call, Ask::Submit(codec::to_bytes(&Command::OpenSession))),
            None => (&mut job.call, job.ask.clone()),
        };
        match call.next(now, &mut self.routes) {
            Next::Ask { server, timeout } => {
                self.counts.attempts += 1;
                self.counts.retries += u64::from(call.attempts() > 1);
                self.counts.repeats_in_doubt += u64::from(call.in_doubt());
                let lane = client % self.lanes;
                let way = (server, self.routes.address(server));
                let ask = (ask, self.routes.known());
                self.carrier.ask(lane, way, slot, ask, timeout);
            }
            Next::Pause(pause) => self.pauses.push(Reverse((now + pause, slot))),
            Next::End(error) => self.end(slot, now, Err(error)),
        }
    }

    fn heard(&mut self, told: Told) {
        let Told {
            tag: slot,
            server,
            at,
            result,
        } = told;
        let client = self.client(slot);
        let Some(job) = &mut self.slots[slot] else {
            return;
        };
        let call = job.reopening.as_mut().unwrap_or(&mut job.call);
        match call.heard(at, server, result, &mut self.routes) {
            Heard::GoOn => self.advance(slot, at),
            Heard::Failed(error) => self.end(slot, at, Err(error)),
            Heard::Reply(Reply::Opened(session)) if job.opens() => {
                self.sessions[client].opened(session);
                self.counts.sessions += 1;
                match job.reopening.take() {
                    Some(_) => self.advance(slot, at),
                    None => self.end(slot, at, Ok(())),
                }
            }
            Heard::Reply(reply) => {
                let result = match job.expects(&reply) {
                    true => Ok(()),
                    false => Err(nonsense(&reply)),
                };
                self.end(slot, at, result);
            }
            Heard::Reopen => {
                // Another slot may already have opened a new session. `gone` does not touch that
                // session.
                if let Some(ticket) = job.ticket.take() {
                    self.sessions[client].gone(ticket.session);
                }
                self.advance(slot, at);
            }
            Heard::Transferring | Heard::Changed { .. } => {
                let what = "the answer to a request of another kind";
                self.end(slot, at, Err(Error::BadAnswer(what.into())));
            }
        }
    }

    fn end(&mut self, slot: usize, at: Duration, result: Result<(), Error>) {
        let client = self.client(slot);
        let Some(job) = self.slots[slot].take() else {
            return;
        };
        if let Some(ticket) = &job.ticket {
            self.sessions[client].settle(ticket);
        }
        self.done.push(Done {
            slot,
            client,
            kind: match job.what {
                What::Write(kind, _) | What::Read(kind) => Some(kind),
                What::Open | What::Close => None,
            },
            intended: job.intended,
            at,
            result,
        });
    }
}

fn nonsense(reply: &Reply) -> Error {
    let mut text = format!("{reply:?}");
    text.truncate(text.char_indices().nth(80).map_or(text.len(), |(at, _)| at));
    Error::BadAnswer(text)
}
