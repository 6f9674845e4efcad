//! The Clerk as a whole: over a transport that executes and loses, and over real sockets.

mod carrier;
mod cluster;
mod exactly_once;
mod half_sent;
mod server;
mod sockets;
