//! The bytes on a connection: the codec, frames, the handshake, and the messages of clients.
//!
//! `docs/formats.md` specifies all of it to the byte. Nothing in this module reads or writes a
//! socket.

pub mod client;
pub mod codec;
pub mod frame;
pub mod handshake;
pub mod members;
