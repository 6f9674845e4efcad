//! One connection to one server, shared by many threads without a thread of its own.
//!
//! Each request has an id, and answers come in any order. A thread that waits takes the role of
//! the reader if nobody has it: it reads, hands the answers of others to them, and passes the role
//! on when its own has come. So a lone caller does nothing but one write and one read; a reader
//! thread would cost it two switches between threads on every call.
//!
//! All waiting is in slices of [`SLICE`], so that a caller notices soon that it is to stop. What
//! has been read of a frame stays in the reader's buffer, which is the role itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::frames::{Frames, is_timeout};
use super::transport::{CallError, Stop};
use crate::wire::client::{Answer, Ask, Request, Response};
use crate::wire::{codec, frame};

/// How long a thread waits before it looks whether it is to stop.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// How many requests may wait for their answers at once.
const MAX_WAITING: usize = 4096;

/// After so long without a request, look whether the server has closed the connection before
/// using it: a request written to a dead connection is in doubt for nothing.
const IDLE: Duration = Duration::from_millis(100);

/// A server ends every request within the time it was given. If one has had at least so long, and
/// not a byte came meanwhile, it is gone or the way to it is, and only a new connection will tell
/// when it is back: the system goes on repeating the old one's bytes ever more seldom.
const SILENCE: Duration = Duration::from_millis(300);

/// A connection whose handshake is done.
pub(super) struct Connection {
    stream: TcpStream,
    /// Held while a frame is written; when the last one was.
    writer: Mutex<Instant>,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    last_id: u64,
    waiting: BTreeMap<u64, Slot>,
    /// When the last bytes came in.
    heard: Instant,
    /// The role of the reader, while nobody has it.
    reader: Option<Frames>,
    /// Why the connection is of no use any more.
    broken: Option<String>,
}

/// Where the answer to one request arrives.
struct Slot {
    thread: Thread,
    /// Whether the thread has come to wait, so that the role may be passed to it.
    listening: bool,
    answer: Option<Answer>,
}

impl Connection {
    /// Takes over a stream after its handshake, with the bytes read beyond it. The stream's
    /// timeouts are [`SLICE`].
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

    /// Sends a request and waits for its answer.
    pub(super) fn call(&self, ask: &Ask, until: Instant, stop: &Stop) -> Result<Answer, CallError> {
        let id = self.register().map_err(CallError::NotSent)?;
        match self.send(id, ask, until, stop) {
            Ok(()) => self.wait(id, until, stop).map_err(CallError::Lost),
            // A frame that is not complete cannot be executed.
            Err(why) => {
                self.inbox.lock().leave(id);
                Err(CallError::NotSent(why))
            }
        }
    }

    /// Whether a request may be sent, as far as can be told without sending one.
    pub(super) fn is_usable(&self) -> bool {
        // Whoever holds the writer or the reader's role finds out by itself.
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

    /// Looks at the stream without waiting. The caller has the writer and the reader's role, as
    /// the mode it sets for a moment is that of both directions.
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

    fn send(&self, id: u64, ask: &Ask, until: Instant, stop: &Stop) -> Result<(), String> {
        let bytes = request(id, ask, until)?;
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

    fn wait(&self, id: u64, until: Instant, stop: &Stop) -> Result<Answer, String> {
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

    /// Reads once and hands out what has come, without the lock while it reads.
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

    /// Nobody will get an answer any more.
    fn break_off(&self, inbox: &mut Inbox, why: &str) {
        if inbox.broken.is_none() {
            inbox.broken = Some(why.to_string());
            // It may be closed already.
            let _ = self.stream.shutdown(Shutdown::Both);
            for slot in inbox.waiting.values() {
                slot.thread.unpark();
            }
        }
    }
}

impl Inbox {
    /// Hands answers to those who wait. One that has given up waiting misses nothing.
    fn deliver(&mut self, responses: Vec<Response>) -> Result<(), String> {
        for Response { id, answer } in responses {
            if id == 0 || id > self.last_id {
                return Err(format!(
                    "the server answers request {id}, which was never sent"
                ));
            }
            if let Some(slot) = self.waiting.get_mut(&id) {
                slot.answer = Some(answer);
                slot.thread.unpark();
            }
        }
        Ok(())
    }

    fn leave(&mut self, id: u64) {
        self.waiting.remove(&id);
        self.pass_on();
    }

    /// Wakes somebody to take the role of the reader, if nobody has it.
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

/// The request as a frame.
fn request(id: u64, ask: &Ask, until: Instant) -> Result<Vec<u8>, String> {
    let left = until.saturating_duration_since(Instant::now());
    // The server gives up a little earlier, so that its own word arrives while we still wait.
    let timeout_ms = (left * 9 / 10).as_millis().clamp(1, u128::from(u32::MAX)) as u32;
    let ask = ask.clone();
    let mut payload = Vec::new();
    codec::encode(
        &Request {
            id,
            timeout_ms,
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

    /// Long enough that only a failing test waits for it.
    const LONG: Duration = Duration::from_secs(20);

    /// A connection on which this thread waits for the answers to so many requests.
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

    /// Whether what `act` does wakes this thread; if it did not, its slices would hide that.
    fn wakes(act: impl FnOnce()) -> bool {
        // Whatever woke it before is over.
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
        let responses = vec![Response { id, answer }];
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
