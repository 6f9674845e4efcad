//! The blocking client, which most programs use.

use std::sync::Arc;

use bytes::Bytes;

use super::error::Error;
use super::members::{self, MembersChanged};
use super::options::{Options, Stats};
use super::routes::Routes;
use super::shared::SharedClerk;
use super::status::{self, ServerStatus, SnapshotBegun};
use super::tcp::Tcp;
use super::transport::{CallError, Transport};
use crate::kv::{Op, Page, Query, Reply, Scan};
use crate::raft::NodeId;
use crate::wire::client::Status;
use crate::wire::codec;
use crate::wire::members::{ChangeRequest, MembersReport};

/// A client of the cluster.
///
/// It finds the leader, sends a request again when the answer got lost, and has each write executed
/// exactly once, however often it had to send it. Every call blocks its thread and ends by its
/// deadline ([`Options::deadline`]). Many threads may use one Clerk at once: they share its session
/// and one connection to each server, and do not wait for each other.
///
/// ```
/// use raftkv::testkit::Cluster;
///
/// // Against running nodes: Clerk::connect(["10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000"])
/// let cluster = Cluster::of_stores(3);
/// let clerk = cluster.clerk();
///
/// clerk.put("greeting", "hello")?;
/// clerk.append("greeting", ", world")?;
/// assert_eq!(clerk.get("greeting")?.as_deref(), Some(&b"hello, world"[..]));
/// assert_eq!(clerk.get("nothing")?, None);
/// # Ok::<(), raftkv::client::Error>(())
/// ```
///
/// # Exactly once
/// The first write opens a session, and every write has a number in it. By that number the servers
/// recognise a write that is sent again. If the session expires while the Clerk is idle, the next
/// write opens another one. If it expires while the outcome of a write is not known, that write
/// ends as [`Error::SessionExpired`]. After a call has ended as [`Error::Unknown`] or
/// [`Error::Cancelled`], its write may still be executed, at most once.
///
/// # Members that change
/// With its answers the cluster tells the Clerk who its members are. So a Clerk that makes a
/// request now and then goes on when none of the servers is left that it began with. If the servers
/// belong to another cluster of the same name all of a sudden, calls end as [`Error::MadeAnew`].
///
/// Dropping the Clerk closes the session, and waits for that at most a tenth of a second.
pub struct Clerk {
    shared: Arc<SharedClerk>,
}

/// The outcome of a compare-and-swap that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// The present value was the expected one, and has been replaced by the new value.
    Swapped,
    /// The value was not the expected one, and remains. It is returned here; `None`: the key is
    /// missing.
    Mismatch(Option<Bytes>),
}

/// Cancels the calls of a [`Clerk`] from another thread, such as one that handles Ctrl-C.
#[derive(Clone)]
pub struct Canceller {
    shared: Arc<SharedClerk>,
}

impl Canceller {
    /// Ends all calls that are under way as [`Error::Cancelled`]. A call that pauses ends at once,
    /// one that waits for an answer within a twentieth of a second, and one that connects to a
    /// server within half a second. Later calls are not affected.
    pub fn cancel(&self) {
        self.shared.cancel();
    }
}

impl Clerk {
    /// Makes a Clerk for the cluster of these servers, host:port each. One server is enough: the
    /// Clerk learns the others from its answers. Nothing is sent before the first call.
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

