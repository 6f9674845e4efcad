//! One connection to one server. Many threads share it, and no thread is reserved for it.
//!
//! Each request has an id, and answers come in any order. At any time at most one of the waiting
//! threads has the role of the *reader*: it reads from the socket, hands answers to the threads
//! that wait for them, and passes the role on when its own answer has come. So if only one thread
//! makes calls, each call costs it one write and one read. If a separate thread did the reading,
//! every call would cost two switches between threads.
//!
//! The role is a value, the buffer [`Frames`]: the thread that has taken it out of the inbox is the
//! reader. The buffer holds the beginning of a frame that is not complete, so that the next reader
//! goes on where the last one stopped.
//!
//! A thread waits for at most [`SLICE`] at a time, so that it soon notices that its call is
//! cancelled.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::frames::{Frames, is_timeout};
use super::transport::{Answered, CallError, Stop};
use crate::raft::Index;
use crate::wire::client::{Ask, Request, Response};
use crate::wire::{codec, frame};

/// How long a thread waits for its answer before it checks whether its call is cancelled, and waits
/// again.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// How many requests of one connection may wait for their answers at a time: a server accepts no
/// more.
const MAX_WAITING: usize = 4096;

/// A connection that was not used for this long is checked before the next request. Otherwise the
/// request may be written to a connection that the server has closed: it is never executed, but its
/// call is in doubt.
const IDLE: Duration = Duration::from_millis(100);

/// A server answers every request within the request's time. So the connection is closed if a
/// request's time is up, at least this long has passed since it was sent, and the server has not
/// sent a byte since then: the server or the network to it has failed. Keeping the connection would
/// delay the recovery, because TCP retransmits ever more rarely, while a new connection works as
/// soon as the server is back.
const SILENCE: Duration = Duration::from_millis(300);

/// A connection to one server, with the handshake done. Many threads use it at once.
pub(super) struct Connection {
    stream: TcpStream,
    /// The lock for writing: a thread has it while it writes a frame, so that frames do not mix.
    /// The value is the time at which the last frame was written.
    writer: Mutex<Instant>,
    /// No thread holds this lock during a read from the stream or a write to it.
    inbox: Mutex<Inbox>,
}

struct Inbox {
    /// The id of the last request; 0 if there was none. Ids count from 1.
    last_id: u64,
    /// The slots of the requests whose threads have not taken their answers yet, by the ids of the
    /// requests.
    waiting: BTreeMap<u64, Slot>,
    /// When bytes last arrived. Before any have arrived: when the connection was opened.
    heard: Instant,
    /// The buffer of received bytes that the reader uses. It is here while no thread is the reader,
    /// and `None` while a thread has taken it and with it the role of the reader.
    reader: Option<Frames>,
    /// Why the connection was closed; `None` as long as it can be used.
    broken: Option<String>,
}

/// The place into which the reader puts the answer to one request.
struct Slot {
    /// The thread that waits for the answer.
    thread: Thread,
    /// Whether the thread has begun to wait for the answer. Before that it still writes its
    /// request, and could not take the role of the reader if it were woken.
    listening: bool,
    answer: Option<Answered>,
}

impl Connection {
    /// Makes a connection of a stream whose handshake is done. `frames` holds the bytes that were
    /// read after the handshake. The stream's write timeout must be [`SLICE`].
    pub(super) fn new(stream: TcpStream, frames: Frames) -> Self {
        Connection {
            stream,
            writer: Mutex::new(Instant::now()),
            inbox: Mutex::new(Inbox {
                last_id: 0,
                waiting: BTreeMap::new(),
                heard: Instant::now(),
                reader: Some(frames),
                broken: None,
            }),
        }
    }

    /// Sends a request and waits for its answer, until `until` or until `stop` is set.
    /// `known` is the index of the newest list of members that this client has.
    pub(super) fn call(
        &self,
        ask: &Ask,
        known: Index,
        until: Instant,
        stop: &Stop,
    ) -> Result<Answered, CallError> {
        let id = self.register().map_err(CallError::NotSent)?;
        let bytes = request(id, ask, known, until);
        match bytes.and_then(|bytes| self.send(&bytes, until, stop)) {
            Ok(()) => self.wait(id, until, stop).map_err(CallError::Lost),
            // The server does not have the whole frame, so it cannot execute the request. It never
            // gets the rest, because `send` has closed the connection.
            Err(why) => {
                self.inbox.lock().leave(id);
                Err(CallError::NotSent(why))
            }
        }
    }

