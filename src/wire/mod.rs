//! What crosses a socket: the codec, frames, the handshake, and the messages of clients.
//!
//! `docs/formats.md` describes all of it to the byte. Nothing in this module does input or output.

pub mod client;
pub mod codec;
pub mod frame;
pub mod handshake;
