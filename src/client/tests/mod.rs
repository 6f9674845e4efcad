//! The Clerk as a whole: over a transport that executes and loses, and over real sockets.

mod carrier;
mod cluster;
mod exactly_once;
mod server;
mod sockets;