    /// Whether the connection seems to work, as far as this can be known without sending a request.
    pub(super) fn is_usable(&self) -> bool {
        // Check the socket only while no thread writes to it or reads from it. A thread that uses
        // the socket notices a closed connection itself, and notes it in `broken`.
        if let Some(last_use) = self.writer.try_lock()
            && last_use.elapsed() >= IDLE
        {
            let reader = self.inbox.lock().reader.take();
            if let Some(frames) = reader {
                let alive = self.is_open();
                let mut inbox = self.inbox.lock();
                inbox.reader = Some(frames);
                match alive {
                    true => inbox.pass_on(),
                    false => self.break_off(&mut inbox, "the server closed the connection"),
                }
            }
        }
        self.inbox.lock().broken.is_none()
    }

    /// Whether the server has left the stream open. Does not wait. The check makes the stream
    /// non-blocking for a moment, for all threads. So the calling thread must have the lock for
    /// writing and the role of the reader.
    fn is_open(&self) -> bool {
        let peek = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            peeked
        };
        match peek() {
            Ok(len) => len > 0,
            Err(error) => is_timeout(error.kind()),
        }
    }

    /// Makes a slot for a request of this thread. Returns the request's id.
    fn register(&self) -> Result<u64, String> {
        let mut inbox = self.inbox.lock();
        if let Some(why) = &inbox.broken {
            return Err(why.clone());
        }
        if inbox.waiting.len() >= MAX_WAITING {
            return Err(format!(
                "{MAX_WAITING} requests wait for this server already"
            ));
        }
        inbox.last_id += 1;
        let (id, slot) = (
            inbox.last_id,
            Slot {
                thread: thread::current(),
                listening: false,
                answer: None,
            },
        );
        inbox.waiting.insert(id, slot);
        Ok(id)
    }

    /// Writes a request. Closes the connection if the request cannot be written as a whole: the
    /// server would take the next request for the rest of this one.
    fn send(&self, bytes: &[u8], until: Instant, stop: &Stop) -> Result<(), String> {
        let mut last_use = loop {
            if let Some(writer) = self.writer.try_lock_for(SLICE) {
                break writer;
            }
            give_up(until, stop)?;
        };
        let mut written = 0;
        while written < bytes.len() {
            let failed = match (&self.stream).write(&bytes[written..]) {
                Ok(0) => Err("the connection takes no more bytes".to_string()),
                Ok(count) => {
                    written += count;
                    Ok(())
                }
                Err(error) if is_timeout(error.kind()) => give_up(until, stop),
                Err(error) => Err(error.kind().to_string()),
            };
            if let Err(why) = failed {
                self.break_off(&mut self.inbox.lock(), &why);
                return Err(why);
            }
        }
        *last_use = Instant::now();
        Ok(())
    }

    /// Waits for the answer to a request that was sent. This thread takes the role of the reader if
    /// no thread has it; otherwise it sleeps until the reader wakes it.
    fn wait(&self, id: u64, until: Instant, stop: &Stop) -> Result<Answered, String> {
        let sent = Instant::now();
        let mut inbox = self.inbox.lock();
        loop {
            let slot = inbox
                .waiting
                .get_mut(&id)
                .expect("a slot is removed by its owner only");
            slot.listening = true;
            if let Some(answer) = slot.answer.take() {
                inbox.leave(id);
                return Ok(answer);
            }
            let why = inbox.broken.clone().or_else(|| give_up(until, stop).err());
            if let Some(why) = why {
                inbox.leave(id);
                if Instant::now() >= until && inbox.heard < sent && sent.elapsed() >= SILENCE {
                    self.break_off(&mut inbox, "the server is silent");
                }
                return Err(why);
            }
            let patience = until.saturating_duration_since(Instant::now()).min(SLICE);
            inbox = match inbox.reader.take() {
                Some(frames) => self.read(inbox, frames, patience),
                None => {
                    drop(inbox);
                    thread::park_timeout(patience);
                    self.inbox.lock()
                }
            };
        }
    }

    /// Reads from the socket once, in the role of the reader, without holding the lock of the
    /// inbox. Then gives the role back and hands out the answers that have come.
    fn read<'a>(
        &'a self,
        inbox: MutexGuard<'a, Inbox>,
        mut frames: Frames,
        patience: Duration,
    ) -> MutexGuard<'a, Inbox> {
        drop(inbox);
        let mut responses = Vec::new();
        let mut heard = false;
        let result = frames.read(&self.stream, patience).and_then(|count| {
            heard = count > 0;
            while let Some(response) = frames.next::<Response>(frame::MAX_PAYLOAD)? {
                responses.push(response);
            }
            Ok(())
        });
        let mut inbox = self.inbox.lock();
        inbox.reader = Some(frames);
        if heard {
            inbox.heard = Instant::now();
        }
        let result = result.and_then(|()| inbox.deliver(responses));
        if let Err(why) = result {
            self.break_off(&mut inbox, &why);
        }
        inbox
    }

    /// Closes the connection and wakes all threads that wait for an answer, because none will come.
    fn break_off(&self, inbox: &mut Inbox, why: &str) {
        if inbox.broken.is_none() {
            inbox.broken = Some(why.to_string());
            // Shutting down fails if the connection is closed already, which does no harm.
            let _ = self.stream.shutdown(Shutdown::Both);
            for slot in inbox.waiting.values() {
                slot.thread.unpark();
            }
        }
    }
}

