//! Reads frames from a stream with timeouts. When a read times out in the middle of a frame, the
//! bytes that have come are kept, and the next read continues the frame.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::wire::{codec, frame};

/// The bytes that have been read from a stream and not yet been decoded as frames.
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// The bytes that have been read and not yet decoded are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The read timeout that the stream has at present, so that the same timeout is not set again.
    patience: Duration,
}

impl Frames {
    /// The buffer's usual size, in bytes. A longer frame makes it grow for a while.
    const USUAL: usize = 16 << 10;

    pub(super) fn new() -> Self {
        Frames {
            buffer: vec![0; Self::USUAL],
            start: 0,
            end: 0,
            patience: Duration::ZERO,
        }
    }

    /// Reads from the stream once, and waits for bytes for at most `patience`. Returns how many
    /// bytes came; 0 if none came in that time, which is no error.
    pub(super) fn read(&mut self, stream: &TcpStream, patience: Duration) -> Result<usize, String> {
        self.make_room();
        // The operating system does not accept a timeout of zero.
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

    /// Decodes the next frame; `None` if it is not complete yet. A payload of more than `limit`
    /// bytes is an error.
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

    /// Moves the bytes that are left to the front of the buffer. Doubles the buffer if they fill
    /// it, and makes it small again when nothing is left. As complete frames are taken out before
    /// the next read, the buffer holds the beginning of one frame at the most, so it is never
    /// larger than twice the largest frame.
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

/// Whether the error is a timeout of a socket, which systems report under different names, or an
/// interruption by a signal. After either, the read or write may be tried again.
pub(super) fn is_timeout(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
