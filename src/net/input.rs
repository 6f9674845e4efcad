//! Bytes that have arrived on a connection and are not decoded yet.

use serde::de::DeserializeOwned;

use super::protocol::Close;
use crate::wire::{codec, frame};

/// How much memory a connection's input buffer keeps when it becomes empty, in bytes.
const KEEP: usize = 4 << 10;

/// The received bytes of one connection that are not decoded yet. They are never more than the
/// largest frame and the bytes of one read, because all complete frames are taken out before more
/// bytes are read.
#[derive(Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    /// How many bytes at the start of `buffer` have been consumed.
    used: usize,
}

impl Input {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.used += len;
        debug_assert!(self.used <= self.buffer.len(), "consumed what is not there");
        if self.used == self.buffer.len() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.buffer.clear();
        if self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
    }

    /// Takes the next frame out of the input, if the frame is complete, and decodes it. An error
    /// calls the message `what`.
    pub(super) fn next<T: DeserializeOwned>(
        &mut self,
        what: &'static str,
    ) -> Result<Option<T>, Close> {
        let Some((payload, len)) = frame::split(self.bytes(), frame::MAX_PAYLOAD)? else {
            return Ok(None);
        };
        let value = codec::decode(payload).map_err(|error| Close::Decode { what, error })?;
        self.consume(len);
        Ok(Some(value))
    }
}
