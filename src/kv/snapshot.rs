//! The format of the store's state in a snapshot, as a stream of bytes.
//!
//! All numbers are little-endian. Keys, sessions and replies are written in ascending order, so
//! that equal states give equal bytes, even if different commands have led to them.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `rkvstate` |
//! | 4 | version of this format: 1 |
//! | 8, 8 | index of the last command applied, and its cluster time in milliseconds |
//! | 8 | number of keys |
//! | | for each key, ascending: |
//! | 4, 4 | length of the key, length of the value |
//! | | the key, the value |
//! | 8 | number of repeated operations that sessions answered, ever |
//! | 8 | number of sessions that have not expired; only these are written |
//! | | for each session, by ascending id: |
//! | 8 | id |
//! | 8, 8 | index and cluster time of its last use |
//! | 8 | lowest sequence number not answered |
//! | 8 | number of replies kept |
//! | | for each reply, by ascending sequence number: |
//! | 8, 4 | sequence number, length of the reply |
//! | | the reply in the form of [`codec`] |
//!
//! The stream ends with the last session. The stream has no checksums, because the snapshot's file
//! has them. The reader still checks the stream as if it were forged: it allocates nothing for a
//! length before the length is within the limits, and it refuses a state that breaks an invariant
//! of the store or the sessions.

use std::io::{self, BufReader, BufWriter, Read, Write};

use super::command::Reply;
use super::key::Key;
use super::limits::Limits;
use super::session::SessionState;
use super::sessions::Sessions;
use super::store::Store;
use super::value::Value;
use crate::machine::At;
use crate::wire::codec;

const MAGIC: [u8; 8] = *b"rkvstate";
const VERSION: u32 = 1;

/// The size of the buffers between the state and the stream, in bytes. It is small because the
/// snapshot thread pauses between two writes, to leave the processor to other threads: filling one
/// buffer must not take long.
const BUFFER: usize = 16 << 10;

/// How many items are read before they are added to the store together; see
/// [`Store::extend_sorted`].
const BATCH: usize = 4096;

/// How many bytes an encoded reply has besides its value at most: a reply without a value holds at
/// most a sentence.
const REPLY_BESIDES_VALUE: usize = 1024;

/// The state of a [`Kv`](super::Kv) at one moment. To make or clone one takes O(1).
#[derive(Clone)]
pub struct Snapshot {
    pub(super) last: At,
    /// How long a session lives without being used, in milliseconds of cluster time; it tells which
    /// sessions have expired. It is a limit and not part of the state, so it is not written.
    pub(super) session_ttl_ms: u64,
    pub(super) store: Store,
    pub(super) sessions: Sessions,
}

impl Snapshot {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = Writer(BufWriter::with_capacity(BUFFER, out));
        let result = out.state(self);
        if result.is_err() {
            // Take the `BufWriter` apart without writing its buffer: dropping it would write the
            // rest of its buffer to the output that has just failed.
            let _unwritten = out.0.into_parts();
        }
        result
    }

    /// Reads a state from `input`, which must contain nothing else.
    pub(super) fn read(input: &mut dyn Read, limits: &Limits) -> io::Result<Self> {
        let mut input = Reader {
            input: BufReader::with_capacity(BUFFER, input),
            limits,
        };
        if input.array()? != MAGIC {
            return Err(invalid("it does not begin with `rkvstate`"));
        }
        let version = input.u32()?;
        if version != VERSION as usize {
            return Err(invalid(format!(
                "it has the format version {version}; this program reads version {VERSION} only"
            )));
        }
        let last = input.at()?;
        let store = input.store()?;
        let sessions = input.sessions(last)?;
        input.end()?;
        Ok(Self {
            last,
            session_ttl_ms: limits.session_ttl_ms,
            store,
            sessions,
        })
    }
}

struct Writer<'a>(BufWriter<&'a mut dyn Write>);