impl Inbox {
    /// Puts answers into the slots of their requests. An answer without a slot is dropped: its
    /// thread has given up, and counts the request as lost.
    fn deliver(&mut self, responses: Vec<Response>) -> Result<(), String> {
        for Response {
            id,
            answer,
            members,
        } in responses
        {
            if id == 0 || id > self.last_id {
                return Err(format!(
                    "the server answers request {id}, which was never sent"
                ));
            }
            if let Some(slot) = self.waiting.get_mut(&id) {
                slot.answer = Some(Answered { answer, members });
                slot.thread.unpark();
            }
        }
        Ok(())
    }

    /// Removes the slot of a request, because its thread stops waiting. That thread may have been
    /// woken to become the reader, so this wakes another thread for the role.
    fn leave(&mut self, id: u64) {
        self.waiting.remove(&id);
        self.pass_on();
    }

    /// Wakes a waiting thread to take the role of the reader, if no thread has it.
    fn pass_on(&self) {
        if self.reader.is_some()
            && let Some(next) = self
                .waiting
                .values()
                .find(|slot| slot.listening && slot.answer.is_none())
        {
            next.thread.unpark();
        }
    }
}

/// Encodes a request as a frame.
fn request(id: u64, ask: &Ask, known: Index, until: Instant) -> Result<Vec<u8>, String> {
    let left = until.saturating_duration_since(Instant::now());
    // The server is given 90 % of the time that is left. So a slow server still has time to answer
    // that it does not know the outcome, before this client gives up.
    let timeout_ms = (left * 9 / 10).as_millis().clamp(1, u128::from(u32::MAX)) as u32;
    let ask = ask.clone();
    let mut payload = Vec::new();
    codec::encode(
        &Request {
            id,
            timeout_ms,
            known,
            ask,
        },
        &mut payload,
    );
    if payload.len() > frame::MAX_PAYLOAD {
        let (len, limit) = (payload.len(), frame::MAX_PAYLOAD);
        return Err(format!(
            "a request of {len} bytes is over the limit of {limit}"
        ));
    }
    let mut bytes = Vec::with_capacity(payload.len() + frame::HEADER_LEN);
    frame::put_with(&mut bytes, |out| out.extend_from_slice(&payload));
    Ok(bytes)
}

/// Returns an error if the call is cancelled or its time is up.
fn give_up(until: Instant, stop: &Stop) -> Result<(), String> {
    if stop.is_set() {
        Err("cancelled".into())
    } else if Instant::now() >= until {
        Err("its time ran out".into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client::Answer;

    /// A timeout that only a failing test reaches.
    const LONG: Duration = Duration::from_secs(20);

    /// Makes a connection on which this thread waits for the answers to so many requests.
    fn waiting(requests: usize) -> Connection {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = Connection::new(stream, Frames::new());
        for _ in 0..requests {
            let id = connection.register().unwrap();
            let mut inbox = connection.inbox.lock();
            inbox.waiting.get_mut(&id).unwrap().listening = true;
        }
        connection
    }

    /// Whether `act` wakes this thread. A test of the whole connection would not notice a missing
    /// wake-up, because a waiting thread wakes up after [`SLICE`] anyway.
    fn wakes(act: impl FnOnce()) -> bool {
        // Clear an earlier wake-up of this thread, if there was one, so that it is not taken for
        // one by `act`.
        thread::park_timeout(Duration::ZERO);
        act();
        let begun = Instant::now();
        thread::park_timeout(LONG);
        begun.elapsed() < LONG
    }

    #[test]
    fn an_answer_wakes_the_thread_that_waits_for_it() {
        let connection = waiting(1);
        let (id, answer) = (1, Answer::Busy);
        let responses = vec![Response {
            id,
            answer,
            members: None,
        }];
        assert!(wakes(|| connection
            .inbox
            .lock()
            .deliver(responses)
            .unwrap()));
    }

    #[test]
    fn a_reader_that_leaves_wakes_another_to_take_its_role() {
        let connection = waiting(2);
        assert!(wakes(|| connection.inbox.lock().leave(1)));
    }

    #[test]
    fn a_broken_connection_wakes_all_who_wait() {
        let connection = waiting(1);
        let mut inbox = connection.inbox.lock();
        assert!(wakes(
            || connection.break_off(&mut inbox, "broken by a test")
        ));
    }
}