    /// Makes a Clerk whose requests go over the given transport instead of TCP.
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
        let routes = Routes::new(servers, options.seed)?;
        Ok(Clerk {
            shared: Arc::new(SharedClerk::new(transport, routes, options)),
        })
    }

    /// Reads the value of a key; `None` if the key is missing. Linearizable.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`], [`Error::No`] or [`Error::Cancelled`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        match self.query(&Query::Get { key: own(key) })? {
            Reply::Value(value) => Ok(value),
            other => Err(Error::bad_answer(&other, "a get")),
        }
    }

    /// Sets a value.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells whether the value may have been set.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let (key, value) = (own(key), own(value));
        match self.execute(Op::Put { key, value })? {
            Reply::Done => Ok(()),
            other => Err(Error::bad_answer(&other, "a put")),
        }
    }

    /// Adds to the end of a value, and returns its new length in bytes. A missing key counts as
    /// empty.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells whether the append may have been executed.
    pub fn append(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64, Error> {
        let (key, value) = (own(key), own(value));
        match self.execute(Op::Append { key, value })? {
            Reply::Appended(len) => Ok(len),
            other => Err(Error::bad_answer(&other, "an append")),
        }
    }

    /// Removes a key, and tells whether it was there.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells whether the key may have been removed.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        match self.execute(Op::Delete { key: own(key) })? {
            Reply::Deleted(was_there) => Ok(was_there),
            other => Err(Error::bad_answer(&other, "a delete")),
        }
    }

    /// Sets a value if the present one is `expected`; `None`: if the key is missing.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells whether the value may have been set.
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
            other => Err(Error::bad_answer(&other, "a compare-and-swap")),
        }
    }

    /// Reads one page of a range, linearizably. [`Page::next`] is the key where the next page
    /// starts.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn scan(&self, scan: Scan) -> Result<Page, Error> {
        match self.query(&Query::Scan(scan))? {
            Reply::Page(page) => Ok(page),
            other => Err(Error::bad_answer(&other, "a scan")),
        }
    }

    /// Reads a whole range page by page. Each page is linearizable, but the pages are not one
    /// snapshot: each shows the state at its own time. The limits of `scan` apply to each page.
    pub fn pages(&self, scan: Scan) -> Pages<'_> {
        Pages {
            clerk: self,
            rest: Some(scan),
        }
    }

    /// Executes an operation through the log. The session makes repeating safe: the operation is
    /// never executed twice. Replies which say that it was not executed are returned as errors. A
    /// get is allowed, but [`get`](Self::get) is faster.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::kind`] tells whether the operation was not executed, or may have
    /// been.
    pub fn execute(&self, op: Op) -> Result<Reply, Error> {
        self.shared.execute(&op)
    }

    /// Asks all known servers at once for their status. Then asks the members that their answers
    /// name and that the Clerk did not know. Works without a leader or a quorum.
    pub fn status(&self) -> Vec<ServerStatus> {
        status::of_all(&self.shared)
    }

    /// Asks one server for its status.
    ///
    /// # Errors
    /// [`CallError`] if it does not answer within [`Options::attempt_timeout`].
    pub fn status_of(&self, server: &str) -> Result<Status, CallError> {
        status::of_one(&self.shared, server)
    }

    /// Asks one server to take a snapshot of its state. Returns before the snapshot is written;
    /// [`status_of`](Self::status_of) tells when it is durable.
    ///
    /// # Errors
    /// [`CallError`] if it does not answer within [`Options::attempt_timeout`].
    pub fn take_snapshot(&self, server: &str) -> Result<SnapshotBegun, CallError> {
        status::take_snapshot(&self.shared, server)
    }

    /// Asks what the members are, how far each of them is, and what a change of them waits for. The
    /// report is that of the leader; without a leader it is that of the node that knows most, and
    /// [`MembersReport::members`] is empty. Makes one attempt at each server that the Clerk knows,
    /// at the most.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no server answers, [`Error::Cancelled`].
    pub fn members(&self) -> Result<MembersReport, Error> {
        members::report(&self.shared)
    }

    /// Asks one server what it knows of the members.
    ///
    /// # Errors
    /// [`CallError`] if it does not answer within [`Options::attempt_timeout`].
    pub fn members_of(&self, server: &str) -> Result<MembersReport, CallError> {
        members::of_one(&self.shared, server)
    }

    /// Asks the leader to change the members. Returns when the change is in its log, not when it is
    /// done: that takes as long as a new member needs to catch up, and
    /// [`members`](Self::members) shows it. The cluster goes on with it by itself, whoever leads.
    ///
    /// The same request may be repeated at any time: what is made already is not made again. With
    /// `force` the change is made even if too few of the voters answer that there would be.
    ///
    /// ```
    /// use std::{thread, time::Duration};
    ///
    /// use raftkv::testkit::Cluster;
    /// use raftkv::wire::members::ChangeRequest;
    ///
    /// // Against running nodes: Clerk::connect(["10.0.0.1:7000"])
    /// let cluster = Cluster::of_stores(3);
    /// let clerk = cluster.clerk();
    ///
    /// let changed = clerk.change_members(ChangeRequest::Remove(3), false)?;
    /// let is_done = || {
    ///     let report = clerk.members()?;
    ///     let newest = &report.configuration;
    ///     let is_committed = report.committed == newest.index && newest.index >= changed.index;
    ///     let is_stable = !newest.configuration.is_joint();
    ///     let mut members = newest.configuration.members().iter();
    ///     let is_gone = members.all(|member| member.id != 3);
    ///     Ok::<_, raftkv::client::Error>(is_committed && is_stable && is_gone)
    /// };
    /// while !is_done()? {
    ///     thread::sleep(Duration::from_millis(10));
    /// }
    /// assert!(clerk.change_members(ChangeRequest::Promote(3), false).is_err());
    /// # Ok::<(), raftkv::client::Error>(())
    /// ```
    ///
    /// # Errors
    /// Any [`Error`]. [`Error::No`] has the reason why the cluster refuses; then nothing was
    /// changed. [`Error::kind`] tells whether the change may have been made.
    pub fn change_members(
        &self,
        change: ChangeRequest,
        force: bool,
    ) -> Result<MembersChanged, Error> {
        members::change(&self.shared, change, force)
    }

    /// The options that this Clerk was made with.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Asks the leader to transfer its leadership to the given node, or without one to the node
    /// whose log is most up to date. Returns when the transfer has begun, not when it has
    /// succeeded.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Unknown`] if the answer got lost.
    pub fn transfer(&self, to: Option<NodeId>) -> Result<(), Error> {
        self.shared.transfer(to)
    }

    /// Returns a handle by which another thread can cancel this Clerk's calls.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The counters of this Clerk since it was made.
    pub fn stats(&self) -> Stats {
        let state = self.shared.state.lock();
        Stats {
            leader_changes: state.routes.leader_changes(),
            ..state.stats
        }
    }

    /// The addresses of all servers that the Clerk knows: first those that its user named, then
    /// those that it learned from answers.
    pub fn servers(&self) -> Vec<String> {
        self.shared.state.lock().routes.servers().to_vec()
    }

    /// The address of the server that led last, as far as the Clerk knows.
    pub fn leader(&self) -> Option<String> {
        let state = self.shared.state.lock();
        let leader = state.routes.leader()?;
        Some(state.routes.address(leader).to_string())
    }

    fn query(&self, query: &Query) -> Result<Reply, Error> {
        self.shared.query(codec::to_bytes(query))
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// An iterator over the pages of a range. Each step makes one request. Ends after the first error.
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