impl Writer<'_> {
    fn state(&mut self, state: &Snapshot) -> io::Result<()> {
        self.bytes(&MAGIC)?;
        self.u32(VERSION as usize)?;
        self.at(state.last)?;
        self.store(&state.store)?;
        self.sessions(state)?;
        self.0.flush()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn u64(&mut self, number: u64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    fn u32(&mut self, number: usize) -> io::Result<()> {
        let number = u32::try_from(number)
            .expect("no key, value or reply is longer than the largest message");
        self.bytes(&number.to_le_bytes())
    }

    fn at(&mut self, at: At) -> io::Result<()> {
        self.u64(at.index)?;
        self.u64(at.time_ms)
    }

    fn store(&mut self, store: &Store) -> io::Result<()> {
        self.u64(store.len() as u64)?;
        for (key, value) in store.iter() {
            self.u32(key.len())?;
            self.u32(value.len())?;
            self.bytes(key)?;
            value.pieces().try_for_each(|piece| self.bytes(piece))?;
        }
        Ok(())
    }

    fn sessions(&mut self, state: &Snapshot) -> io::Result<()> {
        let live = || (state.sessions).live(state.last.time_ms, state.session_ttl_ms);
        self.u64(state.sessions.duplicates())?;
        self.u64(live().count() as u64)?;
        let mut encoded = Vec::new();
        for (id, session) in live() {
            self.u64(id)?;
            self.at(session.last_used)?;
            self.u64(session.lowest_unanswered())?;
            self.u64(session.kept().replies)?;
            for (seq, reply) in session.replies() {
                encoded.clear();
                codec::encode(reply, &mut encoded);
                self.u64(*seq)?;
                self.u32(encoded.len())?;
                self.bytes(&encoded)?;
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    input: BufReader<&'a mut dyn Read>,
    limits: &'a Limits,
}

impl Reader<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.input
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => invalid("it ends before all of it is there"),
                _ => error,
            })
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> io::Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// Reads the next `len` bytes. Compare `len` with a limit before the call: this allocates all
    /// of it.
    fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn at(&mut self) -> io::Result<At> {
        Ok(At {
            index: self.u64()?,
            time_ms: self.u64()?,
        })
    }

    fn store(&mut self) -> io::Result<Store> {
        let mut store = Store::default();
        let mut batch: Vec<(Key, Value)> = Vec::new();
        let mut last = Key::new(b"");
        let count = self.u64()?;
        for number in 1..=count {
            let in_item = |reason| invalid(format!("key {number} of {count}: {reason}"));
            let (key_len, value_len) = (self.u32()?, self.u32()?);
            self.limits.check_key_len(key_len).map_err(in_item)?;
            self.limits
                .check_value("the value", value_len)
                .map_err(in_item)?;
            let key = Key::new(&self.bytes(key_len)?);
            if key <= last {
                return Err(in_item("it does not follow the one before it".into()));
            }
            last = key.clone();
            batch.push((key, self.bytes(value_len)?.into()));
            if batch.len() == BATCH {
                store.extend_sorted(&mut batch);
            }
        }
        store.extend_sorted(&mut batch);
        Ok(store)
    }

    fn sessions(&mut self, last: At) -> io::Result<Sessions> {
        let mut sessions = Sessions::with_duplicates(self.u64()?);
        let count = self.u64()?;
        for number in 1..=count {
            let id = self.u64()?;
            let session = self.session(id)?;
            sessions
                .restore(id, session, last, self.limits)
                .map_err(|reason| invalid(format!("session {number} of {count}: {reason}")))?;
        }
        sessions.check_restored(self.limits).map_err(invalid)?;
        Ok(sessions)
    }

    fn session(&mut self, id: u64) -> io::Result<SessionState> {
        let in_session = |reason| invalid(format!("session {id}: {reason}"));
        let last_used = self.at()?;
        let lowest_unanswered = self.u64()?;
        let mut session =
            SessionState::restored(last_used, lowest_unanswered).map_err(in_session)?;
        for _ in 0..self.u64()? {
            let seq = self.u64()?;
            let reply = self.reply()?;
            session
                .restore(seq, reply, self.limits)
                .map_err(in_session)?;
        }
        Ok(session)
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let len = self.u32()?;
        if len > self.limits.max_value_bytes + REPLY_BESIDES_VALUE {
            return Err(invalid(format!("a reply of {len} bytes is too long")));
        }
        let bytes = self.bytes(len)?;
        let reply = Reply::decode(&bytes).map_err(|error| invalid(format!("a reply: {error}")))?;
        // The codec also accepts a number in more bytes than it needs. Such a reply is refused:
        // otherwise two different streams would hold the same state.
        match codec::to_bytes(&reply) == bytes {
            true => Ok(reply),
            false => Err(invalid(
                "a reply is not in the form in which the store writes it",
            )),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        match self.input.by_ref().take(1).read_to_end(&mut rest)? {
            0 => Ok(()),
            _ => Err(invalid("bytes are left over after its end")),
        }
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    let reason: String = reason.into();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("this is no state of the store: {reason}"),
    )
}
