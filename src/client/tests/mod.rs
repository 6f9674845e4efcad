//! Tests of the whole Clerk: over a simulated cluster that loses requests, and over real sockets.

mod carrier;
mod cluster;
mod exactly_once;
mod half_sent;
mod member_reports;
mod members;
mod replaced;
mod server;
mod sockets;
