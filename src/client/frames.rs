//! Frames out of a stream that is read with timeouts: what came of a frame waits for its rest.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::wire::{codec, frame};

/// Bytes as they come in, and the frames in them.
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// What has been read and not yet taken: `start..end` of the buffer.
    start: usize,
    end: usize,
    /// The stream's present read timeout.
    patience: Duration,
}

impl Frames {
    /// The buffer's usual size, in bytes.
    const USUAL: usize = 16 << 10;

    pub(super) fn new() -> Self {
        Frames {
            buffer: vec![0; Self::USUAL],
            start: 0,
            end: 0,
            patience: Duration::ZERO,
        }
    }

    /// Reads once, for so long at the most, and returns how many bytes came. None is no error.
    pub(super) fn read(&mut self, stream: &TcpStream, patience: Duration) -> Result<usize, String> {
        self.make_room();
        // A timeout of zero would mean none.
        let patience = patience.max(Duration::from_millis(1));
        if patience != self.patience {
            let set = stream.set_read_timeout(Some(patience));
            set.map_err(|error| error.kind().to_string())?;
            self.patience = patience;
        }
        let mut stream = stream;
        match stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(count) => {
                self.end += count;
                Ok(count)
            }
            Err(error) if is_timeout(error.kind()) => Ok(0),
            Err(error) => Err(error.kind().to_string()),
        }
    }

    /// The next complete frame's value. `limit` is on its payload, in bytes.
    pub(super) fn next<T: DeserializeOwned>(&mut self, limit: usize) -> Result<Option<T>, String> {
        let unread = &self.buffer[self.start..self.end];
        let split = frame::split(unread, limit).map_err(|error| error.to_string())?;
        let Some((payload, used)) = split else {
            return Ok(None);
        };
        let value = codec::decode(payload).map_err(|error| error.to_string())?;
        self.start += used;
        Ok(Some(value))
    }

    /// Moves what is left to the front, and grows the buffer if it is full of it. Frames are
    /// taken out as soon as they are complete, so it never grows far beyond the largest one.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        } else if self.end == 0 && self.buffer.len() > Self::USUAL {
            self.buffer = vec![0; Self::USUAL];
        }
    }
}

/// What a timeout of a socket looks like, which differs between systems, or an interruption by a
/// signal, which is to be treated the same.
pub(super) fn is_timeout(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
